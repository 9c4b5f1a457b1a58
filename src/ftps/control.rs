//! The control connection: bytes in and replies out, in clear or under TLS.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::line::{LineTooLong, Lines};
use super::reply::Reply;

/// A client that reads no replies is cut.
const WRITE: Duration = Duration::from_secs(30);

enum Wire {
    Clear(TcpStream),
    Private(Box<TlsStream<TcpStream>>),
    /// Being upgraded, or its upgrade failed.
    Gone,
}

/// Why no line can be had.
#[derive(Debug)]
pub(super) enum Lost {
    /// The client has closed the connection, or it broke.
    Closed,
    TooLong(LineTooLong),
}

pub(super) struct Control {
    wire: Wire,
    lines: Lines,
    buffer: Vec<u8>,
}

impl Control {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { wire: Wire::Clear(stream), lines: Lines::default(), buffer: Vec::new() }
    }

    pub(super) const fn is_private(&self) -> bool {
        matches!(self.wire, Wire::Private(_))
    }

    /// Whether the client has sent something that no line was taken of yet.
    pub(super) fn has_more(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The clear stream, for putting TLS on it.
    pub(super) fn take_clear(&mut self) -> Option<TcpStream> {
        match std::mem::replace(&mut self.wire, Wire::Gone) {
            Wire::Clear(stream) => Some(stream),
            other @ (Wire::Private(_) | Wire::Gone) => {
                self.wire = other;
                None
            }
        }
    }

    pub(super) fn set_private(&mut self, stream: TlsStream<TcpStream>) {
        self.wire = Wire::Private(Box::new(stream));
    }

    /// The next line. Cancel-safe: what came stays in the buffer.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) async fn next_line(&mut self) -> Result<Vec<u8>, Lost> {
        loop {
            if let Some(line) = self.lines.next_line().map_err(Lost::TooLong)? {
                return Ok(line);
            }
            self.buffer.clear();
            self.buffer.reserve(1024);
            let read = match &mut self.wire {
                Wire::Clear(stream) => stream.read_buf(&mut self.buffer).await,
                Wire::Private(stream) => stream.read_buf(&mut self.buffer).await,
                Wire::Gone => Ok(0),
            };
            match read {
                Ok(0) | Err(_) => return Err(Lost::Closed),
                Ok(_) => self.lines.push(&self.buffer),
            }
        }
    }

    /// Sends a reply. Not cancel-safe.
    ///
    /// # Errors
    /// When the connection is gone or the client does not read.
    pub(super) async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let bytes = reply.to_wire();
        let sent = async {
            match &mut self.wire {
                Wire::Clear(stream) => stream.write_all(&bytes).await,
                Wire::Private(stream) => {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                }
                Wire::Gone => Err(io::Error::from(io::ErrorKind::NotConnected)),
            }
        };
        match tokio::time::timeout(WRITE, sent).await {
            Ok(sent) => sent,
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    /// Ends the connection properly, so that the last reply is read and not lost in a reset.
    pub(super) async fn close(&mut self) {
        let closed = async {
            match &mut self.wire {
                Wire::Clear(stream) => stream.shutdown().await,
                Wire::Private(stream) => stream.shutdown().await,
                Wire::Gone => Ok(()),
            }
        };
        // Whoever does not answer any more needs no proper end.
        drop(tokio::time::timeout(Duration::from_secs(2), closed).await);
    }
}
