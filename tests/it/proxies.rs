//! A real HAProxy in front: the customer's address counts, not the proxy's, and nobody else may say who he is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::eventually;
use crate::support::instance::{IN, Instance, PASSWORD, Setup, free_port};

struct Haproxy {
    process: Child,
    sftp: u16,
    ftps: u16,
}

impl Haproxy {
    fn start(portal: &Instance) -> Self {
        let (sftp, ftps) = (free_port(), free_port());
        let mut text = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n".to_owned();
        for (from, to) in [(sftp, portal.port), (ftps, portal.ftps_port)] {
            // The proxy is one machine, its customers others.
            text.push_str(&format!(
                "listen p{from}\n  bind 127.0.0.1:{from}\n  source 127.0.0.3\n  server s 127.0.0.1:{to} send-proxy-v2\n"
            ));
        }
        let config = portal.file("haproxy.cfg");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(&config).stdin(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        eventually("haproxy listens", || TcpStream::connect(("127.0.0.1", ftps)).is_ok());
        Self { process, sftp, ftps }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_proxy_says_for_whom_it_speaks_and_nobody_else_does() {
    let mut portal = Setup::new()
        .without_scanner()
        .set("web", "trusted_proxies", "[\"127.0.0.3/32\"]")
        .set("limits", "ban_after", "3")
        .start("haproxy");
    portal.set_password(PASSWORD);
    let proxy = Haproxy::start(&portal);
    let (port, ftps_port) = (portal.port, portal.ftps_port);
    std::fs::write(portal.file("a.bin"), b"through the proxy").unwrap();
    // Behind the proxy.
    (portal.port, portal.ftps_port) = (proxy.sftp, proxy.ftps);
    let from = "-oBindAddress=127.0.0.5";
    portal.sftp_with(&[from], &format!("put a.bin {IN}/a.bin\n")).well();
    assert_eq!(portal.upload("a.bin")["peer"], "127.0.0.5");
    let source = ["--interface", "127.0.0.6", "-T", "a.bin"];
    portal.curl_ftps(&format!("{IN}/b.bin"), &source).well();
    assert_eq!(portal.upload("b.bin")["peer"], "127.0.0.6");
    // A guesser is banned, the others behind the same proxy are not.
    for _ in 0..3 {
        portal
            .sftp_password("acme", "falsch geraten 12", &["-oBindAddress=127.0.0.7"], "ls\n")
            .badly();
    }
    let bans = portal.cli(&["ban", "list"]);
    assert_eq!(bans.as_array().unwrap().len(), 1, "{bans:#}");
    assert_eq!(bans[0]["address"], "127.0.0.7");
    portal.sftp_with(&["-oBindAddress=127.0.0.7"], "ls\n").badly();
    portal.sftp_with(&[from], "ls\n").well();
    // Past the proxy: whoever claims to speak for another is a stranger who talks nonsense.
    (portal.port, portal.ftps_port) = (port, ftps_port);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([127, 0, 0, 7, 127, 0, 0, 1, 1, 1, 2, 2]);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&header).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).ok();
    assert!(got.starts_with(b"SSH-2.0-ptportal"), "not taken for the banned one: {got:?}");
    portal.sftp("ls\n").well();
}
