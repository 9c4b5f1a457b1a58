//! An order as PTworkflow announces it (spec section 12): the same thing as JSON and as XML, checked as a whole before
//! anything of it is done.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;

use crate::domain::account::Language;
use crate::domain::{mail, order, time};

const NAME_MAX: usize = 300;
const DESCRIPTION_MAX: usize = 10_000;
/// `hotfolder_delete_in_days` at most: a century.
pub const DAYS_MAX: u32 = 36_500;
const TICKETS_MAX: usize = 1000;

/// What is said of a client; absent things stay, or come from the system default `clients`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientPart {
    pub client_no: String,
    pub name: Option<String>,
    pub email: Option<String>,
    pub create_hotfolder: Option<bool>,
    pub hotfolder_delete_in_days: Option<u32>,
    pub language: Option<Language>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactPart {
    pub name: String,
    pub email: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectPart {
    pub project_no: String,
    pub job_description: Option<String>,
    pub due_date: Option<String>,
    pub contact: Option<ContactPart>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TicketPart {
    pub ticket_no: String,
    pub job_description: Option<String>,
    pub due_date: Option<String>,
}

/// One announcement: a project of a client, with tickets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    pub client: ClientPart,
    pub project: ProjectPart,
    #[serde(default)]
    pub tickets: Vec<TicketPart>,
}

/// The order as XML nests it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct XmlAnnouncement {
    client: ClientPart,
    project: ProjectPart,
    #[serde(default)]
    tickets: XmlTickets,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct XmlTickets {
    #[serde(default)]
    ticket: Vec<TicketPart>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As `tickets[0].due_date`.
    pub field: String,
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "{}: {}", self.field, self.problem)
        }
    }
}

/// Why bytes are no announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Not JSON or XML at all.
    Syntax(String),
    /// Well-formed, but not what is expected.
    Content(Vec<Problem>),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => f.write_str(text),
            Self::Content(problems) => {
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("\n"))
            }
        }
    }
}

/// Reads any of the API's bodies: one JSON object in UTF-8.
///
/// # Errors
/// Syntax, or a field that is unknown, missing or of another type.
pub fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unreadable> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| Unreadable::Syntax(format!("not JSON: {error}")))?;
    // An array would be taken for an object whose fields come in order.
    objects_only(&value, "")?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        Unreadable::Content(vec![Problem { field, problem: error.into_inner().to_string() }])
    })
}

/// Lists stand nowhere but in `tickets`, and there hold objects.
fn objects_only(value: &serde_json::Value, at: &str) -> Result<(), Unreadable> {
    use serde_json::Value;
    let wrong = |problem: &str| {
        let problem = Problem { field: at.to_owned(), problem: problem.to_owned() };
        Err(Unreadable::Content(vec![problem]))
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                objects_only(value, &at)?;
            }
            Ok(())
        }
        Value::Array(items) if at == "tickets" => {
            for (index, item) in items.iter().enumerate() {
                let at = format!("tickets[{index}]");
                if !item.is_object() {
                    let problem = "must be an object".to_owned();
                    return Err(Unreadable::Content(vec![Problem { field: at, problem }]));
                }
                objects_only(item, &at)?;
            }
            Ok(())
        }
        Value::Array(_) => wrong("must not be a list"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) if at.is_empty() => {
            wrong("the body must be an object")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

impl Announcement {
    /// # Errors
    /// As [`json`], or what [`Self::checked`] finds.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Unreadable> {
        json::<Self>(bytes)?.checked()
    }

    /// Reads `<project><client>…</client><project>…</project><tickets><ticket>…</ticket></tickets></project>`. Entities
    /// of its own and a DTD are not expanded.
    ///
    /// # Errors
    /// As for JSON.
    pub fn from_xml(bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = xml_text(bytes)?;
        let root = first_element(&text)?;
        if root != "project" {
            let problem = format!("the outermost element is <{root}>, not <project>");
            return Err(Unreadable::Content(vec![Problem { field: String::new(), problem }]));
        }
        let read: XmlAnnouncement = quick_xml::de::from_str(&text).map_err(|error| {
            if let quick_xml::DeError::InvalidXml(error) = error {
                return Unreadable::Syntax(format!("not XML: {error}"));
            }
            let problem = error.to_string();
            Unreadable::Content(vec![Problem { field: String::new(), problem }])
        })?;
        let XmlAnnouncement { client, project, tickets } = read;
        Self { client, project, tickets: tickets.ticket }.checked()
    }

    /// Reads a file of the import folder: JSON or XML, as its first sign says.
    ///
    /// # Errors
    /// As for the two.
    pub fn from_file(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'<') => Self::from_xml(bytes),
            Some(b'{') => Self::from_json(bytes),
            Some(_) | None => {
                Err(Unreadable::Syntax("begins neither with { (JSON) nor with < (XML)".to_owned()))
            }
        }
    }

    /// Every field, before anything is done. Empty texts are absent ones.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn checked(mut self) -> Result<Self, Unreadable> {
        let mut found = Problems::default();
        self.client.check("client.", &mut found);
        found.number("project.project_no", "project_no", &self.project.project_no);
        found.job("project.", &mut self.project.job_description, &mut self.project.due_date);
        if let Some(contact) = &self.project.contact {
            found.note("project.contact.name", client_name(&contact.name));
            found.note("project.contact.email", email(&contact.email));
        }
        if self.tickets.len() > TICKETS_MAX {
            found.add("tickets", format!("are more than {TICKETS_MAX}; announce them in parts"));
        }
        let mut seen = HashSet::new();
        for (index, ticket) in self.tickets.iter_mut().enumerate().take(TICKETS_MAX) {
            let at = format!("tickets[{index}].");
            found.number(&format!("{at}ticket_no"), "ticket_no", &ticket.ticket_no);
            found.job(&at, &mut ticket.job_description, &mut ticket.due_date);
            if !seen.insert(ticket.ticket_no.clone()) {
                found.add(&format!("{at}ticket_no"), "stands twice in the announcement".to_owned());
            }
        }
        found.into_result(self)
    }
}

impl ClientPart {
    /// As [`Announcement::checked`] for a client alone.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn checked(mut self) -> Result<Self, Unreadable> {
        let mut found = Problems::default();
        self.check("", &mut found);
        found.into_result(self)
    }

    fn check(&mut self, at: &str, found: &mut Problems) {
        found.number(&format!("{at}client_no"), "client_no", &self.client_no);
        drop_empty(&mut self.name);
        drop_empty(&mut self.email);
        if let Some(name) = &self.name {
            found.note(&format!("{at}name"), client_name(name));
        }
        if let Some(address) = &self.email {
            found.note(&format!("{at}email"), email(address));
        }
        if self.hotfolder_delete_in_days.is_some_and(|days| days > DAYS_MAX) {
            let problem = format!("is more than {DAYS_MAX} days; 0 means never");
            found.add(&format!("{at}hotfolder_delete_in_days"), problem);
        }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: &str, problem: String) {
        self.0.push(Problem { field: field.to_owned(), problem });
    }

    fn note(&mut self, field: &str, checked: Result<(), String>) {
        if let Err(problem) = checked {
            self.add(field, problem);
        }
    }

    fn number(&mut self, field: &str, name: &'static str, text: &str) {
        if let Err(bad) = order::number(name, text) {
            self.add(field, bad.to_string());
        }
    }

    fn job(&mut self, at: &str, text: &mut Option<String>, due: &mut Option<String>) {
        drop_empty(text);
        drop_empty(due);
        if let Some(text) = text {
            self.note(&format!("{at}job_description"), description(text));
        }
        if let Some(due) = due {
            self.note(&format!("{at}due_date"), due_date(due));
        }
    }

    fn into_result<T>(self, value: T) -> Result<T, Unreadable> {
        if self.0.is_empty() { Ok(value) } else { Err(Unreadable::Content(self.0)) }
    }
}

fn drop_empty(text: &mut Option<String>) {
    if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
        *text = None;
    }
}

/// The name of a company or person.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn client_name(text: &str) -> Result<(), String> {
    if text.trim().is_empty()
        || text.chars().count() > NAME_MAX
        || text.chars().any(char::is_control)
    {
        return Err(format!(
            "the name is empty, longer than {NAME_MAX} characters, or holds control characters"
        ));
    }
    Ok(())
}

/// One address.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn email(text: &str) -> Result<(), String> {
    if mail::is_address(text) {
        return Ok(());
    }
    Err(format!("{text:?} is not an e-mail address; write for example name@example.com"))
}

/// What is printed.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn description(text: &str) -> Result<(), String> {
    if text.chars().count() > DESCRIPTION_MAX {
        return Err(format!(
            "the description has more than {DESCRIPTION_MAX} characters; shorten it"
        ));
    }
    if text.chars().any(|c| c.is_control() && !"\r\n\t".contains(c)) {
        return Err("the description holds control characters; write text".to_owned());
    }
    Ok(())
}

/// A date, or a date with time.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn due_date(text: &str) -> Result<(), String> {
    match time::parse(text) {
        Some(_) => Ok(()),
        None => Err(format!("{text:?} is not a date; write YYYY-MM-DD or RFC 3339")),
    }
}

/// UTF-8, or what the declaration says (German programs like to write ISO-8859-1).
fn xml_text(bytes: &[u8]) -> Result<String, Unreadable> {
    let head = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).to_lowercase();
    let declared = head
        .split_once("encoding=")
        .map_or("utf-8", |(_, rest)| rest.split(['"', '\'']).nth(1).unwrap_or("utf-8"));
    match encoding_rs::Encoding::for_label(declared.as_bytes()) {
        Some(encoding) => {
            let (text, _, has_errors) = encoding.decode(bytes);
            if has_errors {
                return Err(Unreadable::Syntax(format!("holds bytes that are not {declared}")));
            }
            Ok(text.into_owned())
        }
        None => Err(Unreadable::Syntax(format!("names an unknown encoding {declared:?}"))),
    }
}

fn first_element(text: &str) -> Result<String, Unreadable> {
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag)) => {
                return Ok(tag.name().as_ref().to_owned());
            }
            Ok(quick_xml::events::Event::DocType(_)) => {
                return Err(Unreadable::Syntax(
                    "holds a document type declaration; remove it".to_owned(),
                ));
            }
            Ok(quick_xml::events::Event::Eof) => {
                return Err(Unreadable::Syntax("holds no element".to_owned()));
            }
            Ok(_) => {}
            Err(error) => return Err(Unreadable::Syntax(format!("not XML: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = include_str!("../../templates/import/order.json");
    const XML: &str = include_str!("../../templates/import/order.xml");

    #[test]
    fn json_and_xml_say_the_same() {
        let json = Announcement::from_file(JSON.as_bytes()).unwrap();
        assert_eq!(Announcement::from_file(XML.as_bytes()).unwrap(), json);
        assert!(!json.tickets.is_empty());
    }

    #[test]
    fn xml_in_latin_1_is_read() {
        let text = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><project><client><client_no>1</client_no>\
                    <name>M\u{fc}ller</name><create_hotfolder>1</create_hotfolder><email/></client>\
                    <project><project_no>P</project_no></project></project>";
        let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
        let read = Announcement::from_file(&bytes).unwrap();
        assert_eq!(read.client.name.as_deref(), Some("Müller"));
        assert_eq!((read.client.create_hotfolder, read.client.email), (Some(true), None));
    }

    #[track_caller]
    fn check(text: &str, part: &str) {
        let error = Announcement::from_file(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let order = |client: &str, project: &str, tickets: &str| {
            format!(
                "{{\"client\": {{\"client_no\": \"1\"{client}}}, \"project\": {{\"project_no\": \"P\"{project}}}, \"tickets\": [{tickets}]}}"
            )
        };
        check(&order(", \"email\": \"a@b.example\\r\\nBcc: c@d.example\"", "", ""), "client.email");
        check(&order(", \"name\": \"a\\u0000b\"", "", ""), "client.name");
        check(&order(", \"colour\": 1", "", ""), "unknown field");
        check(&order(", \"language\": \"fr\"", "", ""), "fr");
        check(&order(", \"create_hotfolder\": \"yes\"", "", ""), "invalid type");
        check(&order(", \"hotfolder_delete_in_days\": -1", "", ""), "invalid value");
        check(&order(", \"hotfolder_delete_in_days\": 99999", "", ""), "hotfolder_delete_in_days");
        check(&order("", ", \"due_date\": \"24.12.2026\"", ""), "project.due_date");
        check(&order("", ", \"contact\": {\"name\": \"x\"}", ""), "missing field `email`");
        check(
            &order("", "", "{\"ticket_no\": \"a\"}, {\"ticket_no\": \"a\"}"),
            "tickets[1].ticket_no",
        );
        check(&order("", "", "{}"), "tickets[0].ticket_no");
        check("{\"client\": {\"client_no\": \"1\"}}", "missing field `project`");
        check("{\"client\": {}, \"project\": {\"project_no\": \"P\"}}", "client.client_no");
        check(
            "{\"client\": [\"1\"], \"project\": {\"project_no\": \"P\"}}",
            "client: must not be a list",
        );
        check(&order("", "", "[\"a\"]"), "tickets[0]: must be an object");
        check(&order(", \"name\": 5", "", ""), "client.name");
        check("{", "not JSON");
        check("<project>", "not XML");
        check("<order/>", "<order>");
        check("<project><client><client_no>1</client_no></client></project>", "project");
        check("<!DOCTYPE x [<!ENTITY a \"b\">]><project/>", "document type");
        check("order", "neither");
    }
}
