//! One SFTP channel: bytes of the client in, requests to the session, replies out.
//!
//! It runs inside russh's callbacks (no task and no queue between), which is both the fastest way and the one that
//! cannot deadlock with stock clients at a rekey or with a closed window. Replies are paced: beyond 128 KiB that
//! the client has not taken, requests wait in a bounded buffer. CLOSE of an upload is answered later from a task,
//! so that a verdict blocks nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bytes::{Buf, BytesMut};
use russh::ChannelId;
use russh::server::{Handle, Session as Transport};
use tokio_util::task::TaskTracker;

use super::files::{self, Open};
use super::packet::{self, Code, Fields, MAX_PACKET, Malformed, Request, kind};
use super::reply::Replies;
use super::status::code_of;
use crate::app::outcome::Outcome;
use crate::app::session::Session;
use crate::app::shielded;
use crate::app::upload::Upload;
use crate::domain::account::Language;
use crate::domain::path::VirtualPath;
use crate::domain::refusal::Refusal;
use crate::steps;

/// Replies that wait for the client's window; beyond it requests wait too.
const PENDING_MAX: usize = 128 * 1024;
/// Replies are handed over in pieces of about this size.
const BATCH: usize = 64 * 1024;
/// Request bytes that wait; a client that sends more without reading is cut off.
const INPUT_MAX: usize = 8 << 20;
/// Open files and folders of one connection.
pub(super) const HANDLES_MAX: usize = 64;
/// Text on standard error, where stock `sftp` shows refusals (spec section 7).
const STDERR_MAX: u32 = 32 * 1024;

/// Why a channel's connection is cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("malformed SFTP: {0}")]
    Malformed(#[from] Malformed),
    #[error("the client sends requests without reading replies")]
    Flood,
    #[error("transport: {0}")]
    Transport(#[from] russh::Error),
}

/// The payload of a WRITE that is still arriving goes to the upload piece by piece.
struct Writing {
    id: u32,
    handle: u32,
    offset: u64,
    data_left: usize,
    junk_left: usize,
    failure: Option<Refusal>,
}

/// The state of one channel with the `sftp` subsystem.
pub(super) struct Engine {
    pub(super) session: Arc<Session>,
    channel: ChannelId,
    transport: Handle,
    input: BytesMut,
    is_greeted: bool,
    writing: Option<Writing>,
    pub(super) replies: Replies,
    pending: usize,
    pub(super) open: HashMap<u32, Open>,
    next_handle: u32,
    /// Shared by all channels of the connection.
    pub(super) handles: Arc<AtomicUsize>,
    stderr_used: Arc<AtomicU32>,
    /// Answers of CLOSE that are on their way: here for the channel's end, in `busy` for the whole connection.
    closing: TaskTracker,
    busy: Arc<AtomicUsize>,
}

impl Engine {
    #[must_use]
    pub(super) fn new(
        session: Arc<Session>,
        channel: ChannelId,
        transport: Handle,
        (handles, busy): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    ) -> Self {
        Self {
            session,
            channel,
            transport,
            input: BytesMut::new(),
            is_greeted: false,
            writing: None,
            replies: Replies::default(),
            pending: 0,
            open: HashMap::new(),
            next_handle: 0,
            handles,
            stderr_used: Arc::default(),
            closing: TaskTracker::new(),
            busy,
        }
    }

    pub(super) fn language(&self) -> Language {
        self.session.language()
    }

    /// Takes bytes that arrived.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) async fn feed(
        &mut self,
        bytes: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        if self.input.is_empty() {
            let used = self.work(bytes, transport).await?;
            self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            if self.input.len().saturating_add(bytes.len()) > INPUT_MAX {
                return Err(Broken::Flood);
            }
            self.input.extend_from_slice(bytes);
            self.go_on(transport).await?;
        }
        self.send(transport)
    }

    /// The client has made room for replies.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) async fn window_adjusted(
        &mut self,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        if !self.input.is_empty() {
            self.go_on(transport).await?;
        }
        self.send(transport)
    }

    async fn go_on(&mut self, transport: &mut Transport) -> Result<(), Broken> {
        let mut input = std::mem::take(&mut self.input);
        let used = self.work(&input, transport).await?;
        input.advance(used.min(input.len()));
        if input.is_empty() {
            // A big backlog must not keep its memory while the session idles.
            input = BytesMut::new();
        }
        self.input = input;
        Ok(())
    }

    /// Works through requests until bytes or room for replies run out; how many bytes were used.
    async fn work(&mut self, bytes: &[u8], transport: &mut Transport) -> Result<usize, Broken> {
        let mut rest = bytes;
        loop {
            if self.replies.len() >= BATCH {
                self.send(transport)?;
            }
            if self.is_stalled(transport) || (rest.is_empty() && self.writing.is_none()) {
                break;
            }
            if let Some(writing) = self.writing.take() {
                let (left, is_done) = self.take_payload(writing, rest, transport).await?;
                rest = left;
                if is_done {
                    continue;
                }
                break;
            }
            match self.next_request(rest, transport).await? {
                Some(left) => rest = left,
                None => break,
            }
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    fn is_stalled(&mut self, transport: &Transport) -> bool {
        if !transport.has_pending_data(self.channel) {
            self.pending = 0;
        }
        self.pending > PENDING_MAX
    }

    fn send(&mut self, transport: &mut Transport) -> Result<(), Broken> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let bytes = self.replies.take();
        let len = bytes.len();
        transport.data(self.channel, bytes)?;
        self.pending = if transport.has_pending_data(self.channel) {
            self.pending.saturating_add(len)
        } else {
            0
        };
        Ok(())
    }

    /// Takes one request off the front of the bytes; `None` when it has not arrived as a whole.
    async fn next_request<'b>(
        &mut self,
        bytes: &'b [u8],
        transport: &mut Transport,
    ) -> Result<Option<&'b [u8]>, Broken> {
        let mut fields = Fields(bytes);
        let Some(len) = fields.u32() else { return Ok(None) };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_PACKET {
            return Err(Malformed::TooLong(u64::try_from(len).unwrap_or(u64::MAX)).into());
        }
        if len == 0 {
            return Err(Malformed::Empty.into());
        }
        if fields.0.first() == Some(&kind::WRITE) && self.is_greeted {
            return self.begin_write(fields.0, len);
        }
        let Some(packet) = fields.take(len) else { return Ok(None) };
        let request = packet::parse(packet)?;
        let is_init = matches!(request, Request::Init { .. });
        if is_init == self.is_greeted {
            return Err(Malformed::OutOfOrder.into());
        }
        if is_init {
            self.is_greeted = true;
            self.replies.version(&files::EXTENSIONS);
        } else {
            steps::reach("sftp.request");
            self.answer(request, transport).await?;
        }
        Ok(Some(fields.0))
    }

    /// The head of a WRITE: its data need not have arrived yet.
    fn begin_write<'b>(
        &mut self,
        packet: &'b [u8],
        len: usize,
    ) -> Result<Option<&'b [u8]>, Broken> {
        let mut fields = Fields(packet.get(1..).unwrap_or_default());
        let head = (|| {
            let id = fields.u32()?;
            let handle = fields.string()?;
            let offset = fields.u64()?;
            let data_len = usize::try_from(fields.u32()?).ok()?;
            Some((id, files::handle_number(handle), offset, data_len))
        })();
        let Some((id, handle, offset, data_len)) = head else {
            return if packet.len() >= len {
                Err(Malformed::Cut(kind::WRITE).into())
            } else {
                Ok(None)
            };
        };
        let head_len = packet.len().saturating_sub(fields.0.len());
        let left = len.checked_sub(head_len).ok_or(Malformed::Cut(kind::WRITE))?;
        let junk_left = left.checked_sub(data_len).ok_or(Malformed::Cut(kind::WRITE))?;
        let failure = handle.is_none().then_some(Refusal::BadHandle);
        let handle = handle.unwrap_or(u32::MAX);
        self.writing =
            Some(Writing { id, handle, offset, data_left: data_len, junk_left, failure });
        Ok(Some(fields.0))
    }

    /// Passes on what has arrived of a WRITE's data; answers when it is all there.
    async fn take_payload<'b>(
        &mut self,
        mut writing: Writing,
        bytes: &'b [u8],
        transport: &mut Transport,
    ) -> Result<(&'b [u8], bool), Broken> {
        let take = writing.data_left.min(bytes.len());
        let (data, rest) = bytes.split_at_checked(take).unwrap_or((bytes, &[]));
        if !data.is_empty() || (writing.data_left == 0 && writing.junk_left == 0) {
            if writing.failure.is_none() {
                writing.failure = self.write(writing.handle, writing.offset, data).await.err();
            }
            let advanced = u64::try_from(data.len()).unwrap_or(0);
            writing.offset = writing.offset.saturating_add(advanced);
            writing.data_left = writing.data_left.saturating_sub(data.len());
        }
        let skip = if writing.data_left == 0 { writing.junk_left.min(rest.len()) } else { 0 };
        let rest = rest.get(skip..).unwrap_or_default();
        writing.junk_left = writing.junk_left.saturating_sub(skip);
        if writing.data_left > 0 || writing.junk_left > 0 {
            self.writing = Some(writing);
            return Ok((rest, false));
        }
        match writing.failure {
            None => self.replies.status(writing.id, Code::Ok, "", ""),
            Some(refusal) => {
                let reference = self.reference_of(writing.handle);
                self.refuse(writing.id, &refusal, &reference, transport)?;
            }
        }
        Ok((rest, true))
    }

    /// The id that a refusal about a handle ends with: the upload's, else the session's.
    fn reference_of(&self, handle: u32) -> String {
        match self.open.get(&handle) {
            Some(Open::Upload { upload, .. }) => upload.origin().id.to_string(),
            Some(Open::Dropping { .. } | Open::Reader { .. } | Open::Folder { .. }) | None => {
                self.session.id.to_string()
            }
        }
    }

    /// Answers with a refusal: first the text on standard error, then the status.
    pub(super) fn refuse(
        &mut self,
        id: u32,
        refusal: &Refusal,
        reference: &str,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let text = refusal.told(self.language(), reference);
        if !refusal.is_everyday() && may_show(&self.stderr_used, &text) {
            transport.extended_data(self.channel, 1, format!("{text}\r\n").into_bytes())?;
        }
        self.replies.status(id, code_of(refusal), &text, language_tag(self.language()));
        Ok(())
    }

    /// Answers a request that ends in "done" or a refusal.
    pub(super) async fn done(
        &mut self,
        id: u32,
        result: Result<(), Refusal>,
        path: Option<&VirtualPath>,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        match result {
            Ok(()) => {
                self.replies.status(id, Code::Ok, "", "");
                Ok(())
            }
            Err(refusal) => {
                if let Some(path) = path {
                    self.session.note_refusal(path, &refusal).await;
                }
                let reference = self.session.id.to_string();
                self.refuse(id, &refusal, &reference, transport)
            }
        }
    }

    /// Gives an open file a number that this channel has not used before.
    pub(super) fn register(&mut self, open: Open) -> u32 {
        self.next_handle = self.next_handle.wrapping_add(1);
        self.handles.fetch_add(1, Ordering::AcqRel);
        self.open.insert(self.next_handle, open);
        self.next_handle
    }

    pub(super) fn unregister(&mut self, handle: u32) -> Option<Open> {
        let open = self.open.remove(&handle)?;
        self.handles.fetch_sub(1, Ordering::AcqRel);
        Some(open)
    }

    /// Answers CLOSE of an upload when its verdict is known, from a task of its own. Without a scanner there is no
    /// verdict to wait for: sync and commit are all, and the answer is given at once like that of any other request.
    pub(super) async fn close_upload(
        &mut self,
        id: u32,
        upload: Box<Upload>,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let language = self.language();
        let reference = upload.origin().id.to_string();
        if self.session.app.answers_at_once() {
            let told = close_text(upload.finish().await, language, &reference);
            if told.is_shown && may_show(&self.stderr_used, &told.text) {
                transport.extended_data(
                    self.channel,
                    1,
                    format!("{}\r\n", told.text).into_bytes(),
                )?;
            }
            self.replies.status(id, told.code, &told.text, language_tag(language));
            return Ok(());
        }
        let (transport, channel) = (self.transport.clone(), self.channel);
        let app = Arc::clone(&self.session.app);
        let stderr_used = Arc::clone(&self.stderr_used);
        let busy = Busy::new(&self.busy);
        let answer = async move {
            let _busy = busy;
            let finished = shielded(&app, upload.finish()).await;
            let told = close_text(finished.unwrap_or(Err(Refusal::Internal)), language, &reference);
            let mut replies = Replies::default();
            replies.status(id, told.code, &told.text, language_tag(language));
            if told.is_shown && may_show(&stderr_used, &told.text) {
                let line = format!("{}\r\n", told.text).into_bytes();
                // A connection that is gone needs no answer; the upload is settled all the same.
                transport.extended_data(channel, 1, line).await.ok();
            }
            transport.data(channel, replies.take()).await.ok();
        };
        let tracked = self.closing.track_future(answer);
        self.session.app.tasks.spawn(tracked);
        Ok(())
    }

    /// The client has said all: when every CLOSE is answered, the channel ends with exit status 0.
    pub(super) fn end_after_answers(&self) {
        let (transport, channel, closing) =
            (self.transport.clone(), self.channel, self.closing.clone());
        closing.close();
        self.session.app.tasks.spawn(async move {
            closing.wait().await;
            transport.exit_status_request(channel, 0).await.ok();
            transport.eof(channel).await.ok();
            transport.close(channel).await.ok();
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handles.fetch_sub(self.open.len(), Ordering::AcqRel);
    }
}

/// A CLOSE that is being worked on: the connection is not idle, and a shutdown waits for it.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Told {
    code: Code,
    text: String,
    is_shown: bool,
}

/// What a client reads after CLOSE.
fn close_text(result: Result<Outcome, Refusal>, language: Language, reference: &str) -> Told {
    let (text, is_shown) = match &result {
        Ok(Outcome::Released | Outcome::Repeated) => (String::new(), false),
        Ok(outcome @ (Outcome::ScanPending | Outcome::Held)) => {
            (outcome.told(language, reference), true)
        }
        Err(refusal) => (refusal.told(language, reference), true),
    };
    let code = result.as_ref().map_or_else(code_of, |_| Code::Ok);
    Told { code, text, is_shown }
}

fn may_show(used: &AtomicU32, text: &str) -> bool {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX).saturating_add(2);
    used.fetch_add(len, Ordering::AcqRel).saturating_add(len) <= STDERR_MAX
}

pub(super) const fn language_tag(language: Language) -> &'static str {
    match language {
        Language::De => "de",
        Language::En => "en",
    }
}
