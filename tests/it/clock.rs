//! A clock that jumps, that is far ahead, and a certificate that comes to its end.

use std::path::Path;
use std::time::Duration;

use crate::support::http::curl;
use crate::support::instance::{IN, Instance, Setup};
use crate::support::{eventually, noise};

/// The wall clock of server and commands follows a file; the clock that only counts goes on as it is.
fn with_clock(setup: Setup, file: &Path) -> Setup {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    let other = "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1";
    let library = if Path::new(library).exists() { library } else { other };
    assert!(Path::new(library).exists(), "the package faketime is not there");
    setup
        .environment("LD_PRELOAD", library)
        .environment("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// The page behind a link of the account.
fn status_of(portal: &Instance, link: &str) -> u16 {
    let path = link.split_once("/activate/").unwrap().1;
    curl(&[&format!("http://localhost:{}/activate/{path}", portal.web_port)]).status
}

#[test]
fn a_clock_that_jumps_loses_nothing_and_revives_no_link() {
    let dir = crate::support::TempDir::new("clock");
    let clock = dir.path().join("clock");
    let set = |text: &str| std::fs::write(&clock, text).unwrap();
    set("+0");
    let portal = with_clock(Setup::new(), &clock).start("clockjump");
    let content = noise(3_000_000, 4);
    std::fs::write(portal.file("lange.bin"), &content).unwrap();
    std::fs::write(portal.file("kurz.bin"), b"short").unwrap();
    let link = portal.cli(&["account", "link", "acme"])["link"].as_str().unwrap().to_owned();
    assert_eq!(status_of(&portal, &link), 200);
    let put = format!("put lange.bin {IN}/lange.bin\n");
    std::thread::scope(|scope| {
        let long = scope.spawn(|| portal.sftp_with(&["-l", "4000"], &put));
        for (step, jump) in ["+2h", "-2h", "+30m", "+0"].into_iter().enumerate() {
            std::thread::sleep(Duration::from_millis(900));
            set(jump);
            portal.sftp(&format!("put kurz.bin {IN}/kurz-{step}.bin\n")).well();
            // Forward it has expired; backward it comes from the future.
            let expected = if step == 3 { 200 } else { 410 };
            assert_eq!(status_of(&portal, &link), expected, "{jump}");
        }
        long.join().unwrap().well();
    });
    assert_eq!(portal.until_delivered("lange.bin"), content);
    // Some were planned for a time that is two hours away now.
    let all = || (0..4).all(|step| portal.delivered(&format!("kurz-{step}.bin")).exists());
    let began = std::time::Instant::now();
    while !all() {
        assert!(began.elapsed() < Duration::from_secs(150), "{}", portal.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(portal.hotfolder_files().len(), 5);
    let events = portal.cli(&["events"]);
    let numbers: Vec<i64> =
        events.as_array().unwrap().iter().map(|e| e["seq"].as_i64().unwrap()).collect();
    assert!(numbers.is_sorted() || numbers.is_sorted_by(|a, b| a >= b), "ordered by number");
}

#[test]
fn a_start_in_twenty_years_works() {
    let dir = crate::support::TempDir::new("future");
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+20y").unwrap();
    let portal = with_clock(Setup::new(), &clock).start("future");
    std::fs::write(portal.file("a.pdf"), b"%PDF in 2046").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\nls -l {IN}\n")).well();
    assert_eq!(portal.until_delivered("a.pdf"), b"%PDF in 2046");
    let year = portal.upload("a.pdf")["released"].as_str().unwrap()[..4].parse::<u32>().unwrap();
    assert!(year >= 2046, "{year}");
    portal.page("/", &[]).is(200);
}

#[test]
fn a_certificate_near_its_end_is_spoken_of_in_check_and_log() {
    let dir = crate::support::TempDir::new("certend");
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let mut portal = with_clock(Setup::new().without_scanner(), &clock).start("certend");
    // The one that was made lasts ten years.
    assert!(!portal.log().contains("the certificate expires"), "{}", portal.log());
    portal.stop();
    std::fs::write(&clock, "+3649d").unwrap();
    portal.serve();
    eventually("the log warns", || portal.log().contains("the certificate expires"));
    let check = portal.cli(&["check"]).to_string();
    assert!(check.contains("days left") || check.contains("day left"), "{check}");
    std::fs::write(&clock, "+3660d").unwrap();
    let check = String::from_utf8(portal.try_cli(&["check"]).stdout).unwrap();
    assert!(check.contains("has expired"), "{check}");
}
