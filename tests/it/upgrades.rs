//! A newer program on the database of an older one: nothing is lost, whenever the process ends on the way.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::store::fresh_postgres;
use crate::support::instance::{IN, Instance, Setup};
use crate::support::{TempDir, eventually, random};

const NEWEST: usize = 4;

fn older_schema(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("/usr/bin/python3");
    command.arg(root.join("tests/faults/older_schema.py")).arg(root.join("migrations"));
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn psql(url: &str, sql: &str) {
    let mut child = Command::new("psql")
        .args(["-q", "-v", "ON_ERROR_STOP=1", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What must be the same before and after.
fn seen(portal: &Instance) -> Vec<serde_json::Value> {
    ["client list", "account list", "project list", "upload list", "delivery list"]
        .map(|command| portal.cli(&command.split(' ').collect::<Vec<_>>()))
        .to_vec()
}

fn has_all(portal: &mut Instance, before: &[serde_json::Value]) {
    for _ in 0..6 {
        portal.spawn_server();
        std::thread::sleep(Duration::from_millis(random() % 120));
        portal.kill();
    }
    portal.serve();
    assert_eq!(seen(portal), before);
    portal.sftp(&format!("get {IN}/alt.pdf got.pdf\nput neu.pdf {IN}/neu.pdf\n")).well();
    assert_eq!(std::fs::read(portal.file("got.pdf")).unwrap(), b"%PDF old");
    assert_eq!(portal.until_delivered("neu.pdf"), b"%PDF new");
    let sound = portal.try_cli(&["fsck", "--deep"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
}

#[test]
fn each_earlier_database_is_brought_up_on_both_engines_through_kills() {
    let mut portal = Setup::new().start("upgrade");
    for (name, content) in [("alt.pdf", "%PDF old"), ("neu.pdf", "%PDF new")] {
        std::fs::write(portal.file(name), content).unwrap();
    }
    portal.sftp(&format!("put alt.pdf {IN}/alt.pdf\n")).well();
    portal.until_delivered("alt.pdf");
    eventually("it is done", || portal.upload("alt.pdf")["delivered"].is_string());
    portal.stop();
    let before = seen(&portal);
    let kept = TempDir::new("upgrade-kept");
    let copy = |from: &Path, to: &Path| {
        std::fs::remove_dir_all(to).ok();
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy(&portal.file("data"), &kept.path().join("data"));
    // A clean end leaves everything in the file itself.
    let (database, present) =
        (portal.file("data/ptportal.db"), kept.path().join("data/ptportal.db"));
    let present = present.to_str().unwrap();
    for version in 1..NEWEST {
        let version = version.to_string();
        for url in [String::new(), fresh_postgres()] {
            std::fs::remove_file(portal.delivered("neu.pdf")).ok();
            copy(&kept.path().join("data"), &portal.file("data"));
            std::fs::remove_file(&database).unwrap();
            if url.is_empty() {
                let older = database.to_str().unwrap();
                older_schema(&[&version, present, "sqlite", older]);
            } else {
                psql(&url, &older_schema(&[&version, present, "postgres"]));
            }
            portal.set_environment("PTPORTAL_DATABASE__URL", &url);
            has_all(&mut portal, &before);
            portal.stop();
        }
    }
}
