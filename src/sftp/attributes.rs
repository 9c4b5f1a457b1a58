//! Size, times and rights of files and folders, and the space that an account has.

use russh::server::Session as Transport;

use super::engine::{Broken, Engine};
use super::files::{Open, handle_number, resolve};
use super::packet::FileAttributes;
use super::reply::Shown;
use crate::app::reading::Reader;
use crate::app::tree::{Attributes, Kind, folder_attributes};
use crate::domain::path::{VirtualPath, is_dropping};
use crate::domain::refusal::Refusal;
use crate::domain::time::Timestamp;

impl Engine {
    pub(super) async fn stat(
        &mut self,
        id: u32,
        raw: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let result = match resolve(raw) {
            Ok(path) => self.session.stat(&path).await,
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok(attributes) => {
                self.replies.attributes(id, &shown(&attributes));
                Ok(())
            }
            Err(refusal) => self.done(id, Err(refusal), None, transport).await,
        }
    }

    pub(super) async fn fstat(
        &mut self,
        id: u32,
        handle: &[u8],
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let file = |size, mtime, is_writable| Attributes {
            kind: Kind::File,
            size,
            mtime,
            is_writable,
            is_readable: true,
        };
        let now = self.session.app.now();
        let attributes = match handle_number(handle).and_then(|number| self.open.get(&number)) {
            Some(Open::Upload { upload, .. }) => {
                let (size, mtime) = upload.attributes().await;
                file(size, if mtime.is_never() { now } else { mtime }, true)
            }
            Some(Open::Dropping { size, .. }) => file(*size, now, true),
            Some(Open::Reader { reader: Reader::Content(content) }) => {
                file(content.size, content.mtime, true)
            }
            Some(Open::Reader { reader: Reader::Text { text, mtime } }) => {
                file(u64::try_from(text.len()).unwrap_or(0), *mtime, false)
            }
            Some(Open::Folder { .. }) => folder_attributes(now, false),
            None => return self.done(id, Err(Refusal::BadHandle), None, transport).await,
        };
        self.replies.attributes(id, &shown(&attributes));
        Ok(())
    }

    pub(super) async fn setstat(
        &mut self,
        id: u32,
        raw: &[u8],
        attributes: FileAttributes,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        let path = match resolve(raw) {
            Ok(path) => path,
            Err(refusal) => return self.done(id, Err(refusal), None, transport).await,
        };
        let result = self.setstat_path(&path, attributes).await;
        self.done(id, result, Some(&path), transport).await
    }

    async fn setstat_path(
        &self,
        path: &VirtualPath,
        attributes: FileAttributes,
    ) -> Result<(), Refusal> {
        // Another connection of the same client (rclone has several) may have sent it.
        if path.file_name().is_some_and(is_dropping) {
            return Ok(());
        }
        let present = self.session.stat(path).await?;
        if attributes.size.is_some_and(|size| size != present.size) {
            return Err(Refusal::Unsupported);
        }
        match attributes.times {
            Some((_, mtime)) if present.kind == Kind::File => {
                self.session.set_mtime(path, seconds(mtime)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) async fn fsetstat(
        &mut self,
        handle: &[u8],
        attributes: FileAttributes,
    ) -> Result<(), Refusal> {
        let open = handle_number(handle)
            .and_then(|number| self.open.get(&number))
            .ok_or(Refusal::BadHandle)?;
        if let Open::Upload { upload, .. } = open {
            if let Some(size) = attributes.size
                && size != upload.attributes().await.0
            {
                upload.set_len(size).await?;
            }
            if let Some((_, mtime)) = attributes.times {
                upload.set_mtime(seconds(mtime)).await;
            }
        }
        Ok(())
    }

    /// Quota as space (OpenSSH PROTOCOL, section 4.4), in blocks of 4 KiB.
    pub(super) async fn statvfs(
        &mut self,
        id: u32,
        transport: &mut Transport,
    ) -> Result<(), Broken> {
        const BLOCK: u64 = 4096;
        match self.session.space().await {
            Ok((free, total)) => {
                let blocks = |bytes: u64| bytes.checked_div(BLOCK).unwrap_or(0);
                let (free, total) = (blocks(free), blocks(total));
                let files = 1 << 20;
                self.replies.extended(
                    id,
                    &[BLOCK, BLOCK, total, free, free, files, files, files, 0, 2, 255],
                );
                Ok(())
            }
            Err(refusal) => self.done(id, Err(refusal), None, transport).await,
        }
    }
}

fn seconds(value: u32) -> Timestamp {
    Timestamp(i64::from(value).saturating_mul(1000))
}

/// POSIX mode and size for attributes.
pub(super) fn shown(attributes: &Attributes) -> Shown {
    let mode = match (attributes.kind, attributes.is_writable) {
        (Kind::Folder, true) => 0o040_755,
        (Kind::Folder, false) => 0o040_555,
        (Kind::File, true) => 0o100_644,
        (Kind::File, false) => 0o100_444,
    };
    Shown { size: attributes.size, mode, mtime: attributes.mtime.seconds() }
}
