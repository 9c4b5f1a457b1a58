//! Transfers: each is a future that ends in exactly one final reply (RFC 959 section 5.4).

use std::sync::Arc;

use super::data::{Cut, Data, Ending, Opening};
use super::reply::{Reply, refused};
use super::texts;
use crate::app::listing::Listing;
use crate::app::reading::{Content, Reader};
use crate::app::receive::Incoming;
use crate::app::session::Session;
use crate::app::shielded;
use crate::app::tree::Listed;
use crate::app::upload::Upload;
use crate::domain::path::VirtualPath;
use crate::domain::refusal::Refusal;

/// Taken from a client at once: at first, and from whoever fills that.
const UPLOAD_PIECE: usize = 64 * 1024;
/// No longer than the pieces that the upload writes: larger ones fall out of the cache before they are hashed.
const UPLOAD_PIECE_MAX: usize = 512 * 1024;
const DOWNLOAD_PIECE: usize = 256 * 1024;

/// An upload that may begin.
pub(super) struct Store {
    pub(super) session: Arc<Session>,
    pub(super) incoming: Incoming,
    pub(super) path: VirtualPath,
    /// Where the first byte goes.
    pub(super) offset: u64,
    /// Bytes that are there already.
    pub(super) present: u64,
}

impl Store {
    /// Takes the client's bytes and waits for the verdict.
    pub(super) async fn run(self, opening: Opening) -> Reply {
        let Self { session, incoming, path, offset, present } = self;
        match incoming {
            Incoming::Dropping => {
                let asked = Arc::clone(&session);
                moved(asked, opening, |opening| count(session, path, opening)).await
            }
            Incoming::Upload(upload) => {
                receive(session, (*upload, path), (offset, present), opening).await
            }
        }
    }
}

/// A transfer that is over when its bytes are through.
pub(super) async fn moved<F>(
    session: Arc<Session>,
    opening: Opening,
    work: impl FnOnce(Opening) -> F,
) -> Reply
where
    F: Future<Output = Reply> + Send + 'static,
{
    let ended = opening.on_its_thread(work).await;
    ended.unwrap_or_else(|bug| refused(&bug, session.language(), session.id.as_str()))
}

/// Why the bytes of an upload stopped.
enum Stop {
    Cut(Cut),
    Refused(Refusal),
}

/// An upload whose bytes have come to an end.
struct Taken {
    upload: Upload,
    data: Data,
    ended: Result<Ending, Stop>,
}

/// What the end of its bytes means is decided beside the control connection, whose end may take it back.
async fn receive(
    session: Arc<Session>,
    (upload, path): (Upload, VirtualPath),
    place: (u64, u64),
    opening: Opening,
) -> Reply {
    let language = session.language();
    let reference = upload.origin().id.to_string();
    let asked = Arc::clone(&session);
    let taken = opening.on_its_thread(|opening| take(asked, upload, place, opening)).await;
    let Taken { upload, data, ended } = match taken {
        Ok(Ok(taken)) => taken,
        Ok(Err(reply)) => return reply,
        Err(bug) => return refused(&bug, language, &reference),
    };
    let ended = match ended {
        Ok(ending) => sure_of_end(&data, &upload, ending).await.map_err(Stop::Cut),
        Err(stop) => Err(stop),
    };
    match ended {
        Ok(()) => {
            drop(data);
            // In a task of its own: whatever becomes of this connection, a sealed file is settled.
            let finished = shielded(&session.app, upload.finish()).await;
            match finished.unwrap_or(Err(Refusal::Internal)) {
                Ok(outcome) => Reply::new(226, outcome.told(language, &reference)),
                Err(refusal) => refused(&refusal, language, &reference),
            }
        }
        Err(Stop::Refused(refusal)) => {
            data.refuse();
            drop(upload);
            session.note_refusal(&path, &refusal).await;
            refused(&refusal, language, &reference)
        }
        Err(Stop::Cut(cut)) => {
            tracing::debug!(upload = reference, reason = cut.reason(), "upload was cut");
            drop(data);
            upload.abandon().await;
            Reply::new(426, texts::upload_cut(language, &reference))
        }
    }
}

/// Opens the data connection and takes the client's bytes up to their end.
///
/// # Errors
/// The final reply where there is no connection.
async fn take(
    session: Arc<Session>,
    upload: Upload,
    place: (u64, u64),
    opening: Opening,
) -> Result<Taken, Reply> {
    let mut data = match opening.open().await {
        Ok(data) => data,
        Err(reply) => {
            upload.abandon().await;
            return Err(reply);
        }
    };
    let ended = take_bytes(&session, &upload, place, &mut data).await;
    if ended.is_ok() {
        data.answer_end().await;
    }
    Ok(Taken { upload, data, ended })
}

/// Waits whether the client takes its end of data back. The disk works meanwhile; what it fails at, the end of the upload
/// tells.
async fn sure_of_end(data: &Data, upload: &Upload, ending: Ending) -> Result<(), Cut> {
    let synced = async {
        match ending {
            Ending::AsDeclared => {}
            Ending::Announced | Ending::Tolerated => drop(upload.sync().await),
        }
        Ok(())
    };
    tokio::try_join!(data.sure_of_end(ending), synced).map(drop)
}

/// All bytes until the client's end of data, and how that end came.
async fn take_bytes(
    session: &Session,
    upload: &Upload,
    (offset, present): (u64, u64),
    data: &mut Data,
) -> Result<Ending, Stop> {
    let mut buffer = Vec::with_capacity(UPLOAD_PIECE);
    let mut at = offset;
    loop {
        let mut ending = Ending::Announced;
        match data.read(&mut buffer).await {
            Ok(()) => {}
            Err(Cut::Lost(error)) if is_tolerated(session, upload, &error) => {
                ending = Ending::Tolerated;
            }
            Err(cut) => return Err(Stop::Cut(cut)),
        }
        let n = buffer.len();
        if n == 0 {
            // Everything was there but the end. In front of the end it would be nothing at all: no byte, no change.
            if at == present {
                upload.accept_as_whole().await;
            }
            let is_as_declared = upload.origin().declared == Some(at);
            return Ok(if is_as_declared { Ending::AsDeclared } else { ending });
        }
        // What lies behind the restart point goes with the first byte that takes its place.
        if at == offset && offset < present {
            upload.set_len(offset).await.map_err(Stop::Refused)?;
        }
        let is_full = n >= UPLOAD_PIECE;
        upload.write_buffer(at, &mut buffer).await.map_err(Stop::Refused)?;
        match upload.is_limited() {
            true if buffer.capacity() > UPLOAD_PIECE => buffer = Vec::with_capacity(UPLOAD_PIECE),
            false if is_full => buffer.reserve(UPLOAD_PIECE_MAX),
            true | false => {}
        }
        at = at.saturating_add(u64::try_from(n).unwrap_or(0));
        data.progress.add(n);
        // Hashing keeps the thread busy: the others on it have their turn.
        if is_full {
            tokio::task::yield_now().await;
        }
    }
}

/// Some old clients never send close_notify; whoever has such a one asks for the switch, and each time is written down.
fn is_tolerated(session: &Session, upload: &Upload, error: &std::io::Error) -> bool {
    let is_plain_end = error.kind() == std::io::ErrorKind::UnexpectedEof;
    let tolerates = session.settings().tolerate_missing_close_notify.unwrap_or(false);
    if is_plain_end && tolerates {
        tracing::warn!(
            upload = upload.origin().id.as_str(),
            account = session.account.as_str(),
            path = upload.origin().path,
            "end of data without close_notify is taken as complete (tolerate_missing_close_notify)"
        );
    }
    is_plain_end && tolerates
}

/// `.DS_Store` and its like.
async fn count(session: Arc<Session>, path: VirtualPath, opening: Opening) -> Reply {
    let mut data = match opening.open().await {
        Ok(data) => data,
        Err(reply) => return reply,
    };
    let mut buffer = Vec::with_capacity(UPLOAD_PIECE);
    let mut size = 0u64;
    loop {
        if data.read(&mut buffer).await.is_err() {
            return Reply::new(426, "Transfer aborted.");
        }
        if buffer.is_empty() {
            break;
        }
        size = size.saturating_add(u64::try_from(buffer.len()).unwrap_or(0));
        buffer.clear();
    }
    data.answer_end().await;
    session.note_dropping(&path, size);
    Reply::new(226, "Received and dropped.")
}

/// Sends a file from `offset` on.
pub(super) async fn retrieve(
    session: Arc<Session>,
    reader: Reader,
    offset: u64,
    opening: Opening,
) -> Reply {
    let mut data = match opening.open().await {
        Ok(data) => data,
        Err(reply) => return reply,
    };
    let sent = match reader {
        Reader::Text { text, .. } => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
            let rest = text.as_bytes().get(from..).unwrap_or_default();
            data.write(rest).await.map_err(SendStop::Cut)
        }
        Reader::Content(content) => send_content(&content, offset, &mut data).await,
    };
    let ended = match sent {
        Ok(()) => data.end().await.map_err(SendStop::Cut),
        Err(stop) => Err(stop),
    };
    match ended {
        Ok(()) => Reply::new(226, "Transfer complete."),
        Err(SendStop::Cut(cut)) => {
            tracing::debug!(
                account = session.account.as_str(),
                reason = cut.reason(),
                "download was cut"
            );
            Reply::new(426, "Transfer aborted; the connection was lost.")
        }
        Err(SendStop::Unreadable(error)) => {
            let refusal = session.app.internal("read content", &error);
            refused(&refusal, session.language(), session.id.as_str())
        }
    }
}

/// Why the bytes of a download stopped.
enum SendStop {
    Cut(Cut),
    Unreadable(std::io::Error),
}

async fn send_content(content: &Content, offset: u64, data: &mut Data) -> Result<(), SendStop> {
    let mut buffer = vec![0u8; DOWNLOAD_PIECE];
    let mut at = offset;
    while at < content.size {
        let left = usize::try_from(content.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = left.min(DOWNLOAD_PIECE);
        let piece = buffer.get_mut(..len).unwrap_or_default();
        content.pace.take(len).await;
        match content.read_cached(piece, at) {
            Ok(n) if n == len => data.write(piece).await.map_err(SendStop::Cut)?,
            Ok(_) | Err(_) => {
                let read = content.read_waiting(at, len).await.map_err(SendStop::Unreadable)?;
                data.write(&read).await.map_err(SendStop::Cut)?;
            }
        }
        at = at.saturating_add(u64::try_from(len).unwrap_or(0));
    }
    Ok(())
}

/// Sends a listing, a line for each name.
pub(super) async fn send_listing(
    mut listing: Listing,
    line: impl Fn(&Listed) -> String + Send + Sync,
    opening: Opening,
) -> Reply {
    let mut data = match opening.open().await {
        Ok(data) => data,
        Err(reply) => return reply,
    };
    let sent = async {
        loop {
            let Ok(names) = listing.next().await else { return Ok(false) };
            if names.is_empty() {
                return data.end().await.map(|()| true);
            }
            let lines: String = names.iter().map(|listed| line(listed) + "\r\n").collect();
            data.write(lines.as_bytes()).await?;
        }
    };
    match sent.await {
        Ok(true) => Reply::new(226, "Listing complete."),
        Ok(false) => Reply::new(451, "Listing aborted by an error of the server; try again later."),
        Err::<_, Cut>(_) => Reply::new(426, "Listing aborted; the connection was lost."),
    }
}
