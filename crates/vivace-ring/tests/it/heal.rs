//! Over real sockets: clocks that are wrong, and a network that damages what it carries.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use vivace_ring::{GossipOptions, Membership, Registration, Role, State};

use crate::{clock, until};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Nanoseconds since the epoch.
const TODAY: u64 = 1_800_000_000_000_000_000;
const THE_EPOCH: u64 = 1;

async fn member(id: &str, generation: u64, bind: SocketAddr, advertise: Option<SocketAddr>, seeds: &[SocketAddr]) -> Membership {
    let options = GossipOptions {
        advertise: advertise.unwrap_or(bind),
        join_members: seeds.iter().map(|s| s.to_string().parse().expect("a seed")).collect(),
        gossip_interval: Duration::from_millis(100),
        min_join_backoff: Duration::from_millis(50),
        ..GossipOptions::new(id, generation, bind)
    };
    let membership = Membership::start(options, clock).await.expect("starts");
    let registration = Registration { id: id.to_owned(), addr: format!("{id}-{generation}:9095"), zone: String::new() };
    membership.register(Role::Ingester, registration, State::Active).await;
    membership
}

async fn healthy(membership: &Membership, wanted: &[&str], what: &'static str) {
    until(membership.ring(Role::Ingester), what, |s| s.writable().map(|i| i.addr.as_str()).eq(wanted.iter().copied())).await;
}

#[tokio::test]
async fn a_member_that_restarts_with_another_clock_is_healthy_in_seconds() {
    let a = member("a", TODAY, LOOPBACK, None, &[]).await;
    let seed = [a.gossip_addr().expect("gossips")];
    // The clock of one run after the other: years behind, years ahead, behind again.
    let mut bind = LOOPBACK;
    for generation in [TODAY, THE_EPOCH, 2 * TODAY, TODAY - 1, TODAY - 2] {
        let b = member("b", generation, bind, None, &seed).await;
        bind = b.gossip_addr().expect("gossips");
        let before = Instant::now();
        healthy(&a, &[&format!("a-{TODAY}:9095"), &format!("b-{generation}:9095")], "the run that lives is the one shown").await;
        assert!(before.elapsed() < Duration::from_secs(5), "after {:?}", before.elapsed());
        drop(b);
        until(a.ring(Role::Ingester), "dead", |s| s.get("b").is_some_and(|i| !i.alive)).await;
        // Half of them come back under another address, as pods do.
        if generation != THE_EPOCH {
            bind = LOOPBACK;
        }
    }
}

/// Stands between everyone and one member, and spoils datagrams of both directions while told to.
struct Wire {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

/// What the network does, shared by all wires.
#[derive(Default)]
struct Weather {
    /// Zero is fair.
    foul: AtomicU64,
    random: AtomicU64,
    /// Datagrams of the past, to be sent again or to be spliced.
    past: Mutex<Vec<Vec<u8>>>,
}

impl Weather {
    fn random(&self, below: usize) -> usize {
        // SplitMix64.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }

    /// What arrives instead of this datagram.
    async fn spoil(&self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut past = self.past.lock().await;
        if past.len() < 500 {
            past.push(datagram.to_vec());
        }
        if self.foul.load(Relaxed) == 0 {
            return vec![datagram.to_vec()];
        }
        let mut out = Vec::new();
        for _ in 0..4 {
            let mut copy = match self.random(3) {
                0 => past[self.random(past.len())].clone(),
                _ => datagram.to_vec(),
            };
            match self.random(5) {
                0 => copy.truncate(self.random(copy.len())),
                1 => {
                    let other = &past[self.random(past.len())];
                    copy.truncate(self.random(copy.len()));
                    copy.extend(&other[self.random(other.len())..]);
                }
                2 => copy = (0..self.random(200)).map(|_| self.random(256) as u8).collect(),
                _ => {
                    for _ in 0..=self.random(4) {
                        let at = self.random(copy.len());
                        if let Some(byte) = copy.get_mut(at) {
                            *byte = if self.random(2) == 0 { *byte ^ (1 << self.random(8)) } else { self.random(256) as u8 };
                        }
                    }
                }
            }
            out.push(copy);
        }
        out
    }
}

impl Wire {
    async fn to(member: SocketAddr, front: UdpSocket, weather: Arc<Weather>) -> Self {
        let front = Arc::new(front);
        let addr = front.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut returning = JoinSet::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let Ok((len, client)) = front.recv_from(&mut buffer).await else { continue };
                if let Entry::Vacant(vacant) = backs.entry(client) {
                    let back = Arc::new(UdpSocket::bind(LOOPBACK).await.expect("a port"));
                    vacant.insert(back.clone());
                    let (front, weather) = (front.clone(), weather.clone());
                    returning.spawn(async move {
                        let mut buffer = vec![0; 1 << 16];
                        loop {
                            let Ok((len, _)) = back.recv_from(&mut buffer).await else { continue };
                            for datagram in weather.spoil(&buffer[..len]).await {
                                let _ = front.send_to(&datagram, client).await;
                            }
                        }
                    });
                }
                for datagram in weather.spoil(&buffer[..len]).await {
                    let _ = backs[&client].send_to(&datagram, member).await;
                }
            }
        });
        Self { addr, _tasks: tasks }
    }
}

#[tokio::test]
async fn a_cluster_survives_a_network_that_damages_datagrams() {
    let weather = Arc::new(Weather::default());
    let ids = ["a", "b", "c", "d"];
    let mut fronts = Vec::new();
    for _ in ids {
        fronts.push(UdpSocket::bind(LOOPBACK).await.expect("a port"));
    }
    let seeds: Vec<SocketAddr> = fronts.iter().map(|f| f.local_addr().expect("bound")).collect();
    let (mut members, mut wires) = (Vec::new(), Vec::new());
    for (id, front) in ids.iter().zip(fronts) {
        let free = std::net::UdpSocket::bind(LOOPBACK).and_then(|s| s.local_addr()).expect("a port");
        let wire = Wire::to(free, front, weather.clone()).await;
        members.push(member(id, TODAY, free, Some(wire.addr), &seeds[..2]).await);
        wires.push(wire);
    }
    let wanted: Vec<String> = ids.iter().map(|id| format!("{id}-{TODAY}:9095")).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    for member in &members {
        healthy(member, &wanted, "all joined").await;
    }

    weather.foul.store(1, Relaxed);
    sleep(Duration::from_secs(4)).await;
    weather.foul.store(0, Relaxed);
    // What is under way arrives.
    sleep(Duration::from_millis(100)).await;

    for member in &members {
        let ring = member.ring(Role::Ingester);
        until(ring, "as before", |s| {
            s.writable().map(|i| i.addr.as_str()).eq(wanted.iter().copied()) && s.instances().len() == wanted.len()
        })
        .await;
    }
    // It lasts, and what is news now gets through.
    members[3].set_state(Role::Ingester, State::Leaving).await;
    for member in &members[..3] {
        healthy(member, &wanted[..3], "one more change is seen").await;
    }
}
