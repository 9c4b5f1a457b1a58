//! What stands before pages and API: TLS, limits, slow and greedy clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::http::curl;
use crate::support::instance::{Instance, PASSWORD, Setup};

/// Everything that comes until the server closes.
fn to_the_end(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        Ok(_) | Err(_) => {}
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn connect(portal: &Instance) -> TcpStream {
    TcpStream::connect(("127.0.0.1", portal.web_port)).unwrap()
}

#[test]
fn https_with_the_certificate_of_ftps() {
    let portal = Setup::new()
        .without_scanner()
        .set("web", "tls", "true")
        .set("api", "tls", "true")
        .start("https");
    portal.set_password(PASSWORD);
    let certificate = portal.file("certs/server.crt").display().to_string();
    let jar = portal.file("jar").display().to_string();
    let site = format!("https://localhost:{}", portal.web_port);
    let password = format!("password={PASSWORD}");
    let entered = curl(&[
        "--cacert",
        &certificate,
        "-c",
        &jar,
        "-d",
        "username=acme",
        "--data-urlencode",
        &password,
        &site,
    ])
    .is(303);
    let cookie = entered.header("set-cookie").unwrap();
    for part in ["__Host-ptportal=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    assert!(entered.header("strict-transport-security").is_some());
    let home = curl(&["--cacert", &certificate, "-b", &jar, &format!("{site}/home")]).is(200);
    assert!(home.body.contains("SHA256:"), "fingerprints are shown");
    let link = portal.cli(&["account", "link", "acme"])["link"].as_str().unwrap().to_owned();
    assert!(link.starts_with(&site));
    let api = format!("https://localhost:{}/api/v1/projects", portal.api_port);
    curl(&["--cacert", &certificate, &api]).is(401);
    // Nothing but HTTP/1.1 may be spoken there, and never below TLS 1.2.
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", portal.web_port)])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(openssl(&["-alpn", "http/1.1"]).contains("ALPN protocol: http/1.1"));
    assert!(!openssl(&["-alpn", "ftp"]).contains("BEGIN CERTIFICATE"));
    assert!(!openssl(&["-tls1_1"]).contains("BEGIN CERTIFICATE"));
}

#[test]
fn slow_and_greedy_clients_are_cut_and_others_served() {
    let portal = Setup::new().without_scanner().start("slow");
    // A header that never ends, one byte at a time.
    let mut slow = connect(&portal);
    let mut silent: Vec<TcpStream> = (0..40).map(|_| connect(&portal)).collect();
    let began = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    while began.elapsed() < Duration::from_secs(25) && slow.write_all(b"x").is_ok() {
        assert_eq!(portal.page("/", &[]).status, 200);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "cut after {:?}", began.elapsed());
    assert!(to_the_end(&mut silent[0]).len() < 500, "closed without a request");
    // Too many headers, too long ones, too large bodies, packed bodies.
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(60_000));
    for headers in [many, long] {
        let mut stream = connect(&portal);
        // The server may cut it while it is still being written.
        write!(stream, "GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").ok();
        let answer = to_the_end(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    }
    let body = portal.file("body");
    std::fs::write(&body, format!("username={}", "x".repeat(100_000))).unwrap();
    let body = format!("@{}", body.display());
    portal.page("/link", &["--data-binary", &body]).is(413);
    // A body that would become 16 MiB is never unpacked.
    let bomb = portal.file("bomb.gz");
    let pack = "printf 'username=' | cat - /dev/zero | head -c 16777216 | gzip -9 > bomb.gz";
    let mut packed = std::process::Command::new("sh");
    let packed = packed.args(["-c", pack]).current_dir(portal.path()).status().unwrap();
    assert!(packed.success() && bomb.metadata().unwrap().len() < 17_000);
    let (before, bomb) = (portal.memory("VmHWM"), format!("@{}", bomb.display()));
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let header = format!("Content-Encoding: {encoding}");
        let packed = portal.page("/link", &["-H", &header, "--data-binary", &bomb]);
        assert_eq!(packed.status, 415, "{packed:?}");
    }
    let grown = portal.memory("VmHWM") - before;
    assert!(grown < 8 * 1024, "{grown} KiB more");
    portal.page("/link", &["-H", "Content-Type: application/json", "-d", "{}"]).is(415);
    portal.page("/link", &["-X", "TRACE"]).is(405);
    portal.page("/nothing", &[]).is(404);
    // A body that never ends.
    let mut stream = connect(&portal);
    write!(stream, "POST /link HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nusername=").unwrap();
    portal.page("/", &[]).is(200);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(50) && stream.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(900));
    }
    let answer = to_the_end(&mut stream);
    assert!(began.elapsed() < Duration::from_secs(40), "cut after {:?}", began.elapsed());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[test]
fn testssl_finds_nothing_above_low_on_the_pages() {
    let portal = Setup::new().without_scanner().set("web", "tls", "true").start("https-testssl");
    let above_low = portal.testssl(&[], portal.web_port);
    assert!(above_low.is_empty(), "{above_low:#?}");
}

#[test]
fn a_stranger_keeps_no_connection_for_ever() {
    let portal =
        Setup::new().without_scanner().set("limits", "unauthenticated", "10").start("stranger");
    // Asks and asks and never reads; and one that asks now and then.
    let mut deaf: Vec<TcpStream> = (0..9).map(|_| connect(&portal)).collect();
    for stream in &mut deaf {
        stream.set_nonblocking(true).unwrap();
        while stream.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok() {}
    }
    // File transfers have places of their own.
    assert!(portal.sftp("ls\n").well().out.contains("2026-0815"));
    let mut polite = connect(&portal);
    polite.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    let began = Instant::now();
    let mut buffer = [0u8; 65_536];
    loop {
        if write!(polite, "GET /robots.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() {
            break;
        }
        if !matches!(polite.read(&mut buffer), Ok(1..)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(100), "still open");
        std::thread::sleep(Duration::from_secs(2));
    }
}
