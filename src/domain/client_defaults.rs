//! The system default `clients`: what a new client gets, and what an announcement may change at one that exists
//! (spec section 12).

use serde::{Deserialize, Serialize};

use crate::domain::account::Language;
use crate::domain::announcement::DAYS_MAX;

/// What happens to fields of a client that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    /// Nothing is changed.
    Keep,
    /// Only empty fields are filled.
    #[default]
    Fill,
    /// What is announced counts.
    Overwrite,
}

/// The settings object; absent keys come from the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_hotfolder: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotfolder_delete_in_days: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_existing: Option<OnExisting>,
}

impl ClientDefaults {
    /// Reads the object of a row.
    ///
    /// # Errors
    /// The text of serde: unknown key or wrong type.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(if text.is_empty() { "{}" } else { text }).map_err(|e| e.to_string())
    }

    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Sets (`Some`) or removes (`None`) one key as written on the command line.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let flag = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{key}: {other:?} is not true or false")),
        };
        match key {
            "create_hotfolder" => self.create_hotfolder = value.map(flag).transpose()?,
            "hotfolder_delete_in_days" => {
                let days = value.map(|text| {
                    text.parse::<u32>().ok().filter(|days| *days <= DAYS_MAX).ok_or_else(|| {
                        format!("{key}: {text:?} is not a number of days up to 36500")
                    })
                });
                self.hotfolder_delete_in_days = days.transpose()?;
            }
            "language" => self.language = value.map(str::parse).transpose()?,
            "on_existing" => {
                let policy = value.map(|text| match text {
                    "keep" => Ok(OnExisting::Keep),
                    "fill" => Ok(OnExisting::Fill),
                    "overwrite" => Ok(OnExisting::Overwrite),
                    other => Err(format!("{key}: {other:?} is not keep, fill or overwrite")),
                });
                self.on_existing = policy.transpose()?;
            }
            other => {
                return Err(format!(
                    "the system default clients has no key {other:?}; known are create_hotfolder, \
                     hotfolder_delete_in_days, language, on_existing"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_removed_and_refused() {
        let mut defaults = ClientDefaults::default();
        for (key, value) in [
            ("create_hotfolder", "1"),
            ("hotfolder_delete_in_days", "30"),
            ("language", "en"),
            ("on_existing", "overwrite"),
        ] {
            defaults.set(key, Some(value)).unwrap();
        }
        let text = defaults.to_json();
        assert_eq!(ClientDefaults::from_json(&text).unwrap(), defaults);
        defaults.set("language", None).unwrap();
        assert_eq!(defaults.language, None);
        for (key, value) in [
            ("create_hotfolder", "yes"),
            ("hotfolder_delete_in_days", "-1"),
            ("language", "fr"),
            ("on_existing", "merge"),
            ("colour", "red"),
        ] {
            assert!(defaults.set(key, Some(value)).is_err(), "{key}");
        }
    }
}
