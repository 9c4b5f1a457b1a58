//! Something open for reading: released content, or `Status.txt`.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::ReadWriteFlags;

use super::blocking;
use super::rates::Pace;
use super::transfers::Transfer;
use crate::domain::time::Timestamp;

/// Something open for reading.
pub enum Reader {
    /// A released content.
    Content(Content),
    /// `Status.txt`, fixed while the handle is open.
    Text { text: Arc<str>, mtime: Timestamp },
}

/// A sealed file. Its size is fixed, in bytes.
#[derive(Clone)]
pub struct Content {
    pub file: Arc<File>,
    pub size: u64,
    pub mtime: Timestamp,
    /// On tmpfs every read is one from memory.
    pub in_memory: bool,
    pub(super) sent: metrics::Counter,
    pub(super) transfer: Arc<Transfer>,
    /// To be asked before each piece.
    pub pace: Pace,
}

impl Content {
    /// Fills the buffer without waiting for the disk, or says that it cannot (0): a part of it may not be cached. What
    /// is in the page cache costs no thread switch like this.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = buffer.len();
        let n = if self.in_memory {
            self.file.read_at(buffer, offset)?
        } else {
            let mut slices = [IoSliceMut::new(buffer)];
            rustix::io::preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT)?
        };
        if n != wanted {
            return Ok(0);
        }
        self.count(n);
        Ok(n)
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.sent.increment(bytes);
        self.transfer.moved(bytes);
    }

    /// Reads exactly `len` bytes, waiting for the disk on another thread.
    ///
    /// # Errors
    /// What the file system says; also when the file is shorter.
    pub async fn read_waiting(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.count(len);
        let file = Arc::clone(&self.file);
        blocking(move || {
            let mut buffer = vec![0u8; len];
            file.read_exact_at(&mut buffer, offset)?;
            Ok(buffer)
        })
        .await
    }
}
