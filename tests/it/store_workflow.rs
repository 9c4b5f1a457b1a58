//! The rows of the data workflow on both databases, and all of it on PostgreSQL.

use std::time::Duration;

use ptportal::domain::event::{Event, EventKind};
use ptportal::domain::time::Timestamp;
use ptportal::store::batches::BatchRow;
use ptportal::store::hook_runs::Attempted;
use ptportal::store::{batches, events, hook_runs, leases, published, retention};

use crate::store::{NOW, fresh_postgres, on_both};
use crate::support::eventually;
use crate::support::instance::{IN, PROJECT, Setup};
use crate::support::receiver::Receiver;

#[test]
fn events_are_handed_on_once_and_forgotten_only_then() {
    on_both(async |store| {
        let db = store.db();
        for n in 0..5 {
            let mut tx = store.write().await.unwrap();
            let event = Event::new(EventKind::UploadDelivered).project(&format!("P{n}"));
            events::insert(tx.db(), &event, NOW).await.unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(events::handed_on(db).await.unwrap(), 0);
        let rows = events::after(db, 0, 3).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(numbers, [1, 2, 3], "the next ones, not the newest");
        let later = NOW.plus(Duration::from_secs(1));
        assert_eq!(events::delete_before(db, later).await.unwrap(), 0, "nothing was handed on");
        assert_eq!(events::set_handed_on(db, 0, 3).await.unwrap(), 1);
        assert_eq!(events::set_handed_on(db, 0, 3).await.unwrap(), 0, "another server was faster");
        assert_eq!(events::delete_before(db, later).await.unwrap(), 3);
        assert_eq!(events::set_handed_on(db, 3, 5).await.unwrap(), 1);
        assert_eq!(
            events::delete_before(db, later).await.unwrap(),
            1,
            "the newest numbers the next"
        );
    });
}

#[test]
fn what_is_old_is_forgotten_in_small_pieces_whatever_the_clock_said() {
    on_both(async |store| {
        let db = store.db();
        let (later, in_ten_years) =
            (NOW.plus(Duration::from_secs(1)), NOW.plus(Duration::from_secs(10 * 365 * 86_400)));
        let mut tx = store.write().await.unwrap();
        for n in 0..2500 {
            let event = Event::new(EventKind::UploadDelivered).project("P");
            let time = if n == 1 { in_ten_years } else { NOW };
            events::insert(tx.db(), &event, time).await.unwrap();
        }
        let batch = BatchRow {
            id: "A".to_owned(),
            direction: "in".to_owned(),
            project_no: "P".to_owned(),
            last_file: NOW.0,
            created: NOW.0,
            ..BatchRow::default()
        };
        batches::open_or_begin(tx.db(), &batch).await.unwrap();
        for n in 0..450 {
            batches::add_file(tx.db(), "A", &format!("U{n}"), NOW).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(events::set_handed_on(db, 0, 2500).await.unwrap(), 1);
        assert_eq!(events::delete_before(db, later).await.unwrap(), 2498);
        let left: Vec<i64> =
            events::after(db, 0, 10).await.unwrap().iter().map(|row| row.seq).collect();
        assert_eq!(
            left,
            [2, 2500],
            "the one of the future, and the newest, which numbers the next"
        );
        assert_eq!(batches::delete_files_before(db, later).await.unwrap(), 0, "still open");
        assert_eq!(batches::close(db, "A", NOW.0, NOW).await.unwrap(), 1);
        assert_eq!(batches::delete_files_before(db, later).await.unwrap(), 450);
        assert_eq!(batches::delete_before(db, later).await.unwrap(), 1);
    });
}

#[test]
fn a_lease_has_one_owner_at_a_time() {
    on_both(async |store| {
        let db = store.db();
        let until = NOW.plus(Duration::from_secs(60));
        let after = NOW.plus(Duration::from_secs(61));
        assert!(leases::take(db, "look", ("A", until), NOW).await.unwrap());
        assert!(leases::take(db, "look", ("A", until), NOW).await.unwrap(), "its owner keeps it");
        assert!(!leases::take(db, "look", ("B", until), NOW).await.unwrap());
        assert!(leases::take(db, "other", ("B", until), NOW).await.unwrap());
        assert!(leases::take(db, "look", ("B", after), after).await.unwrap(), "it has run out");
        let mut owners = leases::owners(db).await.unwrap();
        owners.sort();
        assert_eq!(owners, ["B"]);
        leases::free_of(db, "B").await.unwrap();
        assert!(leases::take(db, "look", ("A", until), NOW).await.unwrap());
    });
}

#[test]
fn hook_runs_go_in_lanes_and_in_the_order_of_an_upload() {
    on_both(async |store| {
        let db = store.db();
        for (seq, upload) in [(1, "U1"), (2, "U1"), (3, "U2")] {
            for target in ["e/a", "e/b"] {
                let id = format!("{seq}{target}");
                let what = ("hook", target, "{}");
                assert_eq!(
                    hook_runs::insert(db, &id, (seq, "e", upload), what, NOW).await.unwrap(),
                    1
                );
                assert_eq!(
                    hook_runs::insert(db, "x", (seq, "e", upload), what, NOW).await.unwrap(),
                    0
                );
            }
        }
        let mut lanes = hook_runs::due_targets(db, "hook", NOW).await.unwrap();
        lanes.sort();
        assert_eq!(lanes, ["e/a", "e/b"]);
        assert!(hook_runs::due_targets(db, "webhook", NOW).await.unwrap().is_empty());
        let until = NOW.plus(Duration::from_secs(60));
        let claim = async |owner: &str| {
            hook_runs::claim(db, ("hook", "e/a"), (owner, until), NOW).await.unwrap()
        };
        let first = claim("N/1").await.unwrap();
        assert_eq!((first.event_seq, first.attempts), (1, 1));
        assert_eq!(claim("N/2").await.unwrap().event_seq, 3, "U1's second waits for its first");
        assert!(claim("N/3").await.is_none());
        let attempted = |state| Attempted { state, error: "e", output: "o", ms: 5, next_try: NOW };
        let finish = async |owner: &str, state| {
            hook_runs::finish(db, (&first.id, owner), &attempted(state), NOW).await.unwrap()
        };
        assert_eq!(finish("N/9", "done").await, 0, "it is another's");
        assert_eq!(finish("N/1", "pending").await, 1);
        assert_eq!(claim("N/4").await.unwrap().attempts, 2);
        assert_eq!(hook_runs::lease_owners(db).await.unwrap().len(), 2);
        assert_eq!(hook_runs::free_leases_of(db, "N").await.unwrap(), 2);
        assert_eq!(claim("N/5").await.unwrap().event_seq, 1);
        assert_eq!(finish("N/5", "failed").await, 1);
        assert_eq!(claim("N/6").await.unwrap().event_seq, 2);
        assert_eq!(hook_runs::list(db, "failed", 10).await.unwrap().len(), 1);
        assert_eq!(hook_runs::retry(db, "", NOW).await.unwrap(), 1);
        assert_eq!(hook_runs::run(db, &first.id).await.unwrap().unwrap().state, "pending");
        assert_eq!(hook_runs::count_by_state(db).await.unwrap().len(), 1);
    });
}

#[test]
fn a_project_has_one_open_batch_each_way() {
    on_both(async |store| {
        let db = store.db();
        let batch = |id: &str, direction: &str| BatchRow {
            id: id.to_owned(),
            direction: direction.to_owned(),
            project_no: "P".to_owned(),
            last_file: NOW.0,
            ..BatchRow::default()
        };
        let take = async |id: &str, direction: &str, at: Timestamp| {
            let row = BatchRow { last_file: at.0, created: at.0, ..batch(id, direction) };
            batches::open_or_begin(db, &row).await.unwrap()
        };
        assert_eq!(take("A", "in", NOW).await, "A");
        assert_eq!(take("B", "in", NOW).await, "A", "one is open");
        assert_eq!(take("C", "out", NOW).await, "C", "each way");
        assert_eq!(batches::add_file(db, "A", "U1", NOW).await.unwrap(), 1);
        assert_eq!(batches::add_file(db, "A", "U1", NOW).await.unwrap(), 0, "once");
        let later = NOW.plus(Duration::from_secs(1));
        take("D", "in", later).await;
        assert_eq!(batches::close(db, "A", NOW.0, later).await.unwrap(), 0, "another file came");
        assert_eq!(batches::close(db, "A", later.0, later).await.unwrap(), 1);
        assert_eq!(batches::open(db).await.unwrap().len(), 1);
        assert!(!batches::is_busy(db, "P").await.unwrap());
        assert_eq!(take("E", "in", later).await, "E", "the next one");
        assert_eq!(batches::add_file(db, "E", "U1", NOW).await.unwrap(), 0, "it stays where it is");
        let end = later.plus(Duration::from_secs(1));
        assert_eq!(batches::delete_files_before(db, end).await.unwrap(), 1);
        assert_eq!(batches::delete_before(db, end).await.unwrap(), 1);
    });
}

#[test]
fn what_is_published_and_what_is_forgotten_read_back() {
    on_both(async |store| {
        let db = store.db();
        published::put_hold(db, ("p/2", "P", "Final"), (3, 6), NOW).await.unwrap();
        assert_eq!(published::confirm(db, "P", "In Bearbeitung", NOW).await.unwrap(), 0);
        assert_eq!(published::confirm(db, "P", "", NOW).await.unwrap(), 1);
        assert_eq!(published::hold(db, "p/2").await.unwrap().unwrap().confirmed, 1);
        published::put_hold(db, ("p/2", "P", "Final"), (4, 6), NOW).await.unwrap();
        assert_eq!(
            published::holds(db).await.unwrap()[0].confirmed,
            0,
            "another number wants another word"
        );
        assert_eq!(published::delete_hold(db, "p/2").await.unwrap(), 1);
        assert!(published::projects(db).await.unwrap().is_empty());
        assert!(published::files(db, "p", 2).await.unwrap().is_empty());
        assert!(retention::idle_projects(db, NOW).await.unwrap().is_empty());
        assert!(retention::due(db, (NOW.0, NOW.0), 10).await.unwrap().is_empty());
        let mut tx = store.write().await.unwrap();
        assert!(retention::begin_purge(tx.db(), (NOW.0, NOW.0), "U").await.unwrap().is_none());
        drop(tx);
        assert!(retention::purging(db).await.unwrap().is_empty());
        assert_eq!(retention::expire(db, "p", NOW).await.unwrap(), 0);
        assert_eq!(retention::delete_uploads_before(db, NOW).await.unwrap(), 0);
        assert_eq!(retention::delete_deliveries_before(db, NOW).await.unwrap(), 0);
    });
}

#[test]
fn the_data_workflow_on_postgresql() {
    let receiver = Receiver::start("ok");
    let url = fresh_postgres();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let portal = Setup::new()
        .set("database", "url", &format!("\"{url}\""))
        .set("hotfolder", "poll", "\"1s\"")
        .set("jobticket", "format", "\"xjdf\"")
        .webhook(
            &receiver.url("/in"),
            "[\"upload.delivered\", \"file.published\", \"project.closed\"]",
            secret,
        )
        .start("pgflow");
    std::fs::write(portal.file("a.pdf"), "%PDF x").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    let ticket = portal.delivered("a.xml");
    eventually("the ticket is placed", || ticket.exists());
    let folder = portal.file("hotfolder/1001").join(PROJECT).join("Final");
    eventually("the folder for staff is made", || folder.is_dir());
    std::fs::write(folder.join("fertig.pdf"), "%PDF y").unwrap();
    eventually("the customer sees it", || {
        portal.sftp(&format!("get /{PROJECT}/Final/fertig.pdf got\n")).ok
    });
    std::fs::remove_file(folder.join("fertig.pdf")).unwrap();
    eventually("and no longer", || portal.events("file.withdrawn").len() == 1);
    eventually("the batch has its mail", || {
        let mails = portal.cli(&["mail", "list"]);
        mails
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["template"] == "Hotfolder Dateneingang" && m["state"] == "sent")
    });
    std::fs::remove_file(portal.delivered("a.pdf")).unwrap();
    eventually("it was taken", || portal.events("delivery.taken").len() == 1);
    portal.cli(&["project", "close", PROJECT]);
    eventually("its bytes are forgotten", || portal.events("content.purged").len() == 1);
    let calls = receiver.until_calls(3);
    let events: Vec<String> = calls
        .iter()
        .map(|call| {
            let body: serde_json::Value =
                serde_json::from_str(call["body"].as_str().unwrap()).unwrap();
            body["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(events, ["upload.delivered", "file.published", "project.closed"]);
}
