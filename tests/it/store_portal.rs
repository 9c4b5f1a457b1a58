//! The tables of portal and mail on both databases: claims, links, templates, tokens, sessions.

use std::time::Duration;

use ptportal::domain::time::Timestamp;
use ptportal::store::mails::MailRow;
use ptportal::store::templates::{SignatureRow, TemplateRow};
use ptportal::store::{accounts, activation, mails, templates, tokens, uploads, web_sessions};

use crate::store::{NOW, on_both};

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn mail(id: &str, state: &str) -> MailRow {
    MailRow {
        id: id.to_owned(),
        template: "Hotfolder Portalzugang".to_owned(),
        client_no: "1".to_owned(),
        username: "u".to_owned(),
        language: "de".to_owned(),
        recipient: "a@b.example".to_owned(),
        state: state.to_owned(),
        queued: NOW.0,
        created: NOW.0,
        ..MailRow::default()
    }
}

fn account() -> accounts::AccountRow {
    accounts::AccountRow {
        id: "A".to_owned(),
        client_no: "1".to_owned(),
        username: "u".to_owned(),
        status: "active".to_owned(),
        password_hash: String::new(),
        operator_credential: 0,
        checked: 0,
        activation_time: 0,
        first_login: 0,
        last_login: 0,
        settings: "{}".to_owned(),
        version: 1,
        created: NOW.0,
        updated: NOW.0,
    }
}

#[test]
fn a_mail_is_claimed_by_one_and_its_end_is_written_by_that_one() {
    on_both(async |store| {
        let db = store.db();
        mails::insert(db, &mail("M1", "queued")).await.unwrap();
        mails::insert(db, &mail("M2", "draft")).await.unwrap();
        let one = mails::claim(db, ("n1", later(300)), NOW).await.unwrap().unwrap();
        assert_eq!((one.id.as_str(), one.attempts), ("M1", 1));
        assert!(mails::claim(db, ("n2", later(300)), NOW).await.unwrap().is_none(), "leased");
        let taken = mails::claim(db, ("n2", later(900)), later(301)).await.unwrap().unwrap();
        assert_eq!(taken.attempts, 2);
        let end = |owner| mails::finish(db, ("M1", owner), ("sent", ""), later(302), later(302));
        assert_eq!(end("n1").await.unwrap(), 0, "its lease is over");
        assert_eq!(end("n2").await.unwrap(), 1);
        let row = mails::mail(db, "M1").await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.sent), ("sent", later(302).0));
        assert_eq!(mails::queue(db, "M1", ("x", ""), NOW).await.unwrap(), 0, "sent is sent");
        assert_eq!(mails::queue(db, "M2", ("x@y.example", "X"), NOW).await.unwrap(), 1);
        mails::set_subject(db, "M2", "ü").await.unwrap();
        mails::set_reason(db, "M2", "why").await.unwrap();
        let of = ("u", "Hotfolder Portalzugang");
        assert_eq!(mails::recent_of_account(db, of, NOW.0, NOW).await.unwrap().unwrap().id, "M2");
        assert_eq!(
            mails::count_of_account(db, of, NOW.minus(Duration::from_secs(1))).await.unwrap(),
            2
        );
        let newer = mails::recent_of_account(db, of, NOW.0 + 1, NOW).await.unwrap();
        assert!(newer.is_none(), "an account made later has no mails yet");
        mails::claim(db, ("gone/1", later(900)), NOW).await.unwrap().unwrap();
        assert_eq!(mails::queue(db, "M2", ("x", ""), later(1)).await.unwrap(), 0, "in flight");
        let leased = mails::leased(db).await.unwrap();
        assert_eq!(leased, [("M2".to_owned(), "gone/1".to_owned())]);
        assert_eq!(mails::release(db, ("M2", "other")).await.unwrap(), 0);
        assert_eq!(mails::release(db, ("M2", "gone/1")).await.unwrap(), 1);
        let mut counts = mails::count_by_state(db).await.unwrap();
        counts.sort();
        assert_eq!(counts, [("queued".to_owned(), 1), ("sent".to_owned(), 1)]);
        mails::cancel_of_account(db, "u", "gone", NOW).await.unwrap();
        let mut one = db.acquire().await.unwrap();
        mails::anonymise_of_client(&mut one, "1").await.unwrap();
        drop(one);
        let rows = mails::list(db, 10).await.unwrap();
        assert!(rows.iter().all(|row| row.recipient.is_empty() && row.subject.is_empty()));
        let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, ["sent"], "what nobody will get any more is gone");
    });
}

#[test]
fn links_are_taken_once_and_the_newest_stay_good() {
    on_both(async |store| {
        let db = store.db();
        accounts::insert(db, &account()).await.unwrap();
        for n in 1..=4 {
            let (id, hash) = (format!("L{n}"), format!("hash{n}"));
            activation::insert(db, (&id, "u"), (&hash, ""), later(1800), later(n)).await.unwrap();
        }
        assert_eq!(activation::expire_all_but(db, "u", 3, later(5)).await.unwrap(), 1);
        let first = activation::by_hash(db, "hash1").await.unwrap().unwrap();
        assert_eq!(first.expires, later(5).0);
        assert_eq!(activation::take(db, "L1", later(6)).await.unwrap(), 0, "expired");
        activation::set_sent(db, "L2", later(1900), later(6)).await.unwrap();
        accounts::set_status(db, "u", ptportal::domain::account::Status::Inactive, NOW)
            .await
            .unwrap();
        assert_eq!(activation::take(db, "L2", later(7)).await.unwrap(), 0, "inactive account");
        accounts::set_status(db, "u", ptportal::domain::account::Status::Active, NOW)
            .await
            .unwrap();
        assert_eq!(activation::take(db, "L2", later(7)).await.unwrap(), 1);
        assert_eq!(activation::take(db, "L2", later(7)).await.unwrap(), 0, "used");
        // One that has expired by itself too: the clock may go back.
        assert_eq!(activation::expire_others(db, "u", "L2", later(8)).await.unwrap(), 3);
        assert_eq!(
            activation::delete(db, "L2").await.unwrap(),
            0,
            "a used link stays for the record"
        );
        assert_eq!(activation::set_checked(db, "u", later(9)).await.unwrap(), 4);
        assert_eq!(activation::of_account(db, "u").await.unwrap().len(), 4);
        activation::insert_request(db, ("R1", "u", "::1"), NOW).await.unwrap();
        assert_eq!(activation::waiting_requests(db).await.unwrap(), 1);
        assert_eq!(activation::requests(db).await.unwrap()[0].username, "u");
        assert_eq!(activation::take_request(db, "R1").await.unwrap(), 1);
        assert_eq!(activation::take_request(db, "R1").await.unwrap(), 0);
        assert_eq!(accounts::set_password_by_link(db, "u", "h1", NOW).await.unwrap(), 1);
        let version = accounts::account(db, "u").await.unwrap().unwrap().version;
        assert_eq!(accounts::change_password(db, ("u", version), "h2", NOW).await.unwrap(), 1);
        assert_eq!(accounts::change_password(db, ("u", version), "h3", NOW).await.unwrap(), 0);
        assert_eq!(accounts::renew_hash(db, "u", ("h2", "h4")).await.unwrap(), 1);
        activation::delete_of(db, "u").await.unwrap();
        assert!(activation::of_account(db, "u").await.unwrap().is_empty());
    });
}

#[test]
fn templates_signatures_users_tokens_and_sessions_read_back() {
    on_both(async |store| {
        let db = store.db();
        let mut row = TemplateRow {
            id: "T".to_owned(),
            name: "Ä".to_owned(),
            subject: "s".to_owned(),
            content: "<p>ü</p>".to_owned(),
            owner: String::new(),
            status: "active".to_owned(),
            created: NOW.0,
            updated: NOW.0,
        };
        assert_eq!(templates::insert_if_missing(db, &row).await.unwrap(), 1);
        assert_eq!(templates::insert_if_missing(db, &row).await.unwrap(), 0);
        row.owner = "anna".to_owned();
        assert_eq!(templates::update(db, &row).await.unwrap(), 1);
        assert_eq!(templates::template(db, "Ä").await.unwrap().unwrap().owner, "anna");
        let signature = |name: &str, status: &str, updated: Timestamp| SignatureRow {
            id: name.to_owned(),
            name: name.to_owned(),
            foot_text: "f".to_owned(),
            status: status.to_owned(),
            created: NOW.0,
            updated: updated.0,
            ..SignatureRow::default()
        };
        for row in [signature("a", "active", NOW), signature("b", "inactive", later(5))] {
            templates::put_signature(db, &row).await.unwrap();
        }
        assert_eq!(templates::active_signature(db).await.unwrap().unwrap().name, "a");
        templates::put_signature(db, &signature("b", "active", later(6))).await.unwrap();
        assert_eq!(templates::active_signature(db).await.unwrap().unwrap().name, "b");
        templates::put_user(db, ("U1", "anna", "a@b.example"), NOW).await.unwrap();
        templates::put_user(db, ("U2", "anna", "c@d.example"), NOW).await.unwrap();
        assert_eq!(templates::users(db).await.unwrap().len(), 1);
        assert_eq!(templates::user(db, "anna").await.unwrap().unwrap().email, "c@d.example");
        tokens::insert(db, ("K", "mis", "orders"), "hash", NOW).await.unwrap();
        let again = tokens::insert(db, ("K2", "mis", "orders"), "other", NOW).await;
        assert!(ptportal::store::is_duplicate(&again.unwrap_err()));
        assert_eq!(tokens::note_use(db, "K", NOW).await.unwrap(), 1);
        assert_eq!(tokens::note_use(db, "K", later(59)).await.unwrap(), 0, "once a minute");
        assert_eq!(tokens::by_hash(db, "hash").await.unwrap().unwrap().scope, "orders");
        assert_eq!(tokens::delete(db, "mis").await.unwrap(), 1);
        for id in ["S1", "S2"] {
            web_sessions::insert(db, (id, "u"), later(100), NOW).await.unwrap();
        }
        assert_eq!(web_sessions::note_use(db, "S1", later(61)).await.unwrap(), 1);
        assert_eq!(web_sessions::session(db, "S1").await.unwrap().unwrap().updated, later(61).0);
        assert_eq!(web_sessions::delete(db, "S1").await.unwrap(), 1);
        assert_eq!(web_sessions::delete_expired(db, later(99)).await.unwrap(), 0);
        assert_eq!(web_sessions::delete_of(db, "u").await.unwrap(), 1);
        assert!(uploads::changed_since(db, NOW, 10).await.unwrap().is_empty());
    });
}
