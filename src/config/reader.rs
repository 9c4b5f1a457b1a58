//! Reads keys one by one with their defaults and records where each came from.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;

use super::given::{Raw, Settings};
use super::load::{ConfigError, Origin, Source};
use super::value;

/// Hands out each key's value as a type, from what was given or else from the default.
///
/// Defaults are written as a user would write them and take the same way.
pub(super) struct Reader {
    file: Option<PathBuf>,
    base: PathBuf,
    settings: Settings,
    origins: Vec<Origin>,
}

impl Reader {
    /// Relative paths are relative to `base`.
    pub(super) fn new(file: Option<PathBuf>, base: PathBuf, settings: Settings) -> Self {
        Self { file, base, settings, origins: Vec::new() }
    }

    pub(super) fn into_origins(self) -> Vec<Origin> {
        self.origins
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn switch(&mut self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let default = Raw::Switch(default);
        let value = self.take(key, &default)?;
        let Raw::Switch(on) = value else {
            return Err(self.wrong_type(key, &value, &default));
        };
        Ok(on)
    }

    /// At least 1.
    pub(super) fn count<N: TryFrom<i64>>(
        &mut self,
        key: &str,
        default: i64,
    ) -> Result<N, ConfigError> {
        self.number(key, default, 1)
    }

    pub(super) fn number<N: TryFrom<i64>>(
        &mut self,
        key: &str,
        default: i64,
        least: i64,
    ) -> Result<N, ConfigError> {
        let default = Raw::Number(default);
        let value = self.take(key, &default)?;
        let Raw::Number(number) = value else {
            return Err(self.wrong_type(key, &value, &default));
        };
        if number < least {
            return Err(self.refuse(key, format!("{number} is too small; write at least {least}")));
        }
        N::try_from(number).map_err(|_| self.refuse(key, format!("{number} is too large")))
    }

    /// The text as `parse` understands it; `parse` returns the problem.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let default = Raw::Text(default.to_owned());
        let value = self.take(key, &default)?;
        let Raw::Text(text) = &value else {
            return Err(self.wrong_type(key, &value, &default));
        };
        parse(text).map_err(|problem| self.refuse(key, problem))
    }

    /// As [`Self::parsed`] for each entry of a list.
    pub(super) fn parsed_list<T>(
        &mut self,
        key: &str,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let default = Raw::List(default.iter().map(|text| Raw::Text((*text).to_owned())).collect());
        let value = self.take(key, &default)?;
        let Raw::List(entries) = &value else {
            return Err(self.wrong_type(key, &value, &default));
        };
        let mut parsed = Vec::new();
        for entry in entries {
            let Raw::Text(text) = entry else {
                let problem =
                    format!("each entry of the list must be a string, not {}", entry.describe());
                return Err(self.refuse(key, problem));
            };
            parsed.push(parse(text).map_err(|problem| self.refuse(key, problem))?);
        }
        Ok(parsed)
    }

    /// One text, several with commas between them (as in the environment), or a list.
    pub(super) fn parsed_some<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let default = Raw::Text(default.to_owned());
        let value = self.take(key, &default)?;
        let texts: Vec<&str> = match &value {
            Raw::Text(text) => text.split(',').map(str::trim).collect(),
            Raw::List(entries) if !entries.is_empty() => {
                let texts: Option<Vec<&str>> = entries.iter().map(Raw::text).collect();
                texts.ok_or_else(|| self.wrong_type(key, &value, &default))?
            }
            Raw::List(_) | Raw::Number(_) | Raw::Switch(_) | Raw::Table | Raw::Other(_) => {
                return Err(self.wrong_type(key, &value, &default));
            }
        };
        let parsed: Result<Vec<T>, String> = texts.into_iter().map(parse).collect();
        parsed.map_err(|problem| self.refuse(key, problem))
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        default: &str,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        self.parsed(key, default, |text| {
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("{} is not one of {}", value::quoted(text), names.join(", "))
            })
        })
    }

    /// Bytes, as text with a unit or as a number.
    pub(super) fn size(
        &mut self,
        key: &str,
        default: &str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let default = Raw::Text(default.to_owned());
        let value = self.take(key, &default)?;
        let size = match &value {
            Raw::Text(text) => value::size(text),
            // The same way for both, so that a negative number is told the same.
            Raw::Number(number) => value::size(&number.to_string()),
            Raw::Switch(_) | Raw::List(_) | Raw::Table | Raw::Other(_) => {
                return Err(self.wrong_type(key, &value, &default));
            }
        };
        let size = size.map_err(|problem| self.refuse(key, problem))?;
        if range.contains(&size) {
            return Ok(size);
        }
        let (least, most) = (value::size_text(*range.start()), value::size_text(*range.end()));
        let problem = if size < *range.start() {
            format!("{} is too small; write at least {least}", value.to_toml())
        } else {
            format!("{} is too large; write at most {most}", value.to_toml())
        };
        Err(self.refuse(key, problem))
    }

    pub(super) fn duration(&mut self, key: &str, default: &str) -> Result<Duration, ConfigError> {
        self.parsed(key, default, value::duration)
    }

    /// A duration that makes no sense as zero.
    pub(super) fn lasting(&mut self, key: &str, default: &str) -> Result<Duration, ConfigError> {
        self.parsed(key, default, |text| match value::duration(text)? {
            Duration::ZERO => Err(format!("{} must be longer than zero", value::quoted(text))),
            duration => Ok(duration),
        })
    }

    pub(super) fn path(&mut self, key: &str, default: &str) -> Result<PathBuf, ConfigError> {
        let base = self.base.clone();
        self.parsed(key, default, |text| value::path(text, &base))
    }

    /// Empty is none.
    pub(super) fn path_or_none(
        &mut self,
        key: &str,
        default: &str,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let base = self.base.clone();
        self.parsed(key, default, |text| match text {
            "" => Ok(None),
            text => value::path(text, &base).map(Some),
        })
    }

    pub(super) fn addresses(
        &mut self,
        key: &str,
        default: &[&str],
    ) -> Result<Vec<SocketAddr>, ConfigError> {
        self.parsed_list(key, default, value::listen_address)
    }

    pub(super) fn patterns(
        &mut self,
        key: &str,
        default: &[&str],
    ) -> Result<Vec<Pattern>, ConfigError> {
        self.parsed_list(key, default, value::pattern)
    }

    /// Whether anything of a section was given.
    pub(super) fn has_section(&self, name: &str) -> bool {
        self.settings.has_section(name)
    }

    /// Whether a key that was read is as it is by itself.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.origins
            .iter()
            .find(|origin| origin.key == key)
            .is_none_or(|origin| origin.source == Source::Default)
    }

    /// A problem with a key that was read.
    pub(super) fn refuse(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let origin = self.origins.iter().find(|origin| origin.key == key);
        let source = origin.map_or(&Source::Default, |origin| &origin.source);
        ConfigError::Value {
            place: source.place(self.file.as_deref()),
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    fn wrong_type(&self, key: &str, value: &Raw, default: &Raw) -> ConfigError {
        let (kind, example) = (default.kind(), default.to_toml());
        self.refuse(key, format!("must be {kind}, as in {example}, not {}", value.describe()))
    }

    fn take(&mut self, key: &str, default: &Raw) -> Result<Raw, ConfigError> {
        let (source, value) = match self.settings.take(key) {
            Some(given) => (given.source(), given.value(default)),
            None => (Source::Default, Ok(default.clone())),
        };
        let value = value.map_err(|problem| ConfigError::Value {
            place: source.place(self.file.as_deref()),
            key: key.to_owned(),
            problem,
        })?;
        self.origins.push(Origin { key: key.to_owned(), value: shown(key, &value), source });
        Ok(value)
    }
}

/// The value for the eyes of an operator, without secrets.
fn shown(key: &str, value: &Raw) -> String {
    match value {
        Raw::Text(secret) if key.ends_with("].secret") && !secret.is_empty() => {
            "\"***\"".to_owned()
        }
        Raw::Text(url) if key == "database.url" => value::quoted(&value::masked_url(url)),
        Raw::Text(_)
        | Raw::Number(_)
        | Raw::Switch(_)
        | Raw::List(_)
        | Raw::Table
        | Raw::Other(_) => value.to_toml(),
    }
}
