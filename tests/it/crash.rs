//! SIGKILL at random moments under parallel uploads, while a consumer takes files out of the hotfolder at once.

use std::collections::HashMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::instance::{IN, Instance, PASSWORD, Setup, USER};
use crate::support::{eventually, noise, random};

/// What the consumer took: name and content.
type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Takes every visible file away the moment it appears, as a RIP does.
fn consume(folder: &Path, away: &Path, taken: &Taken) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        let target = away.join(format!("{:x}", random()));
        if std::fs::rename(&path, &target).is_ok() {
            taken.lock().unwrap().push((name, std::fs::read(&target).unwrap()));
        }
    }
}

/// One upload with the stock client; true if the client saw it succeed.
fn put(dir: &Path, port: u16, source: &Path, name: &str) -> bool {
    use std::io::Write;
    let mut command = Command::new("sftp");
    command.args([
        "-oStrictHostKeyChecking=no",
        "-oUserKnownHostsFile=/dev/null",
        "-oLogLevel=ERROR",
    ]);
    command.args(["-oConnectTimeout=5", "-oServerAliveInterval=3", "-oIdentitiesOnly=yes"]);
    command.arg("-i").arg(dir.join("id")).args(["-P", &port.to_string(), "-b", "-"]);
    command.arg(format!("{USER}@127.0.0.1"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let batch = format!("put {} {IN}/{name}\n", source.display());
    // A client that cannot connect may be gone before it reads.
    child.stdin.take().unwrap().write_all(batch.as_bytes()).ok();
    child.wait().unwrap().success()
}

/// The same with curl over FTPS.
fn put_ftps(port: u16, source: &Path, name: &str) -> bool {
    let url = format!("ftp://127.0.0.1:{port}{IN}/{name}");
    let user = format!("{USER}:{PASSWORD}");
    let mut command = Command::new("curl");
    command.args(["-sS", "--ssl-reqd", "--insecure", "--connect-timeout", "5", "--user", &user]);
    command.args(["--speed-limit", "1", "--speed-time", "20", "-T"]).arg(source).arg(&url);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

struct Customers {
    dir: PathBuf,
    port: u16,
    ftps_port: u16,
    stop: AtomicBool,
    next: AtomicU64,
    succeeded: Mutex<HashMap<String, Vec<u8>>>,
    tried: Mutex<HashMap<String, Vec<u8>>>,
}

impl Customers {
    /// Sends one file after the other, each again until it succeeds, as people do.
    fn work(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let n = self.next.fetch_add(1, Ordering::AcqRel);
            let sizes = [1_000, 70_000, 300_000, 2_500_000];
            let content =
                noise(sizes[(n / 2 % 4) as usize] + n as usize, n.wrapping_mul(0x9e37_79b9) + 1);
            let name = format!("datei-{n:05}.bin");
            let source = self.dir.join(&name);
            std::fs::write(&source, &content).unwrap();
            self.tried.lock().unwrap().insert(name.clone(), content.clone());
            while !self.stop.load(Ordering::Acquire) {
                let is_sent = match n % 2 {
                    0 => put(&self.dir, self.port, &source, &name),
                    _ => put_ftps(self.ftps_port, &source, &name),
                };
                if is_sent {
                    self.succeeded.lock().unwrap().insert(name.clone(), content);
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            std::fs::remove_file(&source).unwrap();
        }
    }
}

fn end_again_and_again(
    portal: &mut Instance,
    times: u32,
    end: fn(&mut Instance),
) -> (Arc<Customers>, Taken) {
    let customers = Arc::new(Customers {
        dir: portal.path().to_owned(),
        port: portal.port,
        ftps_port: portal.ftps_port,
        stop: AtomicBool::new(false),
        next: AtomicU64::new(0),
        succeeded: Mutex::default(),
        tried: Mutex::default(),
    });
    let taken: Taken = Arc::default();
    let folder = portal.delivered("");
    let away = portal.file("away");
    std::fs::create_dir(&away).unwrap();
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let customers = Arc::clone(&customers);
            scope.spawn(move || customers.work());
        }
        let taken_too = Arc::clone(&taken);
        let (folder, away) = (&folder, &away);
        scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                consume(folder, away, &taken_too);
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for _ in 0..times {
            std::thread::sleep(Duration::from_millis(150 + random() % 1200));
            end(portal);
            portal.spawn_server();
        }
        std::thread::sleep(Duration::from_millis(1500));
        customers.stop.store(true, Ordering::Release);
        eventually("every upload is settled and delivered", || {
            let open = |command: &str, state: &str| {
                let output = portal.try_cli(&[command, "list", "--state", state]);
                output.status.success() && output.stdout.starts_with(b"[]")
            };
            ["receiving", "scanning"].iter().all(|state| open("upload", state))
                && ["pending", "placing", "stuck"].iter().all(|state| open("delivery", state))
                && has_all_tickets(portal)
        });
        done.store(true, Ordering::Release);
    });
    consume(&folder, &away, &taken);
    (customers, taken)
}

/// Tickets follow from deliveries: each has one in the end.
fn has_all_tickets(portal: &Instance) -> bool {
    let output = portal.try_cli(&["delivery", "list", "--state", "done"]);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let Some(rows) = rows.as_array() else { return false };
    let count = |consumer: &str| rows.iter().filter(|row| row["consumer"] == consumer).count();
    count("mirror") == count("jobticket")
}

#[test]
fn what_a_client_saw_succeed_arrives_exactly_once_through_kills() {
    let kills =
        std::env::var("PTPORTAL_SOAK_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(10);
    arrives_exactly_once("crash", kills, Instance::kill);
}

/// A stop as of `systemctl restart`: running transfers end well, and the clients of the others try again.
#[test]
fn what_a_client_saw_succeed_arrives_exactly_once_through_restarts() {
    arrives_exactly_once("restarts", 6, Instance::stop);
}

fn arrives_exactly_once(name: &str, times: u32, end: fn(&mut Instance)) {
    let setup = Setup::new().set("hotfolder", "delivery_delay", "\"20ms\"");
    let setup =
        setup.set("jobticket", "format", "\"xml\"").set("jobticket", "name", "\"{name}.xml\"");
    let mut portal = setup.start(name);
    portal.set_password(PASSWORD);
    let (customers, taken) = end_again_and_again(&mut portal, times, end);
    let taken = taken.lock().unwrap();
    let (succeeded, tried) = (customers.succeeded.lock().unwrap(), customers.tried.lock().unwrap());
    let mut count: HashMap<&str, u32> = HashMap::new();
    let (tickets, files): (Vec<_>, Vec<_>) =
        taken.iter().partition(|(name, _)| name.ends_with(".xml"));
    for (name, content) in &files {
        let stem = name.split(" (").next().unwrap().trim_end_matches(".bin");
        let source = format!("{stem}.bin");
        let sent = tried.get(&source).unwrap_or_else(|| panic!("{name} was never sent"));
        assert!(
            sent == content,
            "{name} is not what was sent: {} of {} bytes",
            content.len(),
            sent.len()
        );
        *count.entry(tried.get_key_value(&source).unwrap().0).or_default() += 1;
    }
    for (name, times) in &count {
        assert_eq!(*times, 1, "{name} arrived {times} times\n{}", trail(&portal, name));
    }
    for name in succeeded.keys() {
        let arrived = count.contains_key(name.as_str());
        assert!(arrived, "{name} was accepted and did not arrive\n{}", trail(&portal, name));
    }
    let mut ticketed: Vec<&str> =
        tickets.iter().map(|(name, _)| name.trim_end_matches(".xml")).collect();
    let mut delivered: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    ticketed.sort_unstable();
    delivered.sort_unstable();
    assert_eq!(ticketed, delivered, "each file has its ticket, once");
    assert!(
        tickets.iter().all(|(_, text)| text.trim_ascii_end().ends_with(b"</jobticket>")),
        "none is cut"
    );
    assert!(succeeded.len() >= 5, "too few uploads to prove anything: {}", succeeded.len());
    println!(
        "ended {times} times, {} uploads succeeded, {} files taken",
        succeeded.len(),
        taken.len()
    );
}

/// What the log says about one file.
fn trail(portal: &Instance, name: &str) -> String {
    let log = portal.log();
    log.lines().filter(|line| line.contains(name)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_clean_stop_leaves_running_uploads_resumable() {
    let mut portal = Setup::new().start("stop");
    let content = noise(900_000, 2);
    std::fs::write(portal.file("a.bin"), &content).unwrap();
    let script = "s = portal()\n\
                  f = s.open(IN + '/a.bin', 'wb'); f.set_pipelined(False); f.write(open('a.bin', 'rb').read(500000))\n\
                  open('begun', 'w').close()\n\
                  while s.get_channel().get_transport().is_active(): time.sleep(0.1)\n\
                  sys.exit(3)";
    std::thread::scope(|scope| {
        let shared = &portal;
        let client = scope.spawn(move || shared.paramiko(script));
        let begun = portal.file("begun");
        eventually("the upload runs", || begun.exists());
        let pid = portal.server_id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        client.join().unwrap().badly();
    });
    let log = portal.file("server.log");
    eventually("it stops", || std::fs::read_to_string(&log).unwrap().contains(" stopped"));
    portal.serve();
    assert_eq!(portal.upload("a.bin")["state"], "incomplete");
    portal.sftp(&format!("reput a.bin {IN}/a.bin\n")).well();
    assert_eq!(portal.until_delivered("a.bin"), content);
    portal.stop();
}

#[test]
fn a_stop_serves_nobody_new_while_a_running_upload_ends_well() {
    let mut portal = Setup::new().start("stopnew");
    let content = noise(3_000_000, 2);
    std::fs::write(portal.file("a.bin"), &content).unwrap();
    let put = format!("put a.bin {IN}/a.bin\n");
    let (pid, port) = (portal.server_id().to_string(), portal.port);
    std::thread::scope(|scope| {
        let shared = &portal;
        let upload = scope.spawn(|| shared.sftp_with(&["-l", "4000"], &put));
        std::thread::sleep(Duration::from_secs(1));
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        eventually("nobody new is let in", || TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(!upload.is_finished(), "the upload still runs");
        upload.join().unwrap().well();
    });
    assert_eq!(portal.until_ended(), None, "it ends by itself");
    portal.serve();
    assert_eq!(portal.until_delivered("a.bin"), content);
}

#[test]
fn what_waits_for_a_scan_at_a_clean_stop_is_scanned_after_the_next_start() {
    let mut portal = Setup::new().set("scan", "answer_within", "\"200ms\"").start("pending");
    portal.clamd.as_ref().unwrap().freeze();
    std::fs::write(portal.file("a.pdf"), b"%PDF waits").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.clamd.as_mut().unwrap().kill();
    portal.stop();
    assert_eq!(portal.upload("a.pdf")["state"], "scanning");
    portal.clamd.as_mut().unwrap().run();
    portal.serve();
    assert_eq!(portal.until_delivered("a.pdf"), b"%PDF waits");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let portal = Setup::new().start("twice");
    let output = portal.try_cli(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("another ptportal serves"), "{error}");
}

/// A hook that was about to start holds everything that its server had open, for a moment longer than it.
#[test]
fn a_start_waits_for_what_a_killed_server_leaves_behind() {
    let mut portal = Setup::new().without_scanner().start("leftover");
    portal.kill();
    let script = "import fcntl, sys, time\nf = open(sys.argv[1])\nfcntl.flock(f, fcntl.LOCK_EX)\n\
                  open(sys.argv[2], 'w').close()\ntime.sleep(1)";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script]).arg(portal.file("data/lock")).arg(portal.file("held"));
    let mut holder = command.spawn().unwrap();
    let held = portal.file("held");
    eventually("it is held", || held.exists());
    portal.serve();
    assert!(portal.is_running());
    assert!(holder.wait().unwrap().success());
    portal.stop();
}

#[test]
fn a_lost_host_key_stops_the_start() {
    let mut portal = Setup::new().without_scanner().start("hostkey");
    portal.stop();
    std::fs::remove_file(portal.file("certs/ssh_host_ed25519_key")).unwrap();
    let output = portal.try_cli(&["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("is missing although this server had it before"), "{error}");
}
