//! How the board looks: one panel with tabs on a small terminal, all of them on a large one.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::board::{Board, Decision, Mode};
use super::rows::{Column, Panel, REST, Row, Tone, clock, span};
use crate::app::picture::Picture;
use crate::app::troubles::Trouble;
use crate::domain::account::Language;
use crate::domain::time::Timestamp;

/// From this size on all panels are shown at once.
const LARGE: (u16, u16) = (140, 40);
/// From this width on a table has all its columns, and the last line all keys.
const ROOMY: u16 = 95;
/// Troubles shown at once; a small terminal shows the gravest.
const TROUBLES_SMALL: usize = 2;
const TROUBLES_LARGE: usize = 6;

pub(super) fn draw(frame: &mut Frame<'_>, board: &Board) {
    let area = frame.area();
    let is_large = area.width >= LARGE.0 && area.height >= LARGE.1;
    let shown = if is_large { TROUBLES_LARGE } else { TROUBLES_SMALL };
    let troubles = board
        .picture()
        .map(|p| trouble_lines(p, shown, usize::from(area.width)))
        .unwrap_or_default();
    let height = u16::try_from(troubles.len()).unwrap_or(0);
    let [head, trouble, middle, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(header(board), head);
    frame.render_widget(Paragraph::new(troubles), trouble);
    if is_large {
        all_panels(frame, middle, board)
    } else {
        one_panel(frame, middle, board)
    }
    frame.render_widget(footer(board, area.width >= ROOMY), foot);
    overlay(frame, area, board);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().fg(Color::DarkGray)
}

const fn tone_style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Wait => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

fn header(board: &Board) -> Paragraph<'static> {
    let Some(picture) = board.picture() else {
        return Paragraph::new(Line::styled(" ptportal watch: looking …", bold()));
    };
    let servers = match picture.servers.as_slice() {
        [] => "no server".to_owned(),
        [one] => format!("{} pid {}", one.host, one.pid),
        many => format!("{} servers", many.len()),
    };
    // `ClamAV 1.4.3/27813/Thu Nov …`: engine and number of the signatures.
    let scanner = picture.scanner.as_ref().map_or_else(
        || "no scanner".to_owned(),
        |text| text.split('/').take(2).collect::<Vec<_>>().join("/"),
    );
    let state = if picture.troubles.iter().any(|t| t.kind.is_grave()) {
        Span::styled("needs you", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
    } else if picture.troubles.is_empty() {
        Span::styled("all well", Style::new().fg(Color::Green).add_modifier(Modifier::BOLD))
    } else {
        Span::styled("something waits", Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD))
    };
    Paragraph::new(Line::from(vec![
        Span::styled(" ptportal ", bold()),
        Span::raw(format!("{} UTC  {servers}  {scanner}  ", clock(picture.time.0))),
        state,
    ]))
}

/// For each what, since when and why, then what to do.
fn trouble_lines(picture: &Picture, shown: usize, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for trouble in picture.troubles.iter().take(shown) {
        let tone = if trouble.kind.is_grave() { Tone::Bad } else { Tone::Wait };
        let said = two_lines(&what(trouble, picture.time), width);
        lines.extend(said.into_iter().map(|line| Line::styled(line, tone_style(tone))));
        let remedy = two_lines(&format!("   → {}", trouble.remedy(Language::En)), width);
        lines.extend(remedy.into_iter().map(Line::from));
    }
    let more = picture.troubles.len().saturating_sub(shown);
    if more > 0 {
        lines.push(Line::styled(format!(" … and {more} more; see `ptportal check`"), dim()));
    }
    lines
}

fn what(trouble: &Trouble, now: Timestamp) -> String {
    let mut text = format!(" ! {}", trouble.what(Language::En));
    if !trouble.since.is_never() {
        let seconds = now.0.saturating_sub(trouble.since.0).div_euclid(1000);
        text.push_str(&format!(" for {}", span(u64::try_from(seconds).unwrap_or(0))));
    }
    if !trouble.why.is_empty() {
        text.push_str(&format!(": {}", trouble.why));
    }
    text
}

/// `Scans 4`, with what else an operator wants to see without going there.
fn label(board: &Board, panel: Panel) -> String {
    let count = board.rows(panel).len();
    let Some(picture) = board.picture() else { return panel.title().to_owned() };
    match panel {
        Panel::Sessions | Panel::Transfers => format!("{} {count}", panel.title()),
        Panel::Scans => match picture.count("held") {
            0 => format!("{} {}", panel.title(), picture.count("scanning")),
            held => format!("{} {}, held {held}", panel.title(), picture.count("scanning")),
        },
        Panel::Deliveries => {
            let stuck = picture.deliveries.iter().filter(|row| row.state == "stuck").count();
            match stuck {
                0 => format!("{} {count}", panel.title()),
                stuck => format!("{} {count}, stuck {stuck}", panel.title()),
            }
        }
        Panel::Events => panel.title().to_owned(),
    }
}

fn one_panel(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let [tabs, table] = Layout::vertical([Constraint::Length(1), Constraint::Min(2)]).areas(area);
    let mut spans = vec![Span::raw(" ")];
    for (number, panel) in (1..).zip(Panel::ALL) {
        let style =
            if panel == board.panel { bold().add_modifier(Modifier::REVERSED) } else { dim() };
        spans.push(Span::styled(format!(" {number} {} ", label(board, panel)), style));
        spans.push(Span::raw(" "));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), tabs);
    table_of(frame, table, board, board.panel);
}

fn all_panels(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let [upper, lower, events] = Layout::vertical([
        Constraint::Percentage(30),
        Constraint::Percentage(35),
        Constraint::Percentage(35),
    ])
    .areas(area);
    let half = [Constraint::Percentage(40), Constraint::Percentage(60)];
    let [sessions, transfers] = Layout::horizontal(half).areas(upper);
    let [scans, deliveries] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(lower);
    for (number, panel, area) in [
        (1, Panel::Sessions, sessions),
        (2, Panel::Transfers, transfers),
        (3, Panel::Scans, scans),
        (4, Panel::Deliveries, deliveries),
        (5, Panel::Events, events),
    ] {
        let style = if panel == board.panel { bold() } else { dim() };
        let block = Block::bordered()
            .border_style(style)
            .title(Span::styled(format!(" {number} {} ", label(board, panel)), style));
        let inner = block.inner(area);
        frame.render_widget(block, area);
        table_of(frame, inner, board, panel);
    }
}

fn table_of(frame: &mut Frame<'_>, area: Rect, board: &Board, panel: Panel) {
    let rows = board.rows(panel);
    if rows.is_empty() {
        let text = if board.filter.is_empty() { "nothing" } else { "nothing matches the filter" };
        frame.render_widget(Paragraph::new(Line::styled(format!(" {text}"), dim())), area);
        return;
    }
    let has_room = area.width >= ROOMY;
    let columns: Vec<(usize, &Column)> =
        panel.columns().iter().enumerate().filter(|(_, c)| has_room || !c.needs_room).collect();
    let fixed: u16 = columns.iter().map(|(_, c)| c.width.saturating_add(1)).sum();
    let rest = area.width.saturating_sub(fixed);
    let widths = columns.iter().map(|(_, c)| match c.width {
        REST => Constraint::Min(10),
        width => Constraint::Length(width),
    });
    let heads = columns.iter().map(|(_, c)| Cell::from(Span::styled(c.name, dim())));
    let cell = |row: &Row, (index, column): &(usize, &Column)| {
        let text = row.cells.get(*index).cloned().unwrap_or_default();
        // The end of a path tells more than its beginning.
        Cell::from(if column.name == "path" { tail(&text, usize::from(rest)) } else { text })
    };
    let lines = rows.iter().map(|row| {
        TableRow::new(columns.iter().map(|column| cell(row, column)).collect::<Vec<_>>())
            .style(tone_style(row.tone))
    });
    let table = Table::new(lines, widths)
        .header(TableRow::new(heads))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1);
    let chosen = (panel == board.panel).then(|| board.selected(panel));
    let mut state = TableState::default().with_selected(chosen);
    frame.render_stateful_widget(table, area, &mut state);
}

/// The last characters that fit.
fn tail(text: &str, width: usize) -> String {
    let len = text.chars().count();
    if len <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(len.saturating_sub(width).saturating_add(1)).collect();
    format!("…{kept}")
}

/// A text in at most two lines of a width, broken between words.
fn two_lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let is_last = lines.len() == 2;
        let Some(line) = lines.last_mut() else { break };
        let len = line.chars().count().saturating_add(word.chars().count()).saturating_add(1);
        if len > width && !is_last {
            lines.push(format!("   {word}"));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn footer(board: &Board, has_room: bool) -> Paragraph<'static> {
    let line = match &board.mode {
        Mode::Filter => Line::from(vec![
            Span::styled(" filter: ", bold()),
            Span::raw(format!("{}▏", board.filter)),
            Span::styled("  Enter keeps it, Esc shows all", dim()),
        ]),
        Mode::Browse | Mode::Details(_) | Mode::Help | Mode::Reason { .. }
            if !board.message.is_empty() =>
        {
            Line::from(format!(" {}", board.message))
        }
        Mode::Browse | Mode::Details(_) | Mode::Help | Mode::Reason { .. } => {
            let filter = if board.filter.is_empty() {
                String::new()
            } else {
                format!("   filter: {} (Esc shows all)", board.filter)
            };
            let keys = if has_room {
                " Tab panel  ↑↓ move  / filter  Enter details  r retry  a release  x reject  ? help  q quit"
            } else {
                " Tab panel  / filter  Enter details  r a x act  ? help  q quit"
            };
            Line::styled(format!("{keys}{filter}"), dim())
        }
    };
    Paragraph::new(line)
}

/// A window in the middle, at most as large as the terminal.
fn window(area: Rect, (width, height): (u16, u16)) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect {
        x: area.width.saturating_sub(width).div_euclid(2),
        y: area.height.saturating_sub(height).div_euclid(2),
        width,
        height,
    }
}

fn overlay(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let (title, lines) = match &board.mode {
        Mode::Browse | Mode::Filter => return,
        Mode::Details(row) => (" any key closes ", details(row)),
        Mode::Help => {
            (" any key closes ", HELP.lines().map(|line| Line::from(line.to_owned())).collect())
        }
        Mode::Reason { decision, path, text, .. } => {
            let (title, does) = match decision {
                Decision::Release => {
                    (" release ", "is released without a clean verdict and delivered.")
                }
                Decision::Reject => (" reject ", "is rejected; its bytes go."),
            };
            let lines = vec![
                Line::styled(path.clone(), bold()),
                Line::from(does),
                Line::from(""),
                Line::from("Why? The reason is kept on the upload."),
                Line::from(format!("{text}▏")),
                Line::from(""),
                Line::styled("Enter does it, Esc leaves everything as it is", dim()),
            ];
            (title, lines)
        }
    };
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(4);
    let place = window(area, (area.width.saturating_sub(6).min(100), height));
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(title).border_style(bold());
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), place);
}

fn details(row: &Row) -> Vec<Line<'static>> {
    let told = row.details.iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| {
        Line::from(vec![Span::styled(format!("{name:<12}"), dim()), Span::raw(value.clone())])
    })
    .collect()
}

const HELP: &str = "\
Tab, ← →, 1-5     another panel
↑ ↓, j k          another row; PgUp, PgDn, g, G
/                 show only rows with a text; Esc shows all
Enter             everything about a row
r                 scan a file now, or deliver now
a                 release a file that is held (asks why)
x                 reject a file that is held or scanned (asks why)
q, Ctrl-C         quit

Sessions and transfers are those of every server on this data folder;
speed and downloads are known only of servers on this machine.
Times are UTC.";

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::*;
    use crate::cli::watch::sample;

    fn screen(board: &Board, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn what_is_wrong_stands_first_with_its_remedy_at_every_size() {
        let mut board = Board::new();
        board.show(sample::picture());
        for size in [(80, 24), (200, 60), (40, 10), (20, 4), (1, 1)] {
            let text = screen(&board, size);
            if size.0 >= 80 {
                for word in [
                    "needs you",
                    "1: deliveries are stuck",
                    "share is not mounted",
                    "delivery retry --all",
                ] {
                    assert!(text.contains(word), "{word} at {size:?}:\n{text}");
                }
            }
        }
    }

    #[test]
    fn a_large_terminal_shows_all_panels_a_small_one_the_chosen() {
        let mut board = Board::new();
        board.show(sample::picture());
        let large = screen(&board, (200, 60));
        for word in [
            "muster",
            "/2026-0815/Eingehend/gross.pdf",
            "held",
            "stuck",
            "upload.infected",
            "47.7 MiB",
        ] {
            assert!(large.contains(word), "{word}:\n{large}");
        }
        let small = screen(&board, (80, 24));
        assert!(small.contains("gross.pdf") && !small.contains("upload.infected"), "{small}");
        board.press(KeyEvent::new(KeyCode::Char('5'), KeyModifiers::NONE));
        let small = screen(&board, (80, 24));
        assert!(!small.contains("gross.pdf") && small.contains("upload.infected"), "{small}");
    }

    #[test]
    fn windows_show_help_details_and_the_question_why() {
        let mut board = Board::new();
        board.show(sample::picture());
        let mut press = |keys: &str| {
            for c in keys.chars() {
                let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
                board.press(KeyEvent::new(code, KeyModifiers::NONE));
            }
            screen(&board, (80, 24))
        };
        assert!(press("?").contains("everything about a row"));
        assert!(press("q3\n").contains("Heuristics.Encrypted.PDF"));
        let asked = press("qalooked at");
        assert!(asked.contains("Why?") && asked.contains("looked at"), "{asked}");
    }
}
