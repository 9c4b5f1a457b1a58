//! What is shipped beside the program: the unit and its sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use crate::support::eventually;
use crate::support::instance::{BINARY, IN, PASSWORD, Setup};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/ptportal.service");

#[test]
fn the_unit_is_a_tight_sandbox() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=25", UNIT]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "more exposed than 2.5: {said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

/// System calls by the name of their group, groups in groups resolved.
fn groups() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["syscall-filter", "--no-pager"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut group = String::new();
    for line in text.lines() {
        let word = line.trim();
        if line.starts_with('@') {
            word.clone_into(&mut group);
        } else if line.starts_with("    ") && !word.starts_with('#') {
            found.entry(group.clone()).or_default().insert(word.to_owned());
        }
    }
    while let Some((group, inner)) = found.iter().find_map(|(group, calls)| {
        calls.iter().find(|call| call.starts_with('@')).map(|inner| (group.clone(), inner.clone()))
    }) {
        let calls = found.get(&inner).cloned().unwrap_or_default();
        let outer = found.get_mut(&group).unwrap();
        outer.remove(&inner);
        outer.extend(calls);
    }
    found
}

/// What the unit's `SystemCallFilter=` lines leave.
fn allowed() -> BTreeSet<String> {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let groups = groups();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (is_denied, names) =
            line.strip_prefix('~').map_or((false, line), |names| (true, names));
        for name in names.split_whitespace() {
            let calls = groups.get(name).unwrap_or_else(|| panic!("no group {name}"));
            if is_denied {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls.iter().cloned());
            }
        }
    }
    allowed
}

#[test]
fn the_unit_allows_every_system_call_of_a_whole_day() {
    let mut portal = Setup::new().start("syscalls");
    portal.stop();
    portal.set_password(PASSWORD);
    crate::hooks::hook(
        &portal,
        "upload.delivered",
        "10-look",
        "#!/bin/sh\ncat > \"$PTPORTAL_HOOKS_DIR/seen\"\n",
    );
    let calls = portal.file("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c", "-U", "name", "-o"]).arg(&calls).arg(BINARY);
    command.arg("--config").arg(portal.file("ptportal.toml")).arg("serve");
    command.current_dir(portal.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let port = portal.port;
    eventually("it serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    std::fs::write(portal.file("a.pdf"), b"%PDF a day").unwrap();
    portal
        .sftp(&format!("put a.pdf {IN}/a.pdf\nrename {IN}/a.pdf {IN}/b.pdf\nget {IN}/b.pdf back\n"))
        .well();
    portal.curl_ftps(&format!("{IN}/c.pdf"), &["-T", "a.pdf"]).well();
    portal.curl_ftps(&format!("{IN}/c.pdf"), &["-o", "again"]).well();
    portal.until_delivered("c.pdf");
    portal.page("/", &[]).is(200);
    portal.cli(&["account", "link", "acme"]);
    let seen = portal.file("hooks/seen");
    eventually("the hook runs", || seen.exists());
    let pid = server.id().to_string();
    // strace hands it on and ends with the server.
    let mut pgrep = Command::new("pgrep");
    let children = pgrep.args(["-P", &pid]).output().unwrap();
    let child = String::from_utf8_lossy(&children.stdout).trim().to_owned();
    assert!(Command::new("kill").args(["-TERM", &child]).status().unwrap().success());
    server.wait().unwrap();
    let made = std::fs::read_to_string(&calls).unwrap();
    let made: BTreeSet<&str> = made
        .lines()
        .map(str::trim)
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(made.contains("openat") && made.len() > 50, "{made:?}");
    let allowed = allowed();
    let refused: Vec<_> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    // The first and last line; SQLite's fchown as root, which the service is not; and its own wish for more descriptors,
    // which may fail where LimitNOFILE= gives them.
    let passed = ["syscall", "total", "fchown", "setrlimit"];
    assert!(refused.iter().all(|call| passed.contains(call)), "{refused:?}");
}
