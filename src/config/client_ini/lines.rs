//! The lines of an INI file as Windows programs write it: sections, quotes, comments behind values. Knows no key.

/// One line that says something.
pub(super) struct Entry {
    pub(super) line: usize,
    /// The line of the section's head; 0 before the first.
    pub(super) section: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// Key and value of each line.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let (mut found, mut section) = (Vec::new(), 0);
    for (line, text) in (1usize..).zip(text.lines()) {
        let text = text.trim();
        if text.starts_with('[') {
            section = line;
        }
        if text.is_empty() || text.starts_with([';', '#', '[']) {
            continue;
        }
        // A line without a value is none of ours, unless it begins with a key of ours: then it is told below.
        let (key, value) = text.split_once('=').unwrap_or((text, NO_VALUE));
        let (key, value) = (key.trim().to_lowercase(), value_of(value));
        found.push(Entry { line, section, key, value });
    }
    found
}

/// Stands where a line has no `=`; no value can hold it.
pub(super) const NO_VALUE: &str = "\0";
/// The value without quotes and without a comment behind it. Passwords hold `;` and `#` too: a `;` begins a comment only
/// beside a blank (`1; text`, `1 ;text`), a `#` only after one.
fn value_of(text: &str) -> String {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some((inside, _comment)) = text.strip_prefix(quote).and_then(|t| t.split_once(quote))
        {
            return inside.to_owned();
        }
    }
    let mut before_is_blank = true;
    for (at, c) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        let after = rest.chars().nth(1);
        let after_is_blank = after.is_some_and(char::is_whitespace);
        // At the very beginning only with a blank behind it: a password may begin with such a sign.
        let begins = before_is_blank && (at > 0 || after.is_none_or(char::is_whitespace));
        if begins && (c == ';' || c == '#') || (c == ';' && after_is_blank) {
            return text.get(..at).unwrap_or_default().trim().to_owned();
        }
        before_is_blank = c.is_whitespace();
    }
    text.to_owned()
}
