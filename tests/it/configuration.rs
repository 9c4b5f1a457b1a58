//! `ptportal.toml` as an operator meets it.

use crate::support::TempDir;
use crate::support::instance::{BINARY, Setup};

#[test]
fn config_show_names_the_source_of_each_value() {
    let portal = Setup::new()
        .without_scanner()
        .environment("PTPORTAL_LIMITS__CONNECTIONS", "77")
        .start("source");
    let rows = portal.cli(&["config", "show"]);
    let row =
        |key: &str| rows.as_array().unwrap().iter().find(|r| r["key"] == key).unwrap().clone();
    assert_eq!(row("limits.connections")["source"], "PTPORTAL_LIMITS__CONNECTIONS");
    assert_eq!(row("limits.connections")["value"], "77");
    assert!(row("scan.clamd")["source"].as_str().unwrap().starts_with("ptportal.toml:"));
    assert_eq!(row("scan.window")["source"], "default");
}

#[test]
fn mistakes_stop_the_start_with_file_line_and_key() {
    let dir = TempDir::new("mistakes");
    let file = dir.path().join("ptportal.toml");
    let check = |text: &str, expect: &str| {
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(BINARY)
            .arg("--config")
            .arg(&file)
            .arg("serve")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("ptportal.toml:2") && error.contains(expect), "{error}");
    };
    check("[scan]\nwindwo = \"16MiB\"\n", "scan.windwo");
    check("[scan]\nwindow = \"16 parsecs\"\n", "scan.window");
    check("[limits]\nconnections = \"many\"\n", "limits.connections");
    check("[web]\nlisten = [\"[::]:8080\"]\n", "would carry passwords in clear");
    check("[hooks]\ntimeout = \"0s\"\n", "longer than zero");
    check("[ftps]\npassive_ports = \"51000-50000\"\n", "ends before it begins");
    check("[scan]\nclamd = \"off\"\n", "accept_unscanned");
}
