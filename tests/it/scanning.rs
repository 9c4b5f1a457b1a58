//! Viruses wherever they hide, and a scanner that is away, slow, dying or blind (the table of spec section 7).

use std::time::{Duration, Instant};

use crate::support::clamd::GOOD;
use crate::support::instance::{IN, Instance, Setup};
use crate::support::{MARKER, eicar, eventually, noise};

/// Noise of a length with a signature at a place.
fn infected(len: usize, at: usize, signature: &[u8]) -> Vec<u8> {
    let mut content = noise(len, 99);
    content[at..at + signature.len()].copy_from_slice(signature);
    content
}

fn put(portal: &Instance, name: &str, content: &[u8]) -> crate::support::clients::Said {
    std::fs::write(portal.file(name), content).unwrap();
    portal.sftp(&format!("put {name} {IN}/{name}\n"))
}

#[test]
fn signatures_are_found_whole_deep_and_across_windows() {
    let portal = Setup::new().set("scan", "window", "\"1MiB\"").start("deep");
    let mib = 1 << 20;
    for (name, content) in [
        ("whole.bin", eicar()),
        ("deep.bin", infected(9_000_000, 8_500_000, &eicar())),
        ("marker.bin", infected(5_000_000, 4_999_000 - 10, MARKER)),
        ("seam.bin", infected(6_000_000, 2 * mib - 12, MARKER)),
        ("last.bin", infected(3_000_000, 3_000_000 - MARKER.len(), MARKER)),
    ] {
        let said = put(&portal, name, &content).badly();
        assert!(said.err.contains("[virus-found "), "{name}: {said:?}");
        portal.until_state(name, "infected");
    }
    assert!(portal.hotfolder_files().is_empty());
}

#[test]
fn a_window_stops_a_big_upload_before_its_end() {
    let portal = Setup::new().set("scan", "window", "\"2MiB\"").start("window");
    // In every MiB from the sixth on, so that a follower that leaves windows out on a busy machine meets one too.
    let mut content = noise(60 << 20, 99);
    for mib in 5..60 {
        content[mib << 20..(mib << 20) + MARKER.len()].copy_from_slice(MARKER);
    }
    std::fs::write(portal.file("gross.bin"), &content).unwrap();
    // 10 MB/s: on loopback the upload would be over before the first window.
    let said =
        portal.sftp_with(&["-l", "80000"], &format!("put gross.bin {IN}/gross.bin\n")).badly();
    assert!(said.err.contains("Ptportal.Test.Marker"), "{said:?}");
    let upload = portal.until_state("gross.bin", "infected");
    assert_eq!(upload["reason"], "found while it was uploaded", "{upload:#}");
    let id = upload["id"].as_str().unwrap();
    assert!(portal.file("data/quarantine").join(id).exists());
    let released = portal.try_cli(&["upload", "release", id, "--reason", "x", "--false-positive"]);
    assert!(!released.status.success(), "a part of a file is never released");
    assert!(String::from_utf8_lossy(&released.stderr).contains("only a part of it is there"));
}

#[test]
fn a_signature_is_found_across_a_resume_in_scattered_writes_and_after_a_rename() {
    let portal = Setup::new().start("scattered");
    let said = portal
        .paramiko(
            "marker = b'PTPORTAL-TEST-MARKER-7f3a9c51e8'\n\
             t = transport(); s = paramiko.SFTPClient.from_transport(t)\n\
             f = s.open(IN + '/resume.bin', 'wb'); f.write(b'x' * 1000 + marker[:15]); f.flush(); s.stat(IN)\n\
             t.close(); time.sleep(0.5)\n\
             s = portal()\n\
             f = s.open(IN + '/resume.bin', 'r+b'); f.seek(1015); f.write(marker[15:] + b'y' * 1000); f.close()\n\
             f = s.open(IN + '/scattered.bin', 'wb')\n\
             for i in reversed(range(len(marker))):\n\
             \x20   f.seek(500000 + i); f.write(marker[i:i + 1])\n\
             f.close()\n\
             f = s.open(IN + '/a.bin', 'wb'); f.write(b'clean'); f.close()\n\
             f = s.open(IN + '/a.bin', 'ab'); f.write(marker); f.close()\n\
             print(s.open(IN + '/a.bin', 'rb').read())",
        )
        .well();
    // paramiko itself swallows the status of CLOSE.
    for name in ["resume.bin", "scattered.bin", "a.bin"] {
        assert_eq!(
            portal.until_state(name, "infected")["signature"],
            "Ptportal.Test.Marker.UNOFFICIAL"
        );
    }
    assert!(said.out.contains("b'clean'"), "the old version stays in place: {said:?}");
    assert_eq!(portal.until_delivered("a.bin"), b"clean");
    assert_eq!(portal.hotfolder_files().len(), 1);
}

#[test]
fn renaming_deleting_or_overwriting_during_the_scan_smuggles_nothing() {
    let portal = Setup::new().set("scan", "answer_within", "\"300ms\"").start("smuggle");
    portal.clamd.as_ref().unwrap().freeze();
    let said = portal
        .paramiko(
            "marker = b'PTPORTAL-TEST-MARKER-7f3a9c51e8'\n\
             s = portal()\n\
             f = s.open(IN + '/boese.bin', 'wb'); f.write(marker * 10); f.close()\n\
             s.rename(IN + '/boese.bin', IN + '/harmlos.pdf')\n\
             try: s.open(IN + '/harmlos.pdf', 'rb').read(); print('read it')\n\
             except IOError as e: print('not readable', e)\n\
             f = s.open(IN + '/weg.bin', 'wb'); f.write(marker + b'2'); f.close(); s.remove(IN + '/weg.bin')\n\
             f = s.open(IN + '/wechsel.pdf', 'wb'); f.write(marker + b'3'); f.close()\n\
             f = s.open(IN + '/wechsel.pdf', 'wb'); f.write(b'%PDF clean decoy'); f.close()",
        )
        .well();
    assert!(said.out.contains("not readable"), "{said:?}");
    portal.clamd.as_ref().unwrap().thaw();
    portal.until_state("harmlos.pdf", "infected");
    assert_eq!(portal.until_delivered("wechsel.pdf"), b"%PDF clean decoy");
    eventually("the scan queue is empty", || {
        portal.cli(&["upload", "list", "--state", "scanning"]).as_array().unwrap().is_empty()
    });
    assert_eq!(portal.hotfolder_files().len(), 1, "{:?}", portal.hotfolder_files());
}

#[test]
fn while_clamd_is_away_files_wait_and_nothing_is_lost() {
    let mut portal = Setup::new().start("away");
    portal.clamd.as_mut().unwrap().kill();
    eventually("the server notices", || {
        put(&portal, "probe.pdf", b"%PDF probe");
        portal.events("scanner.away").len() == 1
    });
    let begun = Instant::now();
    let said = put(&portal, "wartet.pdf", b"%PDF waits").well();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "nobody waits for a scanner that is known to be away"
    );
    assert!(said.err.contains("[scan-pending "), "{said:?}");
    put(&portal, "virus.pdf", &eicar()).well();
    assert!(portal.hotfolder_files().is_empty());
    portal.sftp(&format!("get {IN}/wartet.pdf nein.pdf\n")).badly();
    let status = portal.sftp("get 2026-0815/Status.txt s.txt\n").well();
    let text = std::fs::read_to_string(portal.file("s.txt")).unwrap();
    assert!(text.contains("wird auf Viren geprüft"), "{status:?} {text}");
    portal.clamd.as_mut().unwrap().run();
    assert_eq!(portal.until_delivered("wartet.pdf"), b"%PDF waits");
    portal.until_state("virus.pdf", "infected");
    assert_eq!(portal.hotfolder_files().len(), 2);
}

#[test]
fn a_clamd_killed_in_the_middle_of_a_scan_releases_nothing_until_it_is_back() {
    let mut portal = Setup::new().set("scan", "answer_within", "\"2s\"").start("midscan");
    portal.clamd.as_ref().unwrap().freeze();
    let said = put(&portal, "virus.bin", &infected(2_000_000, 1_500_000, MARKER)).well();
    assert!(said.err.contains("[scan-pending "), "{said:?}");
    portal.clamd.as_mut().unwrap().kill();
    std::thread::sleep(Duration::from_millis(1500));
    let upload = portal.upload("virus.bin");
    assert_eq!(upload["state"], "scanning", "{upload:#}");
    assert!(upload["scan_attempts"].as_i64().unwrap() >= 1);
    portal.clamd.as_mut().unwrap().run();
    portal.until_state("virus.bin", "infected");
    assert!(portal.hotfolder_files().is_empty());
}

#[test]
fn a_slow_verdict_is_told_as_pending_and_follows() {
    let portal = Setup::new().set("scan", "answer_within", "\"500ms\"").start("slow");
    portal.clamd.as_ref().unwrap().freeze();
    let begun = Instant::now();
    let said = put(&portal, "langsam.pdf", b"%PDF slow").well();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(
        said.err.contains("Virenprüfung läuft noch") && said.err.contains("[scan-pending "),
        "{said:?}"
    );
    assert_eq!(portal.upload("langsam.pdf")["state"], "scanning");
    portal.clamd.as_ref().unwrap().thaw();
    assert_eq!(portal.until_delivered("langsam.pdf"), b"%PDF slow");
}

#[test]
fn a_clamd_without_alert_exceeds_max_releases_nothing_and_check_says_what_to_add() {
    let settings: Vec<&str> =
        GOOD.iter().copied().filter(|line| !line.starts_with("AlertExceedsMax")).collect();
    let portal = Setup::new().clamd(&settings).start("blind");
    let said = put(&portal, "a.pdf", b"%PDF a").well();
    assert!(said.err.contains("[scan-pending "), "{said:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(portal.upload("a.pdf")["state"], "scanning");
    let check = portal.try_cli(&["check"]);
    assert!(!check.status.success());
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(text.contains("AlertExceedsMax yes"), "{text}");
    assert!(portal.hotfolder_files().is_empty());
}

#[test]
fn doubtful_signatures_and_limits_are_held_and_an_operator_decides() {
    let portal = Setup::new()
        .clamd(&[
            "StreamMaxLength 0",
            "MaxFileSize 3M",
            "MaxScanSize 20G",
            "MaxScanTime 1200000",
            "AlertExceedsMax yes",
            "MaxThreads 4",
        ])
        .start("held");
    let said = put(&portal, "zweifel.pdf", b"PTPORTAL-DOUBTFUL-MARKER-11aa22bb").well();
    assert!(said.err.contains("[held-for-review "), "{said:?}");
    assert!(!said.err.to_lowercase().contains("virus gefunden"), "{said:?}");
    let big = noise(5_000_000, 1);
    put(&portal, "gross.bin", &big).well();
    let doubtful = portal.until_state("zweifel.pdf", "held");
    assert_eq!(doubtful["signature"], "PUA.Test.Doubtful.UNOFFICIAL");
    let limit = portal.until_state("gross.bin", "held");
    assert!(limit["signature"].as_str().unwrap().contains("Limits.Exceeded"), "{limit:#}");
    assert!(portal.hotfolder_files().is_empty());
    let id = |row: &serde_json::Value| row["id"].as_str().unwrap().to_owned();
    portal.cli(&["upload", "reject", &id(&doubtful), "--reason", "kein Druckauftrag"]);
    assert_eq!(portal.upload("zweifel.pdf")["state"], "rejected");
    portal.cli(&["upload", "release", &id(&limit), "--reason", "angesehen"]);
    assert_eq!(portal.until_delivered("gross.bin"), big);
    let released = portal.upload("gross.bin");
    assert_eq!(released["verdict"], "unchecked");
    assert_eq!(released["reason"], "angesehen");
    assert!(released["waived_by"].is_string(), "{released:#}");
}

#[test]
fn oversize_can_be_rejected_as_soon_as_it_is_known() {
    let portal = Setup::new()
        .clamd(&[
            "StreamMaxLength 0",
            "MaxFileSize 3M",
            "MaxScanSize 20G",
            "AlertExceedsMax yes",
            "MaxThreads 4",
        ])
        .set("scan", "on_oversize", "\"reject\"")
        .start("oversize");
    let said = put(&portal, "gross.bin", &noise(5_000_000, 2)).badly();
    assert!(said.err.contains("[scanner-limit "), "{said:?}");
    portal.until_state("gross.bin", "rejected");
}

#[test]
fn a_false_positive_comes_back_from_quarantine() {
    let portal = Setup::new().start("false-positive");
    put(&portal, "echt.pdf", MARKER).badly();
    let upload = portal.until_state("echt.pdf", "infected");
    let id = upload["id"].as_str().unwrap();
    let refused = portal.try_cli(&["upload", "release", id, "--reason", "geprüft"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--false-positive"));
    portal.cli(&["upload", "release", id, "--reason", "Fehlalarm", "--false-positive"]);
    assert_eq!(portal.until_delivered("echt.pdf"), MARKER);
    portal.sftp(&format!("get {IN}/echt.pdf zurueck.pdf\n")).well();
}

#[test]
fn instream_over_tcp_gives_the_same_verdicts() {
    let port = crate::support::instance::free_port();
    let tcp: &'static str = Box::leak(format!("TCPSocket {port}").into_boxed_str());
    let mut settings = GOOD.to_vec();
    settings.extend(["TCPAddr 127.0.0.1", tcp]);
    let portal = Setup::new()
        .clamd(&settings)
        .set("scan", "clamd", &format!("\"tcp:127.0.0.1:{port}\""))
        .set("scan", "window", "\"1MiB\"")
        .start("tcp");
    put(&portal, "virus.bin", &infected(5_000_000, 4_000_000, MARKER)).badly();
    let content = noise(5_000_000, 4);
    put(&portal, "sauber.bin", &content).well();
    assert_eq!(portal.until_delivered("sauber.bin"), content);
    assert!(portal.log().contains("transport=\"instream\""), "{}", portal.log());
}

#[test]
fn a_big_file_in_the_queue_does_not_make_a_small_one_wait() {
    let portal = Setup::new().set("scan", "answer_within", "\"100ms\"").start("queue");
    put(&portal, "gross.bin", &noise(150 << 20, 8)).well();
    let begun = Instant::now();
    put(&portal, "klein.pdf", b"%PDF small").well();
    portal.until_delivered("klein.pdf");
    assert_eq!(portal.upload("gross.bin")["state"], "scanning", "after {:?}", begun.elapsed());
    portal.until_delivered("gross.bin");
}

#[test]
fn bombs_are_held_or_pass_and_nobody_waits_for_them() {
    let portal = Setup::new()
        .clamd(&[
            "StreamMaxLength 0",
            "MaxFileSize 100M",
            "MaxScanSize 400M",
            "MaxScanTime 3000",
            "AlertExceedsMax yes",
            "MaxThreads 4",
        ])
        .set("scan", "answer_within", "\"2s\"")
        .start("bombs");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/siege/bombs.py");
    let mut made = std::process::Command::new("/usr/bin/python3");
    assert!(made.arg(script).arg(portal.path()).status().unwrap().success());
    let before = portal.memory("VmHWM");
    let bombs = ["nested.zip", "flat.zip", "stream.pdf", "zeros.gz"];
    for name in bombs {
        portal.sftp(&format!("put {name} {IN}/{name}\n")).well();
    }
    // Whoever comes behind them is served.
    put(&portal, "danach.pdf", b"%PDF behind the bombs").well();
    assert_eq!(portal.until_delivered("danach.pdf"), b"%PDF behind the bombs");
    let mut states = Vec::new();
    for name in bombs {
        // clamd takes its time for them, and tries once more when nothing else runs.
        let began = Instant::now();
        while portal.upload(name)["state"] == "scanning" {
            assert!(began.elapsed() < Duration::from_secs(240), "{name} is not decided");
            std::thread::sleep(Duration::from_millis(250));
        }
        states.push((name, portal.upload(name)["state"].as_str().unwrap().to_owned()));
    }
    // What clamd could not look through as a whole is in no hotfolder. (The one large member of `flat.zip` it cuts off at
    // its limit without a word, measured with 1.4: nothing that ptportal could see.)
    for (name, state) in &states {
        let is_right = state == "held" || (*name == "flat.zip" && state == "released");
        assert!(is_right, "{states:?}");
    }
    for (name, state) in &states {
        assert!(state == "released" || !portal.delivered(name).exists(), "{name}");
    }
    let grown = portal.memory("VmHWM") - before;
    // The bombs themselves would be hundreds of MiB.
    assert!(grown < 80 * 1024, "{grown} KiB more");
    println!("{states:?}");
}
