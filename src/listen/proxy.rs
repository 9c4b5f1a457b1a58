//! PROXY protocol version 2: a trusted load balancer says for whom it speaks (haproxy.org, proxy-protocol.txt section 2.2).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::domain::account::Network;

/// A proxy sends its header at once; whoever is silent for this long speaks for itself.
const SILENCE: Duration = Duration::from_secs(1);
/// Pause while a header has come in part.
const PIECE: Duration = Duration::from_millis(5);
/// Signature, command, family and length.
const FIXED: usize = 16;
/// Addresses and the extensions that balancers send.
const VARIABLE_MAX: usize = 2048;

/// The client of a connection: whom a proxy of these networks names, else the peer itself. From anybody else nothing is
/// read.
///
/// # Errors
/// A broken or endless header.
pub async fn client_of(
    stream: &mut TcpStream,
    peer: SocketAddr,
    trusted: &[Network],
) -> io::Result<SocketAddr> {
    if !trusted.iter().any(|network| network.holds(peer.ip().to_canonical())) {
        return Ok(peer);
    }
    match tokio::time::timeout(SILENCE, begins_with_signature(stream)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) | Err(_) => return Ok(peer),
        Ok(Err(error)) => return Err(error),
    }
    let header = tokio::time::timeout(SILENCE, read_header(stream)).await;
    let bytes = header.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    let header = Header::try_from(bytes.as_slice());
    let header = header.map_err(|error| io::Error::other(format!("PROXY header: {error}")))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(pair)) => {
            SocketAddr::from((pair.source_address, pair.source_port))
        }
        (Command::Proxy, Addresses::IPv6(pair)) => {
            SocketAddr::from((pair.source_address, pair.source_port))
        }
        // A health check of the proxy itself.
        (Command::Local, _) | (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => peer,
    })
}

/// Looks without taking: what is no header belongs to the client.
async fn begins_with_signature(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0u8; PROTOCOL_PREFIX.len()];
    loop {
        let len = stream.peek(&mut seen).await?;
        let seen = seen.get(..len).unwrap_or_default();
        if seen.is_empty() || !PROTOCOL_PREFIX.starts_with(seen) {
            return Ok(false);
        }
        if len == PROTOCOL_PREFIX.len() {
            return Ok(true);
        }
        tokio::time::sleep(PIECE).await;
    }
}

async fn read_header(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; FIXED];
    stream.read_exact(&mut bytes).await?;
    let len = match bytes.as_slice() {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if len > VARIABLE_MAX {
        return Err(io::Error::other(format!("PROXY header of {len} bytes")));
    }
    let mut rest = vec![0u8; len];
    stream.read_exact(&mut rest).await?;
    bytes.append(&mut rest);
    Ok(bytes)
}
