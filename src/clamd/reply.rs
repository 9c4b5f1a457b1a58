//! What clamd's replies mean. Pure; everything that is not exactly a known reply is odd.
//!
//! Strict on purpose: a cut reply, an error text that contains `OK`, or two replies in one must
//! never pass for a clean verdict.

use std::fmt;

use crate::domain::verdict::Answer;

/// The longest reply to a scan that is believed, in bytes.
pub(super) const MAX_REPLY: usize = 4096;

/// How much of an odd reply is quoted, in bytes.
const QUOTED: usize = 120;

const LIMITS: &str = "Heuristics.Limits.Exceeded";
const ENCRYPTED: &str = "Heuristics.Encrypted.";

/// Reads the reply to one scan.
#[must_use]
pub fn parse_reply(reply: &[u8]) -> Answer {
    match verdict_text(reply).and_then(read_verdict) {
        Ok(answer) => answer,
        Err(why) => Answer::Odd { reason: format!("{why}: {}", quote(reply)) },
    }
}

/// What clamd says about itself: `ClamAV 1.4.6/27000/Mon Nov 24 10:00:00 2025`.
///
/// With private signatures only, database and date are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The whole reply: a change of it calls for new canaries.
    pub text: String,
    pub engine: String,
    pub database: Option<u32>,
    pub date: Option<String>,
}

impl Version {
    pub(super) fn parse(reply: &[u8]) -> Option<Self> {
        let text = str::from_utf8(reply.strip_suffix(b"\0")?).ok()?;
        if reply.len() > MAX_REPLY || text.chars().any(char::is_control) {
            return None;
        }
        let mut parts = text.strip_prefix("ClamAV ")?.splitn(3, '/');
        let engine = parts.next().filter(|engine| !engine.is_empty())?.to_owned();
        let database = parts.next().and_then(|number| number.parse().ok());
        let date = parts.next().filter(|date| !date.is_empty()).map(str::to_owned);
        Some(Self { text: text.to_owned(), engine, database, date })
    }

    /// Stands for a clamd that scans but does not tell its version.
    pub(super) fn untold() -> Self {
        Self {
            text: "ClamAV, version not told".to_owned(),
            engine: "unknown".to_owned(),
            database: None,
            date: None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads `MaxThreads` out of STATS: `THREADS: live 1  idle 0 max 10 idle-timeout 30`.
pub(super) fn parse_max_threads(stats: &[u8]) -> Option<usize> {
    // Names of files that wait in the queue need not be UTF-8; they stand below the first line.
    let text = String::from_utf8_lossy(stats);
    let mut lines = text.split_inclusive('\n');
    let line = lines.find_map(|line| line.strip_prefix("THREADS: "))?.strip_suffix('\n')?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "max").skip(1);
    words.next()?.parse().ok().filter(|threads| *threads > 0)
}

/// Quotes a reply for a log line: escaped, and cut if it is long.
pub(super) fn quote(reply: &[u8]) -> String {
    let shown = reply.get(..QUOTED).unwrap_or(reply);
    let cut = if shown.len() < reply.len() { " and more" } else { "" };
    format!("\"{}\"{cut}", shown.escape_ascii())
}

fn verdict_text(reply: &[u8]) -> Result<&str, &'static str> {
    if reply.is_empty() {
        return Err("empty reply");
    }
    if reply.len() > MAX_REPLY {
        return Err("reply too long");
    }
    let text = reply.strip_suffix(b"\0").ok_or("reply not ended by NUL")?;
    if text.contains(&0) {
        return Err("more than one reply");
    }
    let text = str::from_utf8(text).map_err(|_| "reply not UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("reply not printable");
    }
    Ok(text)
}

fn read_verdict(text: &str) -> Result<Answer, &'static str> {
    let (id, said) = text.split_once(": ").ok_or("no verdict in the reply")?;
    if !is_scan_id(id) {
        return Err("reply about something else");
    }
    if said == "OK" {
        return Ok(Answer::Ok);
    }
    let name = said.strip_suffix(" FOUND").ok_or("neither OK nor FOUND")?;
    if name.is_empty() || name != name.trim() || name.contains(": ") || name.ends_with(" FOUND") {
        return Err("no name of a signature");
    }
    Ok(named(name.to_owned()))
}

/// `stream` answers INSTREAM, `fd[12]` answers FILDES; nothing else was ever asked.
fn is_scan_id(id: &str) -> bool {
    let number = id.strip_prefix("fd[").and_then(|rest| rest.strip_suffix(']'));
    match number {
        Some(digits) => {
            (1..=10).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
        }
        None => id == "stream",
    }
}

fn named(signature: String) -> Answer {
    if signature.starts_with(LIMITS) {
        Answer::LimitExceeded { limit: signature }
    } else if signature.starts_with(ENCRYPTED) {
        Answer::Encrypted { signature }
    } else {
        Answer::Found { signature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reply: &[u8], expect: &str) {
        let shown = match parse_reply(reply) {
            Answer::Ok => "ok".to_owned(),
            Answer::Found { signature } => format!("found {signature}"),
            Answer::LimitExceeded { limit } => format!("limit {limit}"),
            Answer::Encrypted { signature } => format!("encrypted {signature}"),
            Answer::Odd { reason } => {
                format!("odd {}", reason.split(": \"").next().unwrap_or_default())
            }
        };
        assert_eq!(shown, expect, "{}", reply.escape_ascii());
    }

    #[test]
    fn the_replies_of_clamd_1_4_are_understood() {
        check(b"stream: OK\0", "ok");
        check(b"fd[10]: OK\0", "ok");
        check(b"fd[0]: OK\0", "ok");
        check(b"fd[1234567890]: OK\0", "ok");
        check(b"stream: Eicar-Test-Signature FOUND\0", "found Eicar-Test-Signature");
        check(b"fd[12]: Eicar-Test.UNOFFICIAL FOUND\0", "found Eicar-Test.UNOFFICIAL");
        check(b"fd[12]: {HEX}php.shell(1).5 FOUND\0", "found {HEX}php.shell(1).5");
        check(b"stream: Own Name FOUND\0", "found Own Name");
        check(b"stream: OK FOUND\0", "found OK");
        check("stream: Würm FOUND\0".as_bytes(), "found Würm");
        check(b"stream: Heuristics.Phishing.Email FOUND\0", "found Heuristics.Phishing.Email");
        for limit in ["", ".MaxFileSize", ".MaxScanSize", ".MaxScanTime", ".MaxRecursion"] {
            let reply = format!("fd[9]: Heuristics.Limits.Exceeded{limit} FOUND\0");
            check(reply.as_bytes(), &format!("limit Heuristics.Limits.Exceeded{limit}"));
        }
        for kind in ["PDF", "Zip", "7Zip", "Doc"] {
            let reply = format!("stream: Heuristics.Encrypted.{kind} FOUND\0");
            check(reply.as_bytes(), &format!("encrypted Heuristics.Encrypted.{kind}"));
        }
    }

    #[test]
    fn cut_and_doubled_replies_are_odd() {
        check(b"", "odd empty reply");
        check(b"\0", "odd no verdict in the reply");
        check(b"\0\0", "odd more than one reply");
        check(b"stream: OK", "odd reply not ended by NUL");
        check(b"stream: OK\n", "odd reply not ended by NUL");
        check(b"stream: OK\n\0", "odd reply not printable");
        check(b"stream: OK\r\0", "odd reply not printable");
        check(b"stream: OK\0\0", "odd more than one reply");
        check(b"stream: OK\0\n", "odd reply not ended by NUL");
        check(b"stream: OK\0stream: OK\0", "odd more than one reply");
        check(b"stream: X ERROR\0stream: OK\0", "odd more than one reply");
        check(b"stream: X FOUND\0stream: OK\0", "odd more than one reply");
        check(b"x ERROR\0stream: OK", "odd reply not ended by NUL");
        check(b"stream: Win.Trojan.BROKE", "odd reply not ended by NUL");
        check(b"stream: Win.Trojan.BROKE\0", "odd neither OK nor FOUND");
        check(b"stream: Win.Trojan FOUN\0", "odd neither OK nor FOUND");
        check(b"stream: \0", "odd neither OK nor FOUND");
        check(b"stream:\0", "odd no verdict in the reply");
        check(b"stream\0", "odd no verdict in the reply");
        check(b"COMMAND READ TIMED OUT\n", "odd reply not ended by NUL");
    }

    #[test]
    fn errors_are_odd_even_if_they_contain_ok_or_found() {
        check(b"/in/OK.pdf: Access denied. ERROR\0", "odd reply about something else");
        check(b"/in/OK.pdf: OK\0", "odd reply about something else");
        check(b"/in/a: X FOUND\0", "odd reply about something else");
        check(b"INSTREAM size limit exceeded. ERROR\0", "odd no verdict in the reply");
        check(b"INSTREAM: Can't write to temporary file ERROR\0", "odd reply about something else");
        check(b"Error writing to temporary file ERROR\0", "odd no verdict in the reply");
        check(b"No file descriptor received. ERROR\0", "odd no verdict in the reply");
        check(b"COMMAND READ TIMED OUT\0", "odd no verdict in the reply");
        check(b"UNKNOWN COMMAND\0", "odd no verdict in the reply");
        check(b"PONG\0", "odd no verdict in the reply");
        check(b"fd[12]: Not a regular file ERROR\0", "odd neither OK nor FOUND");
        check(b"stream: Can't allocate memory ERROR\0", "odd neither OK nor FOUND");
        check(b"stream: X FOUND ERROR\0", "odd neither OK nor FOUND");
        check(b"stream: Excluded\0", "odd neither OK nor FOUND");
    }

    #[test]
    fn nothing_but_the_exact_wording_is_believed() {
        check(b"stream: ok\0", "odd neither OK nor FOUND");
        check(b"stream: Ok\0", "odd neither OK nor FOUND");
        check(b"stream: OK \0", "odd neither OK nor FOUND");
        check(b"stream:  OK\0", "odd neither OK nor FOUND");
        check(b"stream: OK.\0", "odd neither OK nor FOUND");
        check(b"stream: OKAY\0", "odd neither OK nor FOUND");
        check(b"stream: X OK\0", "odd neither OK nor FOUND");
        check(b"stream: stream: OK\0", "odd neither OK nor FOUND");
        check(b"stream: X found\0", "odd neither OK nor FOUND");
        check(b"stream: X FOUND \0", "odd neither OK nor FOUND");
        check(b"stream: FOUND\0", "odd neither OK nor FOUND");
        check(b"stream:  FOUND\0", "odd no name of a signature");
        check(b"stream:  X FOUND\0", "odd no name of a signature");
        check(b"stream: a: X FOUND\0", "odd no name of a signature");
        check(b"stream: X FOUND FOUND\0", "odd no name of a signature");
        check(b"stream:OK\0", "odd no verdict in the reply");
        check(b"OK\0", "odd no verdict in the reply");
        check(b": OK\0", "odd reply about something else");
        check(b" stream: OK\0", "odd reply about something else");
        check(b"stream : OK\0", "odd reply about something else");
        check(b"STREAM: OK\0", "odd reply about something else");
        check(b"1: stream: OK\0", "odd reply about something else");
        check(b"instream(127.0.0.1@40000): OK\0", "odd reply about something else");
        for id in ["fd[]", "fd[", "fd10", "fd[10", "fd[x]", "fd[-1]", "fd[+1]", "fd[1]]", "fd[1] "]
        {
            check(format!("{id}: OK\0").as_bytes(), "odd reply about something else");
        }
        check(b"fd[12345678901]: OK\0", "odd reply about something else");
        check("fd[\u{661}]: OK\0".as_bytes(), "odd reply about something else");
        check(b"stream: X\xff FOUND\0", "odd reply not UTF-8");
        check(b"stream: X\x1b[2J FOUND\0", "odd reply not printable");
        check(b"\x07stream: OK\0", "odd reply not printable");
    }

    #[test]
    fn a_long_reply_is_odd() {
        let reply = |name: usize| format!("stream: {} FOUND\0", "a".repeat(name)).into_bytes();
        assert_eq!(reply(4081).len(), MAX_REPLY);
        check(&reply(4081), &format!("found {}", "a".repeat(4081)));
        check(&reply(4082), "odd reply too long");
    }

    #[test]
    fn no_change_of_one_byte_keeps_a_clean_reply_clean() {
        let clean = b"stream: OK\0";
        for place in 0..clean.len() {
            assert!(parse_reply(&clean[..place]) != Answer::Ok);
            for byte in 0..=u8::MAX {
                let mut changed = clean.to_vec();
                changed[place] = byte;
                assert_eq!(parse_reply(&changed) == Answer::Ok, changed == clean);
                changed = clean.to_vec();
                changed.insert(place, byte);
                assert!(parse_reply(&changed) != Answer::Ok);
            }
        }
    }

    #[test]
    fn an_odd_reply_is_quoted_escaped_and_short() {
        let reason = |reply: &[u8]| match parse_reply(reply) {
            Answer::Odd { reason } => reason,
            Answer::Ok
            | Answer::Found { .. }
            | Answer::LimitExceeded { .. }
            | Answer::Encrypted { .. } => String::new(),
        };
        assert_eq!(reason(b"a\"\n\xff\0"), r#"reply not UTF-8: "a\"\n\xff\x00""#);
        assert_eq!(reason(b""), r#"empty reply: """#);
        assert!(reason(&[7; 5000]).len() < 600);
        assert!(reason(&[7; 5000]).ends_with("\" and more"));
    }

    #[test]
    fn versions_with_and_without_database_are_read() {
        let version = |reply: &[u8]| {
            Version::parse(reply).map(|version| (version.engine, version.database, version.date))
        };
        let date = Some("Mon Nov 24 10:00:00 2025".to_owned());
        let full = b"ClamAV 1.4.6/27000/Mon Nov 24 10:00:00 2025\0";
        assert_eq!(version(full), Some(("1.4.6".to_owned(), Some(27_000), date.clone())));
        assert_eq!(version(b"ClamAV 1.4.6\0"), Some(("1.4.6".to_owned(), None, None)));
        assert_eq!(version(b"ClamAV 1.5.0-rc/27//\0").unwrap().0, "1.5.0-rc");
        assert_eq!(version(b"ClamAV 1.4.6/x/\0"), Some(("1.4.6".to_owned(), None, None)));
        assert_eq!(Version::parse(full).unwrap().text.len(), full.len().saturating_sub(1));
        for odd in [&b""[..], b"\0", b"ClamAV 1.4.6", b"ClamAV \0", b"PONG\0", b"ClamAV 1\n\0"] {
            assert_eq!(version(odd), None, "{}", odd.escape_ascii());
        }
    }

    #[test]
    fn the_number_of_threads_is_read_from_a_whole_line() {
        let real =
            b"POOLS: 1\n\nSTATE: VALID PRIMARY\nTHREADS: live 1  idle 0 max 10 idle-timeout 30\n\
            QUEUE: 0 items\n\tSTATS 0.000002 \n\nMEMSTATS: heap N/A mmap N/A\nEND\0";
        assert_eq!(parse_max_threads(real), Some(10));
        assert_eq!(parse_max_threads(b"THREADS: max 4\nQUEUE: 1 items\n\tSCAN \xff\n"), Some(4));
        assert_eq!(parse_max_threads(b"THREADS: live 1  idle 0 max 1"), None);
        assert_eq!(parse_max_threads(b"THREADS: live 1  idle 0 max 0 \nEND\0"), None);
        assert_eq!(parse_max_threads(b"THREADS: live 1  idle 0\nmax 7\nEND\0"), None);
        assert_eq!(parse_max_threads(b"UNKNOWN COMMAND\0"), None);
        assert_eq!(parse_max_threads(b""), None);
    }
}
