//! How bytes and descriptors travel to clamd: connections, FILDES, the file as a stream.
//!
//! It must not know what a reply means.

use std::{
    fs::File,
    future::Future,
    io,
    io::{IoSlice, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use clamav_client::tokio::TransportProtocol;
use rustix::{
    fs::MemfdFlags,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
    task::{JoinError, JoinHandle},
};
use tokio_stream::Stream;
use tokio_util::either::Either;

use super::{Address, reply};

/// The size of a piece that is read and of a chunk that is sent: clamav-client's own 4 KiB cost
/// three times the CPU.
pub(super) const CHUNK: usize = 256 * 1024;

/// One byte more than is believed, so that a reply that is too long shows.
pub(super) const REPLY_ROOM: usize = reply::MAX_REPLY + 1;

/// On one host connecting takes 0.1 ms; a full backlog or a dead host would take minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Marks an error of connecting on its way through clamav-client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoConnection(pub(super) io::Error);

/// Opens connections within the time limit and with a bound on the reply.
pub(super) struct Dial {
    pub(super) address: Arc<Address>,
    pub(super) room: usize,
}

impl TransportProtocol for Dial {
    type Stream = Connection;

    async fn connect(&self) -> io::Result<Connection> {
        let stream = match self.address.as_ref() {
            Address::Unix(path) => Either::Left(in_time(UnixStream::connect(path)).await?),
            Address::Tcp(host) => Either::Right(in_time(TcpStream::connect(host)).await?),
        };
        Ok(Connection { stream, room: self.room })
    }
}

/// A connection whose reading end closes once `room` bytes or a few more came.
///
/// clamav-client reads replies to their end, however long they are.
pub(super) struct Connection {
    stream: Either<UnixStream, TcpStream>,
    room: usize,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.room == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = buf.filled().len().saturating_sub(before);
        self.room = self.room.saturating_sub(came);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Sends a command that clamav-client does not know, and reads the reply.
pub(super) async fn command(dial: Dial, command: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = dial.connect().await?;
    connection.write_all(command).await?;
    read_reply(connection).await
}

/// Passes the descriptor and reads the reply.
pub(super) async fn fildes(path: &Path, file: &File) -> io::Result<Vec<u8>> {
    let mut stream = in_time(UnixStream::connect(path)).await?;
    stream.write_all(b"zFILDES\0").await?;
    stream.async_io(Interest::WRITABLE, || pass(&stream, file.as_fd())).await?;
    read_reply(Connection { stream: Either::Left(stream), room: REPLY_ROOM }).await
}

async fn read_reply(mut connection: Connection) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    connection.read_to_end(&mut reply).await?;
    Ok(reply)
}

/// Sends one byte that carries the descriptor.
fn pass(stream: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor in the message"));
    }
    let carrier = [IoSlice::new(b"\0")];
    match rustix::net::sendmsg(stream, &carrier, &mut control, SendFlags::NOSIGNAL)? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _sent => Ok(()),
    }
}

/// Puts the bytes into an unnamed file in memory.
pub(super) async fn memory_file(bytes: Bytes) -> io::Result<File> {
    let fill = move || {
        let mut file = unnamed()?;
        file.write_all(&bytes)?;
        Ok(file)
    };
    joined(tokio::task::spawn_blocking(fill).await)
}

/// Makes an unnamed file of `len` zeros that takes no memory.
pub(super) fn sparse_file(len: u64) -> io::Result<File> {
    let file = unnamed()?;
    file.set_len(len)?;
    Ok(file)
}

fn unnamed() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("ptportal-scan", MemfdFlags::CLOEXEC)?.into())
}

/// The first `len` bytes of a file as a stream of pieces, read ahead by one.
///
/// Invariant: the stream ends only after exactly `len` bytes; where the file ends before, it
/// yields errors. clamav-client takes the end of a stream for the end of the content, and clamd
/// would then say OK to a part.
pub(super) struct ExactFile {
    file: Arc<File>,
    len: u64,
    /// What the stream has yielded; the piece in `reading` begins here.
    yielded: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl ExactFile {
    /// Reads by position through its own descriptor: the offset of `file` is not touched.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        Ok(Self { file: Arc::new(file.try_clone()?), len, yielded: 0, reading: None })
    }

    /// Begins to read the next piece; there is none at the end.
    fn read_on(&mut self) {
        let (at, left) = (self.yielded, self.len.saturating_sub(self.yielded));
        self.reading = (left > 0).then(|| {
            let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let file = Arc::clone(&self.file);
            tokio::task::spawn_blocking(move || piece(&file, at, size))
        });
    }
}

impl Stream for ExactFile {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.reading.is_none() {
            self.read_on();
        }
        let Some(reading) = self.reading.as_mut() else {
            return Poll::Ready(None);
        };
        let item = joined(ready!(Pin::new(reading).poll(cx)));
        self.reading = None;
        if let Ok(bytes) = &item {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.yielded = self.yielded.saturating_add(size);
            self.read_on();
        }
        Poll::Ready(Some(item))
    }
}

fn piece(file: &File, at: u64, size: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; size];
    file.read_exact_at(&mut piece, at).map_err(|cause| {
        io::Error::new(cause.kind(), format!("read {size} bytes of the file at {at}: {cause}"))
    })?;
    Ok(piece.into())
}

async fn in_time<S>(connecting: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    let cause = match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(cause)) => cause,
        Err(elapsed) => io::Error::new(io::ErrorKind::TimedOut, elapsed),
    };
    Err(io::Error::new(cause.kind(), NoConnection(cause)))
}

fn joined<T>(result: Result<io::Result<T>, JoinError>) -> io::Result<T> {
    result.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    async fn drain(stream: &mut ExactFile) -> Result<Vec<u8>, io::ErrorKind> {
        let mut all = Vec::new();
        while let Some(item) = stream.next().await {
            all.extend_from_slice(&item.map_err(|cause| cause.kind())?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn the_stream_yields_exactly_the_file() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let content: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let file = memory_file(content.clone().into()).await.unwrap();
            let mut stream = ExactFile::new(&file, len.try_into().unwrap()).unwrap();
            assert!(drain(&mut stream).await.unwrap() == content, "{len} bytes");
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_never_ends_the_stream() {
        let file = memory_file(vec![7; 3 * CHUNK].into()).await.unwrap();
        let mut stream = ExactFile::new(&file, 5_000_000).unwrap();
        assert_eq!(drain(&mut stream).await, Err(io::ErrorKind::UnexpectedEof));
        assert!(matches!(stream.next().await, Some(Err(_))));
    }

    #[tokio::test]
    async fn an_endless_reply_is_cut_off_beyond_its_room() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[b'a'; 100_000]).await.unwrap();
        let reply = read_reply(Connection { stream: Either::Left(ours), room: REPLY_ROOM }).await;
        let came = reply.unwrap().len();
        assert!((REPLY_ROOM..100_000).contains(&came), "{came}");
    }
}
