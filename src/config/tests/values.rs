//! What single values mean and which are refused.

use std::time::Duration;

use super::super::{ClamdAddress, Patience};
use super::{accepted, check_error, origin, read};

#[test]
fn sizes_have_binary_units() {
    let check = |text: &str, expect: u64| {
        let config = accepted(&format!("[limits]\nmin_free = {text}")).config;
        assert_eq!(config.limits.min_free, expect, "{text}");
    };
    check("\"256KiB\"", 262_144);
    check("\"16MiB\"", 16 << 20);
    check("\"5GiB\"", 5 << 30);
    check("\"1TiB\"", 1 << 40);
    check("\"4096\"", 4096);
    check("1_000", 1000);
    check("0x10", 16);
    check("0", 0);
    check_error(
        "[scan]\nwindow = \"16 parsecs\"",
        &[
            "/etc/shop/ptportal.toml:2: scan.window: \"16 parsecs\" is not a size; write for example 16MiB",
        ],
    );
    for wrong in ["\"\"", "\"MiB\"", "\"1MB\"", "\"1 MiB\"", "\"1.5GiB\"", "\"-1\"", "-1"] {
        check_error(&format!("[limits]\nmin_free = {wrong}"), &["is not a size"]);
    }
    check_error("[limits]\nmin_free = \"9999999TiB\"", &["is too large"]);
    check_error("[scan]\nwindow = \"1023KiB\"", &["\"1023KiB\" is too small; write at least 1MiB"]);
    check_error("[scan]\nwindow = \"2GiB\"", &["is too large; write at most 1GiB"]);
    check_error("[limits]\nmax_file_size = 0", &["0 is too small; write at least 1"]);
}

#[test]
fn durations_have_units() {
    let check = |text: &str, expect: Duration| {
        let config = accepted(&format!("[hotfolder]\ndelivery_delay = \"{text}\"")).config;
        assert_eq!(config.hotfolder.delivery_delay, expect, "{text}");
    };
    check("500ms", Duration::from_millis(500));
    check("12s", Duration::from_secs(12));
    check("2m", Duration::from_secs(120));
    check("72h", Duration::from_secs(259_200));
    check("30d", Duration::from_secs(2_592_000));
    check("2y", Duration::from_secs(63_072_000));
    check("0", Duration::ZERO);
    check("0s", Duration::ZERO);
    for wrong in ["", "12", "s", "2 m", "1h30m", "-1s", "1.5s", "forever"] {
        let toml = format!("[hotfolder]\ndelivery_delay = \"{wrong}\"");
        check_error(&toml, &["is not a duration; write a number with ms, s, m, h, d or y"]);
    }
    check_error("[hotfolder]\ndelivery_delay = \"200y\"", &["too long"]);
    check_error("[limits]\nidle_timeout = \"0\"", &["must be longer than zero"]);
    let verdict = accepted("[scan]\nanswer_within = \"verdict\"").config.scan.answer_within;
    assert_eq!(verdict, Patience::Verdict);
    check_error("[scan]\nanswer_within = \"soon\"", &["is not a duration", "or \"verdict\""]);
}

#[test]
fn a_scanner_is_switched_off_only_on_purpose() {
    check_error(
        "[scan]\nclamd = \"off\"",
        &["ptportal.toml:2: scan.clamd", "accept_unscanned = true"],
    );
    let off = accepted("[scan]\nclamd = \"off\"\naccept_unscanned = true").config.scan;
    assert_eq!(off.clamd, []);
}

#[test]
fn several_clamds_are_a_list_each_once() {
    let two = [ClamdAddress::Unix("/run/c".into()), ClamdAddress::Tcp("h:3310".to_owned())];
    let list = accepted("[scan]\nclamd = [\"unix:/run/c\", \"tcp:h:3310\"]").config.scan;
    assert_eq!(list.clamd, two);
    let line = accepted("[scan]\nclamd = \"unix:/run/c, tcp:h:3310\"").config.scan;
    assert_eq!(line.clamd, two);
    check_error("[scan]\nclamd = [\"tcp:h:1\", \"tcp:h:1\"]", &["twice"]);
    check_error("[scan]\naccept_unscanned = true\nclamd = [\"off\", \"tcp:h:1\"]", &["alone"]);
    check_error("[scan]\nclamd = []", &["scan.clamd"]);
    check_error("[scan]\nclamd = [1]", &["scan.clamd"]);
    check_error(
        "[scan]\ntransport = \"fildes\"\nclamd = [\"unix:/run/c\", \"tcp:h:1\"]",
        &["scan.transport"],
    );
}

#[test]
fn the_address_of_clamd_is_checked() {
    for host in ["127.0.0.1", "[::1]", "clamd.example.org"] {
        let scan = accepted(&format!("[scan]\nclamd = \"tcp:{host}:3310\"")).config.scan;
        assert_eq!(scan.clamd, [ClamdAddress::Tcp(format!("{host}:3310"))]);
    }
    for wrong in ["", "unix:", "tcp:", "tcp::3310", "tcp:h", "tcp:h:0", "tcp:::1:3310", "/run/c"] {
        check_error(&format!("[scan]\nclamd = \"{wrong}\""), &["is not an address of clamd"]);
    }
    check_error(
        "[scan]\nclamd = \"tcp:h:1\"\ntransport = \"fildes\"",
        &["ptportal.toml:3: scan.transport: \"fildes\" passes descriptors"],
    );
    check_error("[scan]\ntransport = \"tcp\"", &["is not one of auto, fildes, instream"]);
}

#[test]
fn passwords_are_masked() {
    let check = |url: &str, expect: &str| {
        let loaded = accepted(&format!("[database]\nurl = \"{url}\""));
        assert_eq!(origin(&loaded, "database.url").0, format!("\"{expect}\""));
        assert_eq!(loaded.config.database.url, url);
        let debug = format!("{:?}", loaded.config);
        assert!(debug.contains(expect) && !debug.contains("geheim"), "{debug}");
    };
    check("postgres://u:geheim@db/p", "postgres://u:***@db/p");
    check("postgresql://u:geheim@geheim@db:5/p?a=b", "postgresql://u:***@db:5/p?a=b");
    check("postgres://u:ge/geheim@db", "postgres://u:***@db");
    check("postgres://u:a?geheim@db", "postgres://***");
    check("postgres://db/p?a=b&password=geheim", "postgres://db/p?a=b&password=***");
    check("postgres://db/p?password=a@geheim", "postgres://***");
    check("postgres://u@db/p", "postgres://u@db/p");
    let refused = read("[database]\nurl = \"host=db password=geheim\"", &[]).unwrap_err();
    assert!(!refused.to_string().contains("geheim"), "{refused}");
    check_error("[database]\nurl = \"mysql://h\"", &["write postgres://"]);
    check_error("[database]\nurl = \"sqlite:p.db\"", &["ptportal.db in data_dir"]);
}

#[test]
fn a_layout_stays_below_the_root() {
    let layout = |text: &str| format!("[hotfolder]\nlayout = '{text}'");
    for good in ["{client_name}_{ticket_no}/{username}", "in/{folder}", "a..b"] {
        assert_eq!(accepted(&layout(good)).config.hotfolder.layout, good);
    }
    check_error(&layout("{client}/x"), &["{client} is not a placeholder here", "{client_no}"]);
    check_error(&layout("/srv/{folder}"), &["must be a path below hotfolder.root"]);
    check_error(&layout("a\\b"), &["with / between"]);
    for bad in ["..", "a/../b", "./a", "a//b", "a/", ""] {
        check_error(&layout(bad), &["must not contain the folder"]);
    }
    for bad in ["{folder", "folder}", "a}{folder}", "{folder}}"] {
        check_error(&layout(bad), &["brace without its pair"]);
    }
}

#[test]
fn folders_are_unique_names() {
    let folders = |list: &str| format!("[portal]\nfolders = [{list}]");
    check_error(&folders(""), &["name at least the upload folder"]);
    check_error(&folders("\"In\", \"in\""), &["\"in\" is named twice"]);
    check_error(&folders("\"Status.txt\""), &["is the portal's own file"]);
    for bad in ["", ".", "..", "a/b", "a\\u0007"] {
        check_error(&folders(&format!("\"{bad}\"")), &["is not a folder's name"]);
    }
    let decomposed = accepted(&folders("\"U\\u0308bergabe\"")).config.portal.folders;
    assert_eq!(decomposed, ["\u{dc}bergabe"]);
    check_error("[portal]\nproject_folder = \"x\"", &["must contain {project_no}"]);
    check_error("[portal]\nproject_folder = \"a/{project_no}\"", &["must be one name"]);
    check_error("[portal]\nproject_folder = \"{project_no}{folder}\"", &["is not a placeholder"]);
    check_error("[portal]\ntemporary_names = [\"[a\"]", &["\"[a\" is not a pattern"]);
}

#[test]
fn other_values_out_of_range_are_refused() {
    check_error("language = \"fr\"", &["language: \"fr\" is not a language; write de or en"]);
    check_error("data_dir = \"\"", &["is empty; name a path"]);
    check_error("[sftp]\nlisten = [\"localhost:22\"]", &["is not an IP address with a port"]);
    check_error("[limits]\nban_after = 0", &["0 is too small; write at least 1"]);
    check_error("[limits]\nban_after = 4294967296", &["is too large"]);
    check_error("[log]\nlevel = \"loud\"", &["error, warn, info, debug, trace"]);
}

#[test]
fn permissions_are_octal_and_leave_the_owner_in() {
    let modes = accepted("[hotfolder]\nfile_mode = \"0640\"").config.hotfolder.modes;
    assert_eq!((modes.file, modes.folder), (0o640, 0o775));
    for wrong in ["", "0999", "664x", "0064", "7664"] {
        check_error(&format!("[hotfolder]\nfile_mode = \"{wrong}\""), &["write for example 0664"]);
    }
}

#[test]
fn customers_are_told_the_port_that_a_firewall_passes_on() {
    let config = accepted("[sftp]\nlisten = [\"[::]:2022\"]\n[portal]\nsftp_port = 22").config;
    assert_eq!((config.sftp_port(), config.ftps_port()), (Some(22), Some(2121)));
    let off = accepted("[sftp]\nlisten = []\n[portal]\nsftp_port = 22").config;
    assert_eq!(off.sftp_port(), None);
    check_error("[portal]\nsftp_port = 70000", &["is too large"]);
}

#[test]
fn names_of_certificates_are_checked() {
    let acme = accepted("[acme]\ndomains = [\"Portal.Druckerei.de\"]").config.acme;
    assert_eq!(acme.domains, ["portal.druckerei.de"]);
    assert!(!acme.listen.is_empty());
    assert!(accepted("").config.acme.listen.is_empty(), "nothing is opened that nobody asked for");
    for wrong in ["", "localhost", "*.example.de", "a b.de", "-a.de", "https://a.de"] {
        check_error(&format!("[acme]\ndomains = [\"{wrong}\"]"), &["is not a domain"]);
    }
    check_error("[acme]\ndirectory = \"http://ca/dir\"", &["write https://"]);
}
