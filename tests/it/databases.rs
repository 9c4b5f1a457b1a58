//! Databases that are away, locked, older or newer: told clearly, and nothing accepted is lost.

use std::process::{Child, Command};
use std::time::Duration;

use crate::support::eventually;
use crate::support::instance::{IN, Instance, Setup, USER};
use crate::support::postgres::Postgres;

#[test]
fn a_postgresql_that_stops_and_comes_back_loses_nothing_accepted() {
    let postgres = Postgres::start();
    let portal =
        Setup::new().set("database", "url", &format!("\"{}\"", postgres.url())).start("pgdown");
    portal.put("vorher.bin", b"before").well();
    portal.until_delivered("vorher.bin");
    postgres.down();
    let said = portal.put("waehrend.bin", b"while it is away");
    assert!(!said.ok, "nothing is accepted that cannot be written down");
    postgres.up();
    eventually("it works again by itself", || portal.put("danach.bin", b"after").ok);
    assert_eq!(portal.until_delivered("danach.bin"), b"after");
    // Several short outages in the middle of uploads: what the client saw succeed arrives.
    let mut accepted = Vec::new();
    for round in 0..4 {
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let names: Vec<String> = (0..6).map(|n| format!("{round}-{n}.bin")).collect();
                let ok: Vec<String> =
                    names.into_iter().filter(|name| portal.put(name, name.as_bytes()).ok).collect();
                ok
            });
            std::thread::sleep(Duration::from_millis(300));
            postgres.down();
            std::thread::sleep(Duration::from_millis(700));
            postgres.up();
            accepted.extend(sending.join().unwrap());
        });
    }
    for name in &accepted {
        assert_eq!(portal.until_delivered(name), name.as_bytes());
    }
    let delivered = portal.hotfolder_files();
    assert!(
        delivered.iter().all(|path| !path.to_string_lossy().contains(" (2)")),
        "none twice: {delivered:?}"
    );
}

/// Another process takes the database for some seconds.
fn lock_for(portal: &Instance, seconds: u32) -> Child {
    let script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)\n\
                  c.execute('BEGIN EXCLUSIVE')\nopen(sys.argv[2], 'w').close()\ntime.sleep(int(sys.argv[3]))\nc.execute('COMMIT')";
    let held = portal.file("held");
    let holder = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(portal.file("data/ptportal.db"))
        .arg(&held)
        .arg(seconds.to_string())
        .spawn()
        .unwrap();
    eventually("it is locked", || held.exists());
    holder
}

#[test]
fn a_database_that_another_process_holds_locked_delays_and_loses_nothing() {
    let portal = Setup::new().start("locked");
    let mut holder = lock_for(&portal, 4);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let portal = &portal;
            scope.spawn(move || {
                let name = format!("{n}.bin");
                std::fs::write(portal.file(&name), &name).unwrap();
                portal.sftp(&format!("put {name} {IN}/{name}\n")).well();
            });
        }
        scope.spawn(|| portal.cli(&["ticket", "add", crate::support::instance::PROJECT, "T-1"]));
    });
    assert!(holder.wait().unwrap().success());
    for n in 0..4 {
        assert_eq!(portal.until_delivered(&format!("{n}.bin")), format!("{n}.bin").as_bytes());
    }
}

#[test]
fn a_write_that_was_refused_is_not_forgotten_when_the_database_is_back() {
    let portal = Setup::new().start("refusedwrite");
    portal.cli(&["account", "set", USER, "quota_bytes=100000000"]);
    let script = "s = portal()\n\
         f = s.open(IN + '/loch.bin', 'wb')\n\
         open('opened', 'w').close()\n\
         while not os.path.exists('held'): time.sleep(0.05)\n\
         try: f.write(b'a' * 32768); print('taken')\n\
         except IOError as error: print('refused', error)\n\
         while not os.path.exists('free'): time.sleep(0.05)\n\
         # A client that goes on all the same.\n\
         f.seek(32768)\n\
         try: f.write(b'b' * 32768); print('taken')\n\
         except IOError as error: print('refused', error)\n\
         f.close(); s.listdir(IN)";
    let said = std::thread::scope(|scope| {
        let client = scope.spawn(|| portal.paramiko(script));
        eventually("it is open", || portal.file("opened").exists());
        let mut holder = lock_for(&portal, 13);
        assert!(holder.wait().unwrap().success());
        std::fs::write(portal.file("free"), "").unwrap();
        client.join().unwrap().well()
    });
    assert_eq!(said.out.matches("refused").count(), 2, "{said:?}");
    portal.put("danach.bin", b"after").well();
    portal.until_delivered("danach.bin");
    assert_eq!(portal.hotfolder_files().len(), 1);
    assert_eq!(portal.events("upload.received").len(), 1);
}

#[test]
fn a_database_that_is_locked_for_half_a_minute_takes_no_ok_that_it_does_not_keep() {
    let portal = Setup::new().start("longlock");
    let holder = lock_for(&portal, 30);
    let mut accepted = Vec::new();
    std::thread::scope(|scope| {
        let sending: Vec<_> = (0..4)
            .map(|n| {
                let portal = &portal;
                scope.spawn(move || {
                    let name = format!("{n}.bin");
                    std::fs::write(portal.file(&name), &name).unwrap();
                    let said = portal.sftp(&format!("put {name} {IN}/{name}\n"));
                    (name, said.ok)
                })
            })
            .collect();
        accepted.extend(sending.into_iter().map(|sent| sent.join().unwrap()));
    });
    assert!(holder.wait_with_output().unwrap().status.success());
    for (name, ok) in &accepted {
        if !ok {
            portal.sftp(&format!("put {name} {IN}/{name}\n")).well();
        }
        assert_eq!(portal.until_delivered(name), name.as_bytes());
    }
    assert_eq!(portal.hotfolder_files().len(), 4, "each once");
}

#[test]
fn what_came_after_an_older_database_is_found_and_brought_back() {
    let mut portal = Setup::new().start("older");
    portal.put("alt.bin", b"old").well();
    portal.until_delivered("alt.bin");
    portal.stop();
    for name in ["ptportal.db", "ptportal.db-wal"] {
        std::fs::copy(portal.file("data").join(name), portal.file(name)).ok();
    }
    portal.serve();
    for n in 0..10 {
        portal.put(&format!("neu-{n}.bin"), format!("new {n}").as_bytes()).well();
    }
    eventually("all are delivered", || portal.hotfolder_files().len() == 11);
    portal.stop();
    for name in ["ptportal.db-wal", "ptportal.db-shm"] {
        std::fs::remove_file(portal.file("data").join(name)).ok();
    }
    for name in ["ptportal.db", "ptportal.db-wal"] {
        std::fs::copy(portal.file(name), portal.file("data").join(name)).ok();
    }
    portal.serve();
    let output = portal.try_cli(&["fsck"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let orphans = report["problems"].as_array().unwrap();
    assert_eq!(orphans.len(), 10, "{report:#}");
    assert!(orphans.iter().all(|p| p["problem"] == "orphan"), "{report:#}");
    let output = portal.try_cli(&["fsck", "--repair"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let held = portal.cli(&["upload", "list", "--state", "held"]);
    assert_eq!(held.as_array().unwrap().len(), 10);
    // The customer sees them; nothing is delivered a second time by itself.
    let listed = portal.sftp(&format!("ls -1 {IN}\n")).well().out;
    assert!(listed.contains("neu-7.bin"), "{listed}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(portal.hotfolder_files().len(), 11);
}

#[test]
fn a_database_of_a_newer_version_stops_the_start() {
    let mut portal = Setup::new().without_scanner().start("newer");
    portal.stop();
    portal.sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', 1, X'00', 0)");
    let output = portal.try_cli(&["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("999") && error.contains("a newer version"), "{error}");
}
