//! Results on standard output: a table for people, or one JSON document.

use std::io::Write;

use serde_json::Value;

/// How results are printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    is_json: bool,
}

impl Printer {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// A list: a table with these columns, or an array of whole objects.
    pub(super) fn list(&self, rows: &[Value], columns: &[&str]) {
        if self.is_json {
            out(&Value::from(rows.to_vec()).to_string());
            return;
        }
        if rows.is_empty() {
            out("none");
            return;
        }
        let mut table: Vec<Vec<String>> = vec![columns.iter().map(|c| (*c).to_owned()).collect()];
        table.extend(rows.iter().map(|row| columns.iter().map(|c| cell(row.get(*c))).collect()));
        print_table(&table);
    }

    /// One object: key and value lines, or the object.
    pub(super) fn one(&self, object: &Value) {
        if self.is_json {
            out(&object.to_string());
            return;
        }
        let Some(map) = object.as_object() else { return };
        let width = map.keys().map(|key| key.chars().count()).max().unwrap_or(0);
        for (key, value) in map {
            out(&format!("{key:<width$}  {}", cell(Some(value))));
        }
    }

    /// One line of a stream, such as `events --follow`.
    pub(super) fn line(&self, object: &Value, columns: &[&str]) {
        if self.is_json {
            out(&object.to_string());
            return;
        }
        let cells: Vec<String> = columns.iter().map(|c| cell(object.get(*c))).collect();
        out(cells.join("  ").trim_end());
    }
}

/// What came from outside must not drive the terminal.
fn printable(c: char) -> char {
    match c {
        '\n' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// A value for people, on one line.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(other) => other.to_string(),
    };
    text.chars().map(printable).collect()
}

fn print_table(table: &[Vec<String>]) {
    let columns = table.first().map_or(0, Vec::len);
    let width =
        |i: usize| table.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|i| width(i).unwrap_or(0)).collect();
    for row in table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A line of others' making, as it may stand on a terminal.
pub(super) fn plain(line: &str) -> String {
    line.chars().map(|c| if c == '\t' { c } else { printable(c) }).collect()
}

/// A line on standard output; a closed pipe ends quietly.
pub(super) fn out(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// One clear line on standard error.
pub(super) fn complain(line: &str) {
    let one_line: String = line.chars().map(printable).collect();
    writeln!(std::io::stderr(), "ptportal: {one_line}").ok();
}
