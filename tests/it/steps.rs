//! The process ends at each named step, or panics there: nothing is lost, nothing comes twice, nobody else notices.

use serde_json::Value;

use crate::support::instance::{IN, Instance, PASSWORD, PROJECT, Setup};
use crate::support::orders::order;
use crate::support::{eventually, noise};

const STEP: &str = "PTPORTAL_STEP";
const ABORTED: Option<i32> = Some(6);

/// Puts until the client is told that it went well; every attempt has the same name and content.
fn put_until_well(portal: &Instance, name: &str, content: &[u8]) {
    std::fs::write(portal.file(name), content).unwrap();
    eventually("the upload is taken", || portal.sftp(&format!("put {name} {IN}/{name}\n")).ok);
}

fn is_sound(portal: &Instance) {
    let output = portal.try_cli(&["fsck", "--deep"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success() && report["problems"] == serde_json::json!([]), "{report:#}");
}

#[test]
fn an_end_at_any_step_of_an_upload_loses_nothing_and_doubles_nothing() {
    let mut portal = Setup::new().set("hotfolder", "delivery_delay", "\"0s\"").start("steps");
    let mut sent = Vec::new();
    for step in [
        "upload.synced",
        "upload.sidecar",
        "upload.in-vault",
        "upload.sealed",
        "upload.recorded",
        "scan.begun",
        "release.decided",
        "release.committed",
        "events.handed-on",
        "delivery.begun",
        "delivery.copied",
        "delivery.recorded",
        "delivery.renamed",
        "delivery.placed",
        "delivery.done",
    ] {
        portal.stop();
        portal.set_environment(STEP, &format!("{step}=abort"));
        portal.spawn_server();
        let port = portal.port;
        // Some steps are reached by the start itself.
        eventually("it serves or has ended", || {
            !portal.is_running() || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let name = format!("{step}.bin");
        let content = noise(200_000 + sent.len(), 1 + sent.len() as u64);
        std::fs::write(portal.file(&name), &content).unwrap();
        // The client may be told that it went well, or lose the connection.
        let told = portal.sftp(&format!("put {name} {IN}/{name}\n"));
        assert_eq!(portal.until_ended(), ABORTED, "{step}: {told:?}\n{}", portal.log());
        portal.set_environment(STEP, "");
        portal.serve();
        if !told.ok {
            put_until_well(&portal, &name, &content);
        }
        sent.push((name, content));
        for (name, content) in &sent {
            assert_eq!(&portal.until_delivered(name), content, "{step}");
        }
    }
    eventually("nothing is left to do", || {
        portal.cli(&["delivery", "list", "--state", "pending"]) == serde_json::json!([])
    });
    let found = portal.hotfolder_files();
    assert_eq!(found.len(), sent.len(), "each once: {found:#?}");
    is_sound(&portal);
}

#[test]
fn a_consumer_that_takes_files_at_once_gets_each_once_whatever_step_the_mirror_ends_at() {
    let mut portal = Setup::new().set("hotfolder", "delivery_delay", "\"0s\"").start("stepstaken");
    let taken = portal.file("taken");
    std::fs::create_dir(&taken).unwrap();
    let take = |portal: &Instance| {
        for path in portal.hotfolder_files() {
            let name = path.file_name().unwrap().to_owned();
            assert!(!taken.join(&name).exists(), "{name:?} came twice");
            std::fs::rename(&path, taken.join(name)).unwrap();
        }
    };
    let steps = ["delivery.recorded", "delivery.renamed", "delivery.placed", "delivery.done"];
    for step in steps {
        portal.stop();
        portal.set_environment(STEP, &format!("{step}=abort"));
        portal.serve();
        let name = format!("{step}.bin");
        std::fs::write(portal.file(&name), step).unwrap();
        portal.sftp(&format!("put {name} {IN}/{name}\n"));
        assert_eq!(portal.until_ended(), ABORTED, "{step}");
        take(&portal);
        portal.set_environment(STEP, "");
        portal.serve();
        eventually("it is taken", || {
            take(&portal);
            taken.join(&name).exists()
        });
        eventually("it is done", || portal.upload(&name)["delivered"] != Value::Null);
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    take(&portal);
    assert_eq!(std::fs::read_dir(&taken).unwrap().count(), steps.len());
}

#[test]
fn an_order_that_the_process_ends_in_is_there_as_a_whole_or_not_at_all() {
    let mut portal = Setup::new().without_scanner().start("stepsorder");
    let token = portal.token("mis");
    let order = order("1001", "2026-0900", &["T1", "T2"]);
    for step in ["order.decided", "order.committed"] {
        portal.stop();
        portal.set_environment(STEP, &format!("{step}=abort"));
        portal.serve();
        let url = format!("http://127.0.0.1:{}/api/v1/projects", portal.api_port);
        let output = std::process::Command::new("curl")
            .args(["-sS", "-X", "POST", "-H", &format!("Authorization: Bearer {token}")])
            .args(["-H", "Content-Type: application/json", "-d", &order.to_string(), &url])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert_eq!(portal.until_ended(), ABORTED, "{step}");
        portal.set_environment(STEP, "");
        portal.serve();
        let projects = portal.cli(&["project", "list"]);
        let is_there = projects.as_array().unwrap().iter().any(|p| p["project_no"] == "2026-0900");
        assert_eq!(is_there, step == "order.committed");
    }
    // PTworkflow got no answer and says it again.
    portal.api(&token, "POST", "/projects", Some(&order)).is(200);
    let tickets = portal.cli(&["ticket", "list", "2026-0900"]);
    assert_eq!(tickets.as_array().unwrap().len(), 2);
    let mails = portal.cli(&["mail", "list"]);
    assert!(mails.as_array().unwrap().len() <= 1, "{mails:#}");
}

#[test]
fn a_panic_costs_one_connection_and_is_counted() {
    let panics = |portal: &Instance| {
        let url = format!("http://127.0.0.1:{}/metrics", portal.admin_port);
        let text = crate::support::http::curl(&[&url]).is(200).body;
        let line = text.lines().find(|line| line.starts_with("ptportal_panics_total")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    for (step, number) in [
        ("sftp.request=panic@12", 1),
        ("ftps.command=panic", 1),
        ("web.request=panic", 1),
        ("scan.begun=panic", 1),
        ("delivery.begun=panic", 1),
        ("upload.sealed=panic", 1),
        ("events.handed-on=panic", 1),
    ] {
        let portal = Setup::new().environment(STEP, step).start("panic");
        portal.set_password(PASSWORD);
        let content = noise(1_500_000, 3);
        std::fs::write(portal.file("lange.bin"), &content).unwrap();
        std::fs::write(portal.file("kurz.bin"), b"short").unwrap();
        std::thread::scope(|scope| {
            let long = scope.spawn(|| {
                let slow = ["-l", "4000"];
                portal.sftp_with(&slow, &format!("put lange.bin {IN}/lange.bin\n"))
            });
            std::thread::sleep(std::time::Duration::from_millis(700));
            // One of these meets the bug, or a worker does behind them.
            portal.sftp(&format!("put kurz.bin {IN}/kurz.bin\n"));
            portal.curl_ftps(&format!("{IN}/"), &[]);
            let web = format!("http://localhost:{}/", portal.web_port);
            std::process::Command::new("curl")
                .args(["-sS", "-o", "/dev/null", &web])
                .output()
                .unwrap();
            let long = long.join().unwrap();
            assert!(long.ok || step.starts_with("sftp"), "{step}: {long:?}");
        });
        put_until_well(&portal, "lange.bin", &content);
        put_until_well(&portal, "kurz.bin", b"short");
        assert_eq!(portal.until_delivered("lange.bin"), content, "{step}");
        assert_eq!(portal.until_delivered("kurz.bin"), b"short", "{step}");
        assert_eq!(panics(&portal), number, "{step}");
        assert!(portal.log().contains("a bug of ptportal ended one task"), "{}", portal.log());
        portal.curl_ftps(&format!("{IN}/"), &[]).well();
        portal.page("/", &[]).is(200);
        portal.cli(&["ticket", "add", PROJECT, "T-9"]);
    }
}
