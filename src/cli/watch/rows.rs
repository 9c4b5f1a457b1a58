//! A picture as tables: one row for each thing, in words for operators.

use crate::app::picture::Picture;
use crate::app::transfers::TransferView;
use crate::app::views;
use crate::domain::account::Language;
use crate::domain::refusal;
use crate::domain::time::Timestamp;
use crate::store::desk::OpenDelivery;
use crate::store::events::EventRow;
use crate::store::sessions::SessionRow;
use crate::store::unsigned;
use crate::store::uploads::UploadRow;

/// How a row stands out. Words say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Wait,
    Bad,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Nothing,
    /// A file that waits for its verdict.
    Scan(String),
    /// A file that waits for an operator.
    Held(String),
    Delivery(String),
}

/// One line of a table, and what Enter shows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) target: Target,
    pub(super) tone: Tone,
    pub(super) cells: Vec<String>,
    pub(super) details: Vec<(&'static str, String)>,
}

/// The width of the column that takes what is left.
pub(super) const REST: u16 = 0;

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) width: u16,
    /// Left out where there is little room.
    pub(super) needs_room: bool,
}

const fn always(name: &'static str, width: u16) -> Column {
    Column { name, width, needs_room: false }
}

const fn roomy(name: &'static str, width: u16) -> Column {
    Column { name, width, needs_room: true }
}

const SESSIONS: [Column; 5] = [
    always("account", 18),
    roomy("client", 10),
    always("over", 5),
    always("from", REST),
    always("since", 9),
];
const TRANSFERS: [Column; 6] = [
    always("", 1),
    always("account", 12),
    always("path", REST),
    always("done", 16),
    always("speed", 11),
    always("left", 6),
];
const SCANS: [Column; 6] = [
    always("state", 8),
    roomy("client", 10),
    always("path", REST),
    always("size", 10),
    always("waits", 6),
    always("why", 24),
];
const DELIVERIES: [Column; 6] = [
    always("state", 7),
    roomy("client", 10),
    always("path", REST),
    roomy("tries", 5),
    always("waits", 6),
    always("why", 34),
];
const EVENTS: [Column; 4] =
    [always("time", 8), always("event", 18), always("account", 12), always("what", REST)];

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    Sessions,
    Transfers,
    Scans,
    Deliveries,
    Events,
}

impl Panel {
    pub(super) const ALL: [Self; 5] =
        [Self::Sessions, Self::Transfers, Self::Scans, Self::Deliveries, Self::Events];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Sessions => "Sessions",
            Self::Transfers => "Transfers",
            Self::Scans => "Scans",
            Self::Deliveries => "Deliveries",
            Self::Events => "Events",
        }
    }

    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Sessions => &SESSIONS,
            Self::Transfers => &TRANSFERS,
            Self::Scans => &SCANS,
            Self::Deliveries => &DELIVERIES,
            Self::Events => &EVENTS,
        }
    }

    pub(super) fn rows(self, picture: &Picture) -> Vec<Row> {
        let now = picture.time;
        match self {
            Self::Sessions => picture.sessions.iter().map(|row| session(row, now)).collect(),
            Self::Transfers => picture.transfers.iter().map(transfer).collect(),
            Self::Scans => {
                let held = picture.held.iter().map(|row| held(row, now));
                let waiting = picture.scans.iter().map(|row| scan(row, picture));
                held.chain(waiting).collect()
            }
            Self::Deliveries => picture.deliveries.iter().map(|row| delivery(row, now)).collect(),
            Self::Events => picture.events.iter().map(event).collect(),
        }
    }
}

pub(super) fn size(bytes: u64) -> String {
    refusal::size(bytes, Language::En)
}

/// `45s`, `12m`, `3h20m`, `2d4h`.
pub(super) fn span(seconds: u64) -> String {
    let of = |unit: u64| seconds.div_euclid(unit);
    let rest = |unit: u64, part: u64| seconds.rem_euclid(unit).div_euclid(part);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => format!("{}m{:02}s", of(60), rest(60, 1)),
        600..3600 => format!("{}m", of(60)),
        3600..86400 => format!("{}h{:02}m", of(3600), rest(3600, 60)),
        _ => format!("{}d{}h", of(86400), rest(86400, 3600)),
    }
}

/// How long ago.
fn ago(then: i64, now: Timestamp) -> String {
    if then == 0 {
        return "-".to_owned();
    }
    span(u64::try_from(now.0.saturating_sub(then).div_euclid(1000)).unwrap_or(0))
}

/// The time of day in UTC, as the log has it.
pub(super) fn clock(at: i64) -> String {
    let text = Timestamp(at).to_string();
    text.split_once('T').and_then(|(_, time)| time.get(..8)).unwrap_or(&text).to_owned()
}

fn session(row: &SessionRow, now: Timestamp) -> Row {
    Row {
        target: Target::Nothing,
        tone: Tone::Plain,
        cells: vec![
            row.username.clone(),
            row.client_no.clone(),
            row.protocol.clone(),
            row.peer.clone(),
            ago(row.created, now),
        ],
        details: vec![
            ("session", row.id.clone()),
            ("account", row.username.clone()),
            ("client", row.client_no.clone()),
            ("protocol", row.protocol.clone()),
            ("from", row.peer.clone()),
            ("since", Timestamp(row.created).to_string()),
            ("server", row.node.clone()),
        ],
    }
}

/// `12 MB of 48 MB 25%`, or what is there already.
fn progress(view: &TransferView) -> String {
    match view.total {
        None => size(view.done),
        Some(total) => {
            let percent = view.done.saturating_mul(100).checked_div(total).unwrap_or(100);
            format!("{} {}%", size(total), percent.min(100))
        }
    }
}

fn transfer(view: &TransferView) -> Row {
    let arrow = if view.direction == "up" { "↑" } else { "↓" };
    let left = view.seconds_left().map_or_else(|| "-".to_owned(), span);
    Row {
        target: Target::Nothing,
        tone: if view.speed == 0 && view.seconds > 10 { Tone::Wait } else { Tone::Plain },
        cells: vec![
            arrow.to_owned(),
            view.username.clone(),
            view.path.clone(),
            progress(view),
            format!("{}/s", size(view.speed)),
            left.clone(),
        ],
        details: vec![
            ("path", view.path.clone()),
            ("direction", view.direction.clone()),
            ("account", view.username.clone()),
            ("client", view.client_no.clone()),
            ("session", view.session.clone()),
            ("so far", size(view.done)),
            ("in all", view.total.map_or_else(|| "not told".to_owned(), size)),
            ("speed", format!("{}/s", size(view.speed))),
            ("left", left),
            ("running for", span(view.seconds)),
        ],
    }
}

fn place(project: &str, path: &str) -> String {
    format!("/{project}/{path}")
}

fn upload_details(row: &UploadRow) -> Vec<(&'static str, String)> {
    vec![
        ("upload", row.id.clone()),
        ("path", place(&row.project_no, &row.path)),
        ("client", row.client_no.clone()),
        ("account", row.username.clone()),
        ("from", format!("{} over {}", row.peer, row.protocol)),
        ("size", size(unsigned(row.size))),
        ("sha256", row.sha256.clone()),
        ("complete", Timestamp(row.completed).to_string()),
        ("signature", row.signature.clone()),
        ("reason", row.reason.clone()),
        ("attempts", row.scan_attempts.to_string()),
    ]
}

fn held(row: &UploadRow, now: Timestamp) -> Row {
    let why = if row.signature.is_empty() { &row.reason } else { &row.signature };
    Row {
        target: Target::Held(row.id.clone()),
        tone: Tone::Bad,
        cells: vec![
            "held".to_owned(),
            row.client_no.clone(),
            place(&row.project_no, &row.path),
            size(unsigned(row.size)),
            ago(row.completed, now),
            why.clone(),
        ],
        details: upload_details(row),
    }
}

fn scan(row: &UploadRow, picture: &Picture) -> Row {
    let is_running = picture.scanning.contains(&row.id);
    Row {
        target: Target::Scan(row.id.clone()),
        tone: if row.scan_attempts >= 3 { Tone::Bad } else { Tone::Plain },
        cells: vec![
            if is_running { "scanning" } else { "waiting" }.to_owned(),
            row.client_no.clone(),
            place(&row.project_no, &row.path),
            size(unsigned(row.size)),
            ago(row.completed, picture.time),
            row.reason.clone(),
        ],
        details: upload_details(row),
    }
}

fn delivery(row: &OpenDelivery, now: Timestamp) -> Row {
    Row {
        target: Target::Delivery(row.id.clone()),
        tone: match row.state.as_str() {
            "stuck" => Tone::Bad,
            _ if row.attempts > 0 => Tone::Wait,
            _ => Tone::Plain,
        },
        cells: vec![
            row.state.clone(),
            row.client_no.clone(),
            place(&row.project_no, &row.path),
            row.attempts.to_string(),
            ago(row.created, now),
            row.last_error.clone(),
        ],
        details: vec![
            ("delivery", row.id.clone()),
            ("upload", row.upload_id.clone()),
            ("path", place(&row.project_no, &row.path)),
            ("consumer", row.consumer.clone()),
            ("state", row.state.clone()),
            ("size", size(unsigned(row.size))),
            ("attempts", row.attempts.to_string()),
            ("next try", Timestamp(row.next_try).to_string()),
            ("why", row.last_error.clone()),
            ("since", Timestamp(row.created).to_string()),
        ],
    }
}

fn event(row: &EventRow) -> Row {
    let said = views::event_words(row).into_iter().next().unwrap_or_default();
    let place = match (row.project_no.as_str(), row.path.as_str()) {
        ("", "") => row.peer.clone(),
        (project, "") => project.to_owned(),
        ("", path) => path.to_owned(),
        (project, path) => place(project, path.trim_start_matches('/')),
    };
    let kind = row.kind.as_str();
    let bad = ["infected", "rejected", "stuck", "failed", "banned", "away", "error"];
    let wait = ["held", "waiting", "incomplete", "refused"];
    let ends = |words: &[&str]| words.iter().any(|word| kind.ends_with(word));
    Row {
        target: Target::Nothing,
        tone: if ends(&bad) {
            Tone::Bad
        } else if ends(&wait) {
            Tone::Wait
        } else {
            Tone::Plain
        },
        cells: vec![
            clock(row.time),
            row.kind.clone(),
            row.username.clone(),
            format!("{place} {said}").trim().to_owned(),
        ],
        details: vec![
            ("event", row.kind.clone()),
            ("time", Timestamp(row.time).to_string()),
            ("client", row.client_no.clone()),
            ("account", row.username.clone()),
            ("project", row.project_no.clone()),
            ("path", row.path.clone()),
            ("upload", row.upload_id.clone()),
            ("from", row.peer.clone()),
            ("details", row.detail.clone()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_exact_where_it_matters() {
        let check = |seconds, expect: &str| assert_eq!(span(seconds), expect);
        check(0, "0s");
        check(59, "59s");
        check(61, "1m01s");
        check(600, "10m");
        check(3599, "59m");
        check(3660, "1h01m");
        check(90_000, "1d1h");
    }

    #[test]
    fn the_time_of_day_is_that_of_the_log() {
        assert_eq!(clock(1_764_000_000_123), "16:00:00");
    }
}
