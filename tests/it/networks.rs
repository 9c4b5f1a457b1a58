//! Lines as customers have them: far, narrow, cut off again and again. What arrives is whole, or it goes on where it stopped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::clients::Said;
use crate::support::instance::{IN, Instance, PASSWORD, Setup, first_passive_port};
use crate::support::noise;

/// How many data connections there may be at once.
const PASSIVE: u16 = 16;

/// A bad line to the server, on another address.
struct Line(Child);

impl Line {
    fn to(portal: &Instance, [delay_ms, bytes_a_second, cut_after]: [u32; 3]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/siege/bad_network.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script);
        command.args([delay_ms, bytes_a_second, cut_after].map(|n| n.to_string()));
        command.args([portal.port, portal.ftps_port].map(|port| port.to_string()));
        command.args((0..PASSIVE).map(|n| (first_passive_port() + n).to_string()));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "listening");
        Self(child)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn sftp(portal: &Instance, batch: &str) -> Said {
    portal.sftp_with(&["-oHostName=127.0.0.3"], batch)
}

/// lftp tries again and goes on by itself, as its users know it.
fn lftp(portal: &Instance, commands: &str) -> Said {
    portal.lftp_to("127.0.0.3", 60, commands)
}

fn portal(name: &str) -> Instance {
    let first = first_passive_port();
    let ports = format!("\"{first}-{}\"", first + PASSIVE - 1);
    let portal = Setup::new().set("ftps", "passive_ports", &ports).start(name);
    portal.set_password(PASSWORD);
    portal
}

#[test]
fn a_far_and_narrow_line_takes_its_time_and_arrives() {
    let portal = portal("narrow");
    // 100 ms there and back, 1 Mbit/s, in pieces of any size.
    let _line = Line::to(&portal, [50, 125_000, 0]);
    let content = noise(600_000, 1);
    std::fs::write(portal.file("a.bin"), &content).unwrap();
    sftp(&portal, &format!("put a.bin {IN}/sftp.bin\nget {IN}/sftp.bin got.bin\n")).well();
    assert_eq!(std::fs::read(portal.file("got.bin")).unwrap(), content);
    lftp(&portal, &format!("put a.bin -o {IN}/ftps.bin\nget {IN}/ftps.bin -o again.bin")).well();
    assert_eq!(std::fs::read(portal.file("again.bin")).unwrap(), content);
    assert_eq!(portal.until_delivered("sftp.bin"), content);
    assert_eq!(portal.until_delivered("ftps.bin"), content);
}

#[test]
fn a_line_that_is_cut_again_and_again_goes_on_where_it_stopped() {
    let portal = portal("cut");
    let _line = Line::to(&portal, [5, 20_000_000, 600_000]);
    let content = noise(3_000_000, 2);
    std::fs::write(portal.file("a.bin"), &content).unwrap();
    let mut tries = 1;
    let mut said = sftp(&portal, &format!("put a.bin {IN}/sftp.bin\n"));
    while !said.ok {
        assert!(tries < 60, "{said:?}\n{}", portal.log());
        tries += 1;
        said = sftp(&portal, &format!("reput a.bin {IN}/sftp.bin\n"));
    }
    assert!(tries > 4, "it was cut: {tries}");
    lftp(&portal, &format!("put -c a.bin -o {IN}/ftps.bin")).well();
    assert_eq!(portal.until_delivered("sftp.bin"), content);
    assert_eq!(portal.until_delivered("ftps.bin"), content);
    assert_eq!(portal.hotfolder_files().len(), 2);
    assert!(portal.events("upload.incomplete").len() > 6);
}
