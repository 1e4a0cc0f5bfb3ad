//! Under which id, address and zone a process enters a ring: as configured, else its host's name and the address that others
//! reach it at.

use std::net::{IpAddr, SocketAddr};

use vivace_config::{Lifecycler, ServiceRing, set_or};

use crate::Membership;

/// How a process appears in one ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique within the role.
    pub id: String,
    /// `host:port` of its gRPC listener.
    pub addr: String,
    /// Availability zone or empty.
    pub zone: String,
}

impl Registration {
    /// An ingester, as `ingester.lifecycler` says. `grpc` is the listener's address, `host_name` the id where none is set.
    #[must_use]
    pub fn of_ingester(lifecycler: &Lifecycler, membership: &Membership, host_name: &str, grpc: SocketAddr) -> Self {
        Self {
            id: set_or(lifecycler.id.as_str(), host_name).to_owned(),
            addr: advertised(membership, &lifecycler.address, lifecycler.port, grpc),
            zone: lifecycler.availability_zone.clone(),
        }
    }

    /// A member of another ring, such as `compactor.ring`.
    #[must_use]
    pub fn of_service(ring: &ServiceRing, membership: &Membership, host_name: &str, grpc: SocketAddr) -> Self {
        Self {
            id: set_or(ring.instance_id.as_str(), host_name).to_owned(),
            addr: advertised(membership, &ring.instance_addr, ring.instance_port, grpc),
            zone: String::new(),
        }
    }
}

/// The configured address and port, or those that others can be expected to reach.
fn advertised(membership: &Membership, address: &str, port: u16, grpc: SocketAddr) -> String {
    let port = set_or(port, grpc.port());
    // Without gossip, only this process itself asks.
    let ip = |known: IpAddr| if known.is_unspecified() { membership.advertise_ip() } else { known };
    match address {
        "" => SocketAddr::new(ip(grpc.ip()), port).to_string(),
        address => match address.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{address}:{port}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_can_be_connected_to() {
        let membership = Membership::local(|| 0);
        let grpc = SocketAddr::from(([127, 0, 0, 1], 9095));
        let at = |instance_addr: &str| {
            let ring = ServiceRing { instance_addr: instance_addr.to_owned(), ..ServiceRing::default() };
            Registration::of_service(&ring, &membership, "host", grpc).addr
        };
        assert_eq!(at(""), "127.0.0.1:9095");
        assert_eq!(at("10.0.0.1"), "10.0.0.1:9095");
        assert_eq!((at("fd00::1"), at("[fd00::1]")), ("[fd00::1]:9095".to_owned(), "[fd00::1]:9095".to_owned()));
        assert_eq!(at("host-1.ring"), "host-1.ring:9095");
    }
}
