//! What staff did in a folder of the share, told from looks at it: shares of other machines tell nothing themselves.
//!
//! A file counts when two looks some seconds apart found it unchanged; a removal when two looks in a row missed it.

use std::collections::{BTreeMap, BTreeSet};

/// Unchanged for this long a file counts as complete, in milliseconds.
pub const QUIET_MS: u64 = 5000;
/// More removals at once are not believed without an operator.
const MANY: usize = 20;

/// A file as one look finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Below the folder, `/` between names.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Unix milliseconds.
    pub mtime: i64,
}

/// What one folder's earlier looks found.
#[derive(Debug, Default)]
pub struct Memory {
    /// Path to size, time, and when it was first found like that.
    seen: BTreeMap<String, (u64, i64, u64)>,
    missing: BTreeSet<String>,
}

/// What a look asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// New or changed, and complete.
    pub publish: Vec<Found>,
    /// Gone for two looks.
    pub withdraw: Vec<String>,
    /// Gone now, at the first look or the second.
    pub missing: usize,
    /// Something is not decided yet: look again soon.
    pub is_waiting: bool,
}

impl Memory {
    /// One look: what is there at `now` (milliseconds of any clock that does not jump), and what the customer sees.
    pub fn look(&mut self, now: u64, found: Vec<Found>, known: &[Found]) -> Plan {
        let mut plan = Plan::default();
        let known: BTreeMap<&str, &Found> = known.iter().map(|k| (k.path.as_str(), k)).collect();
        let mut seen = BTreeMap::new();
        for file in found {
            let since = match self.seen.get(&file.path) {
                Some((size, mtime, since)) if (*size, *mtime) == (file.size, file.mtime) => *since,
                Some(_) | None => now,
            };
            seen.insert(file.path.clone(), (file.size, file.mtime, since));
            let is_known = known
                .get(file.path.as_str())
                .is_some_and(|k| (k.size, k.mtime) == (file.size, file.mtime));
            if is_known {
                continue;
            }
            if now.saturating_sub(since) >= QUIET_MS {
                plan.publish.push(file);
            } else {
                plan.is_waiting = true;
            }
        }
        let gone = known.keys().filter(|path| !seen.contains_key(**path));
        let gone: BTreeSet<String> = gone.map(|path| (*path).to_owned()).collect();
        plan.withdraw = gone.intersection(&self.missing).cloned().collect();
        plan.missing = gone.len();
        plan.is_waiting |= plan.withdraw.len() < gone.len();
        (self.seen, self.missing) = (seen, gone);
        plan
    }
}

/// Whether so many removals at once could be an accident: a share that was emptied, a folder moved by mistake.
#[must_use]
pub fn is_mass_removal(removed: usize, of: usize) -> bool {
    removed > MANY || (removed > 1 && removed.saturating_mul(2) >= of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> Found {
        Found { path: path.to_owned(), size, mtime: 1 }
    }

    #[test]
    fn a_file_counts_when_it_was_quiet() {
        let mut memory = Memory::default();
        let waiting = Plan { is_waiting: true, ..Plan::default() };
        assert_eq!(memory.look(0, vec![file("a", 1)], &[]), waiting);
        // Still growing.
        assert_eq!(memory.look(6000, vec![file("a", 2)], &[]), waiting);
        assert_eq!(memory.look(10_999, vec![file("a", 2)], &[]), waiting);
        let plan = memory.look(11_000, vec![file("a", 2)], &[]);
        assert_eq!(plan, Plan { publish: vec![file("a", 2)], ..Plan::default() });
        assert_eq!(memory.look(12_000, vec![file("a", 2)], &[file("a", 2)]), Plan::default());
        // A change follows after the same wait.
        assert_eq!(memory.look(13_000, vec![file("a", 3)], &[file("a", 2)]), waiting);
        assert_eq!(
            memory.look(18_000, vec![file("a", 3)], &[file("a", 2)]).publish,
            [file("a", 3)]
        );
    }

    #[test]
    fn a_removal_counts_at_the_second_look() {
        let mut memory = Memory::default();
        let known = [file("a", 1), file("b", 1)];
        assert!(memory.look(0, vec![file("a", 1)], &known).withdraw.is_empty());
        // It was only moved for a moment.
        assert_eq!(memory.look(1, vec![file("a", 1), file("b", 1)], &known), Plan::default());
        assert!(memory.look(2, vec![], &known).withdraw.is_empty());
        let plan = memory.look(3, vec![file("b", 1)], &known);
        assert_eq!((plan.withdraw, plan.is_waiting), (vec!["a".to_owned()], false));
    }

    #[test]
    fn many_removals_want_an_operator() {
        let cases = [
            (1, 1, false),
            (1, 2, false),
            (2, 5, false),
            (2, 4, true),
            (2, 2, true),
            (20, 100, false),
            (21, 1000, true),
        ];
        for (removed, of, expect) in cases {
            assert_eq!(is_mass_removal(removed, of), expect, "{removed} of {of}");
        }
    }
}
