//! FTPS with real clients: the same tree and the same promises (spec section 10).

use std::fs;

use crate::support::clients::same;
use crate::support::instance::{IN, Instance, PASSWORD, Setup};

fn portal(name: &str) -> Instance {
    let portal = Setup::new().start(name);
    portal.set_password(PASSWORD);
    portal
}

fn write(portal: &Instance, name: &str, len: usize) -> std::path::PathBuf {
    let path = portal.file(name);
    let bytes: Vec<u8> = (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn curl_uploads_and_the_file_is_delivered() {
    let portal = portal("ftps-curl");
    let file = write(&portal, "plakat.pdf", 2_000_000);
    for (version, name) in [("--tlsv1.3", "a.pdf"), ("--tls-max", "b.pdf")] {
        let mut arguments = vec!["-T", file.to_str().unwrap(), version];
        if version == "--tls-max" {
            arguments.push("1.2");
        }
        portal.curl_ftps(&format!("{IN}/{name}"), &arguments).well();
        assert_eq!(portal.until_delivered(name), fs::read(&file).unwrap());
        assert_eq!(portal.upload(name)["protocol"], "ftps");
        let back = portal.file(&format!("back-{name}"));
        portal.curl_ftps(&format!("{IN}/{name}"), &["-o", back.to_str().unwrap()]).well();
        assert!(same(&file, &back));
    }
}
