//! What the `memberlist` block comes to on this host, and the reasons for which a process cannot be a member.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::Seed;
use crate::seeds::outbound_ip;

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
    /// Makes names unique where that is asked for; the start time, say. Nothing is decided by which is the higher one.
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

/// Wait after this attempt to join, the first being 0.
pub(crate) fn join_backoff(options: &GossipOptions, attempt: u32) -> Duration {
    options.min_join_backoff.saturating_mul(1 << attempt.min(16)).min(options.max_join_backoff).max(Duration::from_millis(10))
}
