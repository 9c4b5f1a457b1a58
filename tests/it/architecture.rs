//! The layers of shared design: imports go down only, and each outside thing has one adapter.

use std::path::{Path, PathBuf};

const LAYERS: [(&str, &[&str]); 4] = [
    ("domain", &["domain"]),
    (
        "adapter",
        &[
            "store",
            "vault",
            "clamd",
            "hotfolder",
            "certificate",
            "mailer",
            "template",
            "process",
            "webhook",
            "remote",
        ],
    ),
    ("app", &["app"]),
    (
        "front",
        &["sftp", "ftps", "web", "api", "http", "tls", "admin", "cli", "guard", "listen", "serve"],
    ),
];

/// Known to everyone: types of the configuration, field names of the log.
const SHARED: [&str; 4] = ["config", "logging", "metering", "steps"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn room(file: &str) -> String {
    file.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
}

fn level(room: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, rooms)| rooms.contains(&room))
}

/// Rooms named by `crate::…` anywhere in a file.
fn imports(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split("};").next().unwrap_or_default();
            rooms.extend(
                list.split(',').map(|item| item.trim().split("::").next().unwrap().to_owned()),
            );
        } else {
            rooms.push(
                rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned(),
            );
        }
    }
    rooms
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for (file, text) in all() {
        let Some(own) = level(&room(&file)) else { continue };
        for imported in imports(&text) {
            let Some(other) = level(&imported) else { continue };
            let is_sibling =
                own == other && own == 1 && imported != room(&file) && imported != "vault";
            if other > own || is_sibling {
                wrong.push(format!("{file} imports {imported}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_has_no_clock_no_io_and_no_randomness() {
    for (file, text) in all().iter().filter(|(file, _)| room(file) == "domain") {
        for word in [
            "std::fs",
            "std::net::Tcp",
            "tokio",
            "async ",
            "SystemTime",
            "Instant",
            "getrandom",
            "sqlx",
        ] {
            assert!(!text.contains(word), "{file} names {word}");
        }
        for shared in SHARED {
            assert!(!text.contains(&format!("crate::{shared}")), "{file} names {shared}");
        }
    }
}

#[test]
fn each_outside_thing_has_one_adapter() {
    let homes = [
        ("sqlx", "store"),
        ("clamav_client", "clamd"),
        ("russh::server", "sftp"),
        ("clap::", "cli"),
        ("lettre", "mailer"),
        ("minijinja", "template"),
        ("html2text", "template"),
    ];
    for (file, text) in all() {
        for (name, home) in homes {
            let named = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(name));
            assert!(!named || room(&file) == home, "{file} names {name}, which belongs to {home}");
        }
    }
}

#[test]
fn the_release_profile_unwinds() {
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let profiles = manifest.lines().skip_while(|line| !line.starts_with("[profile"));
    let aborts = profiles
        .take_while(|line| !line.starts_with("[lints"))
        .any(|line| line.starts_with("panic"));
    assert!(!aborts, "a panic must cost one connection, not the process");
}

#[test]
fn the_tests_that_the_table_of_threats_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("tests/README.md")).unwrap();
    let mut text: String = all().into_iter().map(|(_, text)| text).collect();
    let mut files = Vec::new();
    sources(&root.join("tests/it"), &mut files);
    text.extend(files.into_iter().map(|file| std::fs::read_to_string(file).unwrap()));
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        for name in row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            let function = name.rsplit("::").next().unwrap();
            assert!(text.contains(&format!("fn {function}(")), "{name} is not there: {row}");
            named += 1;
        }
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells[2] != "A" || cells[5].starts_with("held"), "not held: {row}");
    }
    assert!(named > 100, "{named}");
}
