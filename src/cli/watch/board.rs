//! What is shown, what is chosen, and what each key means. Knows no terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{Panel, Row, Target};
use crate::app::picture::Picture;

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    RetryUpload(String),
    RetryDelivery(String),
    Release { id: String, reason: String },
    Reject { id: String, reason: String },
}

/// What an operator decides about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Release,
    Reject,
}

/// What keys go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// The filter is being typed.
    Filter,
    /// All of one row.
    Details(Row),
    Help,
    /// A decision waits for its reason.
    Reason {
        decision: Decision,
        id: String,
        path: String,
        text: String,
    },
}

/// The view: a picture, and where in it the operator is.
pub(super) struct Board {
    picture: Option<Picture>,
    pub(super) panel: Panel,
    pub(super) mode: Mode,
    /// Only rows with this text are shown.
    pub(super) filter: String,
    /// What the last action came to.
    pub(super) message: String,
    selected: [usize; Panel::ALL.len()],
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            picture: None,
            panel: Panel::Transfers,
            mode: Mode::Browse,
            filter: String::new(),
            message: String::new(),
            selected: [0; Panel::ALL.len()],
        }
    }

    pub(super) fn show(&mut self, picture: Picture) {
        self.picture = Some(picture);
    }

    pub(super) fn say(&mut self, message: String) {
        self.message = message;
    }

    pub(super) fn picture(&self) -> Option<&Picture> {
        self.picture.as_ref()
    }

    /// The rows of a panel that match the filter.
    pub(super) fn rows(&self, panel: Panel) -> Vec<Row> {
        let Some(picture) = &self.picture else { return Vec::new() };
        let wanted = self.filter.to_lowercase();
        let matches = |row: &Row| {
            wanted.is_empty() || row.cells.iter().any(|cell| cell.to_lowercase().contains(&wanted))
        };
        panel.rows(picture).into_iter().filter(matches).collect()
    }

    fn index(panel: Panel) -> usize {
        Panel::ALL.iter().position(|p| *p == panel).unwrap_or(0)
    }

    /// The chosen row of a panel; there may be fewer now than when it was chosen.
    pub(super) fn selected(&self, panel: Panel) -> usize {
        let chosen = self.selected.get(Self::index(panel)).copied().unwrap_or(0);
        chosen.min(self.rows(panel).len().saturating_sub(1))
    }

    fn chosen(&self) -> Option<Row> {
        self.rows(self.panel).into_iter().nth(self.selected(self.panel))
    }

    /// What a key means now.
    pub(super) fn press(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key.code),
            Mode::Filter => self.type_filter(key.code),
            Mode::Details(_) | Mode::Help => Action::None,
            Mode::Reason { decision, id, path, text } => {
                self.type_reason(key.code, decision, (id, path), text)
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
    fn browse(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => self.message.clear(),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => {
                self.turn(Panel::ALL.len().saturating_sub(1));
            }
            KeyCode::Char(digit @ '1'..='5') => {
                let index = usize::try_from(u32::from(digit).saturating_sub(u32::from('1')));
                self.panel =
                    index.ok().and_then(|i| Panel::ALL.get(i)).copied().unwrap_or(self.panel);
            }
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::PageDown => self.move_by(10),
            KeyCode::PageUp => self.move_by(-10),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Enter => {
                if let Some(row) = self.chosen() {
                    self.mode = Mode::Details(row);
                }
            }
            KeyCode::Char('r') => return self.retry(),
            KeyCode::Char('a') => self.decide(Decision::Release),
            KeyCode::Char('x') => self.decide(Decision::Reject),
            _ => {}
        }
        Action::None
    }

    fn turn(&mut self, by: usize) {
        let next = Self::index(self.panel).saturating_add(by).checked_rem(Panel::ALL.len());
        self.panel = next.and_then(|i| Panel::ALL.get(i)).copied().unwrap_or(self.panel);
    }

    fn move_by(&mut self, by: isize) {
        let last = self.rows(self.panel).len().saturating_sub(1);
        let to = self.selected(self.panel).saturating_add_signed(by).min(last);
        if let Some(place) = self.selected.get_mut(Self::index(self.panel)) {
            *place = to;
        }
    }

    fn retry(&mut self) -> Action {
        match self.chosen().map(|row| row.target) {
            Some(Target::Delivery(id)) => Action::RetryDelivery(id),
            Some(Target::Scan(id) | Target::Held(id)) => Action::RetryUpload(id),
            Some(Target::Nothing) | None => {
                self.say("choose a delivery or a scan first (panels 3 and 4)".to_owned());
                Action::None
            }
        }
    }

    fn decide(&mut self, decision: Decision) {
        let Some(Row { target: Target::Held(id) | Target::Scan(id), details, .. }) = self.chosen()
        else {
            self.say("choose a file that is held or scanned first (panel 3)".to_owned());
            return;
        };
        let path = details.into_iter().find(|(name, _)| *name == "path").map(|(_, path)| path);
        let (path, text) = (path.unwrap_or_default(), String::new());
        self.mode = Mode::Reason { decision, id, path, text };
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
    fn type_filter(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Enter => {}
            KeyCode::Esc => self.filter.clear(),
            other => {
                edit(&mut self.filter, other);
                self.mode = Mode::Filter;
            }
        }
        Action::None
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
    fn type_reason(
        &mut self,
        code: KeyCode,
        decision: Decision,
        (id, path): (String, String),
        mut text: String,
    ) -> Action {
        match code {
            KeyCode::Esc => {
                self.say("nothing was changed".to_owned());
                Action::None
            }
            KeyCode::Enter if !text.trim().is_empty() => {
                let reason = text.trim().to_owned();
                match decision {
                    Decision::Release => Action::Release { id, reason },
                    Decision::Reject => Action::Reject { id, reason },
                }
            }
            other => {
                edit(&mut text, other);
                self.mode = Mode::Reason { decision, id, path, text };
                Action::None
            }
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
fn edit(text: &mut String, code: KeyCode) {
    match code {
        KeyCode::Char(c) => text.push(c),
        KeyCode::Backspace => drop(text.pop()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::watch::sample;

    fn board() -> Board {
        let mut board = Board::new();
        board.show(sample::picture());
        board
    }

    fn keys(board: &mut Board, text: &str) -> Action {
        let press = |board: &mut Board, code| board.press(KeyEvent::new(code, KeyModifiers::NONE));
        let mut last = Action::None;
        for c in text.chars() {
            last = match c {
                '\n' => press(board, KeyCode::Enter),
                '\t' => press(board, KeyCode::Tab),
                '\u{1b}' => press(board, KeyCode::Esc),
                '\u{8}' => press(board, KeyCode::Backspace),
                c => press(board, KeyCode::Char(c)),
            };
        }
        last
    }

    #[test]
    fn a_held_file_is_released_or_rejected_with_a_reason_and_never_without_one() {
        let mut board = board();
        assert_eq!(keys(&mut board, "3a"), Action::None);
        assert_eq!(keys(&mut board, "\n"), Action::None, "no reason yet");
        assert_eq!(keys(&mut board, "  \n"), Action::None, "blanks are no reason");
        let (id, reason) = ("01HELD".to_owned(), "looked at it".to_owned());
        assert_eq!(keys(&mut board, "looked at itt\u{8}\n"), Action::Release { id, reason });
        assert_eq!(board.mode, Mode::Browse);
        let (id, reason) = ("01HELD".to_owned(), "q".to_owned());
        assert_eq!(keys(&mut board, "xq\n"), Action::Reject { id, reason });
        assert_eq!(keys(&mut board, "xwrong\u{1b}"), Action::None);
        assert_eq!(keys(&mut board, "q"), Action::Quit);
    }

    #[test]
    fn retry_goes_to_what_is_chosen() {
        let mut board = board();
        assert_eq!(keys(&mut board, "4r"), Action::RetryDelivery("01STUCK".to_owned()));
        assert_eq!(keys(&mut board, "3jr"), Action::RetryUpload("01SCAN".to_owned()));
        assert_eq!(keys(&mut board, "jjjjr"), Action::RetryUpload("01SCAN".to_owned()));
        assert_eq!(keys(&mut board, "1r"), Action::None);
        assert!(board.message.contains("choose"), "{}", board.message);
        // A delivery is neither released nor rejected.
        assert_eq!(keys(&mut board, "4a"), Action::None);
        assert_eq!(board.mode, Mode::Browse);
    }

    #[test]
    fn a_filter_keeps_rows_with_its_text_until_esc() {
        let mut board = board();
        let all = board.rows(Panel::Events).len();
        keys(&mut board, "5/INFECTED\n");
        assert_eq!(board.rows(Panel::Events).len(), 1);
        assert!(all > 1);
        keys(&mut board, "\u{1b}");
        assert_eq!(board.rows(Panel::Events).len(), all);
        // While it is typed, letters are text, not commands.
        assert_eq!(keys(&mut board, "/q"), Action::None);
    }

    #[test]
    fn panels_turn_in_both_directions_and_a_shorter_list_keeps_a_choice() {
        let mut board = board();
        keys(&mut board, "5\t");
        assert_eq!(board.panel, Panel::Sessions);
        keys(&mut board, "h");
        assert_eq!(board.panel, Panel::Events);
        keys(&mut board, "G");
        let mut picture = sample::picture();
        picture.events.truncate(1);
        board.show(picture);
        assert_eq!(board.selected(Panel::Events), 0);
        keys(&mut board, "\n");
        assert!(matches!(board.mode, Mode::Details(_)));
        assert_eq!(keys(&mut board, "q"), Action::None, "any key closes the details");
    }
}
