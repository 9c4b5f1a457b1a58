//! What each SFTP request means for the session: the request table.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec;

use russh::server::Session as Transport;

use super::attributes::shown;
use super::engine::{Broken, Engine, HANDLES_MAX};
use super::packet::{Code, FileAttributes, MAX_READ, OpenFlags, Request};
use super::reply::Shown;
use crate::app::listing::Listing;
use crate::app::reading::Reader;
use crate::app::receive::{Create, Incoming, Start, WriteMode};
use crate::app::tree::{Listed, folder_attributes};
use crate::app::upload::Upload;
use crate::domain::path::VirtualPath;
use crate::domain::refusal::Refusal;

/// Announced in `SSH_FXP_VERSION`, each with its version (OpenSSH's PROTOCOL file).
pub(super) const EXTENSIONS: [(&str, &[u8]); 6] = [
    ("posix-rename@openssh.com", b"1"),
    ("statvfs@openssh.com", b"2"),
    ("fstatvfs@openssh.com", b"2"),
    ("fsync@openssh.com", b"1"),
    ("lsetstat@openssh.com", b"1"),
    ("limits@openssh.com", b"1"),
];

/// Names in one READDIR reply.
const PAGE: usize = 100;

/// What stands behind a handle.
pub(super) enum Open {
    Upload {
        upload: Box<Upload>,
        appends: bool,
    },
    /// Counted and dropped (`.DS_Store` and its like).
    Dropping {
        path: VirtualPath,
        size: u64,
    },
    Reader {
        reader: Reader,
    },
    Folder {
        listing: Listing,
        /// What was read of it and not told yet.
        names: vec::IntoIter<Listed>,
    },
}

/// A request that changes names.
#[derive(Clone, Copy)]
enum Change<'p> {
    Remove(&'p [u8]),
    Mkdir(&'p [u8]),
    Rmdir(&'p [u8]),
    Rename(&'p [u8], &'p [u8]),
}

/// Handles are four bytes of our own.
#[must_use]
pub(super) fn handle_number(handle: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(handle.try_into().ok()?))
}

impl Engine {
    /// Answers one request (WRITE is streamed elsewhere).
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) async fn answer(
        &mut self,
        request: Request<'_>,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        match request {
            Request::Open { id, path, flags, attributes } => {
                self.open_file(id, path, (flags, attributes), transport).await
            }
            Request::Close { id, handle } => self.close(id, handle, transport).await,
            Request::Read { id, handle, offset, len } => {
                self.read(id, handle, (offset, len), transport).await
            }
            Request::Lstat { id, path } | Request::Stat { id, path } => {
                self.stat(id, path, transport).await
            }
            Request::Fstat { id, handle } => self.fstat(id, handle, transport).await,
            Request::Setstat { id, path, attributes } => {
                self.setstat(id, path, attributes, transport).await
            }
            Request::Fsetstat { id, handle, attributes } => {
                let result = self.fsetstat(handle, attributes).await;
                self.done(id, result, None, transport).await
            }
            Request::Opendir { id, path } => self.opendir(id, path, transport).await,
            Request::Readdir { id, handle } => self.readdir(id, handle, transport).await,
            Request::Realpath { id, path } => self.realpath(id, path, transport).await,
            Request::Extended { id, name, data } => {
                self.extended(id, (name, data), transport).await
            }
            Request::Readlink { id } | Request::Symlink { id } => {
                self.done(id, Err(Refusal::CannotLink), None, transport).await
            }
            Request::Unknown { id, .. } => {
                self.done(id, Err(Refusal::Unsupported), None, transport).await
            }
            Request::Remove { id, path } => self.change(id, Change::Remove(path), transport).await,
            Request::Mkdir { id, path } => self.change(id, Change::Mkdir(path), transport).await,
            Request::Rmdir { id, path } => self.change(id, Change::Rmdir(path), transport).await,
            Request::Rename { id, from, to } => {
                self.change(id, Change::Rename(from, to), transport).await
            }
            // INIT and WRITE never come here: the engine takes them before.
            Request::Init { .. } | Request::Write { .. } => Ok(()),
        }
    }

    async fn change(
        &mut self,
        id: u32,
        change: Change<'_>,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let session = Arc::clone(&self.session);
        let raw = match change {
            Change::Remove(path)
            | Change::Mkdir(path)
            | Change::Rmdir(path)
            | Change::Rename(path, _) => path,
        };
        let path = match resolve(raw) {
            Ok(path) => path,
            Err(refusal) => return self.done(id, Err(refusal), None, transport).await,
        };
        let result = match change {
            Change::Remove(_) => session.remove_file(&path).await,
            Change::Mkdir(_) => session.make_folder(&path).await,
            Change::Rmdir(_) => session.remove_folder(&path).await,
            Change::Rename(_, to) => match resolve(to) {
                Ok(to) => session.rename(&path, &to).await,
                Err(refusal) => Err(refusal),
            },
        };
        self.done(id, result, Some(&path), transport).await
    }

    async fn open_file(
        &mut self,
        id: u32,
        raw: &[u8],
        (flags, attributes): (OpenFlags, FileAttributes),
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let path = match resolve(raw) {
            Ok(path) => path,
            Err(refusal) => return self.done(id, Err(refusal), None, transport).await,
        };
        match self.open_path(&path, flags, attributes).await {
            Ok(open) => {
                let handle = self.register(open);
                self.replies.handle(id, &handle.to_be_bytes());
                Ok(())
            }
            Err(refusal) => self.done(id, Err(refusal), Some(&path), transport).await,
        }
    }

    fn has_room(&self) -> Result<(), Refusal> {
        if self.handles.load(Ordering::Acquire) >= HANDLES_MAX {
            return Err(Refusal::TooManyHandles { limit: HANDLES_MAX });
        }
        Ok(())
    }

    async fn open_path(
        &self,
        path: &VirtualPath,
        flags: OpenFlags,
        attributes: FileAttributes,
    ) -> Result<Open, Refusal> {
        self.has_room()?;
        if !flags.has(OpenFlags::WRITE) && !flags.has(OpenFlags::APPEND) {
            return Ok(Open::Reader { reader: self.session.open_for_reading(path).await? });
        }
        let create = match (flags.has(OpenFlags::CREAT), flags.has(OpenFlags::EXCL)) {
            (true, true) => Create::Always,
            (true, false) => Create::IfMissing,
            (false, _) => Create::Never,
        };
        let start = if flags.has(OpenFlags::TRUNC) { Start::Empty } else { Start::WhatIsThere };
        // A size of 0 in OPEN is what clients send that say nothing.
        let declared_size = attributes.size.filter(|size| *size > 0);
        match self.session.upload(path, WriteMode { create, start, declared_size }).await? {
            Incoming::Upload(upload) => {
                Ok(Open::Upload { upload, appends: flags.has(OpenFlags::APPEND) })
            }
            Incoming::Dropping => Ok(Open::Dropping { path: path.clone(), size: 0 }),
        }
    }

    /// Bytes of a WRITE, as they arrive.
    pub(super) async fn write(
        &mut self,
        handle: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Refusal> {
        match self.open.get_mut(&handle) {
            Some(Open::Upload { upload, appends: false }) => upload.write_at(offset, data).await,
            Some(Open::Upload { upload, appends: true }) => {
                let (end, _) = upload.attributes().await;
                upload.write_at(end, data).await
            }
            Some(Open::Dropping { size, .. }) => {
                let end = offset.saturating_add(u64::try_from(data.len()).unwrap_or(0));
                *size = (*size).max(end);
                Ok(())
            }
            Some(Open::Reader { .. }) => Err(Refusal::ReadOnly),
            Some(Open::Folder { .. }) | None => Err(Refusal::BadHandle),
        }
    }

    async fn close(
        &mut self,
        id: u32,
        handle: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let open = handle_number(handle).and_then(|number| self.unregister(number));
        match open {
            Some(Open::Upload { upload, .. }) => self.close_upload(id, upload, transport).await,
            Some(Open::Dropping { path, size }) => {
                self.session.note_dropping(&path, size);
                self.done(id, Ok(()), None, transport).await
            }
            Some(Open::Reader { .. } | Open::Folder { .. }) => {
                self.done(id, Ok(()), None, transport).await
            }
            None => self.done(id, Err(Refusal::BadHandle), None, transport).await,
        }
    }

    async fn read(
        &mut self,
        id: u32,
        handle: &[u8],
        (offset, len): (u64, u32),
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let len = usize::try_from(len.min(MAX_READ)).unwrap_or(0);
        let open = handle_number(handle).and_then(|number| self.open.get(&number));
        let (content, len) = match open {
            Some(Open::Reader { reader: Reader::Content(content) }) => {
                if offset >= content.size {
                    self.replies.status(id, Code::Eof, "", "");
                    return Ok(());
                }
                // Short only at the end: clients rely on it (draft section 6.4), and a short answer in the middle is
                // taken for the file's end or leaves a hole.
                let left =
                    usize::try_from(content.size.saturating_sub(offset)).unwrap_or(usize::MAX);
                (content.clone(), len.min(left))
            }
            Some(Open::Reader { reader: Reader::Text { text, .. } }) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let to = from.saturating_add(len).min(text.len());
                match text.as_bytes().get(from..to) {
                    Some(piece) if !piece.is_empty() => self.replies.data(id, piece),
                    Some(_) | None => self.replies.status(id, Code::Eof, "", ""),
                }
                return Ok(());
            }
            Some(Open::Upload { .. } | Open::Dropping { .. }) => {
                return self.done(id, Err(Refusal::NotReleased), None, transport).await;
            }
            Some(Open::Folder { .. }) | None => {
                return self.done(id, Err(Refusal::BadHandle), None, transport).await;
            }
        };
        content.pace.take(len).await;
        // What is in the page cache is read here and now; only a real disk access goes to the blocking pool.
        let read = self.replies.data_from(id, len, |buffer| content.read_cached(buffer, offset));
        let result = match read {
            Ok(0) | Err(_) => match content.read_waiting(offset, len).await {
                Ok(bytes) => {
                    self.replies.data(id, &bytes);
                    Ok(())
                }
                Err(error) => Err(self.session.app.internal("read content", &error)),
            },
            Ok(_) => Ok(()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(refusal) => self.done(id, Err(refusal), None, transport).await,
        }
    }

    async fn opendir(
        &mut self,
        id: u32,
        raw: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let listed = match (resolve(raw), self.has_room()) {
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
            (Ok(path), Ok(())) => self.session.list(&path).await,
        };
        match listed {
            Ok(mut listing) => {
                let folder = folder_attributes(self.session.app.now(), false);
                let dots =
                    [".", ".."].map(|name| Listed { name: name.to_owned(), attributes: folder });
                listing.put_first(dots);
                let names = Vec::new().into_iter();
                let handle = self.register(Open::Folder { listing, names });
                self.replies.handle(id, &handle.to_be_bytes());
                Ok(())
            }
            Err(refusal) => self.done(id, Err(refusal), None, transport).await,
        }
    }

    async fn readdir(
        &mut self,
        id: u32,
        handle: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let now = self.session.app.now();
        let open = handle_number(handle).and_then(|number| self.open.get_mut(&number));
        let Some(Open::Folder { listing, names }) = open else {
            let reference = self.session.id.to_string();
            return self.refuse(id, &Refusal::BadHandle, &reference, transport);
        };
        if names.as_slice().is_empty() {
            match listing.next().await {
                Ok(more) => *names = more.into_iter(),
                Err(refusal) => return self.done(id, Err(refusal), None, transport).await,
            }
        }
        let page: Vec<Listed> = names.take(PAGE).collect();
        if page.is_empty() {
            self.replies.status(id, Code::Eof, "", "");
            return Ok(());
        }
        let lines = page.iter().map(|listed| {
            let shown = shown(&listed.attributes);
            (listed.name.as_str(), listed.long_line(now), shown)
        });
        self.replies.names(id, lines);
        Ok(())
    }

    async fn realpath(
        &mut self,
        id: u32,
        raw: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        match resolve(raw) {
            Ok(path) => {
                let text = path.to_string();
                let folder = Shown { size: 0, mode: 0o040_755, mtime: 0 };
                self.replies.names(id, [(text.as_str(), text.clone(), folder)].into_iter());
                Ok(())
            }
            Err(refusal) => self.done(id, Err(refusal), None, transport).await,
        }
    }

    async fn extended(
        &mut self,
        id: u32,
        (name, data): (&[u8], &[u8]),
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        use super::packet::{Fields, Malformed, kind};
        let mut fields = Fields(data);
        let cut = Malformed::Cut(kind::EXTENDED);
        match name {
            b"posix-rename@openssh.com" => {
                let (from, to) = (fields.string().ok_or(cut)?, fields.string().ok_or(cut)?);
                self.change(id, Change::Rename(from, to), transport).await
            }
            b"lsetstat@openssh.com" => {
                let path = fields.string().ok_or(cut)?;
                let attributes = fields.attributes().ok_or(cut)?;
                self.setstat(id, path, attributes, transport).await
            }
            b"limits@openssh.com" => {
                let max_packet = u64::try_from(super::packet::MAX_PACKET).unwrap_or(0);
                let handles = u64::try_from(HANDLES_MAX).unwrap_or(0);
                self.replies
                    .extended(id, &[max_packet, u64::from(MAX_READ), u64::from(MAX_READ), handles]);
                Ok(())
            }
            b"fsync@openssh.com" => {
                let handle = fields.string().ok_or(cut)?;
                let result = self.fsync(handle).await;
                self.done(id, result, None, transport).await
            }
            b"statvfs@openssh.com" | b"fstatvfs@openssh.com" => self.statvfs(id, transport).await,
            b"hardlink@openssh.com" => {
                self.done(id, Err(Refusal::CannotLink), None, transport).await
            }
            _ => self.done(id, Err(Refusal::Unsupported), None, transport).await,
        }
    }

    async fn fsync(&self, handle: &[u8]) -> Result<(), Refusal> {
        match handle_number(handle).and_then(|number| self.open.get(&number)) {
            Some(Open::Upload { upload, .. }) => upload.sync().await,
            Some(Open::Dropping { .. } | Open::Reader { .. } | Open::Folder { .. }) => Ok(()),
            None => Err(Refusal::BadHandle),
        }
    }
}

pub(super) fn resolve(raw: &[u8]) -> Result<VirtualPath, Refusal> {
    VirtualPath::root().resolve(raw).map_err(Refusal::BadName)
}
