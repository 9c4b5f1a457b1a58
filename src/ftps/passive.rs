//! Passive data connections: a random port for each, for the control connection's address only (spec section 10).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::domain::account::Network;
use crate::listen;

/// Strangers may stand in the queue before the client; they are sent away one by one.
const BACKLOG: u32 = 64;

/// A port that waits for one connection; dropping it closes the port.
#[derive(Debug)]
pub(super) struct Passive {
    listener: TcpListener,
    port: u16,
}

impl Passive {
    /// Opens a free port of the range, in random order, on the address that the client came to.
    ///
    /// # Errors
    /// When every port is taken, or none can be had.
    pub(super) fn open(ports: &RangeInclusive<u16>, local: IpAddr) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in shuffled(ports)? {
            match bind(SocketAddr::new(local, port)) {
                Ok(listener) => return Ok(Self { listener, port }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    #[must_use]
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the client, or a proxy that speaks for it, and closes the port behind it. Others are sent away.
    ///
    /// # Errors
    /// What the listener says.
    pub(super) async fn accept(self, client: IpAddr, trusted: &[Network]) -> io::Result<TcpStream> {
        loop {
            let (mut stream, peer) = self.listener.accept().await?;
            let Ok(peer) = listen::proxy::client_of(&mut stream, peer, trusted).await else {
                continue;
            };
            if peer.ip().to_canonical() == client {
                listen::prepare(&stream);
                return Ok(stream);
            }
            tracing::warn!(
                client = %client,
                peer = %peer.ip().to_canonical(),
                "a data connection from another address than the session's was refused"
            );
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Each port once, in an order that nobody can guess: who knows the next port can race the client for it.
fn shuffled(ports: &RangeInclusive<u16>) -> io::Result<Vec<u16>> {
    let mut all: Vec<u16> = ports.clone().collect();
    let mut random = vec![0u8; all.len().saturating_mul(4)];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut draws = random.chunks_exact(4).filter_map(|four| four.try_into().ok());
    // Fisher and Yates, from the end.
    for last in (1..all.len()).rev() {
        let draw = draws.next().map_or(0, u32::from_le_bytes);
        let other =
            usize::try_from(draw).unwrap_or(0).checked_rem(last.saturating_add(1)).unwrap_or(0);
        all.swap(last, other);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_comes_once_and_in_no_order() {
        let range = 50_000..=50_999;
        let first = shuffled(&range).unwrap();
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, range.clone().collect::<Vec<u16>>());
        assert_ne!(first, shuffled(&range).unwrap());
        assert_eq!(shuffled(&(7..=7)).unwrap(), [7]);
    }

    #[tokio::test]
    async fn a_range_can_be_used_up() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let port = bind(SocketAddr::new(local, 0)).unwrap().local_addr().unwrap().port();
        let first = Passive::open(&(port..=port), local).unwrap();
        assert_eq!(first.port(), port);
        assert!(Passive::open(&(port..=port), local).is_err());
        drop(first);
        assert!(Passive::open(&(port..=port), local).is_ok(), "a dropped one is free at once");
    }
}
