//! A place at a clamd for one whole-file scan. Where several servers share the clamds, places are leases, so that all of
//! them together ask no clamd for more than it does at once, and scan no account's files more often than one server would.

use std::time::Duration;

use super::App;
use super::scan_queue::{self, PER_ACCOUNT};
use super::scanner::{self, Asked};
use crate::clamd::{Address, scan_limit};
use crate::store::{self, Kind, leases};

/// A lease outlives its scan, unless the server dies.
const MARGIN: Duration = Duration::from_secs(60);

/// Held while a scan runs.
pub(super) struct Place<'a> {
    app: &'a App,
    pub(super) asked: Asked<'a>,
    /// Who holds the leases, where there are any.
    owner: Option<String>,
}

/// The least loaded clamd that has a place; none when all are taken.
pub(super) async fn find<'a>(
    app: &'a App,
    (upload, account): (&str, &str),
    size: u64,
) -> store::Result<Option<Place<'a>>> {
    let shared = app.store.kind() == Kind::Postgres;
    let owner = format!("{}/{upload}", app.node.as_str());
    let until = app.now().plus(scan_limit(size).saturating_add(MARGIN));
    let lease =
        async |name: String| leases::take(app.store.db(), &name, (&owner, until), app.now()).await;
    if shared {
        let mut may = false;
        for number in 0..PER_ACCOUNT {
            may = lease(format!("scan-of/{account}/{number}")).await?;
            if may {
                break;
            }
        }
        if !may {
            return Ok(None);
        }
    }
    for (health, proof) in app.scanner.ready() {
        let slots = scan_queue::places_for(size, scanner::slots(&proof));
        let Some(asked) = health.ask(proof) else { continue };
        if !shared {
            return Ok(Some(Place { app, asked, owner: None }));
        }
        let name = match health.clamd.address() {
            // Each machine has its own there.
            local @ Address::Unix(_) => format!("scan/{}/{local}", app.host_name),
            remote @ Address::Tcp(_) => format!("scan/{remote}"),
        };
        for number in 0..slots {
            if lease(format!("{name}/{number}")).await? {
                return Ok(Some(Place { app, asked, owner: Some(owner) }));
            }
        }
    }
    if shared {
        leases::free_of(app.store.db(), &owner).await?;
    }
    Ok(None)
}

impl Place<'_> {
    /// The scan is over. A lease that cannot be given back runs out by itself.
    pub(super) async fn give_back(self) {
        let Some(owner) = &self.owner else { return };
        if let Err(error) = leases::free_of(self.app.store.db(), owner).await {
            tracing::warn!(%error, owner, "a place at the scanner could not be given back");
        }
    }
}
