use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::{Transport, UdpTransport};
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::seeds::outbound_ip;
use crate::{Instance, Registration, Ring, Role, Seed, Snapshot, State};

/// A member counts as dead when its heartbeat has not moved for this many gossip intervals.
///
/// Each member hears of every other at least every second interval with three gossip partners per interval, also over
/// third parties; twice that leaves room for lost packets and a starved CPU. With the default interval of one
/// second a dead member is noticed after 4 to 5 seconds.
const INTERVALS_UNTIL_DEAD: u32 = 4;
/// How often join members are looked up and greeted once some member is known: what heals a split.
const REJOIN_INTERVAL: Duration = Duration::from_secs(10);
/// Dead members of roles that own no data are dropped from the ring after this time.
const FORGET_DEAD_AFTER: Duration = Duration::from_secs(120);
/// A dead ingester holds what nobody else may have flushed: it stays visible until it is forgotten by hand, or this long.
const FORGET_DEAD_INGESTER_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Members greeted at once when there is news or at a join attempt.
const GREET_MAX: usize = 16;
/// Greetings reach most members at once; gossip has told the others after this many intervals.
const INTERVALS_UNTIL_TOLD: u32 = 2;
const ROLE_KEY: &str = "role/";
const FORGET_KEY: &str = "forget/";

/// Why this process cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The port is taken, or the address is not ours.
    #[error("could not gossip on {addr}: {reason}")]
    Bind {
        /// UDP address to listen on.
        addr: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// An entry of the `memberlist` block makes no sense.
    #[error("memberlist: {0}")]
    Config(String),
    /// `memberlist.abort_if_cluster_join_fails` is set and nobody answered.
    #[error("no member answered after {tries} attempts to join {members:?}")]
    Join {
        /// Attempts made.
        tries: u32,
        /// As configured.
        members: Vec<Seed>,
    },
}

/// How to gossip.
#[derive(Debug, Clone)]
pub struct GossipOptions {
    /// Name of this process, unique in the cluster; the host name in most cases.
    pub node_name: String,
    /// Grows with each start of a process of this name: its start time, say.
    pub generation: u64,
    /// `memberlist.cluster_label`: members with another label are not listened to.
    pub cluster_label: String,
    /// UDP address to listen on.
    pub bind: SocketAddr,
    /// UDP address under which others reach this process.
    pub advertise: SocketAddr,
    /// `memberlist.join_members`.
    pub join_members: Vec<Seed>,
    /// Time between rounds of gossip. A dead member is noticed after about four.
    pub gossip_interval: Duration,
    /// First wait between attempts to join.
    pub min_join_backoff: Duration,
    /// Longest wait between attempts to join.
    pub max_join_backoff: Duration,
    /// Attempts before giving up, where `abort_if_join_fails` is set.
    pub max_join_retries: u32,
    /// Refuse to start when nobody answers.
    pub abort_if_join_fails: bool,
    /// How long members that have left stay on the ring page.
    pub left_timeout: Duration,
}

impl GossipOptions {
    /// What the configuration says, for a process on this host.
    ///
    /// # Errors
    /// [`MembershipError::Config`] names the entry that cannot be understood.
    pub fn from_config(config: &vivace_config::Memberlist, host_name: &str, generation: u64) -> Result<Self, MembershipError> {
        let bind_ip: IpAddr = match config.bind_addr.first().map(String::as_str).filter(|a| !a.is_empty()) {
            None => Ipv4Addr::UNSPECIFIED.into(),
            Some(text) => text.parse().map_err(|_| MembershipError::Config(format!("bind_addr {text:?} is no IP address")))?,
        };
        let advertise_ip = match config.advertise_addr.as_str() {
            "" if bind_ip.is_unspecified() => outbound_ip(),
            "" => bind_ip,
            text => text.parse().map_err(|_| MembershipError::Config(format!("advertise_addr {text:?} is no IP address")))?,
        };
        // Left at its default, the advertised port follows the port that is bound.
        let unset = vivace_config::Memberlist::default().advertise_port;
        let advertise_port = if config.advertise_port == unset { config.bind_port } else { config.advertise_port };
        let name = if config.node_name.is_empty() { host_name } else { &config.node_name };
        // Unique also when several processes share a host.
        let node_name = if config.randomize_node_name { format!("{name}-{generation:x}") } else { name.to_owned() };
        Ok(Self {
            cluster_label: config.cluster_label.clone(),
            advertise: SocketAddr::new(advertise_ip, advertise_port),
            join_members: config.join_members.iter().map(|m| m.parse()).collect::<Result<_, _>>().map_err(MembershipError::Config)?,
            gossip_interval: config.gossip_interval.max(Duration::from_millis(10)),
            abort_if_join_fails: config.abort_if_cluster_join_fails,
            ..Self::new(&node_name, generation, SocketAddr::new(bind_ip, config.bind_port))
        })
    }

    /// Tempo's defaults for a process of this name that listens on `bind` and advertises the same address.
    #[must_use]
    pub fn new(node_name: &str, generation: u64, bind: SocketAddr) -> Self {
        Self {
            node_name: node_name.to_owned(),
            generation,
            cluster_label: String::new(),
            bind,
            advertise: bind,
            join_members: Vec::new(),
            gossip_interval: Duration::from_secs(1),
            min_join_backoff: Duration::from_secs(1),
            max_join_backoff: Duration::from_secs(60),
            max_join_retries: 10,
            abort_if_join_fails: false,
            left_timeout: Duration::from_secs(300),
        }
    }
}

/// What is gossiped under `role/<name>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    id: String,
    addr: String,
    zone: String,
    state: State,
    registered: u64,
    /// Said as the last thing: this process answers nobody any more.
    #[serde(default)]
    ended: bool,
}

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
    own: Mutex<BTreeMap<Role, Entry>>,
    rings: BTreeMap<Role, watch::Sender<Arc<Snapshot>>>,
    gossip: Option<Gossip>,
    /// Held from looking to publishing, so that what was seen earlier never replaces what was seen later.
    refreshing: tokio::sync::Mutex<()>,
}

struct Gossip {
    options: GossipOptions,
    handle: ChitchatHandle,
    heard: Mutex<HashMap<ChitchatId, Heard>>,
}

/// When another process's heartbeat moved.
#[derive(Debug, Clone, Copy)]
struct Heard {
    heartbeat: u64,
    /// Since then the heartbeat has stood still; the first one heard may be an old story and does not count as moving.
    since: Instant,
    moved: bool,
    unix_nanos: u64,
}

/// One process of the cluster, for the status page.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) alive: bool,
    pub(crate) generation: u64,
    pub(crate) roles: Vec<&'static str>,
}

impl Membership {
    /// Starts to gossip over UDP; port 0 takes a free one. `clock` gives nanoseconds since the epoch, for what is shown to people.
    ///
    /// # Errors
    /// [`MembershipError::Bind`] when the address is not free; [`MembershipError::Join`] when that is asked for.
    pub async fn start(options: GossipOptions, clock: fn() -> u64) -> Result<Self, MembershipError> {
        Self::start_on(options, clock, &UdpTransport).await
    }

    /// The same over another transport, such as an in-memory one.
    ///
    /// # Errors
    /// As [`Membership::start`].
    pub async fn start_on(mut options: GossipOptions, clock: fn() -> u64, transport: &dyn Transport) -> Result<Self, MembershipError> {
        if options.bind.port() == 0 {
            let free = UdpSocket::bind(options.bind).and_then(|socket| socket.local_addr());
            let free = free.map_err(|error| MembershipError::Bind { addr: options.bind, reason: error.to_string() })?;
            options.bind.set_port(free.port());
        }
        if options.advertise.port() == 0 {
            options.advertise.set_port(options.bind.port());
        }
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(options.node_name.as_str(), options.generation, options.advertise),
            cluster_id: options.cluster_label.clone(),
            gossip_interval: options.gossip_interval,
            listen_addr: options.bind,
            // Seeds are looked up here: names that do not resolve yet must be tried again soon, not after a minute.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: options.gossip_interval,
                dead_node_grace_period: FORGET_DEAD_INGESTER_AFTER,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: FORGET_DEAD_INGESTER_AFTER,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let handle = spawn_chitchat(config, Vec::new(), transport)
            .await
            .map_err(|error| MembershipError::Bind { addr: options.bind, reason: format!("{error:#}") })?;
        let gossip = Gossip { options, handle, heard: Mutex::default() };
        let inner = Arc::new(Inner::new(clock, Some(gossip)));
        let mut tasks = JoinSet::new();
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
        Self { shared: Arc::new(Shared { inner: Arc::new(Inner::new(clock, None)), _tasks: JoinSet::new() }) }
    }

    /// The members of one role.
    #[must_use]
    pub fn ring(&self, role: Role) -> Ring {
        Ring::new(role, self.shared.inner.rings[&role].subscribe())
    }

    /// Enters a ring, or changes how this process appears there. Known here at once, elsewhere after a round of gossip.
    pub async fn register(&self, role: Role, registration: Registration, state: State) {
        let Registration { id, addr, zone } = registration;
        let registered = (self.shared.inner.clock)() / 1_000_000_000;
        self.shared.inner.own.lock().insert(role, Entry { id, addr, zone, state, registered, ended: false });
        self.shared.inner.publish(&[role]).await;
    }

    /// Changes this process's state in a ring that it is registered in.
    pub async fn set_state(&self, role: Role, state: State) {
        match self.shared.inner.own.lock().get_mut(&role) {
            Some(entry) => entry.state = state,
            None => return,
        }
        self.shared.inner.publish(&[role]).await;
    }

    /// Says that this process will not answer in this ring any more: the others take it for dead at once.
    pub async fn end(&self, role: Role) {
        match self.shared.inner.own.lock().get_mut(&role) {
            Some(entry) => (entry.state, entry.ended) = (State::Leaving, true),
            None => return,
        }
        self.shared.inner.publish(&[role]).await;
    }

    /// Leaves a ring: the others drop this member. For members that hold nothing which the others miss.
    pub async fn deregister(&self, role: Role) {
        if self.shared.inner.own.lock().remove(&role).is_none() {
            return;
        }
        self.shared.inner.publish(&[role]).await;
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
        let (true, Some(gossip)) = (dead, &inner.gossip) else { return false };
        // Runs that started up to now; a later run of the same name is a new member.
        let until = (inner.clock)().to_string();
        let key = format!("{FORGET_KEY}{role}/{id}");
        gossip.handle.with_chitchat(|c| c.self_node_state().set_with_ttl(&key, &until)).await;
        gossip.greet_live_members().await;
        inner.refresh().await;
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
        self.shared.inner.refresh().await;
        self.shared.inner.gather().await.remove(&role).map(|s| s.instances().to_vec()).unwrap_or_default()
    }

    pub(crate) fn now_unix_nanos(&self) -> u64 {
        (self.shared.inner.clock)()
    }

    /// All processes that gossip; none where there is no gossip.
    pub(crate) async fn members(&self) -> Option<Vec<Member>> {
        let gossip = self.shared.inner.gossip.as_ref()?;
        let roles = |node: &chitchat::NodeState| node.iter_prefix(ROLE_KEY).filter_map(|(key, _)| role_of(key)).map(Role::as_str).collect();
        let nodes: Vec<(ChitchatId, Vec<&'static str>)> =
            gossip.handle.with_chitchat(|c| c.node_states().iter().map(|(id, node)| (id.clone(), roles(node))).collect()).await;
        let heard = gossip.heard.lock();
        let alive = |id: &ChitchatId| id == gossip.handle.chitchat_id() || heard.get(id).is_some_and(|h| gossip.is_alive(h));
        let member = |(id, roles): (ChitchatId, Vec<&'static str>)| Member {
            name: id.node_id.to_string(),
            address: id.gossip_advertise_addr.to_string(),
            alive: alive(&id),
            generation: id.generation_id,
            roles,
        };
        Some(nodes.into_iter().map(member).collect())
    }
}

impl Gossip {
    fn is_alive(&self, heard: &Heard) -> bool {
        heard.moved && heard.since.elapsed() < self.options.gossip_interval * INTERVALS_UNTIL_DEAD
    }

    /// Starts an exchange with some live members now instead of at the next round.
    async fn greet_live_members(&self) {
        let own = self.handle.chitchat_id();
        let peers: Vec<SocketAddr> = self
            .handle
            .with_chitchat(|c| c.live_nodes().filter(|id| *id != own).map(|id| id.gossip_advertise_addr).take(GREET_MAX).collect())
            .await;
        self.greet(&peers);
    }

    fn greet(&self, peers: &[SocketAddr]) {
        for peer in peers.iter().filter(|p| **p != self.options.advertise).take(GREET_MAX) {
            // Fails only when the gossip has ended, and then the process is ending too.
            let _ = self.handle.gossip(*peer);
        }
    }
}

impl Inner {
    fn new(clock: fn() -> u64, gossip: Option<Gossip>) -> Self {
        let rings = Role::ALL.into_iter().map(|role| (role, watch::channel(Arc::default()).0)).collect();
        Self { clock, own: Mutex::default(), rings, gossip, refreshing: tokio::sync::Mutex::default() }
    }

    /// Tells everyone what this process is.
    async fn publish(&self, roles: &[Role]) {
        if let Some(gossip) = &self.gossip {
            // No value: this process is not in that ring any more.
            let values: Vec<(String, Option<String>)> = {
                let own = self.own.lock();
                let value = |role: &Role| (format!("{ROLE_KEY}{role}"), own.get(role).and_then(|entry| serde_json::to_string(entry).ok()));
                roles.iter().map(value).collect()
            };
            gossip
                .handle
                .with_chitchat(|c| {
                    for (key, value) in &values {
                        match value {
                            Some(value) => c.self_node_state().set(key, value),
                            None => c.self_node_state().delete(key),
                        }
                    }
                })
                .await;
            gossip.greet_live_members().await;
        }
        self.refresh().await;
    }

    /// Publishes rings that have changed.
    async fn refresh(&self) {
        let _one_at_a_time = self.refreshing.lock().await;
        let mut gathered = self.gather().await;
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
    async fn gather(&self) -> BTreeMap<Role, Snapshot> {
        let now_unix_nanos = (self.clock)();
        let mut instances: BTreeMap<Role, Vec<Instance>> = BTreeMap::new();
        if let Some(gossip) = &self.gossip {
            for (role, instance) in gossip.others(now_unix_nanos).await {
                instances.entry(role).or_default().push(instance);
            }
        }
        // Last, so that nobody else's claim to our id wins.
        for (role, entry) in self.own.lock().iter() {
            instances.entry(*role).or_default().push(entry.clone().instance(*role, true, now_unix_nanos));
        }
        instances.into_iter().map(|(role, list)| (role, Snapshot::new(list))).collect()
    }
}

impl Gossip {
    /// What the others say of themselves; of several runs of one process the latest comes last.
    async fn others(&self, now_unix_nanos: u64) -> Vec<(Role, Instance)> {
        let own = self.handle.chitchat_id();
        let (nodes, forgotten) = self
            .handle
            .with_chitchat(|chitchat| {
                let mut nodes = Vec::new();
                let mut forgotten: HashMap<String, u64> = HashMap::new();
                for (id, node) in chitchat.node_states() {
                    for (key, value) in node.iter_prefix(FORGET_KEY).filter(|(_, v)| !v.is_deleted()) {
                        let until = value.value.parse().unwrap_or(0);
                        let entry = forgotten.entry(key.strip_prefix(FORGET_KEY).unwrap_or(key).to_owned()).or_default();
                        *entry = until.max(*entry);
                    }
                    if id != own {
                        let entry = |(key, value): (&str, &chitchat::VersionedValue)| {
                            let role = role_of(key).filter(|_| !value.is_deleted())?;
                            Some((role, serde_json::from_str::<Entry>(&value.value).ok()?))
                        };
                        let entries: Vec<(Role, Entry)> = node.iter_prefix(ROLE_KEY).filter_map(entry).collect();
                        nodes.push((id.clone(), u64::from(node.heartbeat()), entries));
                    }
                }
                (nodes, forgotten)
            })
            .await;
        let mut heard = self.heard.lock();
        if heard.len() > nodes.len() {
            heard.retain(|id, _| nodes.iter().any(|(node, ..)| node == id));
        }
        let mut found = Vec::new();
        for (id, heartbeat, entries) in nodes {
            let now = Instant::now();
            let last = heard.entry(id.clone()).or_insert(Heard { heartbeat, since: now, moved: false, unix_nanos: now_unix_nanos });
            if heartbeat > last.heartbeat {
                *last = Heard { heartbeat, since: now, moved: true, unix_nanos: now_unix_nanos };
            }
            let alive = self.is_alive(last);
            if !last.moved && last.since.elapsed() < self.options.gossip_interval * INTERVALS_UNTIL_DEAD {
                // Heard of for the first time: nobody can tell yet whether it lives.
                continue;
            }
            for (role, entry) in entries {
                let dead_max = match (entry.state, role) {
                    (State::Leaving, _) => self.options.left_timeout,
                    (_, Role::Ingester) => FORGET_DEAD_INGESTER_AFTER,
                    _ => FORGET_DEAD_AFTER,
                };
                let by_hand = forgotten.get(&format!("{role}/{}", entry.id)).is_some_and(|until| id.generation_id <= *until);
                let alive = alive && !entry.ended;
                if alive || (last.since.elapsed() < dead_max && !by_hand) {
                    found.push((id.generation_id, role, entry.instance(role, alive, last.unix_nanos)));
                }
            }
        }
        found.sort_by_key(|(generation, ..)| *generation);
        found.into_iter().map(|(_, role, instance)| (role, instance)).collect()
    }
}

impl Entry {
    fn instance(self, role: Role, alive: bool, last_heartbeat_unix_nanos: u64) -> Instance {
        let Self { id, addr, zone, state, registered, ended: _ } = self;
        Instance { id, role, addr, zone, state, alive, registered_unix_seconds: registered, last_heartbeat_unix_nanos }
    }
}

fn role_of(key: &str) -> Option<Role> {
    key.strip_prefix(ROLE_KEY)?.parse().ok()
}

fn join_backoff(options: &GossipOptions, attempt: u32) -> Duration {
    options.min_join_backoff.saturating_mul(1 << attempt.min(16)).min(options.max_join_backoff).max(Duration::from_millis(10))
}

async fn refresh_loop(inner: Arc<Inner>) {
    let Some(gossip) = &inner.gossip else { return };
    let mut tick = tokio::time::interval((gossip.options.gossip_interval / 4).max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        inner.refresh().await;
    }
}

/// Greets the join members until somebody is known, and now and then ever after, which heals splits.
async fn join_loop(inner: Arc<Inner>, joined: watch::Sender<bool>) {
    let Some(gossip) = &inner.gossip else { return };
    let mut attempt = 0;
    loop {
        // All at once: a name server that is slow to say no for some must not keep the others from being greeted.
        let mut lookups = JoinSet::new();
        for seed in gossip.options.join_members.clone() {
            let port = gossip.options.bind.port();
            lookups.spawn(async move { seed.resolve(port).await });
        }
        while let Some(addresses) = lookups.join_next().await {
            gossip.greet(&addresses.unwrap_or_default());
        }
        // Answers come within a round trip; a quarter of the wait is plenty and cheap to look again after.
        let wait = join_backoff(&gossip.options, attempt);
        tokio::time::sleep(wait / 4).await;
        let known = gossip.handle.with_chitchat(|c| c.node_states().len()).await > 1;
        if known {
            joined.send_replace(true);
        } else if attempt > 0 && attempt.is_multiple_of(5) && !gossip.options.join_members.is_empty() {
            tracing::warn!(attempt, members = ?gossip.options.join_members, "no other member found yet");
        }
        attempt += 1;
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
        metrics::gauge!("tempo_ring_members", "name" => role.as_str(), "state" => state.as_str()).set(members as f64);
    }
    metrics::gauge!("tempo_ring_members", "name" => role.as_str(), "state" => "Unhealthy").set(snapshot.dead().count() as f64);
}
