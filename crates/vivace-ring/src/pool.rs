//! Connections to the members of a ring, or to configured addresses. Nothing probes them while they are not in use: whether a
//! member lives is known from the ring, and a call to one that does not answer fails.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tonic::transport::{Channel, Endpoint};

use crate::{Connection, Ring, Snapshot};

/// How clients talk to instances.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Time for a connection to come up; a call on an address that does not answer fails after it.
    pub connect_timeout: Duration,
    /// A connection that is in use is probed this often, and given up when the probe is not answered in the same time.
    pub keepalive: Duration,
    /// HTTP/2 flow control window per stream, bytes.
    pub stream_window_bytes: u32,
    /// HTTP/2 flow control window per connection, bytes.
    pub connection_window_bytes: u32,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            // Within a cluster an answer takes milliseconds; one lost packet is sent again after a second.
            connect_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(10),
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 16 << 20,
        }
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The address cannot be part of a URI.
    #[error("{addr:?} is no host:port")]
    Address {
        /// As given.
        addr: String,
    },
}

/// gRPC channels by address: connected when first used, shared by all callers, dropped once the ring has lost the address.
#[derive(Debug)]
pub struct ClientPool {
    ring: Option<Ring>,
    options: PoolOptions,
    channels: Mutex<Channels>,
}

#[derive(Debug, Default)]
struct Channels {
    by_addr: FxHashMap<String, Channel>,
    /// The membership at the last eviction.
    seen: Option<Arc<Snapshot>>,
}

impl ClientPool {
    /// A pool that keeps channels only to members of `ring`.
    #[must_use]
    pub fn new(ring: Ring, options: PoolOptions) -> Self {
        Self { ring: Some(ring), options, channels: Mutex::default() }
    }

    /// A pool for a bounded set of configured addresses; keeps every channel.
    #[must_use]
    pub fn unbound(options: PoolOptions) -> Self {
        Self { ring: None, options, channels: Mutex::default() }
    }

    /// What calls to `addr` (`host:port`) go through. Does not connect; the first call on it does.
    ///
    /// # Errors
    /// [`PoolError::Address`].
    pub fn connection(&self, addr: &str) -> Result<Connection, PoolError> {
        match self.ring.as_ref().and_then(Ring::own_services) {
            Some(services) => Ok(Connection::Own(services)),
            None => Ok(Connection::Remote(self.channel(addr)?)),
        }
    }

    fn channel(&self, addr: &str) -> Result<Channel, PoolError> {
        let mut channels = self.channels.lock();
        if let Some(ring) = &self.ring {
            channels.follow(&ring.snapshot());
        }
        if let Some(channel) = channels.by_addr.get(addr) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{addr}"))
            .map_err(|_| PoolError::Address { addr: addr.to_owned() })?
            .connect_timeout(self.options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.options.keepalive)
            .keep_alive_timeout(self.options.keepalive)
            .initial_stream_window_size(self.options.stream_window_bytes)
            .initial_connection_window_size(self.options.connection_window_bytes)
            .connect_lazy();
        channels.by_addr.insert(addr.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Channels held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.lock().by_addr.len()
    }

    /// Whether no channel is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Channels {
    fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, snapshot)) {
            return;
        }
        self.by_addr.retain(|addr, _| snapshot.instances().iter().any(|i| i.addr == *addr));
        self.seen = Some(snapshot.clone());
    }
}
