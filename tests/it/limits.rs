//! Limits that a customer meets: each says which limit, its value, and what to do; nothing else is touched.

use std::time::{Duration, Instant};

use crate::support::clients::same;
use crate::support::instance::{IN, PASSWORD, Setup, USER};
use crate::support::noise;

#[test]
fn quota_size_and_extension_have_their_own_texts() {
    let portal = Setup::new().start("limits");
    std::fs::write(portal.file("klein.pdf"), noise(400_000, 1)).unwrap();
    std::fs::write(portal.file("gross.pdf"), noise(3_000_000, 2)).unwrap();
    portal.cli(&["account", "set", USER, "quota_bytes=1000000"]);
    portal.sftp(&format!("put klein.pdf {IN}/klein.pdf\n")).well();
    let said = portal.sftp(&format!("put gross.pdf {IN}/gross.pdf\n")).badly();
    assert!(
        said.err.contains("Speicherplatz") && said.err.contains("[quota-exceeded "),
        "{said:?}"
    );
    let df = portal.sftp("df 2026-0815\n").well();
    assert!(df.out.contains("976"), "quota as space in KiB: {df:?}");
    portal.sftp(&format!("put klein.pdf {IN}/klein.pdf\n")).well();
    portal.sftp(&format!("rm {IN}/klein.pdf\nput klein.pdf {IN}/klein2.pdf\n")).well();
    portal.cli(&["account", "unset", USER, "quota_bytes"]);
    portal.cli(&["account", "set", USER, "max_file_bytes=1000000"]);
    let said = portal.sftp(&format!("put gross.pdf {IN}/gross.pdf\n")).badly();
    assert!(
        said.err.contains("größer als erlaubt (976,6 KiB)")
            && said.err.contains("[file-too-large "),
        "{said:?}"
    );
    assert_eq!(portal.until_state("gross.pdf", "rejected")["reason"], "file-too-large");
    portal.cli(&["account", "unset", USER, "max_file_bytes"]);
    portal.cli(&["account", "set", USER, "denied_extensions=exe,js", "language=en"]);
    let said = portal.sftp(&format!("put klein.pdf {IN}/setup.EXE\n")).badly();
    assert!(
        said.err.contains("are not accepted") && said.err.contains("[extension-forbidden "),
        "{said:?}"
    );
    let refused = portal.events("upload.refused");
    assert!(refused.iter().any(|e| e["detail"]["reason"] == "extension-forbidden"), "{refused:#?}");
    portal.sftp("get 2026-0815/Status.txt s.txt\n").well();
    let status = std::fs::read_to_string(portal.file("s.txt")).unwrap();
    assert!(status.contains("Not accepted:") && status.contains("setup.EXE"), "{status}");
    portal.sftp(&format!("put klein.pdf {IN}/x.tmp\n")).well();
    portal.sftp(&format!("rename {IN}/x.tmp {IN}/x.js\n")).badly();
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let portal = Setup::new().set("limits", "min_free", "\"900TiB\"").start("full");
    std::fs::write(portal.file("a.pdf"), b"%PDF").unwrap();
    let said = portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).badly();
    assert!(
        said.err.contains("kein Speicherplatz frei") && said.err.contains("[no-space "),
        "{said:?}"
    );
    assert!(portal.events("upload.refused").iter().any(|e| e["detail"]["reason"] == "no-space"));
}

#[test]
fn a_backlog_before_an_absent_scanner_is_refused_up_front() {
    let mut portal = Setup::new().set("scan", "pending_max", "\"1MiB\"").start("backlog");
    portal.clamd.as_mut().unwrap().kill();
    std::fs::write(portal.file("a.bin"), noise(700_000, 1)).unwrap();
    for n in 0..2 {
        portal.sftp(&format!("put a.bin {IN}/a{n}.bin\n")).well();
    }
    crate::support::eventually("further uploads are refused", || {
        let said = portal.sftp(&format!("put a.bin {IN}/b.bin\n"));
        !said.ok && said.err.contains("[scan-backlog ")
    });
    portal.clamd.as_mut().unwrap().run();
    portal.until_delivered("a0.bin");
    portal.until_delivered("a1.bin");
}

#[test]
fn account_rules_are_checked_at_login() {
    let portal = Setup::new().set("limits", "ban_after", "1000").start("rules");
    portal.set_password(PASSWORD);
    let refused_with = |code: &str| {
        let said = portal.sftp_password(USER, PASSWORD, &[], "ls\n").badly();
        assert!(said.err.contains(code), "{code}: {said:?}");
        let failed = portal.events("login.failed");
        assert!(
            failed.iter().any(|e| code.contains(e["detail"]["reason"].as_str().unwrap())),
            "{failed:#?}"
        );
    };
    for (setting, code) in [
        ("expires_at=2020-01-01", "[account-expired]"),
        ("allowed_networks=192.0.2.0/24", "[network-forbidden]"),
        ("protocols=ftps", "[protocol-forbidden]"),
        ("max_sessions=0", "[too-many-sessions]"),
    ] {
        portal.cli(&["account", "set", USER, setting]);
        refused_with(code);
        portal.cli(&["account", "unset", USER, setting.split('=').next().unwrap()]);
    }
    portal.sftp_password(USER, PASSWORD, &[], "ls\n").well();
}

#[test]
fn a_guesser_is_banned_and_one_command_lets_it_in_again() {
    let portal = Setup::new().set("limits", "ban_after", "3").start("ban");
    portal.set_password(PASSWORD);
    for _ in 0..3 {
        portal.sftp_password("nobody", "falsch geraten 123", &[], "ls\n").badly();
    }
    portal.sftp_password(USER, PASSWORD, &[], "ls\n").badly();
    let bans = portal.cli(&["ban", "list"]);
    assert_eq!(bans[0]["address"], "127.0.0.1", "{bans:#}");
    assert_eq!(portal.events("login.banned").len(), 1);
    portal.cli(&["ban", "remove", "127.0.0.1"]);
    crate::support::eventually("it may come in again", || {
        portal.sftp_password(USER, PASSWORD, &[], "ls\n").ok
    });
}

#[test]
fn a_ban_counts_for_open_connections_and_for_whoever_is_logged_in_and_guesses() {
    let portal = crate::ftps::portal(Setup::new().set("limits", "ban_after", "2"), "ban-open");
    let said = portal.ftplib(
        "def connected():\n\
         \x20   f = ftplib.FTP_TLS(context=context(), timeout=30); f.connect('127.0.0.1', PORT); f.auth()\n\
         \x20   return f\n\
         good = portal()\n\
         ftps = connected()\n\
         wrong = 0\n\
         for n in range(5):\n\
         \x20   guess = connected()\n\
         \x20   for m in range(2):\n\
         \x20       if wrong == 9: assert portal().nlst() == ['2026-0815'], 'colleagues share the address'\n\
         \x20       refused(lambda: guess.login('nobody', 'falsch geraten'), '530'); wrong += 1\n\
         try: print(ftps.login(USER, PASSWORD))\n\
         except ftplib.Error as error: print(error)\n\
         assert good.nlst() == ['2026-0815']",
    );
    let said = said.well();
    assert!(said.out.starts_with("421 "), "{said:?}");
    assert_eq!(portal.cli(&["ban", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_session_ends_when_what_opened_it_no_longer_counts() {
    let portal = Setup::new().without_scanner().start("ended");
    portal.set_password(PASSWORD);
    let script = "s = portal(); open('here', 'w').close()\n\
         try:\n\
         \x20   for n in range(200): s.listdir(IN); time.sleep(0.1)\n\
         \x20   print('stayed')\n\
         except (EOFError, OSError, paramiko.SSHException): print('ended')";
    let keys = portal.cli(&["account", "key", "list", USER]);
    let key = keys[0]["fingerprint"].as_str().unwrap();
    let changes: [&dyn Fn(); 4] = [
        &|| portal.set_password("Ein anderes Kennwort 4711"),
        &|| drop(portal.cli(&["account", "set", USER, "protocols=ftps,web"])),
        &|| drop(portal.cli(&["account", "set", USER, "allowed_networks=10.0.0.0/8"])),
        &|| drop(portal.cli(&["account", "key", "remove", USER, key])),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let said = std::thread::scope(|scope| {
            let client = scope.spawn(|| portal.paramiko(script));
            crate::support::eventually("it is logged in", || portal.file("here").exists());
            change();
            client.join().unwrap()
        });
        assert_eq!(said.well().out, "ended\n", "change {n}");
        std::fs::remove_file(portal.file("here")).unwrap();
        for setting in ["protocols", "allowed_networks"] {
            portal.try_cli(&["account", "unset", USER, setting]);
        }
        if n == 0 {
            // Whoever logs in right behind the change stays.
            portal.set_password(PASSWORD);
            let said = portal.paramiko("s = portal(); time.sleep(3); print(s.listdir('/'))");
            let said = said.well();
            assert!(said.out.contains("2026-0815"), "{said:?}");
        }
    }
}

#[test]
fn an_accounts_transfers_share_its_rate_and_none_starves() {
    let portal = Setup::new().without_scanner().start("rates");
    portal.set_password(PASSWORD);
    std::fs::write(portal.file("a.bin"), noise(1_500_000, 3)).unwrap();
    portal.sftp(&format!("put a.bin {IN}/a.bin\n")).well();
    portal.cli(&["account", "set", USER, "upload_rate=1000000", "download_rate=1000000"]);
    // Two at once over two protocols, and one the other way: three megabytes up at one a second.
    let (began, ends) = (Instant::now(), std::sync::Mutex::new(Vec::new()));
    let note = |what: &'static str| ends.lock().unwrap().push((what, began.elapsed()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            portal.sftp(&format!("put a.bin {IN}/b.bin\n")).well();
            note("sftp up");
        });
        scope.spawn(|| {
            portal.curl_ftps(&format!("{IN}/c.bin"), &["-T", "a.bin"]).well();
            note("ftps up");
        });
        scope.spawn(|| {
            portal.curl_ftps(&format!("{IN}/a.bin"), &["-o", "got.bin"]).well();
            note("ftps down");
        });
    });
    let ends = ends.into_inner().unwrap();
    let end = |what: &str| ends.iter().find(|(name, _)| *name == what).unwrap().1.as_secs_f64();
    assert!(end("sftp up").max(end("ftps up")) > 2.4, "{ends:?}");
    assert!(end("sftp up").min(end("ftps up")) > 1.4, "both had their share: {ends:?}");
    assert!(end("ftps down") > 1.1, "{ends:?}");
    assert!(same(&portal.file("a.bin"), &portal.file("got.bin")));
    assert_eq!(portal.until_delivered("c.bin"), noise(1_500_000, 3));
    // A change counts at once, for what runs already as well.
    portal.cli(&["account", "set", USER, "upload_rate=20000"]);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| portal.sftp(&format!("put a.bin {IN}/d.bin\n")).well());
        std::thread::sleep(Duration::from_secs(2));
        portal.cli(&["account", "unset", USER, "upload_rate"]);
    });
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}
