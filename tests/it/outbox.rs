//! The outbox against a small model: any operations in any order leave the rows that the model has, on both databases; and
//! workers that claim at the same time never hold one row together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ptportal::domain::time::Timestamp;
use ptportal::domain::upload::DeliveryState;
use ptportal::store::{Store, deliveries};

use crate::store::{NOW, on_both};
use crate::support::random;

const OWNERS: [&str; 4] = ["N1/a", "N1/b", "N2/a", "N2/b"];
const ENTRIES: [&str; 3] = ["E1", "E2", "E3"];

/// What the model keeps of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    entry: &'static str,
    version: i64,
    state: &'static str,
    attempts: i64,
    next: i64,
    owner: String,
    until: i64,
    temp: String,
}

impl Row {
    fn is_open(&self) -> bool {
        ["pending", "placing", "stuck"].contains(&self.state)
    }

    fn release(&mut self) {
        (self.owner, self.until) = (String::new(), 0);
    }
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<String, Row>,
}

impl Model {
    /// The oldest due row whose name has no earlier open version.
    fn due(&self, now: i64) -> Option<String> {
        let is_due = |row: &Row| row.is_open() && row.next <= now && row.until <= now;
        let is_first = |row: &Row| {
            let earlier = |e: &Row| e.is_open() && e.entry == row.entry && e.version < row.version;
            !self.rows.values().any(earlier)
        };
        let due = self.rows.iter().filter(|(_, row)| is_due(row) && is_first(row));
        due.min_by_key(|(id, row)| (row.next, (*id).clone())).map(|(id, _)| id.clone())
    }

    fn change(&mut self, id: &str, is: impl Fn(&Row) -> bool, how: impl Fn(&mut Row)) -> u64 {
        let Some(row) = self.rows.get_mut(id).filter(|row| is(row)) else { return 0 };
        how(row);
        1
    }
}

/// A row of draws; the seed is printed by a test that fails.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

async fn rows(store: &Store) -> BTreeMap<String, Row> {
    let all = deliveries::list(store.db(), "", 10_000).await.unwrap();
    let row = |d: deliveries::DeliveryRow| {
        let state = d.state().unwrap();
        assert_eq!(d.open == 1, ["pending", "placing", "stuck"].contains(&state.as_str()));
        let entry = *ENTRIES.iter().find(|entry| **entry == d.entry_id).unwrap();
        let (version, attempts, next) = (d.version, d.attempts, d.next_try);
        let (owner, until, temp) = (d.lease_owner, d.lease_until, d.temp_name);
        (d.id, Row { entry, version, state: state.as_str(), attempts, next, owner, until, temp })
    };
    all.into_iter().map(row).collect()
}

async fn insert(
    store: &Store,
    model: &mut Model,
    draws: &mut Draws,
    (due, now): (Timestamp, Timestamp),
) {
    let entry = ENTRIES[draws.below(ENTRIES.len())];
    let version = 1 + model.rows.values().filter(|row| row.entry == entry).count() as i64;
    let id = format!("D{:04}", model.rows.len());
    let (of, to) = ((id.as_str(), entry, version), ("mirror", "hotfolder"));
    assert_eq!(deliveries::insert(store.db(), &id, of, to, (due, now)).await.unwrap(), 1);
    let again = deliveries::insert(store.db(), "twice", of, to, (due, now)).await.unwrap();
    assert_eq!(again, 0, "one for each upload and consumer");
    let (owner, temp) = (String::new(), String::new());
    let (state, next) = ("pending", due.0);
    let row = Row { entry, version, state, attempts: 0, next, owner, until: 0, temp };
    model.rows.insert(id, row);
}

/// One operation on the rows and on the model, with the same answer from both.
async fn step(store: &Store, model: &mut Model, draws: &mut Draws, now: i64) {
    let db = store.db();
    // Mostly about a row under a lease, mostly by its holder: the rest is about anything.
    let leased = |row: &Row| row.is_open() && !row.owner.is_empty();
    let is_any = draws.below(4) == 0;
    let some = model.rows.iter().filter(|(_, row)| is_any || leased(row));
    let some: Vec<(String, String)> =
        some.map(|(id, row)| (id.clone(), row.owner.clone())).collect();
    let (id, holder) = some.get(draws.below(some.len().max(1))).cloned().unwrap_or_default();
    let owner = match OWNERS.iter().find(|owner| **owner == holder) {
        Some(owner) if draws.below(4) > 0 => *owner,
        _ => OWNERS[draws.below(OWNERS.len())],
    };
    let at = Timestamp(now);
    let later = at.plus(Duration::from_millis(draws.below(40) as u64));
    let mine = |row: &Row| row.is_open() && row.owner == owner;
    match draws.below(14) {
        0..=1 => insert(store, model, draws, (later, at)).await,
        2..=5 => {
            let claimed = deliveries::claim(db, (owner, later), at).await.unwrap();
            let due = model.due(now);
            assert_eq!(claimed.map(|row| row.id), due);
            if let Some(row) = due.and_then(|id| model.rows.get_mut(&id)) {
                (row.owner, row.until) = (owner.to_owned(), later.0);
                row.attempts += 1;
            }
        }
        6 => {
            let done = deliveries::renew_lease(db, &id, owner, later).await.unwrap();
            assert_eq!(done, model.change(&id, mine, |row| row.until = later.0));
        }
        7..=8 => {
            let done = deliveries::set_placing(db, (&id, owner), (owner, "n"), at).await.unwrap();
            let place = |row: &mut Row| (row.state, row.temp) = ("placing", owner.to_owned());
            assert_eq!(done, model.change(&id, mine, place));
        }
        9..=10 => {
            let done = deliveries::set_done(db, &id, at).await.unwrap();
            let end = |row: &mut Row| {
                row.state = "done";
                row.release();
            };
            assert_eq!(done, model.change(&id, |row| row.state == "placing", end));
        }
        11 => {
            let done = deliveries::postpone(db, (&id, owner), "why", later, at).await.unwrap();
            let postpone = |row: &mut Row| {
                if row.state == "pending" && row.attempts >= 3 {
                    row.state = "stuck";
                }
                row.next = later.0;
                row.release();
            };
            assert_eq!(done, model.change(&id, mine, postpone));
        }
        12 => {
            let done = deliveries::unplace(db, &id, owner, at).await.unwrap();
            let is = |row: &Row| row.owner == owner && row.state == "placing";
            let back = |row: &mut Row| (row.state, row.temp) = ("pending", String::new());
            assert_eq!(done, model.change(&id, is, back));
        }
        _ if draws.below(3) == 0 => {
            let node = ["N1", "N2"][draws.below(2)];
            deliveries::free_leases_of(db, node).await.unwrap();
            let of_node = |row: &&mut Row| row.is_open() && row.owner.starts_with(node);
            model.rows.values_mut().filter(of_node).for_each(Row::release);
        }
        _ => {
            let to = [DeliveryState::Cancelled, DeliveryState::Superseded][draws.below(2)];
            let done = deliveries::end_unplaced(db, &id, to, at).await.unwrap();
            let end = |row: &mut Row| {
                row.state = to.as_str();
                row.release();
            };
            let is = |row: &Row| ["pending", "stuck"].contains(&row.state);
            assert_eq!(done, model.change(&id, is, end));
        }
    }
}

#[test]
fn any_operations_leave_the_rows_of_the_model() {
    let seed = random();
    println!("seed {seed}");
    on_both(async |store| {
        let (mut model, mut draws, mut now) = (Model::default(), Draws(seed), NOW.0);
        let mut seen = BTreeSet::new();
        for n in 0..1500 {
            step(store, &mut model, &mut draws, now).await;
            assert_eq!(rows(store).await, model.rows, "after operation {n}");
            seen.extend(model.rows.values().map(|row| row.state));
            now += draws.below(12) as i64;
        }
        // Stuck is the rarest.
        let all = ["cancelled", "done", "pending", "placing", "superseded"];
        assert!(all.iter().all(|state| seen.contains(state)), "{seen:?}");
    });
}

#[test]
fn of_workers_that_claim_at_once_one_has_each_row() {
    on_both(async |store| {
        for n in 0..120_i64 {
            let (id, entry) = (format!("D{n:04}"), ENTRIES[usize::try_from(n % 3).unwrap()]);
            let of = (id.as_str(), entry, n);
            deliveries::insert(store.db(), &id, of, ("mirror", "h"), (NOW, NOW)).await.unwrap();
        }
        let until = NOW.plus(Duration::from_secs(60));
        let work = async |worker: usize| {
            let owner = format!("N{worker}");
            let mut had = Vec::new();
            let mut misses = 0;
            // Three names: more than three workers find nothing most of the time.
            while misses < 400 {
                let Some(row) = deliveries::claim(store.db(), (&owner, until), NOW).await.unwrap()
                else {
                    misses += 1;
                    tokio::task::yield_now().await;
                    continue;
                };
                let placing =
                    deliveries::set_placing(store.db(), (&row.id, &owner), ("t", "n"), NOW);
                assert_eq!(placing.await.unwrap(), 1, "{} was ours", row.id);
                assert_eq!(deliveries::set_done(store.db(), &row.id, NOW).await.unwrap(), 1);
                had.push(row);
            }
            had
        };
        let (a, b, c, d) = tokio::join!(work(1), work(2), work(3), work(4));
        let had: Vec<_> = [&a, &b, &c, &d].into_iter().flatten().collect();
        assert_eq!(had.len(), 120, "each once");
        assert_eq!(had.iter().map(|row| &row.id).collect::<BTreeSet<_>>().len(), 120);
        assert!(had.iter().all(|row| row.attempts == 1));
        let all = [a, b, c, d];
        assert!(all.iter().filter(|had| !had.is_empty()).count() > 1, "several had some");
        for worker in all {
            for entry in ENTRIES {
                let mine: Vec<i64> = worker
                    .iter()
                    .filter(|row| row.entry_id == entry)
                    .map(|row| row.version)
                    .collect();
                assert!(mine.is_sorted(), "versions in their order: {mine:?}");
            }
        }
    });
}
