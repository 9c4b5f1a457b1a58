//! The store on both databases: the same SQL, the same results; and the whole server on PostgreSQL.

use ptportal::domain::event::{Event, EventKind};
use ptportal::domain::path::PATH_BYTES;
use ptportal::domain::time::Timestamp;
use ptportal::domain::upload::{DeliveryState, UploadState};
use ptportal::store::batch::Step;
use ptportal::store::uploads::{Finding, UploadRow};
use ptportal::store::{
    Store, accounts, clients, deliveries, entries, events, guard, nodes, orders, uploads,
};

use crate::support::instance::{IN, Setup};
use crate::support::{TempDir, eventually, random};

/// `make test` starts this server and names it here.
fn postgres() -> String {
    std::env::var("PTPORTAL_TEST_POSTGRES")
        .expect("run `make test`, which starts a PostgreSQL for the tests")
}

/// A database of the test's own.
pub(crate) fn fresh_postgres() -> String {
    let name = format!("t{:x}", random());
    let url = postgres();
    let made = std::process::Command::new("psql")
        .args([&url, "-qc", &format!("CREATE DATABASE {name}")])
        .status();
    assert!(made.unwrap().success());
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Runs one body on each database.
pub(crate) fn on_both(body: impl AsyncFn(&Store)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = TempDir::new("store");
    for url in [String::new(), fresh_postgres()] {
        runtime.block_on(async {
            let store = Store::open(&url, &dir.path().join("test.db")).await.unwrap();
            store.migrate().await.unwrap();
            store.migrate().await.unwrap();
            assert_eq!(store.durability().await.unwrap(), "full");
            body(&store).await;
            store.close().await;
        });
    }
}

pub(crate) const NOW: Timestamp = Timestamp(1_764_000_000_000);

fn upload(id: &str, entry: &str, version: i64) -> UploadRow {
    UploadRow {
        id: id.to_owned(),
        entry_id: entry.to_owned(),
        client_no: "1".to_owned(),
        username: "u".to_owned(),
        project_no: "P".to_owned(),
        ticket_no: String::new(),
        path: "Eingehend/ä.pdf".to_owned(),
        version,
        state: "receiving".to_owned(),
        size: 0,
        sha256: String::new(),
        declared_size: -1,
        reserved: 0,
        mtime: 0,
        verdict: String::new(),
        signature: String::new(),
        reason: String::new(),
        scanner: String::new(),
        waived_by: String::new(),
        repeat_of: String::new(),
        protocol: "sftp".to_owned(),
        peer: "::1".to_owned(),
        node: "N".to_owned(),
        scan_attempts: 0,
        scan_next: 0,
        started: NOW.0,
        completed: 0,
        released: 0,
        delivered: 0,
        content: "kept".to_owned(),
        told_pending: 0,
        md5: String::new(),
        created: NOW.0,
        updated: NOW.0,
    }
}

fn entry(id: &str, parent: &str, name: &str) -> entries::EntryRow {
    entries::EntryRow {
        id: id.to_owned(),
        project_id: "PID".to_owned(),
        parent: parent.to_owned(),
        name: name.to_owned(),
        name_key: name.to_lowercase(),
        kind: if name.contains('.') { "file" } else { "folder" }.to_owned(),
        is_temporary: 0,
        released_upload: String::new(),
        released_version: 0,
        current_upload: String::new(),
        last_version: 0,
        mtime: NOW.0,
        created: NOW.0,
        updated: NOW.0,
    }
}

/// Writes an upload down as the newest version of its name.
async fn add(store: &Store, row: &UploadRow) {
    let seen = entries::entry(store.db(), &row.entry_id).await.unwrap().unwrap().current_upload;
    let take = entries::take_version_step(&row.entry_id, &row.id, &seen, NOW);
    let done = store.run(vec![take, uploads::insert_step(row)]).await.unwrap();
    assert!(uploads::returned_version(done.get(1)).unwrap().is_some());
}

#[test]
fn an_upload_goes_through_its_states_only_forward() {
    on_both(async |store| {
        let db = store.db();
        entries::insert(db, &entry("E", "PID/0", "ä.pdf")).await.unwrap();
        assert!(
            !entries::insert(db, &entry("E2", "PID/0", "ä.pdf")).await.unwrap(),
            "one of each name"
        );
        add(store, &upload("U1", "E", 1)).await;
        let late = entries::take_version_step("E", "U9", "", NOW);
        let done =
            store.run(vec![late, uploads::insert_step(&upload("U9", "E", 1))]).await.unwrap();
        assert!(
            uploads::returned_version(done.get(1)).unwrap().is_none(),
            "one writer for each name"
        );
        assert_eq!(uploads::note_progress(db, "U1", "N", 500, NOW).await.unwrap(), 1);
        assert_eq!(uploads::note_progress(db, "U1", "other", 500, NOW).await.unwrap(), 0);
        assert_eq!(uploads::set_incomplete(db, "U1", "N", 700, NOW).await.unwrap(), 1);
        assert_eq!(uploads::resume(db, "U1", ("u", "sftp", "::1", "N"), NOW).await.unwrap(), 1);
        let seal = async || {
            let done =
                store.run(vec![uploads::seal_step("U1", (900, "abc", 5), NOW)]).await.unwrap();
            uploads::returned(done.first()).unwrap()
        };
        let sealed = seal().await.unwrap();
        assert_eq!((sealed.size, sealed.sha256.as_str(), sealed.mtime), (900, "abc", 5));
        assert!(seal().await.is_none(), "only once");
        let finding = Finding { verdict: "clean", ..Finding::default() };
        let to = (UploadState::Scanning, UploadState::Released);
        let released = uploads::settle(db, "U1", to, &finding, NOW).await.unwrap().unwrap();
        assert_eq!(released.released, NOW.0);
        assert!(uploads::settle(db, "U1", to, &finding, NOW).await.unwrap().is_none());
        assert_eq!(entries::show_release(db, "U1", NOW).await.unwrap(), 1);
        assert_eq!(entries::show_release(db, "U1", NOW).await.unwrap(), 0, "no later version");
        let listed = entries::children(db, "PID/0", "", 10).await.unwrap();
        assert_eq!((listed[0].released_size, listed[0].current_state.clone()), (Some(900), None));
    });
}

#[test]
fn deliveries_are_claimed_once_under_a_lease_and_in_order_of_versions() {
    on_both(async |store| {
        let db = store.db();
        let later = NOW.plus(std::time::Duration::from_secs(60));
        for (id, version) in [("D2", 2), ("D1", 1)] {
            let ids = (id, "E", version);
            deliveries::insert(db, id, ids, ("mirror", "hotfolder"), (NOW, NOW)).await.unwrap();
            let twice = deliveries::insert(db, "X", ids, ("mirror", "hotfolder"), (NOW, NOW))
                .await
                .unwrap();
            assert_eq!(twice, 0, "one for each consumer");
        }
        let first = deliveries::claim(db, ("A", later), NOW).await.unwrap().unwrap();
        assert_eq!((first.id.as_str(), first.attempts), ("D1", 1));
        assert!(
            deliveries::claim(db, ("B", later), NOW).await.unwrap().is_none(),
            "version 2 waits"
        );
        assert_eq!(
            deliveries::set_placing(db, ("D1", "B"), ("t", "n"), NOW).await.unwrap(),
            0,
            "not B's lease"
        );
        assert_eq!(deliveries::set_placing(db, ("D1", "A"), ("t", "n"), NOW).await.unwrap(), 1);
        assert_eq!(
            deliveries::end_unplaced(db, "D1", DeliveryState::Cancelled, NOW).await.unwrap(),
            0
        );
        assert_eq!(deliveries::set_done(db, "D1", NOW).await.unwrap(), 1);
        let second = deliveries::claim(db, ("B", later), NOW).await.unwrap().unwrap();
        assert_eq!(second.id, "D2");
        let after = later.plus(std::time::Duration::from_secs(1));
        let taken_over = deliveries::claim(db, ("C", after), after).await.unwrap().unwrap();
        assert_eq!(
            (taken_over.id.as_str(), taken_over.attempts),
            ("D2", 2),
            "a lease that ran out"
        );
        assert_eq!(deliveries::renew_lease(db, "D2", "B", after).await.unwrap(), 0);
    });
}

#[test]
fn the_tree_knows_its_paths_and_renames_follow() {
    on_both(async |store| {
        let db = store.db();
        entries::insert(db, &entry("F", "PID/0", "Ordner")).await.unwrap();
        entries::insert(db, &entry("G", "F", "tief")).await.unwrap();
        entries::insert(db, &entry("H", "G", "datei.pdf")).await.unwrap();
        assert_eq!(entries::names_down_to(db, "H").await.unwrap(), ["Ordner", "tief", "datei.pdf"]);
        assert!(entries::has_children(db, "F").await.unwrap());
        entries::insert(db, &entry("E", "PID/0", "e.pdf")).await.unwrap();
        for (id, path) in [
            ("1", "Eingehend/Ördner/a"),
            ("2", "Eingehend/Ördner/b/c"),
            ("3", "Eingehend/Ördner2/a"),
        ] {
            add(store, &UploadRow { path: path.to_owned(), ..upload(id, "E", 1) }).await;
        }
        let moved =
            uploads::rename_paths(db, "P", "Eingehend/Ördner", "Eingehend/neu").await.unwrap();
        assert_eq!(moved, 2);
        let path = async |id: &str| uploads::upload(db, id).await.unwrap().unwrap().path;
        assert_eq!(path("1").await, "Eingehend/neu/a");
        assert_eq!(path("2").await, "Eingehend/neu/b/c");
        assert_eq!(path("3").await, "Eingehend/Ördner2/a");
    });
}

#[test]
fn events_are_numbered_in_order_of_commit_without_gaps() {
    on_both(async |store| {
        let dropped = {
            let mut tx = store.write().await.unwrap();
            events::insert(tx.db(), &Event::new(EventKind::Login), NOW).await.unwrap()
        };
        let write = async |kind| {
            let mut tx = store.write().await.unwrap();
            let seq = events::insert(tx.db(), &Event::new(kind).with("k", "v"), NOW).await.unwrap();
            events::note_change(tx.db(), "account", "u", NOW).await.unwrap();
            tx.commit().await.unwrap();
            seq
        };
        assert_eq!(dropped, write(EventKind::Login).await, "a rolled back event leaves no gap");
        let (a, b) = tokio::join!(write(EventKind::LoginFailed), write(EventKind::Logout));
        assert_eq!(a.abs_diff(b), 1);
        let filter = events::Filter { after_seq: dropped, limit: 10, ..events::Filter::default() };
        let rows = events::list(store.db(), &filter).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].detail, "{\"k\":\"v\"}");
        assert_eq!(events::changes_after(store.db(), 1).await.unwrap().len(), 2);
    });
}

#[test]
fn accounts_clients_orders_bans_and_nodes_read_back() {
    on_both(async |store| {
        let db = store.db();
        let client = clients::ClientRow {
            id: "C".to_owned(),
            client_no: "1".to_owned(),
            name: "Müller 'n' Söhne; DROP TABLE clients".to_owned(),
            email: String::new(),
            create_hotfolder: 1,
            hotfolder_delete_in_days: 0,
            language: "de".to_owned(),
            created: NOW.0,
            updated: NOW.0,
        };
        clients::insert_client(db, &client).await.unwrap();
        assert_eq!(clients::client(db, "1").await.unwrap().unwrap().name, client.name);
        let project = orders::ProjectRow {
            id: "PID".to_owned(),
            project_no: "P".to_owned(),
            client_no: "1".to_owned(),
            job_description: String::new(),
            due_date: String::new(),
            contact: String::new(),
            state: "open".to_owned(),
            folder: "P".to_owned(),
            published: 0,
            created: NOW.0,
            updated: NOW.0,
        };
        orders::insert_project(db, &project).await.unwrap();
        assert_eq!(orders::visible_projects(db, "1").await.unwrap().len(), 1);
        assert!(orders::visible_project(db, "2", "P").await.unwrap().is_none());
        entries::insert(db, &entry("E", "PID/0", "a.pdf")).await.unwrap();
        let running = UploadRow { size: 10, reserved: 64, ..upload("U", "E", 1) };
        add(store, &running).await;
        assert_eq!(entries::client_usage(db, "1").await.unwrap(), 64);
        assert_eq!(uploads::open_of_client(db, "1").await.unwrap(), 1);
        assert_eq!(accounts::system_default(db, "ptportal").await.unwrap().as_deref(), Some("{}"));
        guard::ban(db, "192.0.2.1", NOW, "x", NOW).await.unwrap();
        guard::ban(db, "192.0.2.1", NOW.plus(nodes::DEAD_AFTER), "y", NOW).await.unwrap();
        assert_eq!(guard::bans(db, NOW).await.unwrap()[0].reason, "y");
        nodes::insert(db, "N1", "host", 7, NOW).await.unwrap();
        assert_eq!(nodes::live(db, NOW).await.unwrap(), ["N1"]);
        assert!(nodes::live(db, NOW.plus(nodes::DEAD_AFTER * 2)).await.unwrap().is_empty());
    });
}

#[test]
fn the_whole_way_of_a_file_on_postgresql() {
    let url = fresh_postgres();
    let portal = Setup::new().set("database", "url", &format!("\"{url}\"")).start("pg");
    std::fs::write(portal.file("a.pdf"), b"%PDF on PostgreSQL").unwrap();
    std::fs::write(portal.file("v.pdf"), crate::support::eicar()).unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\nls -l {IN}\nrename {IN}/a.pdf {IN}/b.pdf\n-put v.pdf {IN}/v.pdf\n")).well();
    assert_eq!(portal.until_delivered("b.pdf"), b"%PDF on PostgreSQL");
    portal.until_state("v.pdf", "infected");
    let shown = portal.cli(&["config", "show"]).to_string();
    assert!(!portal.file("data/ptportal.db").exists());
    assert!(shown.contains("database.url"));
    portal.cli(&["account", "disable", "acme"]);
    portal.sftp("ls\n").badly();
}

#[test]
fn the_longest_path_goes_the_whole_way_on_postgresql() {
    let url = fresh_postgres();
    let portal = Setup::new().set("database", "url", &format!("\"{url}\"")).start("pg-long");
    // Nothing that an index could compress.
    let name = || (0..14).map(|_| format!("{:016x}", random())).collect::<String>();
    let mut path = IN.to_owned();
    // sftp takes lines of 2,047 bytes, so step by step.
    let mut batch = format!("cd {IN}\n");
    while path.len() + 225 + "/a.pdf".len() < PATH_BYTES {
        let name = name();
        batch += &format!("mkdir {name}\ncd {name}\n");
        path = format!("{path}/{name}");
    }
    let long = "a".repeat(PATH_BYTES - path.len() - "/.pdf".len());
    std::fs::write(portal.file("a.pdf"), b"%PDF far down").unwrap();
    batch += &format!("put a.pdf {long}.pdf\n");
    portal.sftp(&batch).well();
    let batch = batch.replace("mkdir", "-mkdir").replace(&long, &format!("{long}a"));
    let said = portal.sftp(&batch).badly();
    assert!(said.err.contains("2048"), "{said:?}");
    eventually("it is delivered", || !portal.hotfolder_files().is_empty());
    assert_eq!(std::fs::read(&portal.hotfolder_files()[0]).unwrap(), b"%PDF far down");
}

/// How many transactions PostgreSQL has given up in this database because they waited for each other.
fn deadlocks(url: &str) -> u32 {
    let asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let said = std::process::Command::new("psql").args([url, "-Atqc", asked]).output().unwrap();
    String::from_utf8_lossy(&said.stdout).trim().parse().unwrap()
}

#[test]
fn of_two_transactions_that_wait_for_each_other_both_come_through() {
    let url = fresh_postgres();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = TempDir::new("deadlock");
    runtime.block_on(async {
        let store = Store::open(&url, &dir.path().join("unused.db")).await.unwrap();
        store.migrate().await.unwrap();
        for id in ["A", "B"] {
            entries::insert(store.db(), &entry(id, "PID/0", &format!("{id}.pdf"))).await.unwrap();
        }
        let touch = |id: &str, mtime: i64| Step {
            sql: "UPDATE entries SET mtime = $1 WHERE id = $2",
            values: vec![mtime.into(), id.into()],
        };
        let wait = || Step { sql: "SELECT count(*) FROM pg_sleep(0.5)", values: Vec::new() };
        let (one, other) = tokio::join!(
            store.run(vec![touch("A", 1), wait(), touch("B", 1)]),
            store.run(vec![touch("B", 2), wait(), touch("A", 2)]),
        );
        assert_eq!((one.unwrap().len(), other.unwrap().len()), (3, 3));
        let read = async |id| entries::entry(store.db(), id).await.unwrap().unwrap().mtime;
        assert_eq!(read("A").await, read("B").await, "the later one as a whole");
        store.close().await;
    });
    eventually("one was given up at first", || deadlocks(&url) == 1);
}

#[test]
fn renames_beside_verdicts_do_not_lock_each_other_out_on_postgresql() {
    let url = fresh_postgres();
    let mut portal = Setup::new()
        .set("database", "url", &format!("\"{url}\""))
        .set("scan", "answer_within", "\"0s\"")
        .start("pg-rename");
    let batch = |from: u32| {
        let mut batch = String::new();
        for n in from..from + 25 {
            std::fs::write(portal.file(&format!("{n}.bin")), format!("content {n}")).unwrap();
            batch +=
                &format!("put {n}.bin {IN}/{n}.filepart\nrename {IN}/{n}.filepart {IN}/{n}.pdf\n");
            // Onto a name that is there.
            batch += &format!(
                "put {n}.bin {IN}/{n}.filepart\nrename {IN}/{n}.filepart {IN}/again-{from}.pdf\n"
            );
        }
        batch
    };
    std::thread::scope(|scope| {
        for session in 0..4 {
            let (portal, batch) = (&portal, batch(session * 25));
            scope.spawn(move || portal.sftp(&batch).well());
        }
    });
    for n in 0..100 {
        assert_eq!(portal.until_delivered(&format!("{n}.pdf")), format!("content {n}").as_bytes());
    }
    // PostgreSQL counts a connection's deadlocks at its end at the latest.
    portal.stop();
    assert_eq!(deadlocks(&url), 0);
}
