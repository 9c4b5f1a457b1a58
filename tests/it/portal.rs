//! From the order to the customer's first login: API, import folder, command line; accounts, mails, links, pages.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::http::curl;
use crate::support::instance::{Instance, PASSWORD, Setup};
use crate::support::orders::{ini, mails_of, order, portal, set_ini};
use crate::support::smtp::{Mail, Smtp, read_mail};

const NEW_PASSWORD: &str = "Plakate kleben an der Wand 8";

/// The activation mail of a new order, and its link.
fn invited(portal: &Instance, smtp: &Smtp, client: &str) -> (Mail, String) {
    let before = smtp.mails().len();
    let token = portal.token(client);
    portal.api(&token, "POST", "/projects", Some(&order(client, client, &[]))).is(201);
    let mail = smtp.until_mails(before + 1).pop().unwrap();
    let link = mail.link();
    (mail, link)
}

fn activate(link: &str, password: &str) -> u16 {
    let password = format!("password={password}");
    let repeat = password.replacen("password", "password_repeat", 1);
    let fields = ["--data-urlencode", &password, "--data-urlencode", &repeat, link];
    curl(&fields).status
}

fn log_in(portal: &Instance, username: &str, password: &str) -> u16 {
    let fields = [format!("username={username}"), format!("password={password}")];
    portal.page("/", &["--data-urlencode", &fields[0], "--data-urlencode", &fields[1]]).status
}

#[test]
fn an_order_leads_to_a_login_without_a_hand_of_staff() {
    let smtp = Smtp::start("ok");
    let portal = portal("way", smtp.port, (1, 1, 0));
    the_whole_way(&portal, &smtp);
}

#[test]
fn the_same_on_postgresql() {
    let smtp = Smtp::start("ok");
    let url = format!("\"{}\"", crate::store::fresh_postgres());
    let portal = Setup::new().without_scanner().set("database", "url", &url).start("way-pg");
    set_ini(&portal, smtp.port, (1, 1, 0));
    the_whole_way(&portal, &smtp);
    let field = "username=2001";
    portal.page("/link", &["--data-urlencode", field]).is(200);
    assert_eq!(activate(&smtp.until_mails(2)[1].link(), PASSWORD), 303);
    assert_eq!(log_in(&portal, "2001", PASSWORD), 303);
}

fn the_whole_way(portal: &Instance, smtp: &Smtp) {
    let token = portal.token("mis");
    let answer =
        portal.api(&token, "POST", "/projects", Some(&order("2001", "P-1", &["T1"]))).is(201);
    let told = answer.json();
    assert_eq!(told["folders"], json!(["P-1/Eingehend", "P-1/In Bearbeitung", "P-1/Final"]));
    assert_eq!(told["decision"]["account_created"], true);
    assert_eq!(
        (&told["account"]["username"], &told["account"]["activated"]),
        (&json!("2001"), &json!(false))
    );
    let mail = smtp.until_mails(1).pop().unwrap();
    assert_eq!(mail.header("From"), "portal@druckerei.example");
    assert_eq!(mail.header("To"), "firma@kunde.example");
    assert!(mail.html.contains(&mail.link()) && mail.text.contains("2001"), "{mail:#?}");
    let link = mail.link();
    // What mail scanners do.
    for _ in 0..25 {
        assert_eq!(curl(&[&link]).is(200).header("cache-control"), Some("no-store"));
        assert_eq!(curl(&["-I", &link]).status, 200);
    }
    assert_eq!(activate(&link, "kurz"), 422);
    assert_eq!(activate(&link, NEW_PASSWORD), 303);
    assert_eq!(activate(&link, NEW_PASSWORD), 410);
    let row = portal.cli(&["account", "show", "2001"]);
    assert_eq!((&row["checked"], &row["first_login"]), (&json!(false), &Value::Null));
    assert!(row["activation_time"].is_string(), "{row:#}");
    // The first login over any protocol.
    let config = portal.file("curl.conf");
    std::fs::write(&config, format!("user = \"2001:{NEW_PASSWORD}\"\n")).unwrap();
    let listed = Command::new("curl")
        .args(["-sS", "--ssl-reqd", "-k", "--config"])
        .arg(&config)
        .arg(format!("ftp://127.0.0.1:{}/", portal.ftps_port))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("P-1"), "{listed:?}");
    let row = portal.cli(&["account", "show", "2001"]);
    assert_eq!((&row["checked"], &row["activated"]), (&json!(true), &json!(true)));
    assert_eq!(portal.events("account.activated").len(), 1);
    assert!(
        !portal.log().contains(NEW_PASSWORD) && !portal.log().contains(&link),
        "no secret in the log"
    );
}

#[test]
fn links_are_used_once_and_three_live_at_most() {
    let smtp = Smtp::start("ok");
    let portal = portal("links", smtp.port, (1, 1, 0));
    let (_, first) = invited(&portal, &smtp, "5001");
    let links: Vec<String> = (0..3)
        .map(|_| portal.cli(&["account", "link", "5001"])["link"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(curl(&[&first]).status, 410, "the oldest of four");
    assert!(links.iter().all(|link| curl(&[link]).status == 200));
    // Twenty clicks at once.
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..20).map(|_| scope.spawn(|| activate(&links[0], NEW_PASSWORD))).collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 303).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 410).count(), 19, "{answers:?}");
    assert!(links[1..].iter().all(|link| curl(&[link]).status == 410), "one success ends all");
    assert_eq!(log_in(&portal, "5001", NEW_PASSWORD), 303);
    assert_eq!(curl(&[&format!("{first}x")]).status, 404);
    // A password set by other means, and disabling, end links too.
    let fresh = || portal.cli(&["account", "link", "5001"])["link"].as_str().unwrap().to_owned();
    let old = fresh();
    let set = portal
        .try_cli_with_input(&["account", "password", "5001", "--stdin"], &format!("{PASSWORD}\n"));
    assert!(set.status.success());
    assert_eq!(curl(&[&old]).status, 410);
    let old = fresh();
    portal.cli(&["account", "disable", "5001"]);
    portal.cli(&["account", "enable", "5001"]);
    assert_eq!(curl(&[&old]).status, 410);
    assert_eq!(log_in(&portal, "5001", "ein falsches Kennwort"), 401);
}

#[test]
fn a_link_expires() {
    let portal =
        Setup::new().without_scanner().set("portal", "link_ttl", "\"2s\"").start("expires");
    let link = portal.cli(&["account", "link", "acme"])["link"].as_str().unwrap().to_owned();
    eventually("the link expires", || curl(&[&link]).status == 410);
    assert_eq!(activate(&link, NEW_PASSWORD), 410);
    assert!(curl(&[&link]).body.contains("name=\"username\""), "a new one is offered");
}

#[test]
fn a_new_link_is_mailed_to_who_is_known_and_the_page_tells_nobody() {
    let smtp = Smtp::start("ok");
    let portal = portal("new-link", smtp.port, (1, 1, 0));
    invited(&portal, &smtp, "6001");
    let ask = |name: &str| {
        let field = format!("username={name}");
        portal.page("/link", &["-H", "Accept-Language: de", "--data-urlencode", &field])
    };
    let strip = |body: &str| {
        let lines = body.lines().filter(|line| !line.contains("csrf"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let answers: Vec<String> = ["6001", "nobody", "6001", "' OR 1=1 --", ""]
        .iter()
        .map(|name| strip(&ask(name).is(200).body))
        .collect();
    assert!(answers.iter().all(|body| *body == answers[0]), "{answers:#?}");
    let mails = smtp.until_mails(2);
    assert!(mails[1].link().starts_with("http://localhost"), "{:#?}", mails[1]);
    assert_eq!(activate(&mails[1].link(), NEW_PASSWORD), 303);
    eventually("all wishes are answered", || portal.events("link.requested").len() == 2);
    assert_eq!(smtp.mails().len(), 2, "one a minute for each name");
    for _ in 0..5 {
        ask("nobody");
    }
    let limited = ask("nobody").is(429);
    assert!(limited.header("retry-after").is_some());
}

#[test]
fn a_foreign_host_or_form_is_refused() {
    let portal = portal("foreign", 1, (0, 0, 0));
    portal.set_password(PASSWORD);
    for arguments in [
        &["-H", "Host: evil.example"][..],
        &["-H", "Host: evil.example", "-H", "X-Forwarded-Host: localhost"],
        &["--request-target", "http://evil.example/link"],
    ] {
        let answer = portal.page("/link", arguments).is(421);
        assert!(!answer.body.contains("evil"), "{}", answer.body);
    }
    let (user, password) = (format!("username={}", "acme"), format!("password={PASSWORD}"));
    let form = ["--data-urlencode", &user, "--data-urlencode", &password];
    for header in ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Origin: null"] {
        portal.page("/", &[&form[..], &["-H", header]].concat()).is(403);
    }
    let jar = portal.file("jar").display().to_string();
    let entered = portal.page("/", &[&form[..], &["-c", &jar]].concat()).is(303);
    assert_eq!(entered.header("location"), Some("/home"));
    portal.page("/home", &["-b", &jar]).is(200);
    // After login the secret of the session is needed.
    portal.page("/logout", &["-b", &jar, "-d", "csrf=x"]).is(403);
    portal.page("/home/keys", &["-b", &jar, "-d", "key=x"]).is(403);
    portal.page("/home", &["-b", &jar]).is(200);
    // Disabling ends sessions of pages too.
    portal.cli(&["account", "disable", "acme"]);
    portal.page("/home", &["-b", &jar]).is(303);
    let headers = portal.page("/", &[]);
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert!(headers.header(name).is_some_and(|value| value.contains(part)), "{name}");
    }
}

#[test]
fn a_password_guesser_is_banned_while_the_customer_gets_in_from_elsewhere() {
    let portal = Setup::new()
        .without_scanner()
        .set("limits", "ban_after", "5")
        .set("web", "trusted_proxies", "[\"127.0.0.1\"]")
        .start("guesser");
    portal.set_password(PASSWORD);
    let try_one = |from: &str, password: &str| {
        let field = format!("password={password}");
        let from = format!("X-Forwarded-For: {from}");
        portal.page("/", &["-H", &from, "-d", "username=acme", "--data-urlencode", &field]).status
    };
    let answers: Vec<u16> =
        (0..7).map(|n| try_one("192.0.2.66", &format!("geraten-{n}-xyz"))).collect();
    assert_eq!(answers[..5], [401; 5]);
    assert_eq!(answers[5..], [403; 2]);
    assert_eq!(try_one("198.51.100.7", PASSWORD), 303);
    let bans = portal.cli(&["ban", "list"]);
    assert_eq!(bans[0]["address"], "192.0.2.66");
    portal.cli(&["ban", "remove", "192.0.2.66"]);
    eventually("the ban is lifted", || try_one("192.0.2.66", PASSWORD) == 303);
}

#[test]
fn sixty_four_logins_at_once_all_answer_in_little_memory() {
    let portal =
        Setup::new().without_scanner().set("limits", "connections_per_ip", "100").start("storm");
    portal.set_password(PASSWORD);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        // Half of them wrong, so that no memory of good ones helps.
        let ask = |n: u32| {
            let password =
                if n.is_multiple_of(2) { PASSWORD.to_owned() } else { format!("falsch, die {n}.") };
            let portal = &portal;
            move || {
                let from = format!("--interface 127.0.0.{}", n % 8 + 1);
                let mut arguments: Vec<&str> = from.split(' ').collect();
                let field = format!("password={password}");
                arguments.extend(["-d", "username=acme", "--data-urlencode", &field]);
                portal.page("/", &arguments).status
            }
        };
        let running: Vec<_> = (0..64).map(|n| scope.spawn(ask(n))).collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 303).count(), 32, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 401).count(), 32, "{answers:?}");
    let peak = portal.memory("VmHWM");
    println!("peak of 64 logins: {peak} kB");
    assert!(peak < 150 * 1024, "{peak} kB");
}

#[test]
fn accounts_of_another_system_keep_their_passwords() {
    let portal = portal("imported", 1, (0, 0, 0));
    let crypt =
        Command::new("openssl").args(["passwd", "-6", "-salt", "saltsalt", PASSWORD]).output();
    let sha512 = String::from_utf8(crypt.unwrap().stdout).unwrap().trim().to_owned();
    let key = std::fs::read_to_string(portal.file("id.pub")).unwrap();
    let table = format!(
        "username;client_no;password_hash;keys;client_name\nalt;7001;{sha512};{}|;Alt & Co\n",
        key.trim()
    );
    std::fs::write(portal.file("accounts.csv"), &table).unwrap();
    let file = portal.file("accounts.csv").display().to_string();
    portal.cli(&["account", "import", &file]);
    assert_eq!(log_in(&portal, "alt", "etwas ganz anderes"), 401);
    assert_eq!(log_in(&portal, "alt", PASSWORD), 303);
    eventually("the hash is replaced", || {
        portal.log().contains("the imported password hash is argon2id now")
    });
    assert_eq!(log_in(&portal, "alt", PASSWORD), 303);
    // A long password costs nobody else's time, whatever the hash.
    let made = Command::new("/usr/bin/python3")
        .args([
            "-W",
            "ignore",
            "-c",
            "import crypt; print(crypt.crypt('x', '$6$rounds=656000$saltsalt$'))",
        ])
        .output();
    let dear = String::from_utf8(made.unwrap().stdout).unwrap();
    let dear = format!("username,client_no,password_hash\ndear,7001,{}\n", dear.trim());
    std::fs::write(portal.file("accounts.csv"), dear).unwrap();
    portal.cli(&["account", "import", &file]);
    assert_eq!(log_in(&portal, "dear", &"x".repeat(8000)), 401);
    // All or nothing.
    let again = format!("{table}neu;7002;;;\n");
    std::fs::write(portal.file("accounts.csv"), again.replace("\nneu", "\nalt;7002;;;\nneu"))
        .unwrap();
    let refused = portal.try_cli(&["account", "import", &file]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing was imported"));
    assert!(!portal.try_cli(&["account", "show", "neu"]).status.success());
}

#[test]
fn without_a_mail_account_mails_become_files() {
    let portal = Setup::new().without_scanner().start("files");
    std::fs::write(
        portal.file("client.ini"),
        "portal_create_uplogin_automatically=1\nportal_send_uplogin_email_automatically=1\n",
    )
    .unwrap();
    let token = portal.token("mis");
    portal.api(&token, "POST", "/projects", Some(&order("8001", "P-1", &[]))).is(201);
    let folder = portal.file("data/mail");
    let files = || -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "eml")).collect()
    };
    eventually("the file is there", || files().len() == 1);
    let path = files().remove(0);
    let mail = read_mail(&path);
    assert_eq!(curl(&[&mail.link()]).status, 200);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(mails_of(&portal, "8001")[0]["state"], "sent");
}

#[test]
fn nonsense_is_refused_with_a_reason_and_nothing_is_half_done() {
    let portal = portal("nonsense", 1, (1, 0, 2));
    std::fs::write(
        portal.file("client.ini"),
        ini(1, 1, 0, 2).replace("SMTP-Server", "; SMTP-Server"),
    )
    .unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/portal/bad_input.py");
    let (web, api) = (portal.web_port, portal.api_port);
    let cli = format!(
        "{} --config {}",
        crate::support::instance::BINARY,
        portal.file("ptportal.toml").display()
    );
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .args([
            "--web",
            &format!("http://localhost:{web}"),
            "--api",
            &format!("http://127.0.0.1:{api}"),
        ])
        .args(["--token", &portal.token("nonsense"), "--cli", &cli, "--data-dir"])
        .arg(portal.file("data"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().last().unwrap_or_default());
}
