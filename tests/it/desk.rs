//! The operators' page: in a real browser, and as programs that must not get in.

use std::process::Command;

use crate::browser::{axe, script};
use crate::support::eventually;
use crate::support::http::curl;
use crate::support::instance::{Instance, PASSWORD, Setup, USER};

const DOUBTFUL: &[u8] = b"PTPORTAL-DOUBTFUL-MARKER-11aa22bb";

fn token(portal: &Instance, name: &str, scope: &str) -> String {
    let made = portal.cli(&["token", "create", name, "--scope", scope]);
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn an_operator_releases_a_held_file_and_sees_why_a_customer_cannot_log_in() {
    let portal = Setup::new().set("admin", "page", "true").start("desk");
    portal.set_password(PASSWORD);
    portal.put("geheim.pdf", DOUBTFUL).well();
    portal.until_state("geheim.pdf", "held");
    portal.sftp_password(USER, "falsch geraten 123", &[], "ls\n").badly();
    portal.cli(&["account", "disable", USER]);
    let token = token(&portal, "browser-test", "admin");
    let home = portal.file("desk");
    std::fs::create_dir(&home).unwrap();
    let walked = Command::new("/usr/bin/python3")
        .arg(script("desk.py"))
        .args([&format!("http://localhost:{}", portal.admin_port), &token])
        .arg(axe())
        .arg("de")
        .arg(&home)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&walked.stderr).into_owned();
    assert!(walked.status.success(), "{said}");
    assert_eq!(portal.until_delivered("geheim.pdf"), DOUBTFUL);
    assert_eq!(portal.upload("geheim.pdf")["waived_by"], "browser-test");
}

#[test]
fn the_operators_page_is_for_operators_only() {
    let portal = Setup::new().set("admin", "page", "true").start("deskshut");
    portal.put("geheim.pdf", DOUBTFUL).well();
    let id = portal.until_state("geheim.pdf", "held")["id"].as_str().unwrap().to_owned();
    let base = format!("http://127.0.0.1:{}", portal.admin_port);
    let at = |path: &str| format!("{base}{path}");
    for path in ["/", "/customers", "/customers/1001", &format!("/uploads/{id}")] {
        let answer = curl(&[&at(path)]).is(303);
        assert_eq!(answer.header("location"), Some("/login"), "{path}");
    }
    curl(&["-d", "decision=release&reason=x", &at(&format!("/uploads/{id}"))]).is(401);
    // A token for orders opens nothing here.
    let orders = token(&portal, "orders", "orders");
    for wrong in ["", "x", &orders] {
        curl(&["-d", &format!("token={wrong}"), &at("/login")]).is(401);
    }
    let admin = token(&portal, "admin", "admin");
    let entered = curl(&["-d", &format!("token={admin}"), &at("/login")]).is(303);
    let cookie = entered.header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    curl(&["-b", &cookie, &at("/")]).is(200);
    // A form without the page's own secret does nothing, and no other name leads here.
    let forged = ["-b", &cookie, "-d", "decision=release&reason=x"];
    curl(&[&forged[..], &[&at(&format!("/uploads/{id}"))]].concat()).is(403);
    curl(&["-b", &cookie, "-H", "Host: evil.example", &at("/")]).is(421);
    assert_eq!(portal.upload("geheim.pdf")["state"], "held");
    // A revoked token ends what began with it.
    portal.cli(&["token", "revoke", "admin"]);
    curl(&["-b", &cookie, &at("/")]).is(303);
    // Switched off, nothing of it is there; metrics are.
    let plain = Setup::new().without_scanner().start("deskoff");
    curl(&[&format!("http://127.0.0.1:{}/login", plain.admin_port)]).is(404);
    eventually("metrics are there", || {
        curl(&[&format!("http://127.0.0.1:{}/metrics", plain.admin_port)]).status == 200
    });
}
