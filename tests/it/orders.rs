//! Orders by API, import folder and command line: what is decided, who is mailed, what is refused.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::http::curl;
use crate::support::instance::{PASSWORD, Setup};
use crate::support::orders::{mails_of, order, portal, set_ini, states};
use crate::support::smtp::Smtp;

#[test]
fn the_same_announcement_again_changes_nothing_and_mails_nothing() {
    let smtp = Smtp::start("ok");
    let portal = portal("again", smtp.port, (1, 1, 2));
    let token = portal.token("mis");
    let first = order("2001", "P-1", &["T1", "T2"]);
    portal.api(&token, "POST", "/projects", Some(&first)).is(201);
    smtp.until_mails(1);
    let before = (portal.cli(&["project", "list"]), portal.cli(&["client", "list"]));
    for _ in 0..3 {
        let again = portal.api(&token, "POST", "/projects", Some(&first)).is(200).json();
        assert_eq!((&again["created"], &again["decision"]["mails"]), (&json!(false), &json!([])));
    }
    std::fs::write(portal.file("order.part"), first.to_string()).unwrap();
    std::fs::rename(portal.file("order.part"), portal.file("data/import/order.json")).unwrap();
    eventually("the file is taken", || portal.file("data/import/done/order.json").exists());
    assert_eq!(before, (portal.cli(&["project", "list"]), portal.cli(&["client", "list"])));
    assert_eq!(mails_of(&portal, "2001").len(), 1);
    // Twenty at once: one makes it, the others see it.
    let second = order("2002", "P-2", &["T1"]);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let ask = || portal.api(&token, "POST", "/projects", Some(&second)).status;
        let running: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 201).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status, 200 | 201)), "{answers:?}");
    assert_eq!(mails_of(&portal, "2002").len(), 1);
    // A closed project stays closed until something changes.
    portal.api(&token, "POST", "/projects/P-1/close", None).is(200);
    let again = portal.api(&token, "POST", "/projects", Some(&first)).is(200).json();
    assert_eq!((&again["project"]["state"], &again["folders"]), (&json!("closed"), &json!([])));
    let more = order("2001", "P-1", &["T1", "T2", "T3"]);
    let opened = portal.api(&token, "POST", "/projects", Some(&more)).is(201).json();
    assert_eq!(opened["project"]["state"], "open");
}

#[test]
fn announcements_in_any_order_and_twice_end_with_the_same_rows_through_kills() {
    let mut portal = Setup::new().without_scanner().start("permuted");
    let token = portal.token("mis");
    let orders = [["T1"], ["T2"], ["T3"]];
    let permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (n, permutation) in permutations.into_iter().enumerate() {
        let (client, project) = (format!("30{n}"), format!("Q-{n}"));
        // Each comes twice, the second time behind the next one.
        for k in [0, 1, 0, 2, 1, 2] {
            let announced = order(&client, &project, &orders[permutation[k]]);
            if k == 1 {
                // Its answer is lost with the process; PTworkflow says it again.
                let url = format!("http://127.0.0.1:{}/api/v1/projects", portal.api_port);
                let mut call = std::process::Command::new("curl");
                call.args(["-sS", "-o", "/dev/null", "-X", "POST", "--data-binary"]);
                call.arg(announced.to_string()).args(["-H", "Content-Type: application/json"]);
                call.args(["-H", &format!("Authorization: Bearer {token}"), &url]);
                let mut call = call.stderr(std::process::Stdio::null()).spawn().unwrap();
                std::thread::sleep(std::time::Duration::from_millis(n as u64 * 4));
                portal.kill();
                portal.serve();
                call.wait().unwrap();
            }
            let answer = portal.api(&token, "POST", "/projects", Some(&announced));
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        }
        let tickets = portal.cli(&["ticket", "list", &project]);
        let mut numbers: Vec<&str> =
            tickets.as_array().unwrap().iter().map(|t| t["ticket_no"].as_str().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, ["T1", "T2", "T3"], "{permutation:?}");
        let accounts = portal.cli(&["account", "list"]);
        let own = accounts.as_array().unwrap().iter().filter(|a| a["client_no"] == client);
        assert!(own.count() <= 1, "{accounts:#}");
        assert!(mails_of(&portal, &client).len() <= 1, "{:#?}", mails_of(&portal, &client));
    }
    let projects = portal.cli(&["project", "list"]);
    let rows = projects.as_array().unwrap();
    let same = |key: &str| {
        let mut values: Vec<String> = rows
            .iter()
            .filter(|p| p["project_no"].as_str().unwrap().starts_with("Q-"))
            .map(|p| p[key].to_string())
            .collect();
        values.dedup();
        values.len() == 1
    };
    for key in ["job_description", "due_date", "state", "access"] {
        assert!(same(key), "{key}: {projects:#}");
    }
}

#[test]
fn the_rows_of_the_decision_table_through_the_api() {
    let smtp = Smtp::start("ok");
    let portal = portal("table", smtp.port, (0, 0, 0));
    let token = portal.token("mis");
    let announce = |body: &Value| portal.api(&token, "POST", "/projects", Some(body)).json();
    // Not meant for the portal.
    let mut body = order("3000", "A-0", &[]);
    body["client"]["create_hotfolder"] = json!(false);
    assert_eq!(announce(&body)["decision"]["access"], "not-meant");
    // No account, and none is made.
    let told = announce(&order("3001", "A-1", &[]));
    assert_eq!(
        (&told["decision"]["access"], &told["account"]),
        (&json!("no-access-yet"), &Value::Null)
    );
    // Made by hand later: the open project appears, and one mail tells of it.
    let account = portal.cli(&["account", "create", "3001"]);
    assert_eq!(account["status"], "active");
    let mails = mails_of(&portal, "3001");
    assert_eq!(states(&mails), [("Hotfolder Portalzugang", "draft")]);
    assert!(
        mails[0]["reason"].as_str().unwrap().contains("portal_send_uplogin_email_automatically")
    );
    assert_eq!(portal.cli(&["project", "show", "A-1"])["access"], "ok");
    // With the switch the next announcement sends the draft that waits.
    set_ini(&portal, smtp.port, (1, 1, 0));
    announce(&order("3001", "A-2", &[]));
    smtp.until_mails(1);
    assert_eq!(mails_of(&portal, "3001").len(), 1);
    // Nothing more within a day.
    announce(&order("3001", "A-3", &[]));
    assert_eq!(mails_of(&portal, "3001").len(), 1);
    // A closed project that says nothing new makes no account.
    set_ini(&portal, smtp.port, (0, 0, 0));
    announce(&order("3002", "C-1", &[]));
    portal.cli(&["project", "close", "C-1"]);
    set_ini(&portal, smtp.port, (1, 1, 0));
    let told = announce(&order("3002", "C-1", &[]));
    assert_eq!((&told["account"], &told["decision"]["mails"]), (&Value::Null, &json!([])));
    // A name that is used anew is invited anew.
    announce(&order("3003", "D-1", &[]));
    smtp.until_mails(2);
    portal.cli(&["account", "remove", "3003"]);
    let told = announce(&order("3003", "D-1", &[]));
    assert_eq!(told["decision"]["mails"].as_array().unwrap().len(), 1, "{told:#}");
    smtp.until_mails(3);
    // A key that came and went is no credential.
    let key = portal.file("id.pub").display().to_string();
    let added = portal.cli(&["account", "key", "add", "3003", &key]);
    assert_eq!(portal.cli(&["account", "show", "3003"])["activated"], true);
    portal.cli(&["account", "key", "remove", "3003", added["fingerprint"].as_str().unwrap()]);
    assert_eq!(portal.cli(&["account", "show", "3003"])["activated"], false);
    // Inactive: recorded, no folder, no mail.
    portal.cli(&["account", "disable", "3001"]);
    let told = announce(&order("3001", "A-4", &[]));
    assert_eq!((&told["decision"]["access"], &told["folders"]), (&json!("inactive"), &json!([])));
    portal.cli(&["account", "enable", "3001"]);
    // Activated: reminders as the third switch says, whatever the second.
    portal.cli(&["account", "set", "3001", "language=de"]);
    let set = portal
        .try_cli_with_input(&["account", "password", "3001", "--stdin"], &format!("{PASSWORD}\n"));
    assert!(set.status.success());
    announce(&order("3001", "B-0", &["T1"]));
    assert_eq!(mails_of(&portal, "3001").len(), 1);
    set_ini(&portal, smtp.port, (1, 0, 1));
    announce(&order("3001", "B-1", &["T1"]));
    announce(&order("3001", "B-1", &["T1", "T2"]));
    set_ini(&portal, smtp.port, (1, 0, 2));
    announce(&order("3001", "B-2", &[]));
    announce(&order("3001", "B-2", &["T1", "T2"]));
    let mails = mails_of(&portal, "3001");
    // Two mails of one moment come in either order.
    let mut about: Vec<String> =
        mails[1..].iter().map(|m| format!("{} {}", m["project_no"], m["ticket_no"])).collect();
    about.sort();
    assert_eq!(about, ["\"B-1\" null", "\"B-2\" \"T1\"", "\"B-2\" \"T2\""]);
    let texts = smtp.until_mails(6);
    let last = texts.last().unwrap();
    assert!(last.text.contains("Teil T") && last.text.contains("B-2"), "{}", last.text);
    assert!(!last.text.contains("/activate/"), "no token where none belongs");
}

#[test]
fn the_address_is_chosen_by_contact_favourite_and_client() {
    let smtp = Smtp::start("ok");
    let portal = portal("address", smtp.port, (1, 1, 1));
    let token = portal.token("mis");
    let mut body = order("4001", "P-1", &[]);
    body["client"]["email"] = Value::Null;
    portal.api(&token, "POST", "/projects", Some(&body)).is(201);
    let mails = mails_of(&portal, "4001");
    assert_eq!(mails[0]["state"], "draft");
    assert!(mails[0]["reason"].as_str().unwrap().contains("no address"), "{mails:?}");
    let id = mails[0]["id"].as_str().unwrap();
    let refused = portal.try_cli(&["mail", "send", id]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no address"));
    portal.cli(&["client", "set", "4001", "--email", "firma@kunde.example"]);
    portal.cli(&["mail", "send", id]);
    assert_eq!(smtp.until_mails(1)[0].header("To"), "firma@kunde.example");
    let set = portal
        .try_cli_with_input(&["account", "password", "4001", "--stdin"], &format!("{PASSWORD}\n"));
    assert!(set.status.success());
    portal.cli(&[
        "contact",
        "add",
        "4001",
        "--name",
        "Erika Muster",
        "--email",
        "erika@kunde.example",
        "--favourite",
    ]);
    portal.api(&token, "POST", "/projects", Some(&order("4001", "P-2", &[]))).is(201);
    assert_eq!(smtp.until_mails(2)[1].header("To"), "Erika Muster <erika@kunde.example>");
    let mut body = order("4001", "P-3", &[]);
    body["project"]["contact"] =
        json!({"name": "Jörg \"Joe\" Müller", "email": "joerg@kunde.example"});
    portal.api(&token, "POST", "/projects", Some(&body)).is(201);
    assert!(smtp.until_mails(3)[2].header("To").contains("joerg@kunde.example"));
    let contacts = portal.cli(&["contact", "list", "4001"]);
    assert_eq!(contacts.as_array().unwrap().len(), 2);
}

#[test]
fn orders_as_xml_and_bad_files_in_the_import_folder() {
    let portal = portal("import", 1, (0, 0, 0));
    let put = |name: &str, text: &[u8]| {
        std::fs::write(portal.file("data/.part"), text).unwrap();
        std::fs::rename(portal.file("data/.part"), portal.file("data/import").join(name)).unwrap();
    };
    eventually("the folder is made", || portal.file("data/import/failed").exists());
    put("good.xml", include_bytes!("../../templates/import/order.xml"));
    put("bad.xml", b"<project><client><client_no>1</client_no></client></project>");
    put("bad.json", b"{\"client\": {\"client_no\": \"1\", \"email\": \"x\"}, \"project\": {\"project_no\": \"P\"}}");
    put("nothing.txt", b"");
    put(".hidden.json", b"{");
    std::os::unix::fs::symlink("/etc/passwd", portal.file("data/import/link.json")).unwrap();
    eventually("all are taken", || {
        portal.file("data/import/done/good.xml").exists()
            && ["bad.xml", "bad.json", "nothing.txt"].iter().all(|name| {
                portal.file("data/import/failed").join(format!("{name}.error.txt")).exists()
            })
    });
    let reason = |name: &str| {
        std::fs::read_to_string(portal.file("data/import/failed").join(format!("{name}.error.txt")))
            .unwrap()
    };
    assert!(reason("bad.xml").contains("missing field `project`"), "{}", reason("bad.xml"));
    assert!(reason("bad.json").contains("client.email"), "{}", reason("bad.json"));
    assert!(
        portal.file("data/import/.hidden.json").exists()
            && portal.file("data/import/link.json").exists()
    );
    let project = portal.cli(&["project", "show", "2026/0815-1"]);
    assert_eq!(project["tickets"].as_array().unwrap().len(), 2);
    assert_eq!(portal.cli(&["client", "show", "10042"])["name"], "Gasthof Müller & Söhne GmbH");
    assert_eq!(portal.events("import.failed").len(), 3);
}

const ORDER_ROUTES: [(&str, &str); 10] = [
    ("GET", "/projects"),
    ("POST", "/projects"),
    ("GET", "/projects/2026-0815"),
    ("POST", "/projects/2026-0815/close"),
    ("GET", "/uploads"),
    ("GET", "/clients/1001"),
    ("PUT", "/clients/1001"),
    ("POST", "/accounts/acme/enable"),
    ("POST", "/accounts/acme/disable"),
    ("POST", "/accounts/acme/link"),
];

const PULL_ROUTES: [(&str, &str); 15] = [
    ("POST", "/deliveries/claim"),
    ("GET", "/deliveries/untaken"),
    ("POST", "/deliveries/seen"),
    ("GET", "/deliveries/x/content"),
    ("POST", "/deliveries/x/renew"),
    ("POST", "/deliveries/x/placing"),
    ("POST", "/deliveries/x/unplace"),
    ("POST", "/deliveries/x/done"),
    ("POST", "/deliveries/x/failed"),
    ("GET", "/uploads/x/content"),
    ("GET", "/folders"),
    ("POST", "/projects/2026-0815/folders"),
    ("GET", "/projects/2026-0815/files"),
    ("POST", "/projects/2026-0815/files/Final"),
    ("PUT", "/projects/2026-0815/files/Final/a/b.pdf"),
];

#[test]
fn the_api_admits_only_good_tokens_and_says_what_is_wrong() {
    let portal = portal("tokens", 1, (0, 0, 0));
    let token = portal.token("mis");
    let scoped = portal.cli(&["token", "create", "pull", "--scope", "pull"]);
    let pull = scoped["token"].as_str().unwrap().to_owned();
    portal.token("gone");
    let gone = portal.token("gone-too");
    portal.cli(&["token", "revoke", "gone-too"]);
    for (method, path) in PULL_ROUTES {
        for bad in ["", "x", &gone] {
            portal.api(bad, method, path, None).is(401);
        }
        portal.api(&token, method, path, None).is(403);
    }
    for (method, path) in ORDER_ROUTES {
        for bad in ["", "x", &gone] {
            let answer = portal.api(bad, method, path, None).is(401);
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert!(answer.header("www-authenticate").is_some());
        }
        portal.api(&pull, method, path, None).is(403);
    }
    assert_eq!(portal.cli(&["account", "show", "acme"])["status"], "active");
    portal.api(&token, "GET", "/projects/nothing", None).is(404);
    portal.api(&token, "DELETE", "/projects", None).is(405);
    portal.api(&token, "PUT", "/clients/77", Some(&json!({"name": "Neu"}))).is(201);
    portal.api(&token, "PUT", "/clients/77", Some(&json!({"name": "Neu & Alt"}))).is(200);
    assert_eq!(portal.api(&token, "GET", "/clients/77", None).json()["name"], "Neu & Alt");
    let other = order("77", "2026-0815", &[]);
    let answer = portal.api(&token, "POST", "/projects", Some(&other)).is(409).json();
    assert!(
        answer["title"].is_string()
            && answer["detail"].as_str().unwrap().contains("another client")
    );
    let mut bad = order("78", "P", &[]);
    bad["project"]["due_date"] = json!("24.12.2026");
    bad["client"]["email"] = json!("nobody");
    let answer = portal.api(&token, "POST", "/projects", Some(&bad)).is(422).json();
    assert_eq!(answer["errors"].as_array().unwrap().len(), 2, "{answer:#}");
    assert!(
        portal.try_cli(&["client", "show", "78"]).status.code() == Some(1),
        "nothing half done"
    );
    let link = portal.api(&token, "POST", "/accounts/acme/link", None).is(200).json();
    assert!(link["link"].as_str().unwrap().contains("/activate/"));
    portal.api(&token, "POST", "/accounts/acme/disable", None).is(200);
    assert_eq!(curl(&[link["link"].as_str().unwrap()]).status, 404, "the account may not be used");
    let open = format!("http://127.0.0.1:{}/api/v1/openapi.json", portal.api_port);
    let document = curl(&[&open]).is(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    // What the document promises is there, and what is there is in the document.
    let mut described = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap();
        for method in operations.as_object().unwrap().keys().map(|m| m.to_uppercase()) {
            if path == "/openapi.json" || !["GET", "POST", "PUT"].contains(&method.as_str()) {
                continue;
            }
            let (before, rest) = path.split_once('{').unwrap_or((path, "}"));
            let filled = format!("{before}x{}", rest.split_once('}').unwrap().1);
            let filled = if path.contains('{') { filled } else { path.to_owned() };
            portal.api("", &method, &filled, None).is(401);
            described.push((method, filled));
        }
    }
    assert_eq!(described.len(), ORDER_ROUTES.len() + PULL_ROUTES.len(), "{described:?}");
}
