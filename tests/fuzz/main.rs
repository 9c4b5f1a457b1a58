//! What strangers and others write, given to each parser: any bytes at all, and the corpus of `tests/fuzz/__fuzz__`.
//!
//! `make test` tries the corpus and some thousand random inputs on any toolchain. `cargo bolero test sftp_packets` lets
//! libFuzzer look for more (needs a nightly toolchain); what it finds goes into the corpus, and gets a test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use ptportal::clamd::reply::parse_reply;
use ptportal::config::client_ini::ClientIni;
use ptportal::domain::announcement::Announcement;
use ptportal::domain::hotname::{safe_file_name, safe_folder_name};
use ptportal::domain::path::VirtualPath;
use ptportal::domain::verdict::Answer;
use ptportal::ftps::command;
use ptportal::ftps::line::{LINE_MAX, Lines};
use ptportal::sftp::packet;
use ptportal::template::mail;

/// Random inputs for each parser, beside its corpus.
const TRIES: usize = 20_000;

macro_rules! fuzz {
    ($name:ident, $tries:expr, $body:expr) => {
        #[test]
        fn $name() {
            let body: fn(&[u8]) = $body;
            bolero::check!(name = stringify!($name)).with_iterations($tries).for_each(body);
        }
    };
}

fuzz!(sftp_packets, TRIES, |bytes| {
    packet::parse(bytes).ok();
});

fuzz!(ftps_lines, TRIES, |bytes| {
    let mut lines = Lines::default();
    // As they come from a socket: in pieces.
    for piece in bytes.chunks(7) {
        lines.push(piece);
        while let Ok(Some(line)) = lines.next_line() {
            assert!(line.len() <= LINE_MAX && !line.contains(&b'\n'), "{line:?}");
            drop(command::parse(&line));
        }
    }
});

fuzz!(paths, TRIES, |bytes| {
    for folder in [VirtualPath::root(), VirtualPath::root().resolve(b"/a/b").unwrap()] {
        let Ok(path) = folder.resolve(bytes) else { continue };
        for name in path.segments() {
            let name = name.as_str();
            let is_plain = !name.is_empty() && name != "." && name != "..";
            assert!(is_plain && !name.contains(['/', '\0']), "{path}");
        }
        // Said again, it is the same place.
        assert_eq!(VirtualPath::root().resolve(path.to_string().as_bytes()).unwrap(), path);
    }
});

fuzz!(hotfolder_names, TRIES, |bytes| {
    let text = String::from_utf8_lossy(bytes);
    for name in [safe_file_name(&text), safe_folder_name(&text)] {
        let name = name.as_str();
        assert!(!name.is_empty() && name.len() <= 220, "{name:?}");
        assert!(!name.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|', '\0']), "{name:?}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
        assert!(!name.ends_with(['.', ' ']) && !name.starts_with(['.', ' ']), "{name:?}");
    }
    // What is safe already stays as it is.
    let safe = safe_file_name(&text);
    assert_eq!(safe_file_name(safe.as_str()), safe);
});

fuzz!(clamd_replies, TRIES, |bytes| {
    if parse_reply(bytes) == Answer::Ok {
        let is_one_ok =
            bytes.ends_with(b": OK\0") && bytes.iter().filter(|b| **b == 0).count() == 1;
        assert!(is_one_ok, "{:?}", String::from_utf8_lossy(bytes));
    }
});

fuzz!(client_ini, TRIES, |bytes| {
    ClientIni::parse("client.ini", bytes).ok();
});

fuzz!(orders, TRIES, |bytes| {
    let Ok(order) = Announcement::from_file(bytes).and_then(Announcement::checked) else { return };
    // What was accepted is accepted again: nothing is half read.
    order.checked().unwrap();
});

fuzz!(templates, 2_000, |bytes| {
    let text = String::from_utf8_lossy(bytes);
    mail::check(&text, &text).ok();
    if let Ok(subject) = mail::render_subject(&text, &mail::sample()) {
        assert!(!subject.contains(['\r', '\n']), "{subject:?}");
    }
});
