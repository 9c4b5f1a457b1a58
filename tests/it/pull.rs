//! `ptportal pull`: a portal in a DMZ, and a hotfolder elsewhere. The same promises as push, with either side killed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::instance::{BINARY, IN, Instance, PROJECT, Setup};
use crate::support::{TempDir, eventually, noise, random};

/// The print shop's side.
struct Shop {
    dir: TempDir,
    from: String,
    puller: Option<Child>,
}

impl Shop {
    fn new(portal: &Instance) -> Self {
        let dir = TempDir::new("shop");
        let token = portal.cli(&["token", "create", "pull", "--scope", "pull"]);
        std::fs::write(dir.path().join("token"), token["token"].as_str().unwrap()).unwrap();
        let from = format!("http://127.0.0.1:{}", portal.api_port);
        Self { dir, from, puller: None }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.dir.path()).args([
            "pull",
            "--from",
            &self.from,
            "--token-file",
            "token",
        ]);
        command.args(["--into", "hotfolder", "--every", "1"]);
        command
    }

    fn start(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.file("log")).unwrap();
        self.puller = Some(self.command().stdin(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut puller) = self.puller.take() {
            puller.kill().unwrap();
            puller.wait().unwrap();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn delivered(&self, name: &str) -> PathBuf {
        self.file("hotfolder/1001").join(PROJECT).join("Eingehend").join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    #[track_caller]
    fn until_delivered(&self, name: &str) -> Vec<u8> {
        let path = self.delivered(name);
        eventually(&format!("{name} arrives\n{}", self.log()), || path.exists());
        std::fs::read(path).unwrap()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- puller\n{}", self.log());
        }
        self.kill();
    }
}

fn dmz(setup: Setup, name: &str) -> Instance {
    setup.set("hotfolder", "root", "\"\"").start(name)
}

fn put(portal: &Instance, name: &str, content: &[u8]) {
    std::fs::write(portal.file("a.bin"), content).unwrap();
    portal.sftp(&format!("put a.bin {IN}/{name}\n")).well();
}

#[test]
fn files_and_tickets_are_pulled_and_staffs_files_sent_back() {
    let portal = dmz(Setup::new().set("jobticket", "format", "\"xml\""), "pull");
    let content = noise(5_000_000, 3);
    put(&portal, "Plakat.pdf", &content);
    let mut shop = Shop::new(&portal);
    shop.start();
    assert_eq!(shop.until_delivered("Plakat.pdf"), content);
    let ticket = String::from_utf8(shop.until_delivered("Plakat.xml")).unwrap();
    assert!(
        ticket.contains("<delivered_path>1001/2026-0815/Eingehend/Plakat.pdf</delivered_path>"),
        "{ticket}"
    );
    eventually("both are done", || {
        let all = portal.cli(&["delivery", "list", "--state", "done"]);
        all.as_array().unwrap().len() == 2
    });
    assert_eq!(portal.events("upload.delivered").len(), 1);
    put(&portal, "leer.txt", b"");
    assert_eq!(shop.until_delivered("leer.txt"), b"");
    put(&portal, "Plakat.txt", b"beside it");
    assert_eq!(shop.until_delivered("Plakat.txt"), b"beside it");
    let beside = String::from_utf8(shop.until_delivered("Plakat.txt.xml")).unwrap();
    assert!(beside.contains("/Eingehend/Plakat.txt</delivered_path>"), "{beside}");
    // WinSCP and others rename when they are done.
    put(&portal, "spaet.pdf.filepart", b"renamed");
    portal.until_state("spaet.pdf.filepart", "released");
    portal.sftp(&format!("rename {IN}/spaet.pdf.filepart {IN}/spaet.pdf\n")).well();
    assert_eq!(shop.until_delivered("spaet.pdf"), b"renamed");
    // The other way.
    let folder = shop.file("hotfolder/1001").join(PROJECT).join("Final");
    eventually("the folder for staff is made", || folder.is_dir());
    std::fs::create_dir(folder.join("Ü")).unwrap();
    let proof = noise(3_000_000, 4);
    std::fs::write(folder.join("Ü/korrektur 100%.pdf"), &proof).unwrap();
    let get = || {
        let said = portal.sftp(&format!("get \"/{PROJECT}/Final/Ü/korrektur 100%.pdf\" got.pdf\n"));
        said.ok && std::fs::read(portal.file("got.pdf")).unwrap() == proof
    };
    eventually("the customer sees it", get);
    std::fs::remove_file(folder.join("Ü/korrektur 100%.pdf")).unwrap();
    eventually("and no longer", || {
        !portal.sftp(&format!("ls \"/{PROJECT}/Final/Ü\"\n")).ok
            && portal.events("file.withdrawn").len() == 1
    });
    // What consumers take is told as well.
    std::fs::remove_file(shop.delivered("Plakat.pdf")).unwrap();
    eventually("it is noticed", || portal.events("delivery.taken").len() == 1);
}

#[test]
fn a_pull_needs_its_own_token_its_own_share_and_a_portal_that_does_not_push() {
    let portal = dmz(Setup::new().without_scanner(), "pullrules");
    let mut shop = Shop::new(&portal);
    let orders = portal.token("orders");
    portal.api(&orders, "POST", "/deliveries/claim", Some(&json!({}))).is(403);
    let pull = std::fs::read_to_string(shop.file("token")).unwrap();
    portal.api(&pull, "GET", "/projects", None).is(403);
    portal.api(&pull, "POST", "/deliveries/claim", Some(&json!({"limit": 5}))).is(200);
    portal.api(&pull, "POST", "/deliveries/claim", Some(&json!({"all": true}))).is(422);
    portal.api(&pull, "GET", "/uploads/00000000000000000000000000/content", None).is(404);
    portal
        .api(
            &pull,
            "POST",
            "/deliveries/none/done",
            Some(&json!({"lease": "x", "placed_name": "y"})),
        )
        .is(404);
    // A share that was emptied, or is not mounted, is not filled.
    put(&portal, "a.pdf", b"a");
    shop.start();
    shop.until_delivered("a.pdf");
    shop.kill();
    std::fs::remove_dir_all(shop.file("hotfolder")).unwrap();
    std::fs::create_dir(shop.file("hotfolder")).unwrap();
    put(&portal, "b.pdf", b"b");
    std::thread::sleep(Duration::from_secs(1));
    let output = shop.command().arg("--once").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("marker"), "{output:?}");
    assert_eq!(
        std::fs::read_dir(shop.file("hotfolder"))
            .unwrap()
            .filter(|e| !e.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'))
            .count(),
        0
    );
    for (from, told) in [("http://portal.example", "in clear"), ("nonsense", "--from")] {
        let mut command = Command::new(BINARY);
        command.current_dir(shop.dir.path()).args([
            "pull",
            "--from",
            from,
            "--token-file",
            "token",
            "--into",
            "x",
        ]);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(told), "{output:?}");
    }
    let pushing = Setup::new().without_scanner().start("pushes");
    let token = pushing.cli(&["token", "create", "p", "--scope", "pull"])["token"]
        .as_str()
        .unwrap()
        .to_owned();
    pushing.api(&token, "POST", "/deliveries/claim", Some(&json!({}))).is(409);
}

#[test]
fn a_portal_in_wrong_hands_reaches_nothing_but_the_hotfolder() {
    let portal = dmz(Setup::new().without_scanner(), "pullevil");
    let shop = Shop::new(&portal);
    std::fs::create_dir_all(shop.file("hotfolder/geheim")).unwrap();
    std::fs::write(shop.file("hotfolder/geheim/preise.xls"), "secret").unwrap();
    let victim = shop.file("victim");
    for id in [
        victim.display().to_string(),
        "../../victim".to_owned(),
        "01K1Q4ZB125X8V3M7T2R6N9W1H".to_owned(),
    ] {
        let port = crate::support::instance::free_port();
        let sent = shop.file("sent");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workflow/portal.py");
        let mut evil = Command::new("/usr/bin/python3");
        let mut evil = evil.arg(script).arg(port.to_string()).arg(&id).arg(&sent).spawn().unwrap();
        eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let from = format!("http://127.0.0.1:{port}");
        let mut puller = Command::new(BINARY);
        puller.current_dir(shop.dir.path()).args([
            "pull",
            "--from",
            &from,
            "--token-file",
            "token",
        ]);
        let mut puller = puller
            .args(["--into", "hotfolder", "--every", "1"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(9));
        puller.kill().unwrap();
        puller.wait().unwrap();
        evil.kill().unwrap();
        evil.wait().unwrap();
        assert!(!sent.exists(), "nothing of the share was sent");
        let files =
            Command::new("find").arg(shop.dir.path()).args(["-type", "f"]).output().unwrap();
        let files = String::from_utf8(files.stdout).unwrap();
        let own = |line: &&str| {
            !line.contains("/hotfolder/")
                && !line.ends_with("/token")
                && !line.ends_with(".share-id")
        };
        let outside: Vec<&str> = files.lines().filter(own).collect();
        assert!(outside.is_empty(), "{id}: {outside:?}");
    }
    // A sound id with an unsound place ends up in the share, under safe names.
    assert!(std::fs::read_dir(shop.file("hotfolder")).unwrap().count() > 3);
}

#[test]
fn a_script_can_pull_with_curl() {
    let portal = dmz(Setup::new().without_scanner(), "pullcurl");
    put(&portal, "a.pdf", b"0123456789");
    let token = portal.cli(&["token", "create", "p", "--scope", "pull"])["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut claimed = Value::Null;
    eventually("it can be claimed", || {
        let answer = portal.api(&token, "POST", "/deliveries/claim", Some(&json!({})));
        claimed = answer.is(200).json()["deliveries"][0].clone();
        !claimed.is_null()
    });
    assert_eq!(claimed["folders"], json!(["1001", PROJECT, "Eingehend"]));
    let path = format!("/uploads/{}/content", claimed["upload_id"].as_str().unwrap());
    let whole = portal.api(&token, "GET", &path, None).is(200);
    assert_eq!((whole.body.as_str(), whole.header("accept-ranges")), ("0123456789", Some("bytes")));
    let url = format!("http://127.0.0.1:{}/api/v1{path}", portal.api_port);
    let bearer = format!("Authorization: Bearer {token}");
    let range = |range: &str| {
        crate::support::http::curl(&["-H", &bearer, "-H", &format!("Range: {range}"), &url])
    };
    let part = range("bytes=4-");
    assert_eq!(
        (part.status, part.body.as_str(), part.header("content-range")),
        (206, "456789", Some("bytes 4-9/10"))
    );
    range("bytes=10-").is(416);
    // Nobody else gets it meanwhile.
    let answer = portal.api(&token, "POST", "/deliveries/claim", Some(&json!({}))).is(200);
    assert_eq!(answer.json()["deliveries"], json!([]));
    let id = claimed["id"].as_str().unwrap();
    let done = format!("/deliveries/{id}/done");
    let body = |lease: &Value, name: &str| json!({"lease": lease, "placed_name": name});
    portal.api(&token, "POST", &done, Some(&body(&"pull/else".into(), "x/a.pdf"))).is(409);
    portal.api(&token, "POST", &done, Some(&body(&claimed["lease"], "../a.pdf"))).is(422);
    for _ in 0..2 {
        let answer =
            portal.api(&token, "POST", &done, Some(&body(&claimed["lease"], "x/a.pdf"))).is(200);
        assert_eq!(answer.json()["state"], "done");
    }
    assert_eq!(portal.events("upload.delivered").len(), 1, "said twice, it counts once");
    // Staff's files by hand.
    let file = portal.file("final.pdf");
    std::fs::write(&file, "%PDF final").unwrap();
    let url = format!(
        "http://127.0.0.1:{}/api/v1/projects/{PROJECT}/files/Final/a/final.pdf",
        portal.api_port
    );
    let send = |url: &str| {
        let data = format!("@{}", file.display());
        crate::support::http::curl(&["-X", "PUT", "-H", &bearer, "--data-binary", &data, url])
    };
    send(&url).is(201);
    send(&url.replace("Final", "Eingehend")).is(404);
    send(&url.replace(PROJECT, "4711")).is(404);
    send(&url.replace("final.pdf", "%2e%2e")).is(422);
    eventually("the customer sees it", || {
        portal.sftp(&format!("get /{PROJECT}/Final/a/final.pdf got\n")).ok
    });
    assert_eq!(std::fs::read(portal.file("got")).unwrap(), b"%PDF final");
    assert_eq!(
        portal.api(&token, "GET", &format!("/projects/{PROJECT}/files"), None).is(200).json()[0]["path"],
        "a/final.pdf"
    );
}

#[test]
fn a_download_goes_on_where_it_stopped() {
    let portal = dmz(Setup::new().without_scanner(), "pullresume");
    let content = noise(60_000_000, 9);
    let mut shop = Shop::new(&portal);
    put(&portal, "gross.bin", &content);
    let parts = shop.file("hotfolder/.ptportal-tmp");
    let part = || {
        let entries = std::fs::read_dir(&parts).ok()?;
        let part =
            entries.flatten().find(|e| e.file_name().to_str().unwrap().ends_with(".part"))?;
        Some(part.metadata().ok()?.len())
    };
    let mut stopped_at = 0;
    for _ in 0..40 {
        shop.start();
        let started = std::time::Instant::now();
        while part().is_none_or(|len| len <= stopped_at)
            && started.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        shop.kill();
        match part() {
            Some(len) if len < 60_000_000 => {
                assert!(len >= stopped_at, "nothing is fetched twice");
                stopped_at = len;
            }
            _ => break,
        }
    }
    shop.start();
    assert_eq!(shop.until_delivered("gross.bin"), content);
}

/// Name and content.
type Taken = Mutex<Vec<(String, Vec<u8>)>>;

/// Takes every visible file away the moment it appears, as a RIP does.
fn consume(folder: &Path, taken: &Taken, away: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_str().unwrap().to_owned();
        let target = away.join(format!("{:x}", random()));
        if !name.starts_with('.') && std::fs::rename(entry.path(), &target).is_ok() {
            taken.lock().unwrap().push((name, std::fs::read(&target).unwrap()));
        }
    }
}

#[test]
fn with_either_side_killed_each_file_and_ticket_arrives_exactly_once() {
    let setup = Setup::new().without_scanner().set("hotfolder", "delivery_delay", "\"10ms\"");
    let setup =
        setup.set("jobticket", "format", "\"xml\"").set("jobticket", "name", "\"{name}.xml\"");
    let mut portal = dmz(setup, "pullkill");
    let mut shop = Shop::new(&portal);
    let taken: Arc<Taken> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let (folder, away) = (shop.delivered(""), shop.file("away"));
    std::fs::create_dir(&away).unwrap();
    let consumer = {
        let (taken, stop) = (Arc::clone(&taken), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                consume(&folder, &taken, &away);
                std::thread::sleep(Duration::from_micros(300));
            }
        })
    };
    let mut sent: HashMap<String, Vec<u8>> = HashMap::new();
    shop.start();
    for round in 0..10u64 {
        for n in 0..4 {
            let (name, content) =
                (format!("{round}-{n}.bin"), noise(200_000 + 1000 * n, round * 7 + n as u64 + 1));
            put(&portal, &name, &content);
            sent.insert(name, content);
        }
        std::thread::sleep(Duration::from_millis(random() % 700));
        if round % 2 == 0 {
            shop.kill();
            shop.start();
        } else {
            portal.kill();
            portal.serve();
        }
    }
    let expected = sent.len() * 2;
    let deadline = std::time::Instant::now();
    loop {
        let open: usize = ["pending", "placing", "stuck"]
            .iter()
            .map(|state| {
                portal.cli(&["delivery", "list", "--state", state]).as_array().unwrap().len()
            })
            .sum();
        let done = portal.cli(&["delivery", "list", "--state", "done"]).as_array().unwrap().len();
        if open == 0 && done == expected {
            break;
        }
        assert!(
            deadline.elapsed() < Duration::from_secs(90),
            "{open} open, {done} done\n{}",
            portal.cli(&["delivery", "list"])
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Release);
    consumer.join().unwrap();
    let taken = taken.lock().unwrap();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for (name, content) in taken.iter() {
        *counts.entry(name).or_default() += 1;
        match sent.get(name) {
            Some(sent) => assert!(sent == content, "{name} is not what was sent"),
            None => assert!(content.trim_ascii_end().ends_with(b"</jobticket>"), "{name}"),
        }
    }
    for name in sent.keys() {
        let ticket = format!("{name}.xml");
        assert_eq!(counts.get(name.as_str()), Some(&1), "{name}: {counts:?}");
        assert_eq!(counts.get(ticket.as_str()), Some(&1), "{ticket}: {counts:?}");
    }
    assert_eq!(taken.len(), expected);
}
