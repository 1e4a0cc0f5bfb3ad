//! The network below the gossip, UDP or one within the process, on which tests run whole clusters.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex as SyncMutex;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};

/// What gossip goes through: datagrams that may be lost. A future that is dropped midway loses nothing but its datagram.
pub trait Socket: Send + Sync + 'static {
    /// Where datagrams for this socket arrive.
    ///
    /// # Errors
    /// What the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Sends one datagram.
    ///
    /// # Errors
    /// What the system says; the next one may get through.
    fn send(&self, to: SocketAddr, datagram: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits for a datagram. Returns its length, at most the buffer's, and its sender.
    ///
    /// # Errors
    /// What the system says; the next one may arrive.
    fn receive(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
}

impl Socket for UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    async fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.send_to(datagram, to).await.map(drop)
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }
}

/// A network inside one process, for tests of clusters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    inboxes: Arc<SyncMutex<HashMap<SocketAddr, mpsc::Sender<Parcel>>>>,
}

type Parcel = (SocketAddr, Vec<u8>);

/// One address in a [`MemoryNetwork`]. Free again once this is dropped.
#[derive(Debug)]
pub struct MemorySocket {
    network: MemoryNetwork,
    addr: SocketAddr,
    inbox: Mutex<mpsc::Receiver<Parcel>>,
}

/// Datagrams that wait for one receiver; more are lost, as in a real network.
const INBOX_MAX: usize = 1024;

impl MemoryNetwork {
    /// Listens on an address, which is taken from whoever had it before.
    #[must_use]
    pub fn bind(&self, addr: SocketAddr) -> MemorySocket {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        self.inboxes.lock().insert(addr, sender);
        MemorySocket { network: self.clone(), addr, inbox: Mutex::new(receiver) }
    }
}

impl Socket for MemorySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    async fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        if let Some(inbox) = self.network.inboxes.lock().get(&to) {
            // Full, or nobody listens any more: lost.
            let _ = inbox.try_send((self.addr, datagram.to_vec()));
        }
        Ok(())
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self.inbox.lock().await.recv().await {
            Some((from, datagram)) => {
                let len = datagram.len().min(buffer.len());
                buffer[..len].copy_from_slice(&datagram[..len]);
                Ok((len, from))
            }
            None => std::future::pending().await,
        }
    }
}
