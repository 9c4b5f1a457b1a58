//! The TCP stream under russh: buffered reads (russh itself makes two system calls for each packet) and a switch that
//! ends the connection from outside, because a running russh session has none.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Read at once from a client that sends little, as all do that idle.
const READ_LITTLE: usize = 4 * 1024;
/// Read at once from a client that sends more than that.
const READ_MUCH: usize = 128 * 1024;
/// After so many small reads in a row a large buffer is given back.
const PATIENCE: u32 = 64;

/// What was read and not yet taken. Grows for a client that fills it, so that thousands of idle sessions are cheap.
#[derive(Debug, Default)]
struct ReadAhead {
    bytes: Vec<u8>,
    taken: usize,
    small_reads: u32,
}

impl ReadAhead {
    fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len()
    }

    /// One read of the socket. Empty afterwards at the client's end of data.
    fn poll_fill(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let was_full = self.bytes.len() >= READ_LITTLE;
        self.bytes.clear();
        self.taken = 0;
        self.small_reads = if was_full { 0 } else { self.small_reads.saturating_add(1) };
        if was_full {
            self.bytes.reserve(READ_MUCH);
        } else if self.bytes.capacity() == 0 || self.small_reads >= PATIENCE {
            self.small_reads = 0;
            self.bytes.shrink_to(READ_LITTLE);
            self.bytes.reserve_exact(READ_LITTLE);
        }
        poll_read_buf(Pin::new(stream), cx, &mut self.bytes)
    }

    fn give(&mut self, to: &mut ReadBuf<'_>) {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let now = rest.len().min(to.remaining());
        to.put_slice(rest.get(..now).unwrap_or_default());
        self.taken = self.taken.saturating_add(now);
    }
}

/// A connection that can be ended.
pub(super) struct Wire {
    stream: TcpStream,
    read: ReadAhead,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    is_killed: bool,
}

impl Wire {
    #[must_use]
    pub(super) fn new(stream: TcpStream, kill: CancellationToken) -> Self {
        let killed = Box::pin(kill.cancelled_owned());
        Self { stream, read: ReadAhead::default(), killed, is_killed: false }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.is_killed && self.killed.as_mut().poll(cx).is_ready() {
            self.is_killed = true;
        }
        if self.is_killed { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let Self { stream, read, .. } = &mut *self;
        if read.is_empty() {
            ready!(read.poll_fill(stream, cx))?;
        }
        read.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
