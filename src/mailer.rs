//! ADAPTER mail: SMTP (lettre), or `.eml` files where no mail account is configured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::header::ContentType;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Attachment as Attached, Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::config::client_ini::{Security, Smtp};
use crate::vault;

/// One reply of the mail server.
const REPLY: Duration = Duration::from_secs(60);
/// A whole mail, however slowly the server answers.
const WHOLE: Duration = Duration::from_secs(180);

/// Someone in a header, with a name or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    pub name: String,
    pub address: String,
}

/// A mail with everything that stands in it.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Stays the same at each try.
    pub message_id: String,
    pub from: Party,
    pub to: Party,
    /// Gets the same mail.
    pub copy: Option<Party>,
    pub subject: String,
    pub html: String,
    pub text: String,
    /// Nobody should answer with an absence note.
    pub is_automatic: bool,
    pub attachment: Option<Attachment>,
}

/// A file in a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    /// For example `application/xml`.
    pub mime: &'static str,
    pub content: Vec<u8>,
}

/// Why a mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Worth another try: busy, greylisted, away, TLS or login wrong.
    #[error("{0}")]
    Now(String),
    /// The same mail will never be taken.
    #[error("{0}")]
    ForGood(String),
    /// The connection broke after the text: it may have been taken.
    #[error("{0}")]
    Perhaps(String),
}

/// Where mails go.
#[derive(Debug, Clone)]
pub enum Mailer {
    Smtp(Smtp),
    /// A file for each mail, for whoever sends them by other means.
    Directory(PathBuf),
}

impl Mailer {
    /// Hands a mail over; `host_name` is what this machine calls itself.
    ///
    /// # Errors
    /// As [`Refused`] says.
    pub async fn send(&self, id: &str, letter: &Letter, host_name: &str) -> Result<(), Refused> {
        let message = message(letter).map_err(Refused::ForGood)?;
        match self {
            Self::Directory(dir) => {
                let (dir, name, bytes) = (dir.clone(), format!("{id}.eml"), message.formatted());
                let written = tokio::task::spawn_blocking(move || {
                    vault::make_private_dir(&dir)?;
                    vault::write_private(&dir, &name, &bytes)
                });
                match written.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Refused::Now(format!("the .eml file: {error}"))),
                    Err(error) => Err(Refused::Now(error.to_string())),
                }
            }
            Self::Smtp(smtp) => {
                let transport = transport(smtp, host_name).map_err(Refused::Now)?;
                let bytes = message.formatted();
                hand_over(smtp, &transport, (&letter.from, &letter.to), &bytes).await?;
                // On its own: whatever is wrong with the copy's address, the mail itself has gone out.
                if let Some(copy) = &letter.copy
                    && let Err(error) =
                        hand_over(smtp, &transport, (&letter.from, copy), &bytes).await
                {
                    tracing::warn!(mail = id, copy = copy.address, %error, "the copy of a mail was not taken");
                }
                Ok(())
            }
        }
    }

    /// Connects and logs in, without sending anything.
    ///
    /// # Errors
    /// What the mail server or the connection says.
    pub async fn probe(&self, host_name: &str) -> Result<(), String> {
        let Self::Smtp(smtp) = self else { return Ok(()) };
        let transport = transport(smtp, host_name)?;
        match tokio::time::timeout(Duration::from_secs(20), transport.test_connection()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(format!("{} closes the connection", smtp.server)),
            Ok(Err(error)) => Err(refused(smtp, &error).to_string()),
            Err(_elapsed) => Err(format!("{} does not answer within 20 s", smtp.server)),
        }
    }

    /// Where mails go, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Smtp(smtp) => format!("{}:{} as {}", smtp.server, smtp.port, smtp.email),
            Self::Directory(dir) => format!("files in {}", dir.display()),
        }
    }
}

async fn hand_over(
    smtp: &Smtp,
    transport: &AsyncSmtpTransport<Tokio1Executor>,
    (from, to): (&Party, &Party),
    bytes: &[u8],
) -> Result<(), Refused> {
    let address =
        |party: &Party| mailbox(party).map(|mailbox| mailbox.email).map_err(Refused::ForGood);
    let envelope = Envelope::new(Some(address(from)?), vec![address(to)?])
        .map_err(|error| Refused::ForGood(error.to_string()))?;
    let whole = whole();
    match tokio::time::timeout(whole, transport.send_raw(&envelope, bytes)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(smtp, &error)),
        Err(_elapsed) => Err(Refused::Perhaps(format!(
            "{} does not come to an end within {} s",
            smtp.server,
            whole.as_secs()
        ))),
    }
}

/// [`WHOLE`]; tests set less.
fn whole() -> Duration {
    let given = std::env::var("PTPORTAL_TEST_MAIL_MS").ok().and_then(|text| text.parse().ok());
    given.map_or(WHOLE, Duration::from_millis)
}

fn transport(smtp: &Smtp, host_name: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let parameters = || {
        TlsParameters::builder(smtp.server.clone())
            .build_rustls()
            .map_err(|error| format!("TLS cannot be set up: {error}"))
    };
    let tls = match smtp.security {
        Security::None => Tls::None,
        Security::WhenOffered => Tls::Opportunistic(parameters()?),
        Security::StartTls => Tls::Required(parameters()?),
        Security::Tls => Tls::Wrapper(parameters()?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(smtp.server.clone())
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(REPLY))
        .hello_name(ClientId::Domain(host_name.to_owned()));
    if !smtp.username.is_empty() {
        let credentials = Credentials::new(smtp.username.clone(), smtp.password.clone());
        builder = builder.credentials(credentials);
    }
    Ok(builder.build())
}

/// Only what is said about the recipient is final; everything else an operator, or time, can mend. Without a reply
/// nobody knows how far it came.
fn refused(smtp: &Smtp, error: &lettre::transport::smtp::Error) -> Refused {
    let text = format!("{}:{}: {}", smtp.server, smtp.port, chain(error));
    let status: Option<u16> = error.status().and_then(|code| code.to_string().parse().ok());
    match status {
        Some(550 | 551 | 553) => Refused::ForGood(text),
        Some(_) => Refused::Now(text),
        None => Refused::Perhaps(text),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

fn mailbox(party: &Party) -> Result<Mailbox, String> {
    let address: Address =
        party.address.parse().map_err(|e| format!("{:?} is no address: {e}", party.address))?;
    let name = party.name.chars().filter(|c| !c.is_control()).collect::<String>();
    Ok(Mailbox::new((!name.trim().is_empty()).then_some(name), address))
}

fn message(letter: &Letter) -> Result<Message, String> {
    let mut builder = Message::builder()
        .from(mailbox(&letter.from)?)
        .to(mailbox(&letter.to)?)
        .subject(letter.subject.clone())
        .message_id(Some(letter.message_id.clone()));
    if let Some(copy) = &letter.copy {
        builder = builder.cc(mailbox(copy)?);
    }
    if letter.is_automatic {
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        builder = builder.raw_header(HeaderValue::new(name, "auto-generated".to_owned()));
    }
    let parts = MultiPart::alternative_plain_html(letter.text.clone(), letter.html.clone());
    let parts = match &letter.attachment {
        None => parts,
        Some(file) => {
            let mime = ContentType::parse(file.mime).map_err(|error| error.to_string())?;
            let attached = Attached::new(file.name.clone()).body(file.content.clone(), mime);
            MultiPart::mixed().multipart(parts).singlepart(attached)
        }
    };
    builder.multipart(parts).map_err(|error| error.to_string())
}

/// Where files of mails lie.
#[must_use]
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("mail")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            message_id: "<01JDB6Z9W4@portal.example>".to_owned(),
            from: Party { name: String::new(), address: "portal@druckerei.example".to_owned() },
            to: Party {
                name: "Jörg \"Joe\" Müller, Einkauf".to_owned(),
                address: "joerg@kunde.example".to_owned(),
            },
            copy: None,
            subject: "Ihr Zugang für Müller & Söhne".to_owned(),
            html: "<p>ä</p>".to_owned(),
            text: "ä\n".to_owned(),
            is_automatic: true,
            attachment: None,
        }
    }

    #[test]
    fn a_file_goes_with_the_text() {
        let content = b"<jobticket/>".to_vec();
        let file =
            Attachment { name: "Aufträge.xml".to_owned(), mime: "application/xml", content };
        let letter = Letter { attachment: Some(file), ..letter() };
        let text = String::from_utf8(message(&letter).unwrap().formatted()).unwrap();
        for part in ["multipart/mixed", "multipart/alternative", "application/xml", "attachment"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_message_has_text_and_html_and_its_own_id() {
        let bytes = message(&letter()).unwrap().formatted();
        let text = String::from_utf8(bytes).unwrap();
        for part in [
            "Message-ID: <01JDB6Z9W4@portal.example>",
            "multipart/alternative",
            "text/plain",
            "text/html",
            "Auto-Submitted: auto-generated",
            "From: portal@druckerei.example",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn nothing_in_a_header_can_begin_another() {
        let mut letter = letter();
        letter.subject = "a\r\nBcc: x@y.example".to_owned();
        letter.to.name = "a\r\nBcc: x@y.example".to_owned();
        let text = String::from_utf8(message(&letter).unwrap().formatted()).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("Bcc")), "{text}");
        letter.to.address = "a@b.example\r\nBcc: x@y.example".to_owned();
        assert!(message(&letter).is_err());
    }
}
