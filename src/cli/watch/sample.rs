//! A picture with one of everything, for the tests of the view.

use crate::app::picture::Picture;
use crate::app::transfers::TransferView;
use crate::app::troubles::{Kind, Trouble};
use crate::domain::time::Timestamp;
use crate::store::desk::OpenDelivery;
use crate::store::events::EventRow;
use crate::store::nodes::NodeRow;
use crate::store::sessions::SessionRow;
use crate::store::uploads::UploadRow;

const NOW: i64 = 1_764_000_600_000;

fn upload(id: &str, state: &str, path: &str) -> UploadRow {
    UploadRow {
        id: id.to_owned(),
        entry_id: String::new(),
        client_no: "1001".to_owned(),
        username: "muster".to_owned(),
        project_no: "2026-0815".to_owned(),
        ticket_no: String::new(),
        path: format!("Eingehend/{path}"),
        version: 1,
        state: state.to_owned(),
        size: 5_000_000,
        sha256: "ab".repeat(32),
        declared_size: -1,
        reserved: 0,
        mtime: 0,
        verdict: String::new(),
        signature: if state == "held" { "Heuristics.Encrypted.PDF" } else { "" }.to_owned(),
        reason: String::new(),
        scanner: String::new(),
        waived_by: String::new(),
        repeat_of: String::new(),
        protocol: "sftp".to_owned(),
        peer: "192.0.2.7".to_owned(),
        node: "01NODE".to_owned(),
        scan_attempts: 0,
        scan_next: 0,
        started: NOW - 60_000,
        completed: NOW - 50_000,
        released: 0,
        delivered: 0,
        content: "kept".to_owned(),
        told_pending: 0,
        md5: String::new(),
        created: NOW - 60_000,
        updated: NOW,
    }
}

fn event(seq: i64, kind: &str) -> EventRow {
    EventRow {
        seq,
        kind: kind.to_owned(),
        time: NOW.saturating_sub(seq),
        client_no: "1001".to_owned(),
        username: "muster".to_owned(),
        project_no: "2026-0815".to_owned(),
        upload_id: "01X".to_owned(),
        path: "Eingehend/plakat.pdf".to_owned(),
        peer: "192.0.2.7".to_owned(),
        detail: "{}".to_owned(),
    }
}

pub(super) fn picture() -> Picture {
    let (host, pid) = ("portal".to_owned(), 4711);
    Picture {
        time: Timestamp(NOW),
        servers: vec![NodeRow { id: "01NODE".to_owned(), host, pid, heartbeat: NOW }],
        scanner: Some("ClamAV 1.4.3/27813/Thu Nov 26 09:00:00 2026".to_owned()),
        sessions: vec![SessionRow {
            id: "01SESSION".to_owned(),
            node: "01NODE".to_owned(),
            username: "muster".to_owned(),
            client_no: "1001".to_owned(),
            protocol: "sftp".to_owned(),
            peer: "192.0.2.7".to_owned(),
            created: NOW - 90_000,
        }],
        transfers: vec![TransferView {
            session: "01SESSION".to_owned(),
            username: "muster".to_owned(),
            client_no: "1001".to_owned(),
            path: "/2026-0815/Eingehend/gross.pdf".to_owned(),
            direction: "up".to_owned(),
            done: 20_000_000,
            total: Some(50_000_000),
            speed: 1_000_000,
            seconds: 20,
        }],
        scans: vec![upload("01SCAN", "scanning", "karte.pdf")],
        scanning: ["01SCAN".to_owned()].into(),
        held: vec![upload("01HELD", "held", "geheim.pdf")],
        deliveries: vec![OpenDelivery {
            id: "01STUCK".to_owned(),
            upload_id: "01X".to_owned(),
            consumer: "mirror".to_owned(),
            state: "stuck".to_owned(),
            attempts: 5,
            next_try: NOW + 60_000,
            last_error: "the share is not mounted".to_owned(),
            created: NOW - 600_000,
            client_no: "1001".to_owned(),
            project_no: "2026-0815".to_owned(),
            path: "Eingehend/plakat.pdf".to_owned(),
            size: 5_000_000,
        }],
        events: vec![event(3, "upload.infected"), event(2, "upload.released"), event(1, "login")],
        troubles: vec![
            Trouble {
                kind: Kind::Stuck,
                count: 1,
                since: Timestamp(NOW - 600_000),
                why: "the share is not mounted".to_owned(),
            },
            Trouble {
                kind: Kind::Held,
                count: 1,
                since: Timestamp(NOW - 50_000),
                why: String::new(),
            },
        ],
        counts: vec![("scanning".to_owned(), 1), ("held".to_owned(), 1)],
    }
}
