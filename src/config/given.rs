//! What file and environment give, as a flat map of keys; and which keys are refused.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::load::{ConfigError, Source};
use super::value::quoted;

/// What `[[webhook]]` takes; the sections are counted, so these keys are known by their pattern.
const WEBHOOK_KEYS: [&str; 3] = ["url", "events", "secret"];

/// A value as it was written, before it has a meaning.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    Text(String),
    Number(i64),
    Switch(bool),
    List(Vec<Self>),
    /// Empty, or one of an array of tables.
    Table,
    /// What no key takes; holds its description.
    Other(&'static str),
}

impl Raw {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Switch(_) | Self::List(_) | Self::Table | Self::Other(_) => {
                None
            }
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Switch(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table => "a table",
            Self::Other(kind) => kind,
        }
    }

    /// Short enough to stand in a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(_) | Self::Number(_) | Self::Switch(_) => self.to_toml(),
            Self::List(_) | Self::Table | Self::Other(_) => self.kind().to_owned(),
        }
    }

    pub(super) fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
            Self::List(entries) => {
                let entries: Vec<String> = entries.iter().map(Self::to_toml).collect();
                format!("[{}]", entries.join(", "))
            }
            Self::Table => "{}".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }

    fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Self::Other("a number out of range"), Self::Number),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Boolean(on) => Self::Switch(*on),
            DeValue::Datetime(_) => Self::Other("a date or time"),
            DeValue::Array(entries) => {
                Self::List(entries.iter().map(|entry| Self::from_toml(entry.get_ref())).collect())
            }
            DeValue::Table(_) => Self::Table,
        }
    }

    /// Reads a variable's text as the kind that the key's default has.
    pub(super) fn from_variable(text: &str, default: &Self) -> Result<Self, String> {
        match default {
            Self::Text(_) | Self::Table | Self::Other(_) => Ok(Self::Text(text.to_owned())),
            Self::Number(_) => text.trim().parse().map(Self::Number).map_err(|_| {
                format!(
                    "{} is not a whole number; write for example {}",
                    quoted(text),
                    default.to_toml()
                )
            }),
            Self::Switch(_) => text
                .trim()
                .parse()
                .map(Self::Switch)
                .map_err(|_| format!("{} is neither true nor false", quoted(text))),
            Self::List(_) => Self::list_from_variable(text),
        }
    }

    fn list_from_variable(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // A bracket may also begin an IPv6 address or a pattern, so TOML is tried, not demanded.
        if text.starts_with('[') {
            match DeValue::parse(text) {
                Ok(value) if value.get_ref().is_array() => {
                    return Ok(Self::from_toml(value.get_ref()));
                }
                Err(error) if text.starts_with("[\"") || text.starts_with("['") => {
                    return Err(format!("is not a TOML list: {}", one_line(error.message())));
                }
                Ok(_) | Err(_) => {}
            }
        }
        if text.is_empty() {
            return Ok(Self::List(Vec::new()));
        }
        Ok(Self::List(text.split(',').map(|entry| Self::Text(entry.trim().to_owned())).collect()))
    }
}

/// One value and where it stands.
#[derive(Debug, Clone)]
pub(super) enum Given {
    InFile { value: Raw, line: usize },
    InVariable { name: String, text: String },
}

impl Given {
    pub(super) fn source(&self) -> Source {
        match self {
            Self::InFile { line, .. } => Source::File { line: *line },
            Self::InVariable { name, .. } => Source::Environment { variable: name.clone() },
        }
    }

    pub(super) fn value(self, default: &Raw) -> Result<Raw, String> {
        match self {
            Self::InFile { value, .. } => Ok(value),
            Self::InVariable { text, .. } => Raw::from_variable(&text, default),
        }
    }

    fn is_table(&self) -> bool {
        match self {
            Self::InFile { value, .. } => matches!(value, Raw::Table),
            Self::InVariable { .. } => false,
        }
    }

    /// File first, in its order, then the environment.
    fn rank(&self) -> usize {
        match self {
            Self::InFile { line, .. } => *line,
            Self::InVariable { .. } => usize::MAX,
        }
    }
}

/// Everything that was given, by dotted key.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<String, Given>);

impl Settings {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        let syntax = |offset: usize, problem: String| ConfigError::Syntax {
            place: Source::File { line: line_of(bytes, offset) }.place(Some(path)),
            problem,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            syntax(error.valid_up_to(), "is not UTF-8; save the file as UTF-8".to_owned())
        })?;
        let document = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            syntax(offset, format!("is not valid TOML: {}", one_line(error.message())))
        })?;
        let mut settings = Self::default();
        settings.flatten(bytes, "", document.get_ref());
        Ok(settings)
    }

    pub(super) fn has_section(&self, name: &str) -> bool {
        self.0.keys().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Given> {
        self.0.remove(key)
    }

    fn flatten(&mut self, bytes: &[u8], prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", segment(name.get_ref()));
            if key == "webhook"
                && let Some(entries) = value.get_ref().as_array()
            {
                for (index, entry) in entries.iter().enumerate() {
                    if let Some(inner) = entry.get_ref().as_table() {
                        self.flatten(bytes, &format!("webhook[{index}]."), inner);
                    }
                }
                continue;
            }
            match value.get_ref().as_table() {
                Some(inner) if !inner.is_empty() => {
                    self.flatten(bytes, &format!("{key}."), inner);
                }
                Some(_) | None => {
                    let value = Raw::from_toml(value.get_ref());
                    let line = line_of(bytes, name.span().start);
                    self.0.insert(key, Given::InFile { value, line });
                }
            }
        }
    }
}

/// Lays the variables over the file's values; other programs' variables are passed over.
pub(super) fn overlay(
    settings: &mut Settings,
    environment: Vec<(String, String)>,
    known: &[String],
) -> Result<(), ConfigError> {
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix("PTPORTAL_") else { continue };
        if rest == "CONFIG" || rest.starts_with("TEST_") {
            continue;
        }
        if let Some(key) = known.iter().find(|key| variable(key) == name) {
            settings.0.insert(key.clone(), Given::InVariable { name, text });
        } else if let Some(key) = webhook_variable(rest) {
            settings.0.insert(key, Given::InVariable { name, text });
        } else if let Some(problem) = objection_to_variable(rest, known) {
            let key = dotted(rest);
            return Err(ConfigError::Key { place: name, key, problem });
        }
    }
    Ok(())
}

/// `WEBHOOK__0__SECRET` is `webhook[0].secret`: secrets need not stand in the file.
fn webhook_variable(rest: &str) -> Option<String> {
    let (index, name) = rest.strip_prefix("WEBHOOK__")?.split_once("__")?;
    let index: usize = index.parse().ok()?;
    let key = WEBHOOK_KEYS.into_iter().find(|key| key.to_uppercase() == name)?;
    Some(format!("webhook[{index}].{key}"))
}

/// Whether a key is one of a `[[webhook]]`.
fn is_webhook_key(key: &str) -> bool {
    let Some((index, name)) = key.strip_prefix("webhook[").and_then(|rest| rest.split_once("]."))
    else {
        return false;
    };
    index.parse::<usize>().is_ok() && WEBHOOK_KEYS.contains(&name)
}

/// Why a variable after `PTPORTAL_` that is no key's is refused; none if it is not ours.
fn objection_to_variable(rest: &str, known: &[String]) -> Option<String> {
    let flat = rest.to_lowercase().replace("__", "_");
    // A wrong case or a single underscore would else be overlooked in silence.
    let same = known.iter().find(|key| key.replace('.', "_") == flat);
    if let Some(key) = same {
        return Some(format!("unknown variable; write {}", variable(key)));
    }
    if rest.contains("__") {
        return Some(match nearest(&dotted(rest), known) {
            Some(key) => format!("unknown key; did you mean {}?", variable(key)),
            None => "unknown key; remove the variable or correct its name".to_owned(),
        });
    }
    let key =
        known.iter().filter(|key| !key.contains('.')).find(|key| distance(&flat, key) <= 2)?;
    Some(format!("unknown key; did you mean {}?", variable(key)))
}

fn dotted(rest: &str) -> String {
    rest.to_lowercase().replace("__", ".")
}

fn variable(key: &str) -> String {
    format!("PTPORTAL_{}", key.replace('.', "__").to_uppercase())
}

/// Refuses the first key that nobody will read.
pub(super) fn refuse_unknown(
    settings: &Settings,
    known: &[String],
    file: Option<&Path>,
) -> Result<(), ConfigError> {
    let mut entries: Vec<(&String, &Given)> = settings.0.iter().collect();
    entries.sort_by_key(|(_, given)| given.rank());
    for (key, given) in entries {
        if let Some(problem) = objection(key, given, known) {
            let place = given.source().place(file);
            return Err(ConfigError::Key { place, key: key.clone(), problem });
        }
    }
    Ok(())
}

fn objection(key: &str, given: &Given, known: &[String]) -> Option<String> {
    if known.iter().any(|known| known == key) || is_webhook_key(key) {
        return None;
    }
    if key == "webhook" || key.starts_with("webhook.") {
        return Some(
            "there may be several: write [[webhook]] and its keys on the lines below it".to_owned(),
        );
    }
    if let Some((_, name)) = key.strip_prefix("webhook[").and_then(|rest| rest.split_once("].")) {
        return Some(format!(
            "{name} is not known here; a webhook has {}",
            WEBHOOK_KEYS.join(", ")
        ));
    }
    let begins = |name: &str| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    if known.iter().any(|name| begins(name)) {
        return (!given.is_table())
            .then(|| format!("is a section; write [{key}] and its keys on the lines below it"));
    }
    Some(match nearest(key, known) {
        Some(name) => format!("unknown key; did you mean {name}?"),
        None => "unknown key; remove it or correct its name".to_owned(),
    })
}

/// A known key that is almost this one, or has its name in another section.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let close = known
        .iter()
        .map(|name| (distance(key.trim_matches('"'), name), name))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name);
    close.or_else(|| known.iter().find(|name| last(name) == last(key))).map(String::as_str)
}

/// How many characters to insert, drop or exchange (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut last = index.saturating_add(1);
        let mut next = vec![last];
        for (to, above) in right.chars().zip(row.into_iter().skip(1)) {
            let exchanged = diagonal.saturating_add(usize::from(from != to));
            last = exchanged.min(above.min(last).saturating_add(1));
            next.push(last);
            diagonal = above;
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A key's part as TOML writes it, so that `"scan.window"` is not taken for `scan.window`.
fn segment(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes.iter().take(offset).filter(|byte| **byte == b'\n').count().saturating_add(1)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
