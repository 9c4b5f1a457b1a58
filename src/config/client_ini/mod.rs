//! `client.ini`: PTworkflow's own file with its mail account and the three switches of the portal, read as it is
//! (spec section 4): INI with or without sections, `;` and `#` comments also behind values, quotes optional, latin-1 or
//! UTF-8, keys in any case.

mod followed;
mod lines;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use self::lines::{Entry, NO_VALUE, entries};
use crate::domain::decision::{Reminder, Switches};
use crate::domain::mail;

pub use followed::Followed;

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Never TLS.
    None,
    /// TLS must begin after EHLO.
    StartTls,
    /// TLS begins after EHLO when it is offered; a handshake that fails is never answered by going on in clear.
    WhenOffered,
    /// TLS from the first byte.
    Tls,
}

/// The mail account.
#[derive(Clone, PartialEq, Eq)]
pub struct Smtp {
    pub server: String,
    pub port: u16,
    pub security: Security,
    /// Sender of automatic mails.
    pub email: String,
    /// Empty: no login.
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Smtp({}:{}, {:?})", self.server, self.port, self.security)
    }
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientIni {
    /// None: mails become files.
    pub smtp: Option<Smtp>,
    pub switches: Switches,
}

/// What is wrong with the file; names file, line, key and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ClientIniError {
    place: String,
    problem: String,
}

/// Keys that a line may misspell.
const KEYS: [&str; 9] = [
    "portal_create_uplogin_automatically",
    "portal_send_uplogin_email_automatically",
    "portal_reminder_email_automatically",
    "smtp-server",
    "e-mail",
    "email",
    "benutzername",
    "passwort",
    "port",
];

/// Ports at which TLS begins with the first byte (RFC 8314 section 3.3).
const SUBMISSIONS: u16 = 465;

impl ClientIni {
    /// Reads the bytes of the file; `name` is for messages.
    ///
    /// # Errors
    /// The first key whose value is not allowed.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, ClientIniError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            // Windows-1252 holds latin-1, and the signs that German Windows puts into such files.
            Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
        };
        if text.contains('\0') {
            let problem = "holds NUL bytes; save it as ANSI or UTF-8".to_owned();
            return Err(ClientIniError { place: name.to_owned(), problem });
        }
        let entries = entries(&text);
        let file = File { name, entries: &entries };
        file.check_lines()?;
        let create = file.number("portal_create_uplogin_automatically", &["0", "1"])? == 1;
        let send = file.number("portal_send_uplogin_email_automatically", &["0", "1"])? == 1;
        let reminder = match file.number("portal_reminder_email_automatically", &["0", "1", "2"])? {
            0 => Reminder::Never,
            1 => Reminder::EachProject,
            _ => Reminder::EachTicket,
        };
        Ok(Self { smtp: file.smtp()?, switches: Switches { create, send, reminder } })
    }

    /// Reads the file; a missing one is an empty one.
    ///
    /// # Errors
    /// A file that cannot be read, or a value that is not allowed.
    pub fn read(path: &Path) -> Result<Self, ClientIniError> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(&path.display().to_string(), &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ClientIniError {
                place: path.display().to_string(),
                problem: format!("cannot be read: {error}; give the service user read access"),
            }),
        }
    }
}

struct File<'a> {
    name: &'a str,
    entries: &'a [Entry],
}

impl File<'_> {
    /// The entry of a key, if it says anything; the same key with two values is refused.
    fn entry(&self, keys: &[&str]) -> Result<Option<&Entry>, ClientIniError> {
        self.entry_in(None, keys)
    }

    /// As [`Self::entry`]; what stands in a section of its own counts before the same key elsewhere.
    fn entry_in(
        &self,
        section: Option<usize>,
        keys: &[&str],
    ) -> Result<Option<&Entry>, ClientIniError> {
        let is_meant = |e: &&Entry| keys.contains(&e.key.as_str()) && !e.value.is_empty();
        let is_here = |e: &Entry| section.is_none_or(|section| e.section == section);
        let has_here = self.entries.iter().filter(is_meant).any(is_here);
        let mut all = self.entries.iter().filter(is_meant).filter(|e| !has_here || is_here(e));
        let Some(first) = all.next() else { return Ok(None) };
        match all.find(|other| other.value != first.value) {
            None => Ok(Some(first)),
            Some(other) => Err(self.wrong(
                other,
                &format!("stands in line {} with another value; remove one", first.line),
            )),
        }
    }

    /// A line that begins like one of ours and gives no value would else be passed over in silence.
    fn check_lines(&self) -> Result<(), ClientIniError> {
        let broken = self.entries.iter().filter(|e| e.value == NO_VALUE).find(|e| {
            let first = e.key.split([' ', ':', '\t']).next().unwrap_or_default();
            KEYS.contains(&first)
        });
        match broken {
            Some(entry) => Err(self.wrong(entry, "has no =; write KEY = VALUE")),
            None => Ok(()),
        }
    }

    fn wrong(&self, entry: &Entry, problem: &str) -> ClientIniError {
        ClientIniError {
            place: format!("{}:{}", self.name, entry.line),
            problem: format!("{} {problem}", entry.key),
        }
    }

    /// One of a few numbers; missing means 0.
    fn number(&self, key: &str, allowed: &[&str]) -> Result<u8, ClientIniError> {
        let Some(entry) = self.entry(&[key])? else { return Ok(0) };
        // No switch holds a sign that could be meant otherwise.
        let value = entry.value.split([';', '#']).next().unwrap_or_default().trim();
        if !allowed.contains(&value) {
            let allowed = allowed.join(" or ");
            return Err(
                self.wrong(entry, &format!("= {:?} is not allowed; write {allowed}", entry.value))
            );
        }
        Ok(value.parse().unwrap_or(0))
    }

    fn smtp(&self) -> Result<Option<Smtp>, ClientIniError> {
        let Some(entry) = self.entry(&["smtp-server"])? else { return Ok(None) };
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let is_address = entry.value.parse::<std::net::IpAddr>().is_ok();
        if !is_address && !entry.value.chars().all(is_host) {
            return Err(self.wrong(
                entry,
                &format!("= {:?} is not a host name; its port stands in Port", entry.value),
            ));
        }
        let server = entry.value.clone();
        let here = Some(entry.section);
        let text = |keys: &[&str]| {
            let found = self.entry_in(here, keys)?;
            Ok(found.map(|entry| entry.value.clone()).unwrap_or_default())
        };
        let security = match self.entry_in(here, &["verschlüsselung", "verschluesselung"])? {
            None => None,
            Some(entry) => Some(match entry.value.to_lowercase().as_str() {
                "none" => Security::None,
                "starttls" => Security::StartTls,
                "tls" => Security::Tls,
                other => {
                    return Err(self.wrong(
                        entry,
                        &format!("= {other:?} is not allowed; write none, starttls or tls"),
                    ));
                }
            }),
        };
        let port = match self.entry_in(here, &["port"])? {
            None if security == Some(Security::Tls) => SUBMISSIONS,
            None => 587,
            Some(entry) => match entry.value.parse::<u16>() {
                Ok(port) if port > 0 => port,
                Ok(_) | Err(_) => {
                    return Err(self.wrong(
                        entry,
                        &format!(
                            "= {:?} is not a port; write a number from 1 to 65535",
                            entry.value
                        ),
                    ));
                }
            },
        };
        let usual = if port == SUBMISSIONS { Security::Tls } else { Security::WhenOffered };
        let email = match self.entry_in(here, &["email", "e-mail"])? {
            Some(entry) if mail::is_address(&entry.value) => entry.value.clone(),
            Some(entry) => {
                return Err(self.wrong(
                    entry,
                    &format!(
                        "= {:?} is not an e-mail address; write the sender of the mails",
                        entry.value
                    ),
                ));
            }
            None => {
                let problem = "Email is missing; write the sender of the mails beside SMTP-Server";
                return Err(ClientIniError {
                    place: format!("{}:{}", self.name, entry.line),
                    problem: problem.to_owned(),
                });
            }
        };
        Ok(Some(Smtp {
            server,
            port,
            security: security.unwrap_or(usual),
            email,
            username: text(&["benutzername"])?,
            password: text(&["passwort"])?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ClientIni {
        ClientIni::parse("client.ini", text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check_error(text: &str, parts: &[&str]) {
        let error = ClientIni::parse("client.ini", text.as_bytes()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn the_file_as_ptworkflow_writes_it() {
        let text = "[Mail]\r\nSMTP-Server = mail.example.com ; der Server\r\nEmail=\"portal@example.com\"\r\n\
                    Benutzername = portal\r\nPasswort = ge;heim#1 # Kommentar\r\nPort = 465\r\n\r\n; Schalter\r\n\
                    portal_create_uplogin_automatically = 1; Entscheidet dar\u{fc}ber\r\n\
                    PORTAL_send_uplogin_email_automatically=0\n\
                    portal_reminder_email_automatically = 2 # jedes Ticket\n";
        let ini = read(text);
        let smtp = ini.smtp.unwrap();
        assert_eq!(
            (smtp.server.as_str(), smtp.port, smtp.security),
            ("mail.example.com", 465, Security::Tls)
        );
        assert_eq!((smtp.email.as_str(), smtp.username.as_str()), ("portal@example.com", "portal"));
        assert_eq!(smtp.password, "ge;heim#1");
        let expect = Switches { create: true, send: false, reminder: Reminder::EachTicket };
        assert_eq!(ini.switches, expect);
    }

    #[test]
    fn missing_things_have_their_defaults() {
        assert_eq!(read(""), ClientIni::default());
        let smtp = read("smtp-server=mx\nemail=a@b.example").smtp.unwrap();
        assert_eq!(
            (smtp.port, smtp.security, smtp.username.as_str()),
            (587, Security::WhenOffered, "")
        );
        let smtp = read("SMTP-Server=mx\nEmail=a@b.example\nVerschlüsselung=tls").smtp.unwrap();
        assert_eq!((smtp.port, smtp.security), (465, Security::Tls));
    }

    #[test]
    fn sections_are_told_apart_and_signs_in_values_stay() {
        let text = "[DB]\nPort=3306\nPasswort=db\n[Mail]\nSMTP-Server=mx\nEmail=a@b.example\nPasswort=#geheim;\n\
                    [Portal]\nportal_create_uplogin_automatically=1;text\nportal_send_uplogin_email_automatically=1# x\n";
        let ini = read(text);
        let smtp = ini.smtp.unwrap();
        assert_eq!(
            (smtp.password.as_str(), smtp.port),
            ("#geheim;", 3306),
            "a port elsewhere counts when there is no other"
        );
        assert!(ini.switches.create && ini.switches.send);
        let smtp = read("[DB]\nPort=3306\n[Mail]\nSMTP-Server=mx\nEmail=a@b.example\nPort=25")
            .smtp
            .unwrap();
        assert_eq!(smtp.port, 25);
    }

    #[test]
    fn latin_1_is_read() {
        let bytes =
            b"SMTP-Server=mx\nEmail=a@b.example\nPasswort=gr\xfcn\nVerschl\xfcsselung=starttls\n";
        let smtp = ClientIni::parse("client.ini", bytes).unwrap().smtp.unwrap();
        assert_eq!((smtp.password.as_str(), smtp.security), ("grün", Security::StartTls));
    }

    #[test]
    fn a_wrong_value_names_file_line_key_and_what_is_allowed() {
        check_error(
            "\nportal_reminder_email_automatically = 3",
            &["client.ini:2", "portal_reminder_email_automatically", "\"3\"", "0 or 1 or 2"],
        );
        check_error("portal_send_uplogin_email_automatically = ja", &["client.ini:1", "0 or 1"]);
        check_error(
            "SMTP-Server = mx\nEmail = a@b.example\nPort = 0",
            &["client.ini:3", "port", "65535"],
        );
        check_error(
            "SMTP-Server = mx\nEmail = a@b.example\nVerschlüsselung = ssl",
            &["none, starttls or tls"],
        );
        check_error("SMTP-Server = mx\nEmail = niemand", &["client.ini:2", "e-mail address"]);
        check_error("SMTP-Server = mx", &["client.ini:1", "Email is missing"]);
        check_error("SMTP-Server = mx:25\nEmail = a@b.example", &["client.ini:1", "Port"]);
        check_error("portal_send_uplogin_email_automatically: 1", &["client.ini:1", "has no ="]);
        check_error("S\0M\0T\0P\0", &["NUL"]);
        check_error(
            "portal_create_uplogin_automatically=0\nportal_create_uplogin_automatically=1",
            &["client.ini:2", "line 1"],
        );
    }
}
