//! Transfers that run now in this process: how far, how fast, how long still. For operators; decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::rates::Direction;
use super::session::Session;

/// A speed is that of at least this time.
const MEASURED: Duration = Duration::from_millis(500);

/// Every transfer of this process.
#[derive(Default)]
pub struct Transfers {
    all: Mutex<HashMap<u64, Arc<Moving>>>,
    next: AtomicU64,
}

/// What is moved, and how far it is.
struct Moving {
    about: About,
    done: AtomicU64,
    began: Instant,
    speed: Mutex<Speed>,
}

#[derive(Clone)]
struct About {
    session: String,
    username: String,
    client_no: String,
    path: String,
    direction: Direction,
    total: Option<u64>,
}

/// One transfer as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferView {
    /// Id of its session.
    pub session: String,
    pub username: String,
    pub client_no: String,
    pub path: String,
    /// `up` from the customer, `down` to the customer.
    pub direction: String,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where that is known.
    pub total: Option<u64>,
    /// Bytes per second, lately.
    pub speed: u64,
    /// Seconds since it began.
    pub seconds: u64,
}

impl TransferView {
    /// Seconds until its end at this speed, where its size is known and it moves.
    #[must_use]
    pub fn seconds_left(&self) -> Option<u64> {
        self.total?.saturating_sub(self.done).checked_div(self.speed)
    }
}

/// Keeps a transfer in view until it is dropped.
pub struct Transfer {
    transfers: Arc<super::App>,
    key: u64,
    moving: Arc<Moving>,
}

impl Transfer {
    pub(super) fn begin(
        session: &Session,
        path: String,
        direction: Direction,
        (done, total): (u64, Option<u64>),
    ) -> Self {
        let app = Arc::clone(&session.app);
        let about = About {
            session: session.id.to_string(),
            username: session.account.to_string(),
            client_no: session.client_no.clone(),
            path,
            direction,
            total,
        };
        let now = Instant::now();
        let speed = Mutex::new(Speed { at: now, done, rate: None });
        let moving = Arc::new(Moving { about, done: done.into(), began: now, speed });
        let key = app.transfers.next.fetch_add(1, Ordering::Relaxed);
        app.transfers.lock().insert(key, Arc::clone(&moving));
        Self { transfers: app, key, moving }
    }

    /// The content now reaches up to here.
    pub(super) fn reached(&self, end: u64) {
        self.moving.done.fetch_max(end, Ordering::Relaxed);
    }

    /// So many bytes more have gone.
    pub(super) fn moved(&self, bytes: u64) {
        self.moving.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.transfers.transfers.lock().remove(&self.key);
    }
}

impl Transfers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Moving>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn views(&self) -> Vec<TransferView> {
        let mut all: Vec<(u64, Arc<Moving>)> =
            self.lock().iter().map(|(key, moving)| (*key, Arc::clone(moving))).collect();
        all.sort_by_key(|(key, _)| *key);
        let now = Instant::now();
        all.iter().map(|(_, moving)| moving.view(now)).collect()
    }
}

impl Moving {
    fn view(&self, now: Instant) -> TransferView {
        let done = self.done.load(Ordering::Relaxed);
        let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let about = self.about.clone();
        TransferView {
            session: about.session,
            username: about.username,
            client_no: about.client_no,
            path: about.path,
            direction: about.direction.as_str().to_owned(),
            done,
            total: about.total,
            speed: speed.look(now, done),
            seconds: now.saturating_duration_since(self.began).as_secs(),
        }
    }
}

/// Bytes per second between two looks, smoothed by half.
struct Speed {
    at: Instant,
    done: u64,
    rate: Option<u64>,
}

impl Speed {
    fn look(&mut self, now: Instant, done: u64) -> u64 {
        let passed = now.saturating_duration_since(self.at);
        if passed >= MEASURED {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            let bytes = done.saturating_sub(self.done);
            let new = bytes.saturating_mul(1000).checked_div(millis).unwrap_or(0);
            let smoothed = self.rate.map_or(new, |old| old.midpoint(new));
            (self.at, self.done, self.rate) = (now, done, Some(smoothed));
        }
        self.rate.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_that_of_the_last_looks_and_falls_when_nothing_comes() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut speed = Speed { at: start, done: 0, rate: None };
        assert_eq!(speed.look(at(100), 50_000), 0, "too early to tell");
        assert_eq!(speed.look(at(1000), 1_000_000), 1_000_000);
        assert_eq!(speed.look(at(1200), 9_000_000), 1_000_000, "looked again too soon");
        assert_eq!(speed.look(at(2000), 4_000_000), 2_000_000);
        assert_eq!(speed.look(at(3000), 4_000_000), 1_000_000);
        for second in 4..40 {
            speed.look(at(second * 1000), 4_000_000);
        }
        assert_eq!(speed.look(at(41_000), 4_000_000), 0);
    }

    #[test]
    fn the_time_left_needs_a_size_and_a_speed() {
        let view = |total, speed| TransferView {
            session: String::new(),
            username: String::new(),
            client_no: String::new(),
            path: String::new(),
            direction: "up".to_owned(),
            done: 400,
            total,
            speed,
            seconds: 3,
        };
        assert_eq!(view(Some(1000), 100).seconds_left(), Some(6));
        assert_eq!(view(Some(1000), 0).seconds_left(), None);
        assert_eq!(view(None, 100).seconds_left(), None);
        assert_eq!(view(Some(300), 100).seconds_left(), Some(0));
    }
}
