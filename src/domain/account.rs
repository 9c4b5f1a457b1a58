//! Accounts of customers: names, status, and settings (system default overlaid by the account's own).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::domain::path::{Name, fold};
use crate::domain::time::{self, Timestamp};

/// The languages customers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    #[default]
    De,
    En,
}

impl FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "de" => Ok(Self::De),
            "en" => Ok(Self::En),
            other => Err(format!("{other:?} is not a language; write de or en")),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::De => "de",
            Self::En => "en",
        })
    }
}

/// The name of a portal account.
///
/// Invariant: 1 to 64 characters of `a-z 0-9 . _ @ -`, so that no lookup ever sees anything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

impl AccountName {
    /// Folds (NFKC, lower case) and checks a name as a client sends it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 256 {
            return None;
        }
        let folded: String = text.nfkc().collect::<String>().to_lowercase();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._@-".contains(c);
        let fits = !folded.is_empty() && folded.len() <= 64 && folded.chars().all(allowed);
        fits.then_some(Self(folded))
    }

    /// Makes any text a possible name: what is not allowed becomes `-`.
    #[must_use]
    pub fn made_safe(text: &str) -> Self {
        let folded: String = text.nfkc().collect::<String>().to_lowercase();
        let safe: String = folded
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._@-".contains(c) { c } else { '-' })
            .take(60)
            .collect();
        if safe.is_empty() { Self("kunde".to_owned()) } else { Self(safe) }
    }

    /// The same name with a number behind it, where the first is taken.
    #[must_use]
    pub fn numbered(&self, n: u32) -> Self {
        Self(format!("{}-{n}", self.0.chars().take(58).collect::<String>()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an account may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Inactive,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "active" { Self::Active } else { Self::Inactive }
    }
}

/// Whom limits and bans count for: a subscriber of IPv6 has 2^64 addresses, so it is their common part.
#[must_use]
pub fn subscriber(address: std::net::IpAddr) -> std::net::IpAddr {
    match address.to_canonical() {
        std::net::IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ std::net::IpAddr::V4(_) => v4,
    }
}

/// Settings of an account (spec section 5); what is absent comes from the system default `ptportal`,
/// what is absent there too from the program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folders of each project; the first is for uploads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folders: Option<Vec<String>>,
    /// Bytes that the account's client may keep in the portal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// Without the dot, lower case; empty means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_extensions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_extensions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u64>,
    /// Bytes per second, for all transfers of the account together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_rate: Option<u64>,
    /// RFC 3339 or YYYY-MM-DD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_file: Option<bool>,
    /// FTPS uploads of a client that ends them without close_notify are taken as complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerate_missing_close_notify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_pattern: Option<String>,
}

/// A slower rate would make clients give up between two pieces, in bytes per second.
const RATE_MIN: u64 = 10 * 1024;

impl Settings {
    /// Reads the object of a row.
    ///
    /// # Errors
    /// The text of serde: unknown key or wrong type.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// This account's settings over the system default.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        Self {
            folders: self.folders.or(base.folders),
            quota_bytes: self.quota_bytes.or(base.quota_bytes),
            max_file_bytes: self.max_file_bytes.or(base.max_file_bytes),
            allowed_extensions: self.allowed_extensions.or(base.allowed_extensions),
            denied_extensions: self.denied_extensions.or(base.denied_extensions),
            protocols: self.protocols.or(base.protocols),
            allowed_networks: self.allowed_networks.or(base.allowed_networks),
            max_sessions: self.max_sessions.or(base.max_sessions),
            upload_rate: self.upload_rate.or(base.upload_rate),
            download_rate: self.download_rate.or(base.download_rate),
            expires_at: self.expires_at.or(base.expires_at),
            language: self.language.or(base.language),
            status_file: self.status_file.or(base.status_file),
            tolerate_missing_close_notify: self
                .tolerate_missing_close_notify
                .or(base.tolerate_missing_close_notify),
            username_pattern: self.username_pattern.or(base.username_pattern),
        }
    }

    /// Sets one key from `KEY=VALUE` as written on the command line; lists are separated by commas.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let json = Self::value_of(key, value)?;
        let mut object = serde_json::to_value(&*self).map_err(|e| e.to_string())?;
        if let Some(map) = object.as_object_mut() {
            map.insert(key.to_owned(), json);
        }
        *self = serde_json::from_value(object).map_err(|e| format!("{key}: {e}"))?;
        self.check()
    }

    /// Removes one key, so that the system default counts again.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn unset(&mut self, key: &str) -> Result<(), String> {
        Self::value_of(key, "0").or_else(|_| Self::value_of(key, "true"))?;
        let mut object = serde_json::to_value(&*self).map_err(|e| e.to_string())?;
        if let Some(map) = object.as_object_mut() {
            map.remove(key);
        }
        *self = serde_json::from_value(object).map_err(|e| e.to_string())?;
        Ok(())
    }

    fn value_of(key: &str, value: &str) -> Result<serde_json::Value, String> {
        let list = || {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            serde_json::Value::from(items.map(str::to_owned).collect::<Vec<_>>())
        };
        match key {
            "folders" | "allowed_networks" | "protocols" => Ok(list()),
            "allowed_extensions" | "denied_extensions" => {
                let items =
                    value.split(',').map(|e| e.trim().trim_start_matches('.').to_lowercase());
                Ok(items.filter(|e| !e.is_empty()).collect::<Vec<_>>().into())
            }
            "quota_bytes" | "max_file_bytes" | "max_sessions" | "upload_rate" | "download_rate" => {
                value
                    .parse::<u64>()
                    .map(Into::into)
                    .map_err(|_| format!("{key}: {value:?} is not a whole number"))
            }
            "status_file" | "tolerate_missing_close_notify" => match value {
                "true" | "1" => Ok(true.into()),
                "false" | "0" => Ok(false.into()),
                other => Err(format!("{key}: {other:?} is not true or false")),
            },
            "expires_at" | "language" | "username_pattern" => Ok(value.into()),
            other => Err(format!(
                "there is no account setting {other:?}; known are folders, quota_bytes, max_file_bytes, \
                 allowed_extensions, denied_extensions, protocols, allowed_networks, max_sessions, \
                 upload_rate, download_rate, expires_at, language, status_file, tolerate_missing_close_notify, username_pattern"
            )),
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(text) = &self.expires_at
            && time::parse(text).is_none()
        {
            return Err(format!("expires_at: {text:?} is neither YYYY-MM-DD nor RFC 3339"));
        }
        if let Some(pattern) = &self.username_pattern {
            let rest = pattern.replace("{client_no}", "").replace("{client_name}", "");
            if rest.contains(['{', '}']) {
                return Err(format!(
                    "username_pattern: {pattern:?} has a placeholder that is not known; known are {{client_no}} and {{client_name}}"
                ));
            }
        }
        for (key, rate) in
            [("upload_rate", self.upload_rate), ("download_rate", self.download_rate)]
        {
            if rate.is_some_and(|rate| rate < RATE_MIN) {
                return Err(format!(
                    "{key}: less than {RATE_MIN} bytes per second; `account unset` takes the limit away"
                ));
            }
        }
        for network in self.allowed_networks.iter().flatten() {
            Network::parse(network).map_err(|e| format!("allowed_networks: {e}"))?;
        }
        if let Some(folders) = &self.folders {
            check_folders(folders)?;
        }
        for protocol in self.protocols.iter().flatten() {
            if !["sftp", "ftps", "web"].contains(&protocol.as_str()) {
                return Err(format!("protocols: {protocol:?} is not sftp, ftps or web"));
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn allows_protocol(&self, protocol: &str) -> bool {
        self.protocols.as_ref().is_none_or(|all| all.iter().any(|p| p == protocol))
    }

    /// An empty list allows every address; a network that does not read allows none.
    #[must_use]
    pub fn allows_address(&self, address: std::net::IpAddr) -> bool {
        self.allowed_networks.as_ref().is_none_or(|networks| {
            networks.is_empty()
                || networks.iter().filter_map(|n| Network::parse(n).ok()).any(|n| n.holds(address))
        })
    }

    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.as_deref().and_then(time::parse).is_some_and(|end| now >= end)
    }

    /// The extension that forbids this name, if one does.
    #[must_use]
    pub fn forbids_extension(&self, name: &str) -> Option<String> {
        let extension = name.rsplit_once('.').map_or("", |(_, e)| e).to_lowercase();
        let allowed = self.allowed_extensions.as_ref();
        let outside = allowed.is_some_and(|a| !a.is_empty() && !a.contains(&extension));
        let denied = self.denied_extensions.as_ref().is_some_and(|d| d.contains(&extension));
        (outside || denied).then_some(extension)
    }
}

/// Names that a project's folders can have, each once in any case.
fn check_folders(folders: &[String]) -> Result<(), String> {
    let mut seen = Vec::new();
    if folders.is_empty() {
        return Err("folders: give at least one name".to_owned());
    }
    for folder in folders {
        if Name::parse(folder).is_err() || folder.to_lowercase() == "status.txt" {
            return Err(format!("folders: {folder:?} is not a folder's name"));
        }
        let name = fold(folder);
        if seen.contains(&name) {
            return Err(format!("folders: {folder:?} is named twice"));
        }
        seen.push(name);
    }
    Ok(())
}

/// A network in CIDR form, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: std::net::IpAddr,
    prefix: u32,
}

impl Network {
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address or network such as 192.0.2.0/24");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let base: std::net::IpAddr = address.trim().parse().map_err(|_| bad())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |p| p.parse::<u32>().map_err(|_| bad()))?;
        if prefix > longest {
            return Err(bad());
        }
        Ok(Self { base, prefix })
    }

    #[must_use]
    pub fn holds(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.base, address.to_canonical()) {
            (V4(base), V4(other)) => {
                let shift = 32u32.saturating_sub(self.prefix);
                let cut = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
                cut(base.to_bits()) == cut(other.to_bits())
            }
            (V6(base), V6(other)) => {
                let shift = 128u32.saturating_sub(self.prefix);
                let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                cut(base.to_bits()) == cut(other.to_bits())
            }
            (V4(_), V6(_)) | (V6(_), V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names_are_folded_and_narrow() {
        assert_eq!(AccountName::parse("Acme.GmbH").unwrap().as_str(), "acme.gmbh");
        for bad in ["", "a b", "a\0b", "müller", "../x", "a'--", &"x".repeat(65)] {
            assert!(AccountName::parse(bad).is_none(), "{bad:?}");
        }
        assert_eq!(AccountName::made_safe("Müller & Co").as_str(), "m-ller---co");
    }

    #[test]
    fn an_account_overrides_the_system_default_key_by_key() {
        let mut base = Settings::default();
        base.set("quota_bytes", "100").unwrap();
        base.set("language", "en").unwrap();
        let mut own = Settings::default();
        own.set("quota_bytes", "5").unwrap();
        let merged = own.over(base);
        assert_eq!((merged.quota_bytes, merged.language), (Some(5), Some(Language::En)));
    }

    #[test]
    fn addresses_of_one_subscriber_count_together() {
        let of = |text: &str| subscriber(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:3::1"), "2001:db8:1:3::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::1"), "::", "the machine itself");
    }

    #[test]
    fn settings_say_what_is_wrong() {
        let mut settings = Settings::default();
        for (key, value, expect) in [
            ("quota_bytes", "many", "not a whole number"),
            ("quota", "5", "no account setting"),
            ("expires_at", "tomorrow", "neither YYYY-MM-DD"),
            ("allowed_networks", "10.0.0.0/40", "not an address"),
            ("protocols", "scp", "not sftp"),
            ("upload_rate", "5", "less than 10240 bytes per second"),
            ("username_pattern", "{foo}", "placeholder that is not known"),
            ("download_rate", "fast", "not a whole number"),
        ] {
            let error = settings.clone().set(key, value).unwrap_err();
            assert!(error.contains(expect), "{error}");
        }
        settings.set("allowed_extensions", ".PDF, tif").unwrap();
        assert_eq!(settings.forbids_extension("a.Pdf"), None);
        assert_eq!(settings.forbids_extension("a.exe"), Some("exe".to_owned()));
        settings.unset("allowed_extensions").unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn networks_hold_their_addresses() {
        let check = |network: &str, address: &str| {
            Network::parse(network).unwrap().holds(address.parse().unwrap())
        };
        assert!(check("192.0.2.0/24", "192.0.2.77"));
        assert!(check("192.0.2.0/24", "::ffff:192.0.2.77"));
        assert!(!check("192.0.2.0/24", "192.0.3.1"));
        assert!(check("0.0.0.0/0", "8.8.8.8"));
        assert!(check("2001:db8::/32", "2001:db8::1"));
        assert!(!check("2001:db8::/32", "192.0.2.1"));
    }
}
