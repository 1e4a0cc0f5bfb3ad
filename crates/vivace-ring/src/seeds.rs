//! Where the first members are looked for, and which address of this host others can be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

/// One entry of `memberlist.join_members`: where other members may be found.
///
/// Resolved anew at each attempt, since members' addresses change when they restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    host: String,
    /// None: the port that this process itself gossips on.
    port: Option<u16>,
}

impl FromStr for Seed {
    type Err = String;

    /// Takes `host:port`, `host`, `dns+host:port`, and for `dnssrv+_service._proto.host` looks up the host's addresses,
    /// since the service behind such a name is this one and so is the port.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix("dns+").unwrap_or(text);
        for prefix in ["dnssrv+", "dnssrvnoa+"] {
            if let Some(name) = text.strip_prefix(prefix) {
                rest = name;
                while let Some((label, parent)) = rest.split_once('.').filter(|(label, _)| label.starts_with('_')) {
                    let _ = label;
                    rest = parent;
                }
            }
        }
        let invalid = |why: &str| format!("join member {text:?}: {why}; expected host:port, dns+host:port or dnssrv+name");
        let is_address = rest.parse::<IpAddr>().is_ok() || rest.starts_with('[') && rest.ends_with(']');
        let (host, port) = match is_address {
            true => (rest, None),
            false => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port.parse().map_err(|_| invalid("the port is not a number up to 65535"))?)),
                None => (rest, None),
            },
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid("the host is missing"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Seed {
    /// The addresses behind the name now; empty when it cannot be resolved yet, which is usual while a cluster starts.
    pub(crate) async fn resolve(&self, default_port: u16) -> Vec<SocketAddr> {
        match tokio::net::lookup_host((self.host.as_str(), self.port.unwrap_or(default_port))).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                tracing::debug!(host = %self.host, %error, "could not resolve a join member");
                Vec::new()
            }
        }
    }
}

/// The address that others reach this host under: the one that packets to the outside would carry.
///
/// Asks the routing table only, sends nothing. Loopback where there is no network.
pub(crate) fn outbound_ip() -> IpAddr {
    let routed = |from: IpAddr, to: IpAddr| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    // Addresses of documentation, never in use, stand for anything outside.
    let v4 = || routed(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(203, 0, 113, 1).into());
    let v6 = || routed(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    v4().or_else(|_| v6()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_members_are_read_in_every_spelling() {
        let seed = |text: &str| text.parse::<Seed>().map(|s| (s.host, s.port));
        assert_eq!(seed("tempo:7946"), Ok(("tempo".into(), Some(7946))));
        assert_eq!(seed("dns+gossip-ring.tracing:7946"), Ok(("gossip-ring.tracing".into(), Some(7946))));
        assert_eq!(seed("dnssrv+_gossip._tcp.ring.tracing.svc"), Ok(("ring.tracing.svc".into(), None)));
        assert_eq!(seed("[::1]:7000"), Ok(("::1".into(), Some(7000))));
        assert_eq!(seed("[::1]"), Ok(("::1".into(), None)));
        assert_eq!(seed("10.0.0.1"), Ok(("10.0.0.1".into(), None)));
        assert!(seed("tempo:x").is_err_and(|e| e.contains("tempo:x")));
        assert!(seed(":7946").is_err());
    }
}
