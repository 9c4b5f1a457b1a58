//! Settings of a running server, read again at SIGHUP (spec section 15).

use crate::config::{Config, Loaded, Origin};
use crate::logging;

use super::Context;

/// What a server can take over while it runs. Certificates and `client.ini` are followed by themselves.
fn takes_effect(key: &str) -> bool {
    key == "log.level" || key.starts_with("limits.")
}

/// The settings that are in force, and where they came from.
pub(super) struct Settings {
    loaded: Loaded,
    is_verbose: bool,
}

impl Settings {
    pub(super) fn new(context: &Context) -> Self {
        Self { loaded: context.loaded.clone(), is_verbose: context.is_verbose }
    }

    /// Reads file and environment again, opens the log file again, and gives what the server is to take over. Settings
    /// that are refused change nothing.
    pub(super) fn read_again(&mut self) -> Option<Config> {
        let read = super::load(self.loaded.file.as_deref());
        let level = match (&read, self.is_verbose) {
            (_, true) => "debug",
            (Ok(loaded), false) => &loaded.config.log.level,
            (Err(_), false) => &self.loaded.config.log.level,
        };
        if let Err(error) = logging::renew(level) {
            tracing::error!(reason = format!("{error:#}"), "SIGHUP: the log goes on as before");
        }
        let loaded = match read {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(
                    reason = format!("{error:#}"),
                    "SIGHUP: the settings are refused, the earlier ones stay"
                );
                return None;
            }
        };
        let changed: Vec<&str> = changed(&self.loaded, &loaded).collect();
        let is_now = |key: &&&str| takes_effect(key);
        let now: Vec<&str> = changed.iter().filter(is_now).copied().collect();
        let later: Vec<&str> = changed.iter().filter(|key| !is_now(key)).copied().collect();
        tracing::info!(
            changed = now.join(" "),
            "SIGHUP: settings read again, log file opened again"
        );
        if !later.is_empty() {
            tracing::warn!(
                settings = later.join(" "),
                "these settings have changed and take effect at the next start"
            );
        }
        // What waits for the next start is spoken of at each SIGHUP until then.
        self.loaded.config.log.level.clone_from(&loaded.config.log.level);
        self.loaded.origins.retain(|old| !takes_effect(&old.key));
        self.loaded.origins.extend(loaded.origins.into_iter().filter(|new| takes_effect(&new.key)));
        Some(loaded.config)
    }
}

/// Keys with another value than before, with those that have come or gone.
fn changed<'a>(before: &'a Loaded, now: &'a Loaded) -> impl Iterator<Item = &'a str> {
    let differs = |a: &Origin, in_those: &Loaded| {
        let other = in_those.origins.iter().find(|b| b.key == a.key);
        other.map(|b| &b.value) != Some(&a.value)
    };
    let is_gone = |old: &Origin| now.origins.iter().all(|new| new.key != old.key);
    let new = now.origins.iter().filter(move |new| differs(new, before));
    let gone = before.origins.iter().filter(move |old| is_gone(old));
    new.chain(gone).map(|origin| origin.key.as_str())
}
