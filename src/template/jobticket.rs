//! Job tickets: XML from templates, the portal's own or the print shop's (spec section 13).

use minijinja::value::{Serde, Value};
use quick_xml::events::Event;
use serde::Serialize;

use super::environment;

/// The portal's own flat schema; `templates/jobticket.xsd` describes it.
pub const XML: &str = include_str!("../../templates/jobticket.xml");
/// CIP4's XJDF 2.
pub const XJDF: &str = include_str!("../../templates/jobticket.xjdf");

/// A batch may hold thousands of files.
const FUEL: u64 = 200_000_000;
/// A name that makes minijinja escape what XML needs escaped.
const NAME: &str = "jobticket.xml";

/// What a ticket tells. Everything is there; what is not known is empty.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Values {
    pub ticket: Ticket,
    pub client: Client,
    pub project: Job,
    pub part: Part,
    pub portal: Portal,
    pub files: Vec<File>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Ticket {
    pub id: String,
    /// RFC 3339, as all times.
    pub created: String,
    pub is_batch: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Client {
    pub client_no: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Job {
    pub project_no: String,
    pub job_description: String,
    pub due_date: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Part {
    pub ticket_no: String,
    pub job_description: String,
    pub due_date: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Portal {
    pub name: String,
    pub version: String,
    pub url: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct File {
    pub upload_id: String,
    pub version: i64,
    pub name: String,
    pub path: String,
    pub delivered_name: String,
    /// Below the hotfolder's root.
    pub delivered_path: String,
    pub delivered_url: String,
    /// In bytes.
    pub size: u64,
    pub sha256: String,
    pub md5: String,
    pub mime: String,
    pub verdict: String,
    pub signature: String,
    pub reason: String,
    pub waived_by: String,
    pub scanner: String,
    pub username: String,
    pub received: String,
    pub released: String,
    pub delivered: String,
    pub ticket_no: String,
}

/// Fills a template and looks whether what comes out is XML.
///
/// # Errors
/// Line and reason.
pub fn render(template: &str, values: &Values) -> Result<String, String> {
    let mut environment = environment();
    environment.set_fuel(Some(FUEL));
    let wrong = |error: minijinja::Error| {
        let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{error}")
    };
    let parsed = environment.template_from_named_str(NAME, template).map_err(wrong)?;
    let mut values = serde_json::to_value(values).map_err(|error| error.to_string())?;
    keep_xml_characters(&mut values);
    let text = parsed.render(Value::from(Serde(&values))).map_err(wrong)?;
    check(&text)?;
    Ok(text)
}

/// XML 1.0 section 2.2: no control characters, no U+FFFE and U+FFFF.
fn keep_xml_characters(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            text.retain(|c| match c {
                '\t' | '\n' => true,
                '\u{fffe}' | '\u{ffff}' => false,
                c => !c.is_control(),
            });
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(keep_xml_characters),
        serde_json::Value::Object(map) => map.values_mut().for_each(keep_xml_characters),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

/// Whether a text is well-formed XML with one root.
fn check(text: &str) -> Result<(), String> {
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let (mut depth, mut roots) = (0usize, 0usize);
    loop {
        let event = reader.read_event().map_err(|error| {
            format!("what comes out is no XML (byte {}): {error}", reader.error_position())
        })?;
        match event {
            Event::Start(start) => {
                roots = roots.saturating_add(usize::from(depth == 0));
                depth = depth.saturating_add(1);
                check_attributes(&start)?;
            }
            Event::Empty(empty) => {
                roots = roots.saturating_add(usize::from(depth == 0));
                check_attributes(&empty)?;
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::DocType(_) => return Err("a ticket must not have a DOCTYPE".to_owned()),
            Event::Eof if depth > 0 => {
                return Err("what comes out ends inside an element".to_owned());
            }
            Event::Eof if roots != 1 => {
                return Err(format!("what comes out has {roots} root elements"));
            }
            Event::Eof => return Ok(()),
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::GeneralRef(_) => {}
        }
    }
}

fn check_attributes(element: &quick_xml::events::BytesStart<'_>) -> Result<(), String> {
    for attribute in element.attributes() {
        attribute.map_err(|error| format!("what comes out is no XML: {error}"))?;
    }
    Ok(())
}

/// Every value with something in it, and some that want escaping.
#[must_use]
pub fn sample() -> Values {
    let text = |text: &str| text.to_owned();
    Values {
        ticket: Ticket {
            id: text("01JDB6Z9W40000000000000000"),
            created: text("2026-11-24T08:15:00Z"),
            is_batch: false,
        },
        client: Client { client_no: text("1001"), name: text("Muster & Söhne GmbH <Druck>") },
        project: Job {
            project_no: text("2026/0815-1"),
            job_description: text("Plakate \"A1\", 500 Stück"),
            due_date: text("2026-12-24"),
        },
        part: Part {
            ticket_no: text("2026/0815-1/01"),
            job_description: text("Plakat 'A1'"),
            due_date: text("2026-12-20"),
        },
        portal: Portal {
            name: text("ptportal"),
            version: text(env!("CARGO_PKG_VERSION")),
            url: text("https://portal.example"),
        },
        files: vec![File {
            upload_id: text("01JDB6Z9W40000000000000001"),
            version: 1,
            name: text("plakat \"ä\" <1> & 2.pdf"),
            path: text("Eingehend/plakat \"ä\" <1> & 2.pdf"),
            delivered_name: text("plakat _ä_ _1_ & 2~1a2b.pdf"),
            delivered_path: text("1001/2026-0815-1/Eingehend/plakat _ä_ _1_ & 2~1a2b.pdf"),
            delivered_url: text("file:///srv/hotfolder/1001/plakat.pdf"),
            size: 1_048_576,
            sha256: "0".repeat(64),
            md5: "0".repeat(32),
            mime: text("application/pdf"),
            verdict: text("clean"),
            scanner: text("ClamAV 1.4.3/27500"),
            username: text("muster"),
            received: text("2026-11-24T08:14:00.123Z"),
            released: text("2026-11-24T08:14:01Z"),
            delivered: text("2026-11-24T08:14:03Z"),
            ticket_no: text("2026/0815-1/01"),
            ..File::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tickets_are_xml_whatever_the_names_are() {
        let mut odd = sample();
        for file in &mut odd.files {
            file.name = "]]> & \u{1}\u{b}\u{ffff}\"'<!-- ü 🖨 {{ ticket }}".repeat(8);
        }
        for template in [XML, XJDF] {
            for values in [sample(), Values::default(), odd.clone()] {
                render(template, &values).unwrap();
            }
            let many = Values { files: vec![odd.files[0].clone(); 2000], ..sample() };
            assert!(render(template, &many).unwrap().len() > 1_000_000);
        }
        assert!(render(XML, &odd).unwrap().contains("{{ ticket }}"), "values are no templates");
    }

    #[test]
    fn a_template_that_gives_no_xml_is_refused_with_the_reason() {
        #[track_caller]
        fn check(template: &str, part: &str) {
            let error = render(template, &sample()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        check("<a>", "ends inside");
        check("<a></b>", "no XML");
        check("<a/><b/>", "2 root elements");
        check("", "0 root elements");
        check("<a x=\"1\" x=\"2\"/>", "no XML");
        check("<a>\n{{ ticket.nr }}</a>", "line 2");
        check("<!DOCTYPE a [<!ENTITY b \"c\">]><a/>", "DOCTYPE");
        assert_eq!(
            render("<a>{{ client.name }}</a>", &sample()).unwrap(),
            "<a>Muster &amp; Söhne GmbH &lt;Druck&gt;</a>"
        );
    }
}
