//! Commands that open data connections: PASV, EPSV and the transfers.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::answer::{noted, told};
use super::client::{Client, Next, Transfer};
use super::command::{DataCommand, Epsv};
use super::data::{Opening, Pending, Progress};
use super::listing;
use super::passive::Passive;
use super::phase::Once;
use super::reply::Reply;
use super::texts;
use super::transfer::{Store, moved, retrieve, send_listing};
use crate::app::listing::Listing;
use crate::app::reading::Reader;
use crate::app::receive::{Create, Incoming, Start, WriteMode};
use crate::app::session::Session;
use crate::app::tree::{Kind, Listed};
use crate::domain::path::{Name, VirtualPath};
use crate::domain::refusal::Refusal;

/// Names that STOU tries before it gives up.
const UNIQUE_TRIES: u32 = 1000;

impl Client {
    /// RFC 959 section 4.1.2. The address is the configured one behind NAT, else the one that the client came to.
    pub(super) async fn pasv(&mut self) -> Reply {
        if self.only_epsv {
            return Reply::new(503, "EPSV ALL was sent; use EPSV.");
        }
        let Some(shown) = self.announced().await else {
            return Reply::new(425, "PASV needs IPv4; use EPSV.");
        };
        match self.open_passive() {
            Ok(port) => {
                let [a, b, c, d] = shown.octets();
                let [high, low] = port.to_be_bytes();
                Reply::new(227, format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low})."))
            }
            Err(reply) => reply,
        }
    }

    async fn announced(&self) -> Option<Ipv4Addr> {
        let local = match self.local {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let Some(host) = &self.front.app.config.ftps.passive_host else { return local };
        local?;
        match tokio::net::lookup_host((host.as_str(), 0)).await {
            Ok(mut found) => found.find_map(|address| match address.ip() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            Err(error) => {
                tracing::error!(%error, host, "ftps.passive_host has no address; PASV is refused");
                None
            }
        }
    }

    /// RFC 2428 section 3.
    pub(super) fn epsv(&mut self, wanted: Epsv) -> Reply {
        let family = if self.local.is_ipv4() { Epsv::Ipv4 } else { Epsv::Ipv6 };
        match wanted {
            Epsv::All => {
                self.only_epsv = true;
                return Reply::new(200, "Only EPSV from now on.");
            }
            Epsv::Any => {}
            wanted if wanted == family => {}
            Epsv::Ipv4 | Epsv::Ipv6 | Epsv::OtherFamily => {
                let number = if self.local.is_ipv4() { 1 } else { 2 };
                return Reply::new(522, format!("Network protocol not supported, use ({number})"));
            }
        }
        match self.open_passive() {
            Ok(port) => Reply::new(229, format!("Entering Extended Passive Mode (|||{port}|)")),
            Err(reply) => reply,
        }
    }

    fn open_passive(&mut self) -> Result<u16, Reply> {
        // One at a time: the port before is closed.
        self.pending = None;
        let ports = &self.front.app.config.ftps.passive_ports;
        match Passive::open(ports, self.local) {
            Ok(passive) => {
                let pending = Pending::new(&self.front, self.tls.data(), passive, self.peer);
                let port = pending.port();
                self.pending = Some(pending);
                Ok(port)
            }
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                tracing::error!(%error, "no passive port can be opened");
                Err(Reply::new(425, "No data port can be opened; try again in a moment."))
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    ports = format!("{}-{}", ports.start(), ports.end()),
                    "no passive port is free; widen ftps.passive_ports"
                );
                Err(Reply::new(425, "No data port is free; try again in a moment."))
            }
        }
    }

    pub(super) async fn answer_transfer(
        &mut self,
        session: Arc<Session>,
        command: DataCommand,
        once: Once,
    ) -> Next {
        let Some(pending) = self.pending.take() else {
            return Reply::new(425, "Send PASV or EPSV first.").into();
        };
        let opening = Opening {
            turnaround: self.turnaround,
            front: Arc::clone(&self.front),
            pending,
            abort: CancellationToken::new(),
            progress: Arc::new(Progress::default()),
        };
        let granted = match command {
            DataCommand::Stor(path) => {
                self.store(&session, (&path, Place::AtRestart), once, opening).await
            }
            DataCommand::Appe(path) => {
                self.store(&session, (&path, Place::AtEnd), once, opening).await
            }
            DataCommand::Stou(wish) => self.store_unique(&session, &wish, once, opening).await,
            DataCommand::Retr(path) => self.retrieve(&session, &path, once.restart, opening).await,
            DataCommand::List(path) => self.list(&session, &path, opening).await,
            DataCommand::Nlst(path) => self.name_list(&session, &path, opening).await,
            DataCommand::Mlsd(path) => self.machine_list(&session, &path, opening).await,
        };
        match granted {
            Ok(transfer) => Next::Transfer(transfer),
            Err(reply) => reply.into(),
        }
    }

    /// STOR and APPE. Both open what is there before the 150, so that a refusal comes instead of it.
    async fn store(
        &self,
        session: &Arc<Session>,
        (raw, place): (&[u8], Place),
        once: Once,
        opening: Opening,
    ) -> Result<Transfer, Reply> {
        let path = told(session, self.path(raw))?;
        let start = match place {
            Place::AtRestart if once.restart == 0 => Start::Empty,
            Place::AtRestart | Place::AtEnd => Start::WhatIsThere,
        };
        let mode = WriteMode { create: Create::IfMissing, start, declared_size: once.declared };
        let (incoming, present) = begin(session, &path, mode).await?;
        let (offset, is_possible) = match place {
            Place::AtRestart => (once.restart, once.restart <= present),
            // Some clients say REST before APPE; what they mean must be the same place.
            Place::AtEnd => (present, once.restart == 0 || once.restart == present),
        };
        if !is_possible && matches!(incoming, Incoming::Upload(_)) {
            incoming.abandon().await;
            return Err(bad_restart(session, present));
        }
        let store = Store { session: Arc::clone(session), incoming, path, offset, present };
        Ok(transfer("Ready for the file.", opening, |opening| store.run(opening)))
    }

    /// RFC 1123 section 4.1.2.9: the 150 tells the name.
    async fn store_unique(
        &self,
        session: &Arc<Session>,
        wish: &[u8],
        once: Once,
        opening: Opening,
    ) -> Result<Transfer, Reply> {
        if once.restart != 0 {
            return Err(bad_restart(session, 0));
        }
        let wish = if wish.is_empty() { b"upload".as_slice() } else { wish };
        let wished = told(session, self.path(wish))?;
        let start = Start::Empty;
        let mode = WriteMode { create: Create::Always, start, declared_size: once.declared };
        for n in 1..=UNIQUE_TRIES {
            let path = told(session, numbered(&wished, n))?;
            match session.upload(&path, mode).await {
                Ok(incoming) => {
                    let text = format!("FILE: {path}");
                    let session = Arc::clone(session);
                    let store = Store { session, incoming, path, offset: 0, present: 0 };
                    return Ok(transfer(&text, opening, |opening| store.run(opening)));
                }
                Err(Refusal::AlreadyExists | Refusal::IsAFolder) => {}
                Err(refusal) => return Err(noted(session, &path, &refusal).await),
            }
        }
        Err(noted(session, &wished, &Refusal::AlreadyExists).await)
    }

    async fn retrieve(
        &self,
        session: &Arc<Session>,
        raw: &[u8],
        offset: u64,
        opening: Opening,
    ) -> Result<Transfer, Reply> {
        let path = told(session, self.path(raw))?;
        let reader = match session.open_for_reading(&path).await {
            Ok(reader) => reader,
            Err(refusal) => return Err(noted(session, &path, &refusal).await),
        };
        let size = match &reader {
            Reader::Content(content) => content.size,
            Reader::Text { text, .. } => u64::try_from(text.len()).unwrap_or(0),
        };
        if offset > size {
            return Err(bad_restart(session, size));
        }
        let session = Arc::clone(session);
        let text = format!("Sending {} bytes.", size.saturating_sub(offset));
        let asked = Arc::clone(&session);
        Ok(transfer(&text, opening, move |opening| {
            moved(asked, opening, move |opening| retrieve(session, reader, offset, opening))
        }))
    }

    async fn list(
        &self,
        session: &Arc<Session>,
        raw: &[u8],
        opening: Opening,
    ) -> Result<Transfer, Reply> {
        let path = told(session, self.path(raw))?;
        let listing = told(session, listing::names_at(session, &path).await)?;
        let now = session.app.now();
        Ok(listing_transfer(
            Arc::clone(session),
            listing,
            move |listed| listed.long_line(now),
            opening,
        ))
    }

    async fn name_list(
        &self,
        session: &Arc<Session>,
        raw: &[u8],
        opening: Opening,
    ) -> Result<Transfer, Reply> {
        let path = told(session, self.path(raw))?;
        let listing = told(session, listing::names_at(session, &path).await)?;
        let is_folder = session.stat(&path).await.is_ok_and(|a| a.kind == Kind::Folder);
        let folder = if is_folder { Some(path) } else { path.parent() };
        let folder = folder.unwrap_or_else(VirtualPath::root);
        let prefix = listing::prefix(&self.cwd, raw, &folder);
        let line = move |listed: &Listed| format!("{prefix}{}", listed.name);
        Ok(listing_transfer(Arc::clone(session), listing, line, opening))
    }

    async fn machine_list(
        &self,
        session: &Arc<Session>,
        raw: &[u8],
        opening: Opening,
    ) -> Result<Transfer, Reply> {
        let path = told(session, self.path(raw))?;
        let attributes = told(session, session.stat(&path).await)?;
        if attributes.kind != Kind::Folder {
            // RFC 3659 section 7.2.
            return Err(Reply::new(501, "MLSD is for folders; use MLST."));
        }
        let listing = told(session, session.list(&path).await)?;
        let facts = self.facts;
        let line = move |listed: &Listed| facts.line(&listed.attributes, &listed.name);
        Ok(listing_transfer(Arc::clone(session), listing, line, opening))
    }
}

/// Where the first byte goes.
#[derive(Clone, Copy)]
enum Place {
    /// STOR: where REST said, else at the beginning.
    AtRestart,
    /// APPE.
    AtEnd,
}

/// Opens the target; gives the bytes that are there already too.
async fn begin(
    session: &Session,
    path: &VirtualPath,
    mode: WriteMode,
) -> Result<(Incoming, u64), Reply> {
    match session.upload(path, mode).await {
        Ok(Incoming::Upload(upload)) => {
            let (present, _) = upload.attributes().await;
            Ok((Incoming::Upload(upload), present))
        }
        Ok(Incoming::Dropping) => Ok((Incoming::Dropping, 0)),
        Err(refusal) => Err(noted(session, path, &refusal).await),
    }
}

fn bad_restart(session: &Session, present: u64) -> Reply {
    Reply::new(554, texts::bad_restart(session.language(), present))
}

fn transfer<F>(text: &str, opening: Opening, run: impl FnOnce(Opening) -> F) -> Transfer
where
    F: Future<Output = Reply> + Send + 'static,
{
    let (abort, progress) = (opening.abort.clone(), Arc::clone(&opening.progress));
    Transfer { opening: Reply::new(150, text), running: Box::pin(run(opening)), abort, progress }
}

fn listing_transfer(
    session: Arc<Session>,
    listing: Listing,
    line: impl Fn(&Listed) -> String + Send + Sync + 'static,
    opening: Opening,
) -> Transfer {
    transfer("Here comes the listing.", opening, |opening| {
        moved(session, opening, |opening| send_listing(listing, line, opening))
    })
}

/// `a.pdf`, `a (2).pdf`, …
fn numbered(path: &VirtualPath, n: u32) -> Result<VirtualPath, Refusal> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Refusal::ReadOnly);
    };
    if n == 1 {
        return Ok(path.clone());
    }
    let name = name.as_str();
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        Some(_) | None => (name, String::new()),
    };
    let name = Name::parse(&format!("{stem} ({n}){extension}")).map_err(Refusal::BadName)?;
    Ok(folder.join(name))
}
