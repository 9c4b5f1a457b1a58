//! The commands of spec section 3: their words, their exit status, their JSON.

use std::process::Command;

use crate::support::instance::{IN, Instance, PASSWORD, Setup, USER};
use crate::support::{TempDir, eventually};

#[test]
fn refusals_are_one_clear_line_and_exit_1_and_wrong_usage_exits_2() {
    let portal = Setup::new().without_scanner().start("refusals");
    let check = |arguments: &[&str], code: i32, expect: &str| {
        let output = portal.try_cli(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(expect), "{arguments:?}: {error}");
        if code == 1 {
            assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        }
    };
    check(&["client", "show", "4711"], 1, "there is no client 4711");
    check(&["client", "add", "1001", "--name", "X"], 1, "exists already");
    check(&["client", "add", "9", "--name", "X", "--email", "no"], 1, "is not an e-mail address");
    check(&["client", "add", "", "--name", "X"], 1, "client_no is empty");
    check(&["client", "add", "7"], 1, "needs --name");
    check(&["account", "create", "1001", "--username", "Müller"], 1, "is not a username");
    check(&["account", "create", "1001", "--username", USER], 1, "exists already");
    check(&["account", "set", USER, "quota=5"], 1, "no account setting");
    check(&["account", "set", USER, "upload_rate=5"], 1, "less than 10240 bytes");
    check(&["account", "key", "add", USER, "/nowhere"], 1, "cannot read /nowhere");
    check(&["project", "add", "4711", "1"], 1, "there is no client 4711");
    check(&["project", "add", "1001", "x", "--due", "morgen"], 1, "is not a date");
    check(&["upload", "show", "../../etc"], 1, "there is no upload");
    check(&["upload", "list", "--state", "lost"], 1, "is not a state");
    check(&["events", "--since", "gestern"], 1, "neither YYYY-MM-DD");
    check(&["delivery", "retry", "x"], 1, "no open delivery");
    check(&["ban", "remove", "192.0.2.1"], 1, "is not banned");
    check(&["client", "frobnicate"], 2, "unrecognized subcommand");
    check(&["account", "set", USER, "novalue"], 2, "KEY=VALUE");
    let weak =
        portal.try_cli_with_input(&["account", "password", USER, "--stdin"], "passwort1234\n");
    assert!(String::from_utf8_lossy(&weak.stderr).contains("one of the commonest"));
}

#[test]
fn a_database_that_is_not_the_one_meant_is_told() {
    let dir = TempDir::new("elsewhere");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptportal"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PTPORTAL_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(dir.path()).output().unwrap()
    };
    if std::path::Path::new("/etc/ptportal/ptportal.toml").exists() {
        println!("ptportal is installed here, its settings would be used: not tested");
        return;
    }
    let first = run(&["client", "list"]);
    let told = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(first.status.success() && told.contains("a new, empty database was made"), "{told}");
    assert!(run(&["client", "list"]).stderr.is_empty(), "once is enough");
    std::fs::write(
        dir.path().join("away.toml"),
        "[database]\nurl = \"postgres://portal:geheim@127.0.0.1:1/portal\"\n",
    )
    .unwrap();
    let away = run(&["--config", "away.toml", "client", "list"]);
    let told = String::from_utf8_lossy(&away.stderr).into_owned();
    assert!(!away.status.success() && told.contains("Connection refused"), "{told}");
    assert!(!told.contains("geheim"), "{told}");
}

#[test]
fn rows_have_the_columns_of_spec_section_5() {
    let portal = Setup::new().start("columns");
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let has = |value: &serde_json::Value, names: &str| {
        for name in names.split(", ") {
            assert!(keys(value).contains(&name.to_owned()), "{name} in {value:#}");
        }
    };
    std::fs::write(portal.file("a.pdf"), b"%PDF").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    portal.cli(&[
        "contact",
        "add",
        "1001",
        "--name",
        "Frau M.",
        "--email",
        "m@example.com",
        "--favourite",
    ]);
    let ticket = portal.cli(&["ticket", "add", "2026-0815", "T1", "--due", "2026-12-24"]);
    has(
        &portal.cli(&["client", "show", "1001"]),
        "client_no, name, email, create_hotfolder, hotfolder_delete_in_days, language, created, updated",
    );
    has(&portal.cli(&["contact", "list", "1001"])[0], "client_no, name, email, favourite");
    has(
        &portal.cli(&["account", "show", USER]),
        "client_no, username, status, password_set, activated, checked, activation_time, first_login, last_login, settings",
    );
    let project = portal.cli(&["project", "show", "2026-0815"]);
    has(
        &project,
        "project_no, client_no, job_description, due_date, contact, state, access, folder",
    );
    assert_eq!(project["access"], "ok");
    has(&ticket, "ticket_no, project_no, job_description, due_date");
    let upload = portal.upload("a.pdf");
    has(
        &upload,
        "client_no, username, project_no, ticket_no, path, version, state, size, sha256, declared_size, verdict, signature, reason, scanner, waived_by, protocol, peer, started, completed, released, delivered",
    );
    has(
        &portal.cli(&["delivery", "list"])[0],
        "upload_id, consumer, target, state, attempts, next_try, last_error, placed_name, taken",
    );
    let events = portal.cli(&["events"]);
    has(
        &events[0],
        "seq, kind, time, client_no, username, project_no, upload_id, path, peer, detail",
    );
    let shown = portal.cli(&["upload", "show", upload["id"].as_str().unwrap()]);
    assert_eq!(shown["deliveries"][0]["state"], "done");
    assert_eq!(portal.cli(&["client", "show", "1001"])["create_hotfolder"], true);
}

#[test]
fn access_follows_client_and_account() {
    let portal = Setup::new().without_scanner().start("access");
    portal.cli(&["client", "add", "2", "--name", "Zwei"]);
    assert_eq!(portal.cli(&["project", "add", "2", "P2"])["access"], "not-meant");
    portal.cli(&["client", "set", "2", "--create-hotfolder"]);
    assert_eq!(portal.cli(&["project", "show", "P2"])["access"], "no-access-yet");
    let account = portal.cli(&["account", "create", "2", "--inactive"]);
    assert_eq!(account["username"], "2", "the pattern {{client_no}} names it");
    assert_eq!(portal.cli(&["project", "show", "P2"])["access"], "inactive");
    portal.cli(&["account", "enable", "2"]);
    assert_eq!(portal.cli(&["project", "show", "P2"])["access"], "ok");
    assert_eq!(portal.cli(&["account", "create", "2"])["username"], "2-2");
    portal.cli(&["client", "remove", "2"]);
    let gone = portal.try_cli(&["client", "show", "2"]);
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn a_key_that_is_removed_opens_nothing_any_more() {
    let portal = Setup::new().without_scanner().start("keys");
    let keys = portal.cli(&["account", "key", "list", USER]);
    let fingerprint = keys[0]["fingerprint"].as_str().unwrap();
    assert!(fingerprint.starts_with("SHA256:"));
    portal.sftp("ls\n").well();
    portal.cli(&["account", "key", "remove", USER, fingerprint]);
    portal.sftp("ls\n").badly();
    let rsa = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f"])
        .arg(portal.file("weak"))
        .status();
    if rsa.unwrap().success() {
        let weak = portal.try_cli(&[
            "account",
            "key",
            "add",
            USER,
            portal.file("weak.pub").to_str().unwrap(),
        ]);
        assert!(String::from_utf8_lossy(&weak.stderr).contains("too short"));
    }
}

/// Files of root in the service's folder would be closed to the service.
#[test]
fn root_is_told_to_become_the_owner_of_the_data_folder() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can see this");
        return;
    }
    let mut portal = Setup::new().start("root");
    portal.stop();
    std::os::unix::fs::chown(portal.file("data"), Some(12_345), None).unwrap();
    for command in [&["events"][..], &["check"], &["serve"], &["restore", "none.tar"]] {
        let refused = portal.try_cli(command);
        let told = [refused.stdout, refused.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(!refused.status.success() && told.contains("sudo -u '#12345'"), "{told}");
    }
}

/// The file is PTworkflow's.
#[test]
fn a_mistake_in_client_ini_stops_neither_commands_nor_the_start() {
    let mut portal = Setup::new().start("ini");
    std::fs::write(portal.file("client.ini"), "portal_create_uplogin_automatically=1\n").unwrap();
    portal.cli(&["client", "list"]);
    std::fs::write(portal.file("client.ini"), "portal_create_uplogin_automatically=9\n").unwrap();
    portal.cli(&["client", "list"]);
    eventually("the log tells of it, before any order comes", || {
        portal.log().contains("the changed client.ini cannot be used")
    });
    let checks = portal.try_cli(&["check"]);
    let told = String::from_utf8_lossy(&checks.stdout).into_owned();
    assert!(!checks.status.success(), "{told}");
    assert!(told.contains("client.ini:1"), "{told}");
    assert!(told.contains("\"check\":\"clamd\""), "the other checks are made: {told}");
    portal.stop();
    portal.serve();
    assert!(portal.put("a.pdf", b"%PDF").ok);
    let none = Setup::new().start("ini-none");
    std::fs::write(none.file("client.ini"), "portal_create_uplogin_automatically=9\n").unwrap();
    let refused = none.try_cli(&["client", "list"]);
    assert!(!refused.status.success(), "there was no good one before");
}

#[test]
fn check_and_help_say_what_is_true() {
    let portal = Setup::new().start("check");
    let checks = portal.cli(&["check"]);
    let named = |name: &str| {
        checks.as_array().unwrap().iter().find(|c| c["check"] == name).unwrap().clone()
    };
    assert!(named("clamd")["detail"].as_str().unwrap().contains("transport fildes"), "{checks:#}");
    assert_eq!(named("signatures")["state"], "warning");
    assert!(named("MaxFileSize")["detail"].as_str().unwrap().contains("2 147 483 645"));
    assert_eq!(named("sftp port")["state"], "ok");
    assert!(named("admin port")["detail"].as_str().unwrap().contains("served"), "{checks:#}");
    assert_eq!(named("hotfolder")["state"], "ok");
    let help = portal.try_cli(&["--help"]);
    assert!(help.status.success());
    for word in
        ["serve", "check", "client", "account", "project", "upload", "delivery", "events", "demo"]
    {
        assert!(String::from_utf8_lossy(&help.stdout).contains(word), "{word}");
    }
}

#[test]
fn json_logs_carry_the_same_fields() {
    let portal = Setup::new().set("log", "format", "\"json\"").start("jsonlog");
    std::fs::write(portal.file("a.pdf"), b"%PDF").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    eventually("the delivery is logged", || portal.log().contains("upload.delivered"));
    let text = std::fs::read_to_string(portal.file("server.log")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let released = lines.iter().find(|l| l["event"] == "upload.released").unwrap();
    for field in [
        "client", "account", "project", "upload", "path", "peer", "bytes", "sha256", "verdict",
        "ms",
    ] {
        assert!(released[field].is_string(), "{field} in {released:#}");
    }
}

#[test]
fn numbers_health_and_readiness_are_told() {
    let mut portal = Setup::new().start("metrics");
    portal.set_password(PASSWORD);
    let get = |portal: &Instance, path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", portal.admin_port);
        let said = portal.curl(&["-w", "%{http_code}", &url]).well().out;
        let (text, code) = said.split_at(said.len() - 3);
        (code.to_owned(), text.to_owned())
    };
    std::fs::write(portal.file("a.pdf"), vec![b'x'; 5000]).unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\nget {IN}/a.pdf b.pdf\n")).well();
    portal.curl_ftps(&format!("{IN}/b.pdf"), &["-T", "a.pdf"]).well();
    portal.until_delivered("b.pdf");
    let (code, text) = get(&portal, "/metrics");
    assert_eq!(code, "200");
    for line in [
        "ptportal_events_total{kind=\"upload.released\"} 2",
        "ptportal_bytes_total{direction=\"in\",protocol=\"sftp\"} 5000",
        "ptportal_bytes_total{direction=\"in\",protocol=\"ftps\"} 5000",
        "ptportal_bytes_total{direction=\"out\",protocol=\"sftp\"} 5000",
        "ptportal_scan_seconds_count 2",
        "ptportal_close_to_answer_seconds_count 2",
        "ptportal_deliveries{state=\"stuck\"} 0",
        "ptportal_uploads{state=\"held\"} 0",
        "ptportal_sessions{protocol=\"sftp\"} 0",
        "ptportal_certificate_days_left 36",
        "ptportal_scanner_up 1",
        "ptportal_build_info{version=",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    // The dashboard asks for nothing that is not there.
    let dashboard = include_str!("../../deploy/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = expression.split(|c| !is_part(c));
            for name in words.filter(|word| word.starts_with("ptportal_")) {
                assert!(text.contains(name), "{name} of {} is no metric", panel["title"]);
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked}");
    assert_eq!(get(&portal, "/healthz"), ("200".to_owned(), "ok\n".to_owned()));
    let ready = "data_dir: ok\ndatabase: ok\nclamd: ok\nhotfolder: ok\n";
    assert_eq!(get(&portal, "/readyz"), ("200".to_owned(), ready.to_owned()));
    std::fs::remove_file(portal.file("hotfolder/.ptportal-share-id")).unwrap();
    let (code, text) = get(&portal, "/readyz");
    assert!(code == "503" && text.contains("hotfolder: "), "{text}");
    portal.clamd.as_mut().unwrap().kill();
    portal.sftp(&format!("put a.pdf {IN}/c.pdf\n")).well();
    eventually("clamd is noticed to be away", || {
        get(&portal, "/readyz").1.contains("clamd: the scanner is away")
    });
    assert_eq!(get(&portal, "/").0, "404");
}
