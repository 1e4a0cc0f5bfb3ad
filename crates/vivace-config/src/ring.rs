//! The rings, with Tempo's keys. A store such as Consul is accepted, with advice, and not used. Periods and timeouts of
//! heartbeats have no effect: the gossip has its own.

use std::time::Duration;

use crate::Ignored;
use crate::section::{choice, section};
use crate::value::{default, mins, secs, text};

choice! {
    /// Where Tempo keeps a ring. Here every ring but `inmemory` is kept by gossip.
    pub enum KvStore {
        /// Gossip between the processes.
        Memberlist = "memberlist";
        /// Within this process.
        Inmemory = "inmemory";
        /// Tempo: Consul.
        Consul = "consul";
        /// Tempo: etcd.
        Etcd = "etcd";
        /// Tempo: two stores at once.
        Multi = "multi";
        /// No ring; Tempo's compactor then works alone.
        None = "";
    }
}

section! {
    /// `kvstore`: where a ring is kept.
    pub struct Kv {
        /// Kind of the store.
        used store: KvStore = default();
        /// Prefix of the ring's key.
        idle prefix: String = text("collectors/");
        /// Consul client.
        idle consul: Ignored = default();
        /// etcd client.
        idle etcd: Ignored = default();
        /// Two stores at once.
        idle multi: Ignored = default();
    }
}

section! {
    /// The ring of a service other than the ingester.
    pub struct ServiceRing {
        /// Where the ring is kept.
        used kvstore: Kv = default();
        /// Pause between an instance's signs of life.
        idle heartbeat_period: Duration = secs(5);
        /// Silence after which an instance counts as gone.
        idle heartbeat_timeout: Duration = mins(1);
        /// Name of this instance; empty is the host's name.
        used instance_id: String = String::new();
        /// Interfaces whose address is advertised.
        idle instance_interface_names: Vec<String> = vec![text("eth0"), text("en0")];
        /// Address that is advertised; empty is the address of an interface.
        used instance_addr: String = String::new();
        /// Port that is advertised; 0 is the gRPC port.
        used instance_port: u16 = 0;
        /// Zone of this instance.
        idle instance_zone: String = String::new();
        /// Whether IPv6 addresses are taken.
        idle enable_inet6: bool = false;
        /// Shortest wait for a stable ring.
        idle wait_stability_min_duration: Duration = mins(1);
        /// Longest wait for a stable ring.
        idle wait_stability_max_duration: Duration = mins(5);
        /// Longest wait until this instance is active.
        idle wait_active_instance_timeout: Duration = mins(10);
    }
}

section! {
    /// `ingester.lifecycler`: how an ingester takes part in its ring.
    pub struct Lifecycler {
        /// The ring itself.
        used ring: IngesterRing = default();
        /// Tokens per ingester.
        idle num_tokens: usize = 128;
        /// Pause between an ingester's signs of life.
        idle heartbeat_period: Duration = secs(5);
        /// Silence after which an ingester counts as gone.
        idle heartbeat_timeout: Duration = mins(1);
        /// Time to watch for token conflicts before joining.
        idle observe_period: Duration = Duration::ZERO;
        /// Time to wait before joining.
        idle join_after: Duration = Duration::ZERO;
        /// How long an ingester must run before it is ready.
        used min_ready_duration: Duration = secs(15);
        /// Interfaces whose address is advertised.
        idle interface_names: Vec<String> = vec![text("eth0")];
        /// Whether IPv6 addresses are taken.
        idle enable_inet6: bool = false;
        /// Time to stay up for scrapes after everything stopped.
        idle final_sleep: Duration = Duration::ZERO;
        /// Where Tempo stores tokens; here they are derived from the instance's name.
        idle tokens_file_path: String = String::new();
        /// Zone of this ingester; followers are chosen in other zones.
        used availability_zone: String = String::new();
        /// Whether a stopping ingester leaves the ring.
        idle unregister_on_shutdown: bool = true;
        /// Whether readiness needs a healthy ring.
        idle readiness_check_ring_health: bool = true;
        /// Address that is advertised; empty is the address of an interface.
        used address: String = String::new();
        /// Port that is advertised; 0 is the gRPC port.
        used port: u16 = 0;
        /// Name of this ingester; empty is the host's name.
        used id: String = String::new();
    }
}

section! {
    /// `ingester.lifecycler.ring`: the ring of the ingesters.
    pub struct IngesterRing {
        /// Where the ring is kept.
        used kvstore: Kv = default();
        /// Silence after which an ingester counts as gone.
        idle heartbeat_timeout: Duration = mins(5);
        /// How many ingesters log each span; one of them builds the block.
        used replication_factor: usize = 1;
        /// Whether followers must be in other zones; they are wherever there are zones.
        idle zone_awareness_enabled: bool = false;
        /// Zones that take no part, comma-separated.
        idle excluded_zones: String = String::new();
    }
}
