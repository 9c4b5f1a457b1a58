//! Answers that hold for a moment: what every upload asks, and what hardly ever changes.
//!
//! A customer who sends thousands of small files pays for each trip to the database. What is remembered here is right
//! to within half a second, which is less than what a change by a command may take anyway (spec section 3).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FRESH: Duration = Duration::from_millis(500);
const KEPT_MAX: usize = 10_000;

/// A map that forgets after half a second.
pub struct Recent<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    pub fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, value) = kept.get(key)?;
        (at.elapsed() < FRESH).then(|| value.clone())
    }

    pub fn put(&self, key: K, value: V) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), value));
    }

    /// Something has changed.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
