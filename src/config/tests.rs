//! The promises of spec section 4, checked through the outermost door without a file.

mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::interpret;
use super::{
    ClamdAddress, ConfigError, Loaded, LogFormat, OnConflict, OnEncrypted, OnOversize, Patience,
    Source, Transport, load,
};
use crate::domain::account::Language;

const FILE: &str = "/etc/shop/ptportal.toml";

fn read(toml: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let environment = environment.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    interpret(Some((PathBuf::from(FILE), toml.into())), Path::new("/srv"), environment)
}

#[track_caller]
fn accepted(toml: &str) -> Loaded {
    read(toml, &[]).expect("an accepted configuration")
}

#[track_caller]
fn check_error(toml: &str, expect: &[&str]) {
    check_refused(&read(toml, &[]), expect);
}

#[track_caller]
fn check_variable(name: &str, text: &str, expect: &[&str]) {
    check_refused(&read("", &[(name, text)]), expect);
}

#[track_caller]
fn check_refused(result: &Result<Loaded, ConfigError>, expect: &[&str]) {
    let message = result.as_ref().expect_err("a refusal").to_string();
    for part in expect {
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[track_caller]
fn origin(loaded: &Loaded, key: &str) -> (String, String) {
    let origin = loaded.origins.iter().find(|origin| origin.key == key).expect("an origin");
    (origin.value.clone(), origin.source.describe(loaded.file.as_deref()))
}

fn pair(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

#[test]
fn defaults_are_those_of_the_specification() {
    let loaded = interpret(None, Path::new("/srv"), Vec::new()).unwrap();
    let config = loaded.config;
    assert_eq!(loaded.file, None);
    assert!(loaded.origins.iter().all(|origin| origin.source == Source::Default));
    assert!(config.language == Language::De);
    assert_eq!(config.data_dir, Path::new("/srv/data"));
    assert_eq!(config.database.url, "");
    assert_eq!(config.sftp.listen, ["[::]:2022".parse().unwrap()]);
    assert!(!config.sftp.legacy_algorithms);
    assert_eq!(config.sftp.host_key_dir, Path::new("/srv/certs"));
    let scan = config.scan;
    assert_eq!(scan.clamd, [ClamdAddress::Unix(PathBuf::from("/run/clamav/clamd.ctl"))]);
    assert_eq!(scan.transport, Transport::Auto);
    assert_eq!(scan.window, 16_777_216);
    assert!(!scan.accept_unscanned && scan.quarantine);
    assert!(scan.hold_signatures[0].matches("PUA.Doc.Packed"));
    assert!(scan.hold_signatures[1].matches("Heuristics.Phishing"));
    assert_eq!(scan.answer_within, Patience::For(Duration::from_secs(12)));
    assert_eq!((scan.on_oversize, scan.on_encrypted), (OnOversize::Hold, OnEncrypted::Release));
    assert_eq!(scan.pending_max, 53_687_091_200);
    let hotfolder = config.hotfolder;
    assert_eq!(hotfolder.root, Some(PathBuf::from("/srv/hotfolder")));
    assert_eq!(hotfolder.layout, "{client_no}/{project_no}/{folder}");
    assert_eq!(hotfolder.on_conflict, OnConflict::KeepBoth);
    assert_eq!(hotfolder.delivery_delay, Duration::from_secs(2));
    assert!(!hotfolder.rename_follows && !hotfolder.ticket_folders && !hotfolder.deliver_repeats);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!((config.log.level.as_str(), config.log.file), ("info", None));
}

#[test]
fn defaults_of_portal_and_limits_are_those_of_the_specification() {
    let config = accepted("").config;
    let portal = config.portal;
    assert_eq!(portal.folders, ["Eingehend", "In Bearbeitung", "Final"]);
    assert_eq!(portal.project_folder, "{project_no}");
    assert_eq!(portal.incomplete_ttl, Duration::from_secs(72 * 3600));
    let is_temporary = |name| portal.temporary_names.iter().any(|pattern| pattern.matches(name));
    assert!(is_temporary("a.pdf.filepart") && is_temporary(".in.a.pdf."));
    assert!(is_temporary("a.pdf-0123abcd-1111-2222-3333-444455556666"));
    assert!(!is_temporary("a.pdf") && !is_temporary("order-2026-08-15-1.pdf"));
    let limits = config.limits;
    assert_eq!((limits.connections, limits.connections_per_ip), (1000, 50));
    assert_eq!((limits.sessions_per_account, limits.unauthenticated), (20, 100));
    assert_eq!(limits.login_grace, Duration::from_secs(30));
    assert_eq!(limits.idle_timeout, Duration::from_secs(600));
    assert_eq!((limits.max_file_size, limits.min_free), (50 << 30, 5 << 30));
    assert_eq!(limits.ban_after, 10);
    assert_eq!((limits.ban_window.as_secs(), limits.ban_time.as_secs()), (600, 1800));
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = accepted("data_dir = \"d\"\n[scan]\nclamd = \"unix:c.ctl\"").config;
    assert_eq!(config.data_dir, Path::new("/etc/shop/d"));
    assert_eq!(config.scan.clamd, [ClamdAddress::Unix(PathBuf::from("/etc/shop/c.ctl"))]);
    assert_eq!(accepted("data_dir = \"/var/p\"").config.data_dir, Path::new("/var/p"));
    let loaded = read("", &[("PTPORTAL_LOG__FILE", "log/p.log")]).unwrap();
    assert_eq!(loaded.config.log.file, Some(PathBuf::from("/etc/shop/log/p.log")));
    assert_eq!(accepted("[hotfolder]\nroot = \"\"").config.hotfolder.root, None);
}

#[test]
fn every_value_tells_where_it_comes_from() {
    let toml = "# shop\nlanguage = \"en\"\n[scan]\n\nwindow = 2097152\nhold_signatures = [ 'A.*', \"B\" ]\n";
    let loaded = read(toml, &[("PTPORTAL_LOG__LEVEL", "debug")]).unwrap();
    assert!(loaded.config.language == Language::En);
    assert_eq!(loaded.config.scan.window, 2 << 20);
    assert_eq!(origin(&loaded, "language"), pair("\"en\"", "ptportal.toml:2"));
    assert_eq!(origin(&loaded, "scan.window"), pair("2097152", "ptportal.toml:5"));
    assert_eq!(
        origin(&loaded, "scan.hold_signatures"),
        pair("[\"A.*\", \"B\"]", "ptportal.toml:6")
    );
    assert_eq!(origin(&loaded, "log.level"), pair("\"debug\"", "PTPORTAL_LOG__LEVEL"));
    assert_eq!(origin(&loaded, "limits.connections"), pair("1000", "default"));
}

#[test]
fn the_environment_overrides_the_file() {
    let toml = "language = \"de\"\n[limits]\nconnections = 5\n[sftp]\nlisten = []";
    let environment = [
        ("PTPORTAL_LANGUAGE", "en"),
        ("PTPORTAL_LIMITS__CONNECTIONS", "7"),
        ("PTPORTAL_SFTP__LISTEN", "[::]:22, 127.0.0.1:23"),
        ("PTPORTAL_SFTP__LEGACY_ALGORITHMS", "true"),
        ("PTPORTAL_SCAN__WINDOW", "4MiB"),
        ("PTPORTAL_SCAN__HOLD_SIGNATURES", ""),
        ("PTPORTAL_PORTAL__FOLDERS", "[\"In, jetzt\", 'Aus']"),
    ];
    let config = read(toml, &environment).unwrap().config;
    assert!(config.language == Language::En && config.sftp.legacy_algorithms);
    assert_eq!(config.limits.connections, 7);
    assert_eq!(config.sftp.listen.len(), 2);
    assert_eq!(config.sftp.listen[1].port(), 23);
    assert_eq!(config.scan.window, 4 << 20);
    assert!(config.scan.hold_signatures.is_empty());
    assert_eq!(config.portal.folders, ["In, jetzt", "Aus"]);
}

#[test]
fn variables_that_are_not_ours_are_passed_over() {
    let names = ["PTPORTAL_CONFIG", "PTPORTAL_TEST_SQL__URL", "PTPORTAL_EVENT", "PATH__X"];
    for name in names {
        assert!(read("", &[(name, "x")]).is_ok(), "{name}");
    }
}

#[test]
fn unknown_variables_are_refused() {
    check_variable(
        "PTPORTAL_SCAN__WINDOWS",
        "1",
        &["PTPORTAL_SCAN__WINDOWS: ", "unknown key; did you mean PTPORTAL_SCAN__WINDOW?"],
    );
    check_variable("PTPORTAL_SCAN_WINDOW", "1", &["write PTPORTAL_SCAN__WINDOW"]);
    check_variable("PTPORTAL_scan__window", "1", &["write PTPORTAL_SCAN__WINDOW"]);
    check_variable("PTPORTAL_DATADIR", "1", &["did you mean PTPORTAL_DATA_DIR?"]);
    check_variable("PTPORTAL_COFFEE__STRENGTH", "1", &["unknown key; remove the variable"]);
    check_variable("PTPORTAL_WEB__LISTEN", "[::]:80", &["set web.tls = true"]);
    assert!(read("", &[("PTPORTAL_WEB__LISTEN", "[]")]).is_ok());
}

#[test]
fn values_of_variables_are_checked() {
    check_variable(
        "PTPORTAL_SCAN__WINDOW",
        "big",
        &["PTPORTAL_SCAN__WINDOW: scan.window: \"big\" is not a size"],
    );
    check_variable("PTPORTAL_LIMITS__CONNECTIONS", "many", &["is not a whole number", "1000"]);
    check_variable("PTPORTAL_SCAN__QUARANTINE", "yes", &["\"yes\" is neither true nor false"]);
    check_variable("PTPORTAL_SFTP__LISTEN", "[\"[::]:22\"", &["is not a TOML list"]);
    check_variable("PTPORTAL_SFTP__LISTEN", "[\"[::]:22\"] x", &["is not a TOML list"]);
    check_variable("PTPORTAL_PORTAL__FOLDERS", "a,,b", &["\"\" is not a folder's name"]);
}

#[test]
fn unknown_keys_are_refused() {
    check_error("x = 1", &["/etc/shop/ptportal.toml:1: x: unknown key; remove it"]);
    check_error(
        "[scan]\nwindw = 1",
        &["ptportal.toml:2: scan.windw: ", "did you mean scan.window?"],
    );
    check_error("[sftp]\nmax_file_size = 1", &["did you mean limits.max_file_size?"]);
    check_error("\n\"scan.window\" = 1", &["ptportal.toml:2: ", "did you mean scan.window?"]);
    check_error("[coffee]", &["ptportal.toml:1: coffee: unknown key"]);
    check_error("scan = 5", &["is a section; write [scan]"]);
    check_error("zzz = 1\naaa = 1", &["ptportal.toml:1: zzz"]);
    check_error("[data_dir]", &["data_dir: must be a string, as in \"data\", not a table"]);
    assert!(read("[scan]\n[log]", &[]).is_ok());
}

#[test]
fn sections_of_the_workflow_are_checked() {
    let hooked = |rest: &str| {
        format!(
            "[[webhook]]\nurl = \"https://a.example/in\"\nevents = [\"upload.delivered\"]\n{rest}"
        )
    };
    let one = read(&hooked("secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\""), &[]).unwrap();
    assert_eq!(one.config.webhooks.len(), 1);
    assert_eq!(one.config.webhooks[0].secret.len(), 24);
    assert!(one.origins.iter().all(|origin| !origin.value.contains("MfKQ9")), "secrets are masked");
    let secret = [("PTPORTAL_WEBHOOK__0__SECRET", "not base64, but long enough")];
    assert_eq!(read(&hooked(""), &secret).unwrap().config.webhooks[0].secret.len(), 27);
    check_error(&hooked(""), &["webhook[0].secret", "too short", "openssl"]);
    check_error(&hooked("secret = \"whsec_%\""), &["ptportal.toml:4: webhook[0].secret", "base64"]);
    check_error(&hooked("color = 1"), &["webhook[0].color", "url, events, secret"]);
    check_error("[webhook]\nurl = \"x\"", &["write [[webhook]]"]);
    check_error("webhook = 1", &["write [[webhook]]"]);
    check_error("[[webhook]]\nevents = [\"upload.sent\"]", &["upload.sent", "upload.delivered"]);
    check_error("[[webhook]]\nurl = \"https://a.example\"", &["names no event"]);
    for url in ["ftp://a", "https://", "https://u:p@a.example", "https://a b"] {
        let text = format!("[[webhook]]\nevents = [\"upload.delivered\"]\nurl = \"{url}\"");
        check_error(&text, &["webhook[0].url", "https://host/path"]);
    }
    check_error("[hotfolder]\npublish = [\"Eingehend\"]", &["hotfolder.publish", "takes uploads"]);
    check_error("[hotfolder]\npublish = [\"Proofs\"]", &["not one of portal.folders"]);
    let flat = "[hotfolder]\nlayout = \"{client_no}/{folder}\"\n";
    assert!(read(flat, &[]).unwrap().config.hotfolder.publish.is_empty());
    check_error(&format!("{flat}publish = [\"Final\"]"), &["{project_no} and {folder}"]);
    let own = read("[portal]\nfolders = [\"Daten\", \"Korrektur\"]", &[]).unwrap();
    assert_eq!(own.config.hotfolder.publish, ["Korrektur"]);
    assert!(read("[hotfolder]\npublish = []", &[]).unwrap().config.hotfolder.publish.is_empty());
    check_error("[jobticket]\nformat = \"jdf\"", &["off, xml, xjdf"]);
    check_error("[jobticket]\nname = \"ticket.xml\"", &["{stem}.xml or {name}.xml"]);
    check_error("[mail]\noperators = [\"Vorstufe\"]", &["mail.operators", "is not an address"]);
    check_error("[retention]\nevents = \"sometimes\"", &["is not a duration"]);
    check_error("[batch]\nquiet = \"0\"", &["longer than zero"]);
    check_error("[hooks]\ntimeout = \"0s\"", &["longer than zero"]);
}

#[test]
fn services_that_strangers_reach_need_to_be_meant() {
    check_error("[web]\nlisten = [\"[::]:8080\"]", &["passwords in clear", "web.tls = true"]);
    check_error("[web]\nbase_url = \"portal\"", &["ptportal.toml:2: web.base_url", "https://"]);
    check_error("[web]\ntrusted_proxies = [\"lan\"]", &["web.trusted_proxies", "192.0.2.0/24"]);
    check_error("[api]\nlisten = [\"192.0.2.1:80\"]\ntls = true", &["api.public = true"]);
    let open = "[web]\nlisten = [\"[::]:443\"]\ntls = true\n[api]\nlisten = [\"[::]:444\"]\ntls = true\npublic = true";
    assert!(read(open, &[]).is_ok());
    check_error("[admin]\nlisten = [\"0.0.0.0:9090\"]", &["could be reached by strangers"]);
    let off = "[ftps]\nlisten = []\nimplicit_listen = []\n[web]\nlisten = []\n[api]\nlisten = []";
    assert!(read(off, &[]).is_ok());
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    check_error("language = 5", &["must be a string, as in \"de\", not 5"]);
    check_error(
        "[sftp]\nlisten = \"[::]:22\"",
        &["a list, as in [\"[::]:2022\"], not \"[::]:22\""],
    );
    check_error("[sftp]\nlisten = [22]", &["each entry of the list must be a string, not 22"]);
    check_error("[scan]\nquarantine = \"yes\"", &["must be true or false", "not \"yes\""]);
    check_error("[scan]\nwindow = true", &["as in \"16MiB\", not true"]);
    check_error("[limits]\nconnections = 1.5", &["a number with a fraction"]);
    check_error("[limits]\nconnections = 99999999999999999999", &["a number out of range"]);
    check_error("[limits]\nlogin_grace = 30", &["must be a string, as in \"30s\", not 30"]);
    check_error("language = 2026-08-15", &["a date or time"]);
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    check_error("a = 1\nb = = 2", &["/etc/shop/ptportal.toml:2: is not valid TOML: "]);
    check_error("\n[scan\n", &["ptportal.toml:2: "]);
    check_error("a = 1\na = 2", &["ptportal.toml:2: ", "duplicate"]);
    let latin = interpret(
        Some((PathBuf::from(FILE), b"# ok\n# M\xfcller".to_vec())),
        Path::new("/srv"),
        Vec::new(),
    );
    check_refused(&latin, &["ptportal.toml:2: is not UTF-8"]);
}

#[test]
fn the_file_is_looked_for_in_the_working_folder_first() {
    let dir = std::env::temp_dir().join(format!("ptportal-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("ptportal.toml"), "language = \"en\"").unwrap();
    std::fs::write(dir.join("other.toml"), "data_dir = \"x\"").unwrap();
    let none = || std::iter::empty::<(String, String)>();
    let found = load(None, &dir, none());
    let explicit = load(Some(Path::new("other.toml")), &dir, none());
    let missing = load(Some(Path::new("absent.toml")), &dir, none());
    let unreadable = load(Some(Path::new(".")), &dir, none());
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(found.unwrap().file, Some(dir.join("ptportal.toml")));
    assert_eq!(explicit.unwrap().config.data_dir, dir.join("x"));
    check_refused(&missing, &["absent.toml: there is no such file"]);
    check_refused(&unreadable, &["cannot be read"]);
}
