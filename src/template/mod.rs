//! ADAPTER templates (minijinja): mails that operators write, and the portal's own pages. Knows nothing of what they say.

pub mod jobticket;
pub mod mail;
pub mod pages;
mod plain_text;

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior};

/// Enough for any mail or page; a loop without end stops within milliseconds.
const FUEL: u64 = 500_000;
const RECURSION: usize = 64;

/// What both kinds share: strict, bounded, and without anything that shows more than it is given.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    // It would print everything that a template is given.
    environment.remove_global("debug");
    environment.set_formatter(write_value);
    environment
}

/// As minijinja writes values, but `/` stays as it is: a link in HTML is then found by those who look for it.
fn write_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let is_html = matches!(state.auto_escape(), AutoEscape::Html);
    if !is_html || value.is_safe() || value.kind() != ValueKind::String {
        return minijinja::escape_formatter(out, state, value);
    }
    let text = value.as_str().unwrap_or_default();
    out.write_str(&escaped(text)).map_err(Error::from)
}

/// Text as it may stand between tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
