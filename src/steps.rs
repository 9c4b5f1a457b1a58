//! Named steps at which a test ends the process as a power cut would, or makes it panic. A release has none of it.
//!
//! The environment says where: `PTPORTAL_STEP=delivery.renamed=abort`, the third time with `abort@3`; or `panic`, which
//! happens once. (A crate for this exists, `fail`; it would bring a second generation of random numbers into every
//! build.)

/// Here a test may end the process.
#[inline]
pub fn reach(step: &str) {
    #[cfg(debug_assertions)]
    armed::reach(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Armed {
        step: String,
        action: String,
        /// How often the step is still passed before it acts.
        left: AtomicUsize,
    }

    fn armed() -> Option<Armed> {
        let text = std::env::var("PTPORTAL_STEP").ok()?;
        let (step, action) = text.split_once('=')?;
        let (action, count) = action.split_once('@').unwrap_or((action, "1"));
        let left = AtomicUsize::new(count.parse().ok()?);
        Some(Armed { step: step.to_owned(), action: action.to_owned(), left })
    }

    pub(super) fn reach(step: &str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let Some(armed) = ARMED.get_or_init(armed).as_ref() else { return };
        if armed.step != step {
            return;
        }
        let left =
            armed.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if left == Ok(1) {
            act(armed);
        }
    }

    #[expect(clippy::panic, reason = "that is what a test has asked for")]
    fn act(armed: &Armed) {
        match armed.action.as_str() {
            "abort" => std::process::abort(),
            _ => panic!("asked for at {}", armed.step),
        }
    }
}
