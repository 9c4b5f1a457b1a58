//! How often one address may do what costs something: ask for a link, try a password.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(3600);
const IN_WINDOW: usize = 10;
/// Addresses remembered.
const ADDRESSES_MAX: usize = 10_000;

/// Counts by address; of IPv6 the network of one customer.
#[derive(Default)]
pub(super) struct Limiter(Mutex<HashMap<IpAddr, Vec<Instant>>>);

impl Limiter {
    /// Counts one more, and says whether it is one too many.
    pub(super) fn is_too_often(&self, address: IpAddr) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ADDRESSES_MAX {
            all.retain(|_, at| at.last().is_some_and(|at| at.elapsed() < WINDOW));
        }
        let key = network(address);
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&key) {
            // A flood from everywhere must not shut the page for everybody; what each name is mailed has its own limit.
            all.clear();
        }
        let recent = all.entry(key).or_default();
        recent.retain(|at| at.elapsed() < WINDOW);
        if recent.len() >= IN_WINDOW {
            return true;
        }
        recent.push(Instant::now());
        false
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            std::net::Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_wish_of_an_address_is_one_too_many() {
        let limiter = Limiter::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..IN_WINDOW {
            assert!(!limiter.is_too_often(address(&format!("2001:db8::{n}"))));
        }
        assert!(limiter.is_too_often(address("2001:db8::ffff")), "the same network");
        assert!(!limiter.is_too_often(address("192.0.2.1")));
    }
}
