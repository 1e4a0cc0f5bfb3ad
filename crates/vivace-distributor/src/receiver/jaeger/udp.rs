//! Thrift in UDP packets, as Jaeger's clients send it to an agent. Source: docs/facts/http-api.md, "Jaeger".
//!
//! Nobody hears of an answer, so what the kernel has delivered must not be lost: a thread does nothing but take packets from the
//! socket, and waits while the queue is full; the kernel counts what then has no room with it. Workers store all packets that wait as
//! one request: the more packets come, the fewer requests there are for each.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::HeaderMap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vivace_config::UdpReceiver;
use vivace_server::{RequestBudget, RequestCharge, Tenancy};

use super::thrift;
use crate::error::PushError;
use crate::metrics::Receiver;
use crate::push::{Accepted, Distributor, Incoming};
use crate::receiver::body::worked_on;
use crate::receiver::spans::Spans;
use crate::receiver::tags::Dialect;
use crate::receiver::thrift::Encoding;

/// Packets of one request, and their bytes: what a request may hold up.
const REQUEST_PACKETS_MAX: usize = 512;
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How long the thread may sleep on a socket where nothing comes, before it looks whether it should stop.
const IDLE: Duration = Duration::from_millis(100);
/// How often the kernel is asked how many packets it has dropped.
const DROPS_EVERY: Duration = Duration::from_secs(1);

/// A socket that is open and a place for what is in its packets.
pub(crate) struct UdpListener {
    socket: UdpSocket,
    encoding: Encoding,
    config: UdpReceiver,
    distributor: Arc<Distributor>,
    requests: RequestBudget,
    tenancy: Tenancy,
}

/// A packet and what it takes.
struct Packet {
    bytes: Vec<u8>,
    charge: RequestCharge,
}

impl UdpListener {
    /// Opens the socket. The kernel keeps packets from now on.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn bind(
        config: &UdpReceiver,
        encoding: Encoding,
        distributor: Arc<Distributor>,
        requests: RequestBudget,
        tenancy: Tenancy,
    ) -> anyhow::Result<Self> {
        let socket = open(config).with_context(|| format!("cannot listen on {} (UDP)", config.endpoint))?;
        Ok(Self { socket, encoding, config: config.clone(), distributor, requests, tenancy })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes packets until `stop`; then stores what has been taken.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let receiver = self.receiver();
        // So that the series are there before there is anything to count.
        receiver.packets(0);
        receiver.dropped("kernel", 0);
        let (into_queue, queue) = mpsc::channel(self.config.queue_size);
        let queue = Arc::new(Mutex::new(queue));
        let socket = self.socket.try_clone().context("a second handle of a socket")?;
        let mut workers = JoinSet::new();
        for _ in 0..self.config.workers {
            let worker = Worker { encoding: self.encoding, distributor: self.distributor.clone(), tenancy: self.tenancy, receiver };
            workers.spawn(worker.run(queue.clone()));
        }
        let mut drops = KernelDrops::of(&socket);
        let (requests, packet_bytes_max, until) = (self.requests.clone(), self.config.max_packet_size, stop.clone());
        let mut taking =
            tokio::task::spawn_blocking(move || take_packets(&socket, packet_bytes_max, receiver, &requests, &into_queue, &until));
        let mut tick = tokio::time::interval(DROPS_EVERY);
        let taken = loop {
            tokio::select! {
                _ = tick.tick() => drops.count(receiver).await,
                taken = &mut taking => break taken,
            }
        };
        while workers.join_next().await.is_some() {}
        drops.count(receiver).await;
        taken.context("the thread that takes packets")?.context("cannot take packets any more")
    }

    fn receiver(&self) -> Receiver {
        match self.encoding {
            Encoding::Compact => Receiver::JaegerCompact,
            Encoding::Binary => Receiver::JaegerBinary,
        }
    }
}

fn open(config: &UdpReceiver) -> io::Result<UdpSocket> {
    let (host, port) = config.endpoint.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addrs = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match open_at(addr, config.socket_buffer_size) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open_at(addr: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if buffer_bytes > 0 {
        socket.set_recv_buffer_size(buffer_bytes)?;
        // The kernel says twice of what it keeps, for its own needs.
        let kept = socket.recv_buffer_size()? / 2;
        if kept < buffer_bytes {
            tracing::warn!(%addr, asked_bytes = buffer_bytes, kept_bytes = kept, "the socket's buffer is smaller than asked, see net.core.rmem_max");
        }
    }
    socket.set_read_timeout(Some(IDLE))?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// The thread's work. Ends when told to, or when nobody takes packets any more.
fn take_packets(
    socket: &UdpSocket,
    packet_bytes_max: usize,
    receiver: Receiver,
    requests: &RequestBudget,
    into_queue: &mpsc::Sender<Packet>,
    stop: &CancellationToken,
) -> io::Result<()> {
    // One byte more tells a packet that is too large from one that is just not.
    let mut room = vec![0; packet_bytes_max + 1];
    while !stop.is_cancelled() && !into_queue.is_closed() {
        let len = match socket.recv(&mut room) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        receiver.packets(1);
        if len > packet_bytes_max {
            receiver.dropped("too_large", 1);
            continue;
        }
        let Ok(charge) = requests.charge(len as u64) else {
            receiver.dropped("memory", 1);
            continue;
        };
        let packet = Packet { bytes: room[..len].to_vec(), charge };
        if into_queue.blocking_send(packet).is_err() {
            break;
        }
    }
    Ok(())
}

/// Stores packets that wait.
struct Worker {
    encoding: Encoding,
    distributor: Arc<Distributor>,
    tenancy: Tenancy,
    receiver: Receiver,
}

impl Worker {
    /// Ends when the queue is empty and nothing more comes.
    async fn run(self, queue: Arc<Mutex<mpsc::Receiver<Packet>>>) {
        loop {
            let packets = next_packets(&mut *queue.lock().await).await;
            if packets.is_empty() {
                return;
            }
            let count = packets.len();
            match self.converted(packets).await {
                Ok(Some((request, packets))) => self.store(request, packets).await,
                Ok(None) => {}
                Err(error) => self.lost(&error, "memory", count),
            }
        }
    }

    /// The packets as one request, and how many are in it; none where all are broken. Broken ones are counted.
    async fn converted(&self, packets: Vec<Packet>) -> Result<Option<((Bytes, RequestCharge), usize)>, PushError> {
        let (encoding, receiver) = (self.encoding, self.receiver);
        let charge = self.distributor.requests.open();
        let bytes = packets.iter().map(|packet| packet.bytes.len()).sum();
        worked_on(bytes, move || convert(encoding, receiver, &packets, &charge)).await
    }

    async fn store(&self, (body, charge): (Bytes, RequestCharge), packets: usize) {
        // There are no headers that could name a tenant.
        let tenant = self.tenancy.one(&HeaderMap::new());
        let incoming = Incoming { receiver: self.receiver, tenant, body, charge, skip_metrics: false };
        let result = self.distributor.push(incoming).await.and_then(Accepted::or_refused);
        if let Err(error) = result {
            self.lost(&error, "refused", packets);
        }
    }

    fn lost(&self, error: &PushError, reason: &'static str, packets: usize) {
        self.receiver.dropped(reason, packets as u64);
        tracing::debug!(%error, packets, "spans of UDP packets are lost");
    }
}

/// All packets that wait, up to a request's size; waits for the first. None: there will be no more.
async fn next_packets(queue: &mut mpsc::Receiver<Packet>) -> Vec<Packet> {
    let Some(first) = queue.recv().await else { return Vec::new() };
    let mut bytes = first.bytes.len();
    let mut packets = vec![first];
    while packets.len() < REQUEST_PACKETS_MAX && bytes < REQUEST_BYTES_MAX {
        let Ok(packet) = queue.try_recv() else { break };
        bytes += packet.bytes.len();
        packets.push(packet);
    }
    packets
}

/// A request, what is charged for it, and how many packets it is made of.
type Converted = ((Bytes, RequestCharge), usize);

/// One request of all packets that are sound; none where there is none.
fn convert(encoding: Encoding, receiver: Receiver, packets: &[Packet], charge: &RequestCharge) -> Result<Option<Converted>, PushError> {
    let bytes: u64 = packets.iter().map(|packet| packet.charge.bytes()).sum();
    let mut spans = Spans::new(charge, Dialect::Jaeger, usize::try_from(bytes).unwrap_or(usize::MAX))?;
    let mut good = 0;
    for packet in packets {
        let mark = spans.mark(packet.bytes.len())?;
        match thrift::packet(encoding, &packet.bytes, &mut spans) {
            Ok(()) => good += 1,
            Err(error @ (PushError::Malformed(_) | PushError::Grows(_))) => {
                spans.go_back(mark);
                receiver.dropped("malformed", 1);
                tracing::debug!(%error, "a UDP packet is broken");
            }
            Err(other) => return Err(other),
        }
    }
    let request = spans.finish()?;
    Ok((good > 0).then_some((request, good)))
}

/// What the kernel says of packets that it had no room for.
struct KernelDrops {
    /// As `/proc/net/udp` names the socket; none where the kernel has no such file.
    inode: Option<String>,
    /// So many are counted.
    counted: u64,
}

impl KernelDrops {
    fn of(socket: &UdpSocket) -> Self {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = link.as_deref().and_then(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned));
        Self { inode, counted: 0 }
    }

    async fn count(&mut self, receiver: Receiver) {
        let Some(inode) = self.inode.as_deref() else { return };
        for file in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
            let Ok(table) = tokio::fs::read_to_string(file).await else { continue };
            if let Some(drops) = drops_of(&table, inode) {
                receiver.dropped("kernel", drops.saturating_sub(self.counted));
                self.counted = drops;
            }
        }
    }
}

/// The inode is the tenth column, the drops are the last, as Linux writes them (`udp4_format_sock`).
fn drops_of(table: &str, inode: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.split_ascii_whitespace().nth(9) == Some(inode))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             10: 0100007F:1AAF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17\n\
             11: 0100007F:1AB0 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 471 2 0000000000000000 3\n";
        assert_eq!(drops_of(table, "4711"), Some(17));
        assert_eq!(drops_of(table, "471"), Some(3));
        assert_eq!(drops_of(table, "47"), None);
    }
}
