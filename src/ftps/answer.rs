//! What each command means for the session: the command table (spec section 10).

use std::sync::Arc;

use super::client::{Client, End, Next};
use super::command::{Command, Inside, Site};
use super::facts::{Facts, parse_stamp, stamp};
use super::phase::{Once, Protection};
use super::reply::{Reply, refused};
use crate::app::session::Session;
use crate::app::tree::{Attributes, Kind};
use crate::domain::path::VirtualPath;
use crate::domain::refusal::Refusal;

impl Client {
    /// Carries out a command that may be carried out now.
    pub(super) async fn answer(&mut self, command: Command, once: Once) -> Next {
        match command {
            Command::Auth(mechanism) => self.auth(&mechanism),
            Command::User(name) => self.name_user(&name).into(),
            Command::Pass(password) => self.log_in(&password).await,
            Command::Quit => Next::Close(Some(Reply::new(221, "Goodbye.")), End::Client),
            Command::Foreign => Next::Close(None, End::Protocol("another protocol than FTP")),
            Command::Pbsz if !self.is_private() => Reply::new(503, "Send AUTH TLS first.").into(),
            Command::Pbsz => Reply::new(200, "PBSZ=0").into(),
            Command::Prot(level) => self.prot(&level).into(),
            Command::Ccc => Reply::new(534, "The control connection stays protected.").into(),
            Command::Acct => Reply::new(202, "No account is needed beside the login.").into(),
            Command::Syst => Reply::new(215, "UNIX Type: L8").into(),
            Command::Help => help().into(),
            Command::Noop | Command::Clnt => Reply::new(200, "OK").into(),
            Command::Feat => self.features().into(),
            Command::Opts(options) => self.options(&options).into(),
            Command::Syntax(usage) => Reply::new(501, format!("Usage: {usage}")).into(),
            Command::NotOffered => Reply::new(502, "This command is not offered.").into(),
            Command::Unknown => Reply::new(500, "This is no FTP command.").into(),
            Command::Inside(command) => match self.session.clone() {
                Some(session) => {
                    let done = self.answer_inside(&session, command, once).await;
                    done.unwrap_or_else(|reply| reply).into()
                }
                // `objection` lets nothing through without a session.
                None => Reply::new(530, "Please log in with USER and PASS.").into(),
            },
            Command::Data(command) => match self.session.clone() {
                Some(session) => self.answer_transfer(session, command, once).await,
                None => Reply::new(530, "Please log in with USER and PASS.").into(),
            },
        }
    }

    async fn answer_inside(
        &mut self,
        session: &Arc<Session>,
        command: Inside,
        once: Once,
    ) -> Answer {
        match command {
            Inside::Active => Err(Reply::new(502, "Active mode is not offered; use PASV or EPSV.")),
            Inside::Type(kind) => Ok(type_of(&kind)),
            Inside::Mode(mode) => Ok(known(&mode, "S", "Only stream mode (S) is offered.")),
            Inside::Stru(structure) => {
                Ok(known(&structure, "F", "Only file structure (F) is offered."))
            }
            Inside::Pwd => {
                Ok(Reply::new(257, format!("{} is the working folder.", quoted(&self.cwd))))
            }
            Inside::Cwd(path) => self.change_folder(session, &path).await,
            Inside::Cdup => self.change_folder(session, b"..").await,
            Inside::Mkd(path) => self.make_folder(session, &path).await,
            Inside::Rmd(path) => {
                let path = self.path(&path);
                changed(session, path, "Removed.", |s, p| Box::pin(s.remove_folder(p))).await
            }
            Inside::Dele(path) => {
                let path = self.path(&path);
                changed(session, path, "Deleted.", |s, p| Box::pin(s.remove_file(p))).await
            }
            Inside::Rnfr(path) => self.rename_from(session, &path).await,
            Inside::Rnto(path) => self.rename_to(session, &path, once.rename_from).await,
            Inside::Rest(offset) => {
                self.keep_restart(offset);
                Ok(Reply::new(350, format!("Restarting at {offset}. Send STOR or RETR now.")))
            }
            Inside::Allo(size) => self.allocate(session, size),
            Inside::Abor => {
                self.pending = None;
                Ok(Reply::new(226, "No transfer is running."))
            }
            Inside::Size(path) => self.size(session, &path).await,
            Inside::Mdtm(argument) => self.modification_time(session, &argument).await,
            Inside::Mfmt { time, path } => self.set_time(session, (&time, &path), 213).await,
            Inside::Site(site) => self.site(session, site).await,
            Inside::Mlst(path) => self.facts_of(session, &path).await,
            Inside::Hash(path) => self.hash(session, &path).await,
            Inside::Xsha256(path) => self.xsha256(session, &path).await,
            Inside::Stat(None) => Ok(self.status(session)),
            Inside::Stat(Some(path)) => self.list_on_control(session, &path).await,
            Inside::Pasv => Ok(self.pasv().await),
            Inside::Epsv(wanted) => Ok(self.epsv(wanted)),
        }
    }

    /// A client's path from the working folder.
    pub(super) fn path(&self, raw: &[u8]) -> Result<VirtualPath, Refusal> {
        self.cwd.resolve(raw).map_err(Refusal::BadName)
    }

    fn auth(&self, mechanism: &str) -> Next {
        if self.is_private() {
            return Reply::new(503, "TLS is on already.").into();
        }
        match mechanism.to_ascii_uppercase().as_str() {
            "TLS" | "TLS-C" => Next::StartTls,
            _ => Reply::new(504, "Only AUTH TLS is offered.").into(),
        }
    }

    fn prot(&mut self, level: &str) -> Reply {
        if !self.is_private() {
            return Reply::new(503, "Send AUTH TLS first.");
        }
        match level.to_ascii_uppercase().as_str() {
            "P" => {
                self.protection = Protection::Private;
                Reply::new(200, "Data connections are protected.")
            }
            "C" => Reply::new(534, "Data connections in clear are not accepted."),
            "S" | "E" => Reply::new(536, "Only PROT P goes with TLS."),
            _ => Reply::new(504, "Unknown protection level; send PROT P."),
        }
    }

    fn features(&self) -> Reply {
        let lines = [
            "ALLO".to_owned(),
            "AUTH TLS".to_owned(),
            "EPSV".to_owned(),
            "HASH SHA-256*".to_owned(),
            "MDTM".to_owned(),
            "MFMT".to_owned(),
            format!("MLST {}", self.facts.names("*")),
            "PBSZ".to_owned(),
            "PROT".to_owned(),
            "REST STREAM".to_owned(),
            "SIZE".to_owned(),
            "TVFS".to_owned(),
            "UTF8".to_owned(),
            "XSHA256".to_owned(),
        ];
        Reply::with_lines(211, "Features:", lines.into())
    }

    fn options(&mut self, options: &str) -> Reply {
        let (name, value) = options.split_once(' ').unwrap_or((options, ""));
        let value = value.trim();
        match name.to_ascii_uppercase().as_str() {
            "UTF8" | "UTF-8" if value.eq_ignore_ascii_case("off") => {
                Reply::new(504, "Names are always sent as UTF-8.")
            }
            "UTF8" | "UTF-8" => Reply::new(200, "Names are UTF-8."),
            "MLST" => match Facts::wanted(value) {
                Some(facts) => {
                    self.facts = facts;
                    Reply::new(200, format!("MLST OPTS {}", facts.names("")))
                }
                None => Reply::new(501, "Usage: OPTS MLST fact;fact;"),
            },
            "HASH" if value.is_empty() || value.eq_ignore_ascii_case("SHA-256") => {
                Reply::new(200, "SHA-256")
            }
            _ => Reply::new(501, "Known options are UTF8, MLST and HASH SHA-256."),
        }
    }

    async fn change_folder(&mut self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        let attributes = told(session, session.stat(&path).await)?;
        if attributes.kind != Kind::Folder {
            return Err(told_refusal(session, &Refusal::NotAFolder));
        }
        self.cwd = path;
        Ok(Reply::new(250, format!("{} is the working folder.", quoted(&self.cwd))))
    }

    async fn make_folder(&self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        match session.make_folder(&path).await {
            Ok(()) => Ok(Reply::new(257, format!("{} was made.", quoted(&path)))),
            Err(refusal) => Err(noted(session, &path, &refusal).await),
        }
    }

    async fn rename_from(&mut self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        told(session, session.stat(&path).await)?;
        self.keep_rename_from(path);
        Ok(Reply::new(350, "Send RNTO with the new name."))
    }

    async fn rename_to(&self, session: &Session, raw: &[u8], from: Option<VirtualPath>) -> Answer {
        let Some(from) = from else { return Err(Reply::new(503, "Send RNFR first.")) };
        let to = told(session, self.path(raw))?;
        match session.rename(&from, &to).await {
            Ok(()) => Ok(Reply::new(250, "Renamed.")),
            Err(refusal) => Err(noted(session, &from, &refusal).await),
        }
    }

    /// Says early what would be refused later.
    fn allocate(&mut self, session: &Session, size: u64) -> Answer {
        told(session, session.accepts_size(size))?;
        self.keep_declared(size);
        Ok(Reply::new(200, "OK"))
    }

    async fn size(&self, session: &Session, raw: &[u8]) -> Answer {
        let attributes = self.attributes(session, raw).await?;
        if attributes.kind == Kind::Folder {
            return Err(told_refusal(session, &Refusal::IsAFolder));
        }
        Ok(Reply::new(213, attributes.size.to_string()))
    }

    async fn attributes(&self, session: &Session, raw: &[u8]) -> Result<Attributes, Reply> {
        let path = told(session, self.path(raw))?;
        told(session, session.stat(&path).await)
    }

    /// RFC 3659 section 3; old clients also set the time with it.
    async fn modification_time(&self, session: &Session, raw: &[u8]) -> Answer {
        match self.attributes(session, raw).await {
            Ok(attributes) => Ok(Reply::new(213, stamp(attributes.mtime))),
            Err(reply) => match super::command::time_and_path(raw) {
                Some((time, path)) => self.set_time(session, (&time, &path), 213).await,
                None => Err(reply),
            },
        }
    }

    async fn set_time(&self, session: &Session, (time, raw): (&[u8], &[u8]), code: u16) -> Answer {
        let Some(mtime) = parse_stamp(time) else {
            return Err(Reply::new(501, "The time must be YYYYMMDDhhmmss in UTC."));
        };
        let path = told(session, self.path(raw))?;
        told(session, session.set_mtime(&path, mtime).await)?;
        Ok(Reply::new(code, format!("Modify={}; {path}", stamp(mtime))))
    }

    async fn site(&self, session: &Session, site: Site) -> Answer {
        match site {
            Site::Chmod(path) => {
                self.attributes(session, &path).await?;
                Ok(Reply::new(200, "Accepted; rights are those of the portal."))
            }
            Site::Utime { time, path } => self.set_time(session, (&time, &path), 200).await,
            Site::Help => Ok(Reply::new(214, "CHMOD UTIME HELP")),
            Site::Other => Err(Reply::new(504, "Known are SITE CHMOD, UTIME and HELP.")),
        }
    }

    async fn facts_of(&self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        let attributes = told(session, session.stat(&path).await)?;
        let line = self.facts.line(&attributes, &path.to_string());
        Ok(Reply::with_lines(250, "Facts:", vec![line]))
    }

    /// draft-ietf-ftpext2-hash section 4.
    async fn hash(&self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        let (size, sha256) = told(session, session.digest(&path).await)?;
        Ok(Reply::new(213, format!("SHA-256 0-{size} {sha256} {path}")))
    }

    async fn xsha256(&self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        let (_, sha256) = told(session, session.digest(&path).await)?;
        Ok(Reply::new(250, sha256))
    }

    fn status(&self, session: &Session) -> Reply {
        let lines = vec![
            format!("Logged in as {}", session.account),
            format!("Working folder {}", self.cwd),
            match self.protection {
                Protection::Private => "Data connections are protected (PROT P)".to_owned(),
                Protection::Clear => "Data connections need PROT P first".to_owned(),
            },
        ];
        Reply::with_lines(211, "Status of ptportal:", lines)
    }

    async fn list_on_control(&self, session: &Session, raw: &[u8]) -> Answer {
        let path = told(session, self.path(raw))?;
        let mut listing = told(session, super::listing::names_at(session, &path).await)?;
        let names = told(session, listing.next().await)?;
        let is_whole = told(session, listing.next().await)?.is_empty();
        let now = session.app.now();
        let lines = names.iter().map(|listed| listed.long_line(now)).collect();
        let begin = if is_whole { "" } else { " (the beginning; LIST gives all)" };
        Ok(Reply::with_lines(213, format!("Status of {path}:{begin}"), lines))
    }
}

/// Done, or refused: both are replies.
pub(super) type Answer = Result<Reply, Reply>;

/// A refusal as it is told, for what is everyday or has been noted.
pub(super) fn told_refusal(session: &Session, refusal: &Refusal) -> Reply {
    refused(refusal, session.language(), session.id.as_str())
}

pub(super) fn told<T>(session: &Session, result: Result<T, Refusal>) -> Result<T, Reply> {
    result.map_err(|refusal| told_refusal(session, &refusal))
}

/// A refusal that operators should know of.
pub(super) async fn noted(session: &Session, path: &VirtualPath, refusal: &Refusal) -> Reply {
    session.note_refusal(path, refusal).await;
    told_refusal(session, refusal)
}

type Done<'s> = std::pin::Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 's>>;

async fn changed(
    session: &Session,
    path: Result<VirtualPath, Refusal>,
    text: &str,
    change: impl for<'s> FnOnce(&'s Session, &'s VirtualPath) -> Done<'s>,
) -> Answer {
    let path = told(session, path)?;
    match change(session, &path).await {
        Ok(()) => Ok(Reply::new(250, text)),
        Err(refusal) => Err(noted(session, &path, &refusal).await),
    }
}

/// A path in a 257 reply: quotes are doubled (RFC 959, appendix II).
fn quoted(path: &VirtualPath) -> String {
    format!("\"{}\"", path.to_string().replace('"', "\"\""))
}

/// TYPE A is accepted and changes nothing: a file arrives as it was sent, byte for byte.
fn type_of(kind: &str) -> Reply {
    match kind.to_ascii_uppercase().as_str() {
        "I" | "L 8" | "L8" => Reply::new(200, "Type is image."),
        "A" | "A N" => Reply::new(200, "Type is ASCII; line ends stay as they are sent."),
        _ => Reply::new(504, "Only the types I and A are offered."),
    }
}

fn known(found: &str, wanted: &str, otherwise: &str) -> Reply {
    if found.eq_ignore_ascii_case(wanted) {
        Reply::new(200, "OK")
    } else {
        Reply::new(504, otherwise)
    }
}

fn help() -> Reply {
    let lines = [
        "AUTH PBSZ PROT USER PASS QUIT FEAT OPTS SYST HELP NOOP CLNT",
        "PWD CWD CDUP MKD RMD DELE RNFR RNTO SIZE MDTM MFMT MLST MLSD LIST NLST STAT",
        "TYPE MODE STRU PASV EPSV REST ALLO RETR STOR APPE STOU ABOR SITE HASH XSHA256",
    ];
    Reply::with_lines(214, "Commands:", lines.map(str::to_owned).into())
}
