//! How fast an account may send and fetch (`upload_rate`, `download_rate`): all its transfers of this process share the
//! rate, a piece at a time in the order in which they ask, so none of them starves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::presence::SharedSettings;
use crate::domain::account::{AccountName, Settings};

/// Bytes may run ahead by this time: transfers are steady, and single small files do not wait.
const AHEAD: Duration = Duration::from_millis(250);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Up,
    Down,
}

impl Direction {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// Bytes per second; none is as fast as it goes.
    const fn rate(self, settings: &Settings) -> Option<u64> {
        match self {
            Self::Up => settings.upload_rate,
            Self::Down => settings.download_rate,
        }
    }
}

/// When everything that was let through so far is paid for.
type Meter = Mutex<Instant>;

/// The meters of all accounts that transfer something.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<(AccountName, Direction), Weak<Meter>>>);

impl Rates {
    /// The account's meter for this direction.
    fn meter(&self, account: &AccountName, direction: Direction) -> Arc<Meter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, meter| meter.strong_count() > 0);
        let place = all.entry((account.clone(), direction)).or_default();
        if let Some(meter) = place.upgrade() {
            return meter;
        }
        let meter = Arc::new(Mutex::new(Instant::now()));
        *place = Arc::downgrade(&meter);
        meter
    }

    pub(super) fn pace(
        &self,
        account: &AccountName,
        direction: Direction,
        settings: &SharedSettings,
    ) -> Pace {
        Pace { meter: self.meter(account, direction), direction, settings: Arc::clone(settings) }
    }
}

/// One transfer's share.
#[derive(Clone)]
pub struct Pace {
    meter: Arc<Meter>,
    direction: Direction,
    /// Changes count at the next piece.
    settings: SharedSettings,
}

impl Pace {
    fn rate(&self) -> Option<u64> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        self.direction.rate(&settings)
    }

    /// Whether pieces have to be small, so that transfers share fairly and none stands still for long.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rate().is_some()
    }

    /// Waits until so many bytes may pass.
    pub async fn take(&self, bytes: usize) {
        let Some(rate) = self.rate() else { return };
        let wait = {
            let mut paid = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
            let (wait, until) = wait_for(*paid, Instant::now(), (bytes, rate));
            *paid = until;
            wait
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// How long bytes must wait, and until when everything is paid for then.
fn wait_for(paid: Instant, now: Instant, (bytes, rate): (usize, u64)) -> (Duration, Instant) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let cost = bytes.saturating_mul(1_000_000).checked_div(rate).unwrap_or(0);
    let until = paid.max(now).checked_add(Duration::from_micros(cost)).unwrap_or(now);
    (until.saturating_duration_since(now).saturating_sub(AHEAD), until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_wait_as_long_as_the_rate_says() {
        let start = Instant::now();
        let mut now = start;
        let mut paid = start;
        for _ in 0..100 {
            let (wait, until) = wait_for(paid, now, (32_768, 327_680));
            (paid, now) = (until, now + wait);
        }
        // A hundred pieces of a tenth of a second each, less what may run ahead.
        assert_eq!(now.duration_since(start), Duration::from_secs(10) - AHEAD);
        // Who was idle has not saved up anything.
        let later = now + Duration::from_secs(100);
        let (wait, until) = wait_for(paid, later, (327_680, 327_680));
        assert_eq!(wait, Duration::from_secs(1) - AHEAD);
        assert_eq!(until, later + Duration::from_secs(1));
    }
}
