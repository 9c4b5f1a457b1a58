//! A certificate from a real authority (pebble, Let's Encrypt's own test server), asked for over ACME.

use std::process::{Child, Command, Stdio};

use crate::support::TempDir;
use crate::support::eventually;
use crate::support::http::curl;
use crate::support::instance::{Instance, PASSWORD, Setup, free_port};
use crate::support::tls::presented;

const DOMAIN: &str = "portal.druckerei.example";

struct Pebble {
    child: Child,
    /// To which every name is this machine.
    names: Child,
    dir: TempDir,
    port: u16,
    dns: u16,
}

fn run(dir: &TempDir, port: u16, dns: u16) -> Child {
    let child = Command::new("pebble")
        .args(["-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{dns}")])
        .current_dir(dir.path())
        // Of more refused nonces three in a row, which the client gives up at, are too likely.
        .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5")])
        .stdout(std::fs::File::create(dir.path().join("log")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("pebble answers", || {
        let at = format!("https://localhost:{port}/dir");
        Command::new("curl").args(["-ks", "-o", "/dev/null", &at]).status().unwrap().success()
    });
    child
}

impl Pebble {
    /// An authority whose look at a server goes to this port of this machine.
    fn start(http_port: u16) -> Self {
        let (dir, port) = (TempDir::new("pebble"), free_port());
        let script = "set -e\n\
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=Test root' -keyout ca.key -out ca.pem\n\
            openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out new.csr\n\
            printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > extensions\n\
            openssl x509 -req -in new.csr -CA ca.pem -CAkey ca.key -days 2 -extfile extensions -out cert.pem\n";
        let made =
            Command::new("bash").args(["-c", script]).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{port}", "managementListenAddress": "",
                "certificate": "{0}/cert.pem", "privateKey": "{0}/key.pem", "httpPort": {http_port}, "tlsPort": 1,
                "ocspResponderURL": "", "externalAccountBindingRequired": false}}}}"#,
            dir.path().display()
        );
        std::fs::write(dir.path().join("pebble.json"), config).unwrap();
        let dns = free_port();
        let names = Command::new("pebble-challtestsrv")
            .args([
                "-dns01",
                &format!("127.0.0.1:{dns}"),
                "-defaultIPv4",
                "127.0.0.1",
                "-defaultIPv6",
                "",
            ])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-management", &format!("127.0.0.1:{}", free_port())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let child = run(&dir, port, dns);
        Self { child, names, dir, port, dns }
    }

    /// Pebble keeps nothing: afterwards it knows no account.
    fn forget_all(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = run(&self.dir, self.port, self.dns);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in [&mut self.child, &mut self.names] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn setup(pebble: &Pebble, http_port: u16, domain: &str) -> Setup {
    Setup::new()
        .without_scanner()
        .set("acme", "domains", &format!("[{domain:?}]"))
        .set("acme", "email", "\"it@druckerei.example\"")
        .set("acme", "directory", &format!("\"https://localhost:{}/dir\"", pebble.port))
        .set("acme", "ca", &format!("{:?}", pebble.dir.path().join("ca.pem")))
        .set("acme", "listen", &format!("[\"127.0.0.1:{http_port}\", \"[::1]:{http_port}\"]"))
}

#[test]
fn a_certificate_comes_by_itself_stays_and_is_mended_after_a_crash_between_its_two_files() {
    let http_port = free_port();
    let pebble = Pebble::start(http_port);
    let mut portal = setup(&pebble, http_port, DOMAIN).start("acme");
    eventually("customers are shown the authority's certificate", || {
        presented(portal.ftps_port).contains("Pebble Intermediate CA")
    });
    assert!(portal.log().contains("a new certificate is there"), "{}", portal.log());
    let names = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(portal.file("certs/server.crt"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&names.stdout).contains(DOMAIN));
    use std::os::unix::fs::PermissionsExt;
    for file in ["certs/server.key", "data/acme/account.json", "data/acme/pair.pem"] {
        let mode = std::fs::metadata(portal.file(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    // Nothing answers what nobody asked for, and people are led to the pages.
    let at = format!("http://127.0.0.1:{http_port}");
    curl(&[&format!("{at}/.well-known/acme-challenge/nothing")]).is(404);
    let led = curl(&[&format!("{at}/home?x=1")]).is(308);
    assert_eq!(
        led.header("location").unwrap(),
        format!("http://localhost:{}/home?x=1", portal.web_port)
    );
    curl(&[&format!("http://localhost:{}/.well-known/acme-challenge/x", portal.web_port)]).is(404);
    // A good one is kept over a restart; half a change is mended from the whole pair.
    let before = std::fs::read(portal.file("certs/server.crt")).unwrap();
    let orders =
        pebble.log().matches("new-order").count() + pebble.log().matches("order-plz").count();
    assert!(orders > 0, "{}", pebble.log());
    portal.kill();
    let other = Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
    std::fs::write(portal.file("certs/server.key"), other.stdout).unwrap();
    portal.serve();
    assert!(presented(portal.ftps_port).contains("Pebble Intermediate CA"));
    assert_eq!(std::fs::read(portal.file("certs/server.crt")).unwrap(), before);
    let again =
        pebble.log().matches("new-order").count() + pebble.log().matches("order-plz").count();
    assert_eq!(again, orders, "no second order");
}

#[test]
fn an_authority_that_has_lost_the_account_or_a_damaged_file_of_it_gets_a_new_one() {
    let http_port = free_port();
    let mut pebble = Pebble::start(http_port);
    let mut portal = setup(&pebble, http_port, DOMAIN).start("acmelost");
    let is_there =
        |portal: &Instance| presented(portal.ftps_port).contains("Pebble Intermediate CA");
    eventually("the first certificate", || is_there(&portal));
    let account = portal.file("data/acme/account.json");
    let first = std::fs::read(&account).unwrap();
    for is_damaged in [false, true] {
        portal.kill();
        for file in ["certs/server.crt", "certs/server.key", "data/acme/pair.pem"] {
            std::fs::remove_file(portal.file(file)).unwrap();
        }
        if is_damaged {
            let url = format!("https://localhost:{}/dir", pebble.port);
            std::fs::write(&account, format!("{{\"directory\": \"{url}\", \"id\":")).unwrap();
        } else {
            pebble.forget_all();
        }
        portal.serve();
        eventually("a certificate by a new account", || is_there(&portal));
        let now = std::fs::read(&account).unwrap();
        assert!(now != first && serde_json::from_slice::<serde_json::Value>(&now).is_ok());
    }
    let log = portal.log();
    assert_eq!(log.matches("the authority does not take our account any more").count(), 1, "{log}");
}

#[test]
fn an_authority_that_cannot_see_the_server_is_told_with_its_words_and_customers_log_in_all_the_same()
 {
    let (http_port, elsewhere) = (free_port(), free_port());
    // It looks at a port where nobody listens.
    let pebble = Pebble::start(elsewhere);
    let portal = setup(&pebble, http_port, DOMAIN).start("acmefails");
    eventually("it is said why", || {
        portal.log().contains("no certificate could be got, tried again in an hour")
    });
    let log = portal.log();
    assert!(log.contains("connection refused"), "{log}");
    portal.set_password(PASSWORD);
    portal.curl_ftps("/", &[]).well();
}
