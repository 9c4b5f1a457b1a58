//! Listings: MLSD and MLST facts (RFC 3659 section 7), and the times of MDTM and MFMT (section 2.3).

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

use crate::app::tree::{Attributes, Kind};
use crate::domain::time::Timestamp;

/// The facts that can be had, in the order in which they are sent.
const KNOWN: [&str; 5] = ["type", "size", "modify", "perm", "UNIX.mode"];

/// Which facts a client wants (OPTS MLST).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts([bool; KNOWN.len()]);

impl Default for Facts {
    fn default() -> Self {
        Self([true; KNOWN.len()])
    }
}

impl Facts {
    /// `type;size;` as clients send it; unknown facts are passed over, a list that is none is not (RFC 3659 section
    /// 7.9): it would switch all facts off.
    #[must_use]
    pub(super) fn wanted(list: &str) -> Option<Self> {
        if list.contains(' ') || !(list.is_empty() || list.ends_with(';')) {
            return None;
        }
        let is_wanted = |known: &str| list.split(';').any(|name| name.eq_ignore_ascii_case(known));
        Some(Self(KNOWN.map(is_wanted)))
    }

    /// As FEAT and OPTS show it: `type*;size*;…` or `type;size;`.
    #[must_use]
    pub(super) fn names(&self, mark: &str) -> String {
        let mut text = String::new();
        for (name, is_on) in KNOWN.iter().zip(self.0) {
            match (is_on, mark) {
                (true, mark) => text.push_str(&format!("{name}{mark};")),
                (false, "") => {}
                (false, _) => text.push_str(&format!("{name};")),
            }
        }
        text
    }

    /// `type=file;size=5;…; name`, without a line end.
    #[must_use]
    pub(super) fn line(&self, attributes: &Attributes, name: &str) -> String {
        let mut line = String::new();
        for (fact, is_on) in KNOWN.iter().zip(self.0) {
            if is_on && let Some(value) = value(fact, attributes) {
                line.push_str(&format!("{fact}={value};"));
            }
        }
        line.push(' ');
        line.push_str(name);
        line
    }
}

fn value(fact: &str, attributes: &Attributes) -> Option<String> {
    let is_folder = attributes.kind == Kind::Folder;
    Some(match fact {
        "type" => if is_folder { "dir" } else { "file" }.to_owned(),
        "size" if is_folder => return None,
        "size" => attributes.size.to_string(),
        "modify" => stamp(attributes.mtime),
        "perm" => permissions(attributes).to_owned(),
        "UNIX.mode" => match (is_folder, attributes.is_writable) {
            (true, true) => "0755",
            (true, false) => "0555",
            (false, true) => "0644",
            (false, false) => "0444",
        }
        .to_owned(),
        _ => return None,
    })
}

/// RFC 3659 section 7.5.5: what would succeed, exactly.
const fn permissions(attributes: &Attributes) -> &'static str {
    match (attributes.kind, attributes.is_writable, attributes.is_readable) {
        (Kind::Folder, true, _) => "cdeflmp",
        (Kind::Folder, false, _) => "el",
        (Kind::File, true, true) => "adfrw",
        (Kind::File, true, false) => "adfw",
        (Kind::File, false, true) => "r",
        (Kind::File, false, false) => "",
    }
}

/// `YYYYMMDDHHMMSS` in UTC.
#[must_use]
pub(super) fn stamp(moment: Timestamp) -> String {
    let t = OffsetDateTime::from_unix_timestamp(moment.0.div_euclid(1000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// Reads `YYYYMMDDHHMM[SS[.sss]]` as UTC.
#[must_use]
pub(super) fn parse_stamp(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let part = |from: usize, to: usize| whole.get(from..to).filter(|t| is_digits(t));
    let number = |from, to| part(from, to)?.parse::<u8>().ok();
    let year = part(0, 4)?.parse::<i32>().ok()?;
    let second = match whole.len() {
        12 => 0,
        // 60 is a leap second (RFC 3659 section 2.3).
        14 => number(12, 14)?.min(59),
        _ => return None,
    };
    let date = Date::from_calendar_date(year, Month::try_from(number(4, 6)?).ok()?, number(6, 8)?);
    let time = Time::from_hms(number(8, 10)?, number(10, 12)?, second);
    let moment = PrimitiveDateTime::new(date.ok()?, time.ok()?).assume_utc().unix_timestamp();
    let millis = match fraction {
        "" => 0,
        digits if is_digits(digits) => format!("{digits:0<3}").get(..3)?.parse::<i64>().ok()?,
        _ => return None,
    };
    Some(Timestamp(moment.checked_mul(1000)?.checked_add(millis)?))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(is_writable: bool, is_readable: bool) -> Attributes {
        let mtime = Timestamp(1_764_000_000_500);
        Attributes { kind: Kind::File, size: 5, mtime, is_writable, is_readable }
    }

    #[test]
    fn facts_are_exact() {
        let all = Facts::default();
        assert_eq!(
            all.line(&file(true, true), "a b.pdf"),
            "type=file;size=5;modify=20251124160000;perm=adfrw;UNIX.mode=0644; a b.pdf"
        );
        assert!(all.line(&file(true, false), "x").contains("perm=adfw;"));
        assert!(all.line(&file(false, true), "x").contains("perm=r;"));
        let folder = Attributes { kind: Kind::Folder, ..file(false, true) };
        assert_eq!(
            all.line(&folder, "Final"),
            "type=dir;modify=20251124160000;perm=el;UNIX.mode=0555; Final"
        );
    }

    #[test]
    fn clients_choose_facts() {
        let some = Facts::wanted("Type;unique;SIZE;").unwrap();
        assert_eq!(some.names(""), "type;size;");
        assert_eq!(some.names("*"), "type*;size*;modify;perm;UNIX.mode;");
        assert_eq!(some.line(&file(true, true), "x"), "type=file;size=5; x");
        assert_eq!(Facts::wanted("").unwrap().line(&file(true, true), "x"), " x");
        for bad in ["type", "type ;", "unique type;"] {
            assert_eq!(Facts::wanted(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_go_there_and_back() {
        let check = |text: &str, expect: Option<i64>| {
            assert_eq!(parse_stamp(text.as_bytes()).map(|t| t.0), expect, "{text}");
        };
        check("20251124160000", Some(1_764_000_000_000));
        check("20251124160000.25", Some(1_764_000_000_250));
        check("202511241600", Some(1_764_000_000_000));
        check("19691231235959", Some(-1000));
        check("20251324160000", None);
        check("2025112416000", None);
        check("20251124160000.x", None);
        check("2025112416+000", None);
        assert_eq!(stamp(Timestamp(1_764_000_000_999)), "20251124160000");
    }
}
