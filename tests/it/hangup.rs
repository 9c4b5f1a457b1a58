//! SIGHUP: settings that a running server takes over, those that wait, and logs that are rotated under load.

use std::process::Command;
use std::time::Duration;

use crate::support::instance::{IN, Instance, Setup};
use crate::support::{eventually, noise};

fn hang_up(portal: &Instance) {
    let pid = portal.server_id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
}

fn change(portal: &Instance, from: &str, to: &str) {
    let path = portal.file("ptportal.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

fn log_of(portal: &Instance, name: &str) -> String {
    std::fs::read_to_string(portal.file(name)).unwrap_or_default()
}

#[test]
fn limits_and_level_follow_at_once_the_rest_at_the_next_start_and_nonsense_never() {
    let portal = Setup::new()
        .without_scanner()
        .set("log", "level", "\"info\"")
        .set("limits", "max_file_size", "\"10MiB\"")
        .start("hangup");
    std::fs::write(portal.file("a.bin"), noise(3_000_000, 1)).unwrap();
    portal.sftp(&format!("put a.bin {IN}/vorher.bin\n")).well();
    change(&portal, "max_file_size = \"10MiB\"", "max_file_size = \"2MiB\"");
    change(&portal, "level = \"info\"", "level = \"debug\"");
    change(&portal, "delivery_delay = \"200ms\"", "delivery_delay = \"300ms\"");
    hang_up(&portal);
    eventually("it is told", || log_of(&portal, "server.log").contains("settings read again"));
    let log = log_of(&portal, "server.log");
    assert!(log.contains("changed=\"limits.max_file_size log.level\""), "{log}");
    let later = "take effect at the next start settings=\"hotfolder.delivery_delay\"";
    assert!(log.contains(later), "{log}");
    assert!(!log.contains("DEBUG"), "{log}");
    let said = portal.sftp(&format!("put a.bin {IN}/nachher.bin\n")).badly();
    assert!(said.err.contains("2 MiB") || said.err.contains("2097152"), "{}", said.err);
    assert!(log_of(&portal, "server.log").contains("DEBUG"));
    // A setting that is refused leaves everything as it was, and the server running.
    change(&portal, "max_file_size = \"2MiB\"", "max_file_size = \"viel\"");
    hang_up(&portal);
    let refused = "the settings are refused, the earlier ones stay";
    eventually("it is refused", || log_of(&portal, "server.log").contains(refused));
    let log = log_of(&portal, "server.log");
    assert!(log.contains("limits.max_file_size") && log.contains("ptportal.toml:"), "{log}");
    portal.sftp(&format!("put a.bin {IN}/immer-noch.bin\n")).badly();
}

#[test]
fn a_log_that_is_rotated_under_load_loses_no_line() {
    let portal = Setup::new().without_scanner().start("rotate");
    std::fs::write(portal.file("a.bin"), noise(20_000, 1)).unwrap();
    let rule = format!(
        "{log} {{\n rotate 100\n missingok\n nocompress\n su root root\n postrotate\n  kill -HUP {pid}\n endscript\n}}\n",
        log = portal.file("server.log").display(),
        pid = portal.server_id()
    );
    std::fs::write(portal.file("rotate.conf"), rule).unwrap();
    let rotate = || {
        let mut command = Command::new("/usr/sbin/logrotate");
        command
            .arg("-f")
            .arg("-s")
            .arg(portal.file("rotate.state"))
            .arg(portal.file("rotate.conf"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for n in 0..10 {
                let batch: String =
                    (0..10).map(|m| format!("put a.bin {IN}/{n}-{m}.bin\n")).collect();
                portal.sftp(&batch).well();
            }
        });
        while !sender.is_finished() {
            rotate();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    rotate();
    eventually("the new file is written", || !log_of(&portal, "server.log").is_empty());
    let names: Vec<_> = std::fs::read_dir(portal.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("server.log"))
        .collect();
    assert!(names.len() > 4, "{names:?}");
    let all: String = names.iter().map(|name| log_of(&portal, name)).collect();
    let released = all.lines().filter(|line| line.contains("upload.released")).count();
    assert_eq!(released, 100, "in {names:?}");
}
