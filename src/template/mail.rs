//! Mails from templates that people write: rows of `client_email_template` (spec section 11).

use std::fmt;
use std::fmt::Write as _;

use minijinja::Environment;
use minijinja::value::{Serde, Value};
use serde::Serialize;

use super::{environment, plain_text};

const CONTENT_MAX: usize = 256 * 1024;
const RENDERED_MAX: usize = 1024 * 1024;
const SUBJECT_MAX: usize = 300;
/// Making text from HTML takes a time that grows with the square of nested elements.
const TAGS_MAX: usize = 10_000;

/// Why a template is refused, or could not be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// `subject` or `content`.
    part: &'static str,
    line: Option<usize>,
    problem: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} line {line}: {}", self.part, self.problem),
            None => write!(f, "{}: {}", self.part, self.problem),
        }
    }
}

impl std::error::Error for TemplateError {}

/// The values of the placeholders. Every documented key always exists; what is not known is empty.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Values {
    pub data_project: DataProject,
    pub ticketdata_project: TicketData,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct DataProject {
    pub project_no: String,
    pub job_description: String,
    pub due_date: String,
    pub client_no: String,
    pub client_name: String,
    pub contact_name: String,
    pub portal_client_username: String,
    pub portal_first_activation_link: String,
    pub portal_activation_link: String,
    pub portal_url: String,
    pub portal_host: String,
    pub sftp_port: String,
    pub ftps_port: String,
    pub host_key_fingerprint: String,
    pub folder: String,
    pub upload_folder: String,
    pub link_minutes: String,
    pub publish_folder: String,
    pub files: Vec<FileData>,
    pub files_count: String,
    pub total_size: String,
    pub virus: String,
    pub file_name: String,
    pub upload_id: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct TicketData {
    pub ticket_no: String,
    pub job_description: String,
    pub due_date: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct FileData {
    pub name: String,
    pub size: u64,
    pub sha256: String,
    pub verdict: String,
    pub received: String,
    pub path: String,
    pub delivered_name: String,
    pub upload_id: String,
    pub version: i64,
    pub reason: String,
    pub signature: String,
    pub waived_by: String,
    pub username: String,
}

/// Head and foot of every mail.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    pub head_html: String,
    pub foot_html: String,
    pub head_text: String,
    pub foot_text: String,
}

/// A mail's texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    pub html: String,
    pub text: String,
}

/// Checks a template before it is saved: it must read, and must render with everything and with almost nothing known.
///
/// # Errors
/// Part, line and reason.
pub fn check(subject: &str, content: &str) -> Result<(), TemplateError> {
    if subject.trim().is_empty() {
        let problem = "is empty; write what stands in the mail's subject line".to_owned();
        return Err(TemplateError { part: "subject", line: None, problem });
    }
    for (part, text) in [("subject", subject), ("content", content)] {
        if let Some(line) = text.lines().position(has_control_characters) {
            let problem = "holds control characters; remove them".to_owned();
            return Err(TemplateError { part, line: Some(line.saturating_add(1)), problem });
        }
    }
    for values in [Values::default(), sample()] {
        render((subject, content), &values, &Signature::default(), "de")?;
    }
    Ok(())
}

/// Whether a line holds what no text needs.
#[must_use]
pub fn has_control_characters(line: &str) -> bool {
    line.chars().any(|c| c.is_control() && c != '\t')
}

/// Fills the subject alone.
///
/// # Errors
/// As [`render`].
pub fn render_subject(subject: &str, values: &Values) -> Result<String, TemplateError> {
    let filled = fill(&environment(), ("subject", "subject.txt"), subject, values)?;
    Ok(one_line(&filled).chars().take(SUBJECT_MAX).collect())
}

/// Fills a template.
///
/// # Errors
/// Part, line and reason.
pub fn render(
    (subject, content): (&str, &str),
    values: &Values,
    signature: &Signature,
    language: &str,
) -> Result<Rendered, TemplateError> {
    let subject = render_subject(subject, values)?;
    let content = fill(&environment(), ("content", "content.html"), content, values)?;
    if content.matches('<').count() > TAGS_MAX {
        let problem = format!("has more than {TAGS_MAX} tags");
        return Err(TemplateError { part: "content", line: None, problem });
    }
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"{language}\">\n<head><meta charset=\"utf-8\"></head>\n<body>\n{}\n{content}\n{}\n</body>\n</html>\n",
        signature.head_html, signature.foot_html
    );
    let text = plain_text::of_html(&content).map_err(|problem| TemplateError {
        part: "content",
        line: None,
        problem: format!("no text can be made from the HTML: {problem}"),
    })?;
    let mut whole = String::new();
    for part in [signature.head_text.trim_end(), text.trim(), signature.foot_text.trim_end()] {
        if !part.is_empty() {
            write!(whole, "{part}\n\n").ok();
        }
    }
    Ok(Rendered { subject, html, text: format!("{}\n", whole.trim_end()) })
}

fn fill(
    environment: &Environment<'_>,
    (part, name): (&'static str, &str),
    source: &str,
    values: &Values,
) -> Result<String, TemplateError> {
    if source.len() > CONTENT_MAX {
        let problem = format!("has more than {} KiB", CONTENT_MAX / 1024);
        return Err(TemplateError { part, line: None, problem });
    }
    let wrong = |error: minijinja::Error| TemplateError {
        part,
        line: error.line(),
        problem: explained(&error),
    };
    let source = with_straight_quotes(source);
    let template = environment.template_from_named_str(name, &source).map_err(wrong)?;
    let mut out = Bounded(String::new());
    match template.render_captured_to(Value::from(Serde(values)), &mut out) {
        Ok(_) => Ok(out.0),
        Err(_) if out.0.len() >= RENDERED_MAX => {
            let problem = format!("the text becomes longer than {} KiB", RENDERED_MAX / 1024);
            Err(TemplateError { part, line: None, problem })
        }
        Err(error) => Err(wrong(error)),
    }
}

/// minijinja's words, and for a misspelt key what is known.
fn explained(error: &minijinja::Error) -> String {
    if error.kind() == minijinja::ErrorKind::UndefinedError {
        return format!(
            "a name that is not known ({error}); README lists the placeholders of data_project and ticketdata_project"
        );
    }
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Stops a text that grows without end.
struct Bounded(String);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > RENDERED_MAX {
            // Filled up, so that the caller knows why.
            let missing = RENDERED_MAX.saturating_sub(self.0.len());
            self.0.push_str(&" ".repeat(missing));
            return Err(std::io::Error::other("too long"));
        }
        self.0.push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Word processors and HTML editors set quotes of their own inside braces; there they mean straight ones.
fn with_straight_quotes(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    // Each sign is looked at once: a text of nothing but braces must not take its square in time.
    while let Some((before, inside)) = rest.find('{').and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        let close = if inside.starts_with("{{") {
            "}}"
        } else if inside.starts_with("{%") {
            "%}"
        } else {
            out.push('{');
            rest = inside.get(1..).unwrap_or_default();
            continue;
        };
        let end = inside.find(close).map_or(inside.len(), |end| end.saturating_add(2));
        let (inside, after) = inside.split_at_checked(end).unwrap_or((inside, ""));
        let inside = inside.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&");
        out.extend(inside.chars().map(|c| match c {
            '„' | '“' | '”' | '«' | '»' | '‟' => '"',
            '‚' | '‘' | '’' | '‹' | '›' => '\'',
            '\u{a0}' => ' ',
            other => other,
        }));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn one_line(text: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(blank).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every key with something in it.
#[must_use]
pub fn sample() -> Values {
    let text = |text: &str| text.to_owned();
    let file = FileData {
        name: text("plakat.pdf"),
        size: 1_048_576,
        sha256: "0".repeat(64),
        verdict: text("clean"),
        received: text("2026-11-24T08:15:00Z"),
        path: text("Eingehend/plakat.pdf"),
        delivered_name: text("plakat.pdf"),
        upload_id: text("01JDB6Z9W4…"),
        version: 1,
        username: text("muster"),
        ..FileData::default()
    };
    Values {
        data_project: DataProject {
            project_no: text("2026-0815"),
            job_description: text("Plakate A1, 500 Stück"),
            due_date: text("2026-12-24"),
            client_no: text("1001"),
            client_name: text("Muster & Söhne GmbH"),
            contact_name: text("Erika Muster"),
            portal_client_username: text("muster"),
            portal_first_activation_link: text("https://portal.example/activate/TOKEN"),
            portal_activation_link: text("https://portal.example/activate/TOKEN"),
            portal_url: text("https://portal.example"),
            portal_host: text("portal.example"),
            sftp_port: text("2022"),
            ftps_port: text("2121"),
            host_key_fingerprint: text("SHA256:…"),
            folder: text("2026-0815"),
            upload_folder: text("Eingehend"),
            link_minutes: text("30"),
            publish_folder: text("Final"),
            files: vec![file],
            files_count: text("1"),
            total_size: text("1048576"),
            virus: text("Eicar-Test-Signature"),
            file_name: text("plakat.pdf"),
            upload_id: text("01JDB6Z9W4…"),
        },
        ticketdata_project: TicketData {
            ticket_no: text("2026-0815-01"),
            job_description: text("Plakat A1"),
            due_date: text("2026-12-20"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(content: &str) -> Rendered {
        render(("x", content), &sample(), &Signature::default(), "de").unwrap()
    }

    #[track_caller]
    fn check_refused(content: &str, parts: &[&str]) {
        let error = check("x", content).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn placeholders_as_the_users_write_them() {
        for key in [
            "data_project[\"project_no\"]",
            "data_project[“project_no“]",
            "data_project[„project_no“]",
            "data_project[»project_no«]",
            "data_project[&quot;project_no&quot;]",
            "data_project['project_no']",
            "data_project.project_no",
        ] {
            assert!(
                html(&format!("<p>{{{{{key}}}}}</p>")).html.contains("<p>2026-0815</p>"),
                "{key}"
            );
        }
        // Outside of braces they stay.
        assert!(html("<p>„Eingehend“</p>").text.contains("„Eingehend“"));
        assert_eq!(html("{% if data_project[“folder“] %}ja{% endif %}").text, "ja\n");
    }

    #[test]
    fn values_cannot_become_html_or_a_header() {
        let mut values = sample();
        values.data_project.client_name = "<script>alert(1)</script>".to_owned();
        values.data_project.project_no = "1\r\nBcc: x@example.com".to_owned();
        let template = ("{{data_project.project_no}}", "<p>{{data_project.client_name}}</p>");
        let mail = render(template, &values, &Signature::default(), "de").unwrap();
        assert!(!mail.html.contains("<script>") && mail.html.contains("&lt;script&gt;"));
        assert_eq!(mail.subject, "1 Bcc: x@example.com");
        assert!(mail.text.contains("<script>"), "text is text: {}", mail.text);
        // What looks like a template in a value is not one.
        values.data_project.client_name = "{{ data_project.portal_url }}".to_owned();
        let mail = render(template, &values, &Signature::default(), "de").unwrap();
        assert!(mail.text.contains("{{ data_project.portal_url }}"));
    }

    #[test]
    fn a_broken_template_is_refused_with_its_line() {
        check_refused("<p>\n{{ data_project[\"projekt_no\"] }}", &["content line 2", "not known"]);
        check_refused("a\nb\n{{ data_project[ }}", &["line 3"]);
        check_refused("{% for x in y %}", &["content"]);
        check_refused("{{ config }}", &["line 1"]);
        check_refused("{{ debug() }}", &["line 1"]);
        check_refused("{% include '/etc/passwd' %}", &["line 1"]);
        check_refused(
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
            &["line 1"],
        );
        check_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", &["line 1"]);
        check_refused("{{ 'a' * 99000000 }}", &["content"]);
        check_refused("a\n\0b", &["line 2", "control characters"]);
        check_refused(&"<div>".repeat(TAGS_MAX + 1), &["tags"]);
        check_refused(&"x".repeat(CONTENT_MAX + 1), &["256 KiB"]);
        assert!(check(" ", "x").is_err());
        assert!(check("{{ x }}", "x").unwrap_err().to_string().contains("subject line 1"));
    }

    #[test]
    fn the_text_part_carries_links_whole_and_once() {
        let link = "https://portal.example/activate/TOKEN";
        let mail = html(&format!(
            "<p>Hallo &amp; willkommen</p><p><a href=\"{link}\">{link}</a></p><p><a href=\"{link}\">hier</a></p><ul><li>a</li></ul>"
        ));
        assert_eq!(mail.text, format!("Hallo & willkommen\n\n{link}\n\nhier <{link}>\n- a\n"));
    }

    #[test]
    fn head_and_foot_stand_around() {
        let signature = Signature {
            head_html: "<b>Kopf</b>".to_owned(),
            foot_html: "<i>Fuß</i>".to_owned(),
            head_text: "Kopf".to_owned(),
            foot_text: "Fuß".to_owned(),
        };
        let mail = render(("x", "<p>Mitte</p>"), &sample(), &signature, "de").unwrap();
        assert_eq!(mail.text, "Kopf\n\nMitte\n\nFuß\n");
        let at = |part: &str| mail.html.find(part).unwrap();
        assert!(at("<b>Kopf</b>") < at("Mitte") && at("Mitte") < at("<i>Fuß</i>"));
    }
}
