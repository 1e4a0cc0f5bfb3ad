//! Where the gossip, which is pure, meets clock, socket and name servers. Whatever it comes to know is made into one snapshot per
//! role, published when something in it has changed that decides where data goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gossip::wire::DATAGRAM_MAX;
use crate::gossip::{Content, Entry, FORGOTTEN_MAX, Gossip, INTERVALS_UNTIL_DEAD, Millis, Outgoing, Run, Settings, WORD_MAX, millis};
use crate::metrics::{DROPPED_DATAGRAMS, MEMBERS};
use crate::options::join_backoff;
use crate::{GossipOptions, Instance, MembershipError, OwnServices, Registration, Ring, Role, Snapshot, Socket, State, merge};

/// How often join members are looked up and greeted once some member is known: what heals a split.
const REJOIN_INTERVAL: Duration = Duration::from_secs(10);
/// Addresses greeted at a join attempt.
const GREET_MAX: usize = 16;
/// Live members ask for news at once; gossip has told the others after this many intervals.
const INTERVALS_UNTIL_TOLD: u32 = 2;
/// Datagrams that wait to be sent, beyond which they are lost as the network loses them.
const OUTBOX_MAX: usize = 2 * crate::gossip::PEERS_MAX;

/// This process's place in the cluster, and what it knows of the others. Cheap to clone.
///
/// Dropping the last clone stops the gossip without a word, as a crash would; [`Membership::end`] and [`Membership::deregister`]
/// spare the others the wait until they notice.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

struct Inner {
    clock: fn() -> u64,
    own: Mutex<Content>,
    rings: BTreeMap<Role, watch::Sender<Arc<Snapshot>>>,
    gossip: Option<Member>,
    /// Held from looking to publishing, so that what was seen earlier never replaces what was seen later.
    refreshing: Mutex<()>,
    /// Where all members are this process.
    services: Option<OwnServices>,
}

/// This process as a member of a cluster.
struct Member {
    options: GossipOptions,
    gossip: Mutex<Gossip>,
    /// What the gossip's time counts from.
    started: Instant,
    outbox: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    news: Notify,
}

/// One process of the cluster, for the status page.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) alive: bool,
    pub(crate) run: String,
    pub(crate) roles: Vec<&'static str>,
}

impl Membership {
    /// Starts to gossip over UDP; port 0 takes a free one. `clock` gives nanoseconds since the epoch, for what is shown to people.
    ///
    /// # Errors
    /// [`MembershipError::Bind`] when the address is not free; [`MembershipError::Join`] when that is asked for.
    pub async fn start(options: GossipOptions, clock: fn() -> u64) -> Result<Self, MembershipError> {
        let bound = UdpSocket::bind(options.bind).await;
        let socket = bound.map_err(|error| MembershipError::Bind { addr: options.bind, reason: error.to_string() })?;
        Self::start_on(options, clock, socket).await
    }

    /// The same over a socket that is open already, such as an in-memory one.
    ///
    /// # Errors
    /// As [`Membership::start`].
    pub async fn start_on(mut options: GossipOptions, clock: fn() -> u64, socket: impl Socket) -> Result<Self, MembershipError> {
        let bound = socket.local_addr().map_err(|error| MembershipError::Bind { addr: options.bind, reason: error.to_string() })?;
        options.bind.set_port(bound.port());
        if options.advertise.port() == 0 {
            options.advertise.set_port(bound.port());
        }
        let settings = Settings {
            addr: options.advertise,
            cluster_label: options.cluster_label.clone(),
            interval: options.gossip_interval,
            left_timeout: options.left_timeout,
        };
        let content = Content { name: options.node_name.clone(), ..Content::default() };
        let (outbox, to_send) = mpsc::channel(OUTBOX_MAX);
        let gossip = Mutex::new(Gossip::new(settings, &content, rand::random(), 0));
        let member = Member { options, gossip, started: Instant::now(), outbox, news: Notify::new() };
        let inner = Arc::new(Inner::new(clock, content, Some(member)));
        let mut tasks = JoinSet::new();
        tasks.spawn(gossip_loop(inner.clone(), socket, to_send));
        tasks.spawn(refresh_loop(inner.clone()));
        let (joined_tx, mut joined) = watch::channel(false);
        tasks.spawn(join_loop(inner.clone(), joined_tx));
        let membership = Self { shared: Arc::new(Shared { inner, _tasks: tasks }) };
        let options = membership.shared.inner.gossip.as_ref().map(|g| &g.options);
        if let Some(options) = options.filter(|o| o.abort_if_join_fails && !o.join_members.is_empty()) {
            let patience: Duration = (0..options.max_join_retries).map(|attempt| join_backoff(options, attempt)).sum();
            if !matches!(tokio::time::timeout(patience, joined.wait_for(|j| *j)).await, Ok(Ok(_))) {
                return Err(MembershipError::Join { tries: options.max_join_retries, members: options.join_members.clone() });
            }
        }
        Ok(membership)
    }

    /// A cluster of this process alone, without gossip.
    #[must_use]
    pub fn local(clock: fn() -> u64) -> Self {
        Self::of(Inner::new(clock, Content::default(), None))
    }

    /// The same, whose services are called without a connection.
    #[must_use]
    pub fn alone(clock: fn() -> u64, services: OwnServices) -> Self {
        Self::of(Inner { services: Some(services), ..Inner::new(clock, Content::default(), None) })
    }

    fn of(inner: Inner) -> Self {
        Self { shared: Arc::new(Shared { inner: Arc::new(inner), _tasks: JoinSet::new() }) }
    }

    /// The members of one role.
    #[must_use]
    pub fn ring(&self, role: Role) -> Ring {
        Ring::new(role, self.shared.inner.rings[&role].subscribe(), self.shared.inner.services.clone())
    }

    /// Enters a ring, or changes how this process appears there. Known here at once, elsewhere after a round of gossip.
    pub async fn register(&self, role: Role, registration: Registration, state: State) {
        let Registration { id, addr, zone } = registration;
        let registered = (self.shared.inner.clock)() / 1_000_000_000;
        self.shared.inner.own.lock().entries.insert(role, Entry { id, addr, zone, state, registered, ended: false });
        self.shared.inner.publish();
    }

    /// Changes this process's state in a ring that it is registered in.
    pub async fn set_state(&self, role: Role, state: State) {
        match self.shared.inner.own.lock().entries.get_mut(&role) {
            Some(entry) => entry.state = state,
            None => return,
        }
        self.shared.inner.publish();
    }

    /// Says that this process will not answer in this ring any more: the others take it for dead at once.
    pub async fn end(&self, role: Role) {
        match self.shared.inner.own.lock().entries.get_mut(&role) {
            Some(entry) => (entry.state, entry.ended) = (State::Leaving, true),
            None => return,
        }
        self.shared.inner.publish();
    }

    /// Leaves a ring: the others drop this member. For members that hold nothing which the others miss.
    pub async fn deregister(&self, role: Role) {
        if self.shared.inner.own.lock().entries.remove(&role).is_none() {
            return;
        }
        self.shared.inner.publish();
    }

    /// How long news of this process takes to reach every member. None without gossip.
    #[must_use]
    pub fn news_after(&self) -> Option<Duration> {
        self.shared.inner.gossip.as_ref().map(|g| g.options.gossip_interval * INTERVALS_UNTIL_TOLD)
    }

    /// Drops a dead member from the ring everywhere. A live one cannot be forgotten; one that comes back is a member again.
    ///
    /// Returns whether there was such a dead member.
    pub async fn forget(&self, role: Role, id: &str) -> bool {
        let inner = &self.shared.inner;
        let dead = inner.rings[&role].borrow().get(id).is_some_and(|i| !i.alive);
        let (true, Some(member)) = (dead, &inner.gossip) else { return false };
        let runs = member.runs_of(role, id);
        {
            let forgotten = &mut inner.own.lock().forgotten;
            forgotten.retain(|run| !runs.contains(run));
            forgotten.extend(&runs);
            let too_many = forgotten.len().saturating_sub(FORGOTTEN_MAX);
            forgotten.drain(..too_many);
        }
        member.gossip.lock().forget(&runs, member.now());
        inner.publish();
        true
    }

    /// Where this process gossips; none without gossip.
    #[must_use]
    pub fn gossip_addr(&self) -> Option<SocketAddr> {
        self.shared.inner.gossip.as_ref().map(|g| g.options.advertise)
    }

    /// The address that others reach this process's listeners under. Loopback without gossip.
    #[must_use]
    pub fn advertise_ip(&self) -> IpAddr {
        self.gossip_addr().map_or(Ipv4Addr::LOCALHOST.into(), |addr| addr.ip())
    }

    /// How long a member may be dead before it is noticed here. None without gossip.
    #[must_use]
    pub fn dead_after(&self) -> Option<Duration> {
        self.shared.inner.gossip.as_ref().map(|g| g.options.gossip_interval * (INTERVALS_UNTIL_DEAD + 1))
    }

    /// Everything known of one ring, heartbeats up to date. The ring itself is never behind what this shows.
    pub(crate) async fn instances(&self, role: Role) -> Vec<Instance> {
        self.shared.inner.refresh();
        self.shared.inner.gather().remove(&role).map(|s| s.instances().to_vec()).unwrap_or_default()
    }

    pub(crate) fn now_unix_nanos(&self) -> u64 {
        (self.shared.inner.clock)()
    }

    /// All processes that gossip; none where there is no gossip.
    pub(crate) async fn processes(&self) -> Option<Vec<Process>> {
        let inner = &self.shared.inner;
        let member = inner.gossip.as_ref()?;
        let (run, known) = {
            let mut gossip = member.gossip.lock();
            (gossip.run(), gossip.known(member.now()))
        };
        let process = |run: Run, content: &Content, addr: SocketAddr, alive| Process {
            name: content.name.clone(),
            address: addr.to_string(),
            alive,
            run: format!("{:016x}", run.0),
            roles: content.entries.keys().map(|role| role.as_str()).collect(),
        };
        let this = process(run, &inner.own.lock(), member.options.advertise, true);
        let mut processes: Vec<Process> = known.iter().map(|k| process(k.run, k.word.content(), k.addr, k.alive)).chain([this]).collect();
        processes.sort_by(|a, b| (&a.name, &a.run).cmp(&(&b.name, &b.run)));
        Some(processes)
    }
}

impl Member {
    fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    /// The dead runs that were this member of a ring.
    fn runs_of(&self, role: Role, id: &str) -> Vec<Run> {
        let mut known = self.gossip.lock().known(self.now());
        known.retain(|k| !k.alive || k.word.content().entries.get(&role).is_some_and(|entry| entry.ended));
        known.iter().filter(|k| k.word.content().entries.get(&role).is_some_and(|entry| entry.id == id)).map(|k| k.run).collect()
    }

    fn receive(&self, from: SocketAddr, datagram: &[u8]) -> Outgoing {
        let mut gossip = self.gossip.lock();
        let received = gossip.receive(from, datagram, self.now());
        if gossip.take_news() {
            self.news.notify_one();
        }
        received.unwrap_or_else(|reason| {
            metrics::counter!(DROPPED_DATAGRAMS.name, "reason" => reason.as_str()).increment(1);
            tracing::debug!(%from, reason = reason.as_str(), "gossip dropped");
            Vec::new()
        })
    }

    fn send(&self, datagrams: Outgoing) {
        for datagram in datagrams {
            // Full is lost: gossip asks again.
            let _ = self.outbox.try_send(datagram);
        }
    }

    fn greet(&self, addresses: &[SocketAddr]) {
        let mut out = Vec::new();
        for addr in addresses.iter().take(GREET_MAX) {
            self.gossip.lock().greet(*addr, self.now(), &mut out);
        }
        self.send(out);
    }
}

impl Inner {
    fn new(clock: fn() -> u64, own: Content, gossip: Option<Member>) -> Self {
        let rings = Role::ALL.into_iter().map(|role| (role, watch::channel(Arc::default()).0)).collect();
        Self { clock, own: Mutex::new(own), rings, gossip, refreshing: Mutex::default(), services: None }
    }

    /// Tells everyone what this process is.
    fn publish(&self) {
        if let Some(member) = &self.gossip {
            let mut out = Vec::new();
            let is_said = {
                // Held until it is said, so that what was decided last is said last.
                let own = self.own.lock();
                member.gossip.lock().say(&own, member.now(), &mut out)
            };
            if !is_said {
                tracing::error!(max_bytes = WORD_MAX, "the others are not told: ids, addresses and zones of this process are too long");
            }
            member.send(out);
        }
        self.refresh();
    }

    /// Publishes rings that have changed.
    fn refresh(&self) {
        let _one_at_a_time = self.refreshing.lock();
        let mut gathered = self.gather();
        for (role, sender) in &self.rings {
            let next = gathered.remove(role).unwrap_or_default();
            record_members(*role, &next);
            sender.send_if_modified(|current| {
                let changed = !current.same_membership(&next);
                if changed {
                    log_changes(*role, current, &next);
                    *current = Arc::new(next);
                }
                changed
            });
        }
    }

    /// Builds every ring from what is known now.
    fn gather(&self) -> BTreeMap<Role, Snapshot> {
        let now_unix_nanos = (self.clock)();
        let mut instances = match &self.gossip {
            Some(member) => merge::instances(&mut member.gossip.lock(), member.now(), now_unix_nanos),
            None => BTreeMap::new(),
        };
        // Last, so that nobody else's claim to our id wins.
        for (role, entry) in &self.own.lock().entries {
            instances.entry(*role).or_default().push(entry.instance(*role, true, now_unix_nanos));
        }
        instances.into_iter().map(|(role, list)| (role, Snapshot::new(list))).collect()
    }
}

/// Moves datagrams between the socket and the gossip. Ends with the membership alone, whatever the socket says.
async fn gossip_loop(inner: Arc<Inner>, socket: impl Socket, mut outbox: mpsc::Receiver<(SocketAddr, Vec<u8>)>) {
    let Some(member) = &inner.gossip else { return };
    let mut tick = tokio::time::interval(member.options.gossip_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // One more, by which one that is too long is known.
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    loop {
        let out = tokio::select! {
            received = socket.receive(&mut buffer) => match received {
                Ok((len, from)) => member.receive(from, &buffer[..len]),
                Err(error) => {
                    tracing::debug!(%error, "could not receive gossip");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Vec::new()
                }
            },
            _ = tick.tick() => member.gossip.lock().tick(member.now()),
            Some(datagram) = outbox.recv() => vec![datagram],
        };
        for (to, datagram) in out {
            if let Err(error) = socket.send(to, &datagram).await {
                tracing::debug!(%to, %error, "could not send gossip");
            }
        }
    }
}

async fn refresh_loop(inner: Arc<Inner>) {
    let Some(member) = &inner.gossip else { return };
    let mut tick = tokio::time::interval((member.options.gossip_interval / 4).max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = member.news.notified() => {}
        }
        inner.refresh();
    }
}

/// Greets the join members until somebody is known, and now and then ever after, which heals splits.
async fn join_loop(inner: Arc<Inner>, joined: watch::Sender<bool>) {
    let Some(member) = &inner.gossip else { return };
    let options = &member.options;
    let mut attempt = 0;
    loop {
        // All at once: a name server that is slow to say no for some must not keep the others from being greeted.
        let mut lookups = JoinSet::new();
        for seed in options.join_members.clone() {
            let port = options.bind.port();
            lookups.spawn(async move { seed.resolve(port).await });
        }
        while let Some(addresses) = lookups.join_next().await {
            member.greet(&addresses.unwrap_or_default());
        }
        // Answers come within a round trip; a quarter of the wait is plenty and cheap to look again after.
        let wait = join_backoff(options, attempt);
        tokio::time::sleep(wait / 4).await;
        let known = !member.gossip.lock().known(member.now()).is_empty();
        if known {
            joined.send_replace(true);
        } else if attempt > 0 && attempt.is_multiple_of(5) && !options.join_members.is_empty() {
            tracing::warn!(attempt, members = ?options.join_members, "no other member found yet");
        }
        attempt = attempt.saturating_add(1);
        tokio::time::sleep(if known { REJOIN_INTERVAL } else { wait * 3 / 4 }).await;
    }
}

fn log_changes(role: Role, before: &Snapshot, after: &Snapshot) {
    for instance in after.instances() {
        let (id, state, alive) = (&instance.id, instance.state, instance.alive);
        match before.get(id) {
            Some(old) if old.state == state && old.alive == alive && old.addr == instance.addr => {}
            Some(old) if old.alive && !alive => tracing::warn!(%role, %id, addr = %instance.addr, "member is dead"),
            _ => tracing::info!(%role, %id, addr = %instance.addr, %state, alive, "member changed"),
        }
    }
    for gone in before.instances().iter().filter(|i| after.get(&i.id).is_none()) {
        tracing::info!(%role, id = %gone.id, "member is gone from the ring");
    }
}

fn record_members(role: Role, snapshot: &Snapshot) {
    for state in State::ALL {
        let members = snapshot.live().filter(|i| i.state == state).count();
        metrics::gauge!(MEMBERS.name, "name" => role.as_str(), "state" => state.as_str()).set(members as f64);
    }
    metrics::gauge!(MEMBERS.name, "name" => role.as_str(), "state" => "Unhealthy").set(snapshot.dead().count() as f64);
}
