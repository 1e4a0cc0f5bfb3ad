//! `memberlist`: where to listen, whom to join, how often to gossip. Vivace's gossip is a protocol of its own over UDP, so most
//! keys that tune Tempo's have no effect.

use std::time::Duration;

use crate::Ignored;
use crate::section::section;
use crate::value::{default, millis, mins, secs, text};

section! {
    /// `memberlist`: gossip between the processes.
    pub struct Memberlist {
        /// Name of this member; empty is the host's name.
        used node_name: String = String::new();
        /// Whether a random suffix makes that name unique.
        used randomize_node_name: bool = true;
        /// Longest time of a TCP exchange.
        idle stream_timeout: Duration = secs(2);
        /// How often a message is passed on, times the logarithm of the members.
        idle retransmit_factor: usize = 2;
        /// Pause between full exchanges.
        idle pull_push_interval: Duration = secs(30);
        /// Pause between rounds of gossip.
        used gossip_interval: Duration = secs(1);
        /// Members told in each round.
        idle gossip_nodes: usize = 2;
        /// How long dead members are told.
        idle gossip_to_dead_nodes_time: Duration = secs(30);
        /// When a dead member's name may be taken by another address; 0 is never.
        idle dead_node_reclaim_time: Duration = Duration::ZERO;
        /// Whether gossip is compressed.
        idle compression_enabled: bool = false;
        /// Compression of gossip (3.x).
        idle compression_algorithm: String = text("lzw");
        /// Pause between notifications of watchers.
        idle notify_interval: Duration = Duration::ZERO;
        /// Address told to other members; empty is that of an interface.
        used advertise_addr: String = String::new();
        /// Port told to other members.
        used advertise_port: u16 = 7946;
        /// Name of the cluster; members of another name are refused.
        used cluster_label: String = String::new();
        /// Whether other names are accepted.
        idle cluster_label_verification_disabled: bool = false;
        /// Members to join: `host:port`, `dns+host:port`, `dnssrv+name`, `dnssrvnoa+name`.
        used join_members: Vec<String> = vec![];
        /// First pause between tries to join.
        idle min_join_backoff: Duration = secs(1);
        /// Longest pause between tries to join.
        idle max_join_backoff: Duration = mins(1);
        /// Tries to join.
        idle max_join_retries: usize = 10;
        /// Whether the process stops when it cannot join.
        used abort_if_cluster_join_fails: bool = false;
        /// Whether the process stops when its first try to join fails.
        idle abort_if_cluster_fast_join_fails: bool = false;
        /// Members needed for that first try (3.x).
        idle abort_if_cluster_fast_join_fails_min_nodes: usize = 1;
        /// Pause between joins of `join_members` while running; 0 is never.
        idle rejoin_interval: Duration = Duration::ZERO;
        /// Members to join again (3.x).
        idle rejoin_seed_nodes: Vec<String> = vec![];
        /// How long a member that left is remembered.
        idle left_ingesters_timeout: Duration = mins(5);
        /// How long a removed entry is remembered.
        idle obsolete_entries_timeout: Duration = secs(30);
        /// Longest time to say goodbye.
        idle leave_timeout: Duration = secs(20);
        /// Longest time to send what is left when stopping.
        idle broadcast_timeout_for_local_updates_on_shutdown: Duration = secs(10);
        /// Messages kept for the status page, in bytes.
        idle message_history_buffer_bytes: u64 = 0;
        /// Addresses the gossip listener binds; empty is every interface.
        used bind_addr: Vec<String> = vec![];
        /// Port of the gossip listener.
        used bind_port: u16 = 7946;
        /// Longest time to connect for a packet.
        idle packet_dial_timeout: Duration = secs(2);
        /// Longest time to write a packet.
        idle packet_write_timeout: Duration = secs(5);
        /// Changes kept per watcher.
        idle watch_prefix_buffer_size: usize = 128;
        /// Writers of packets at once.
        idle max_concurrent_writes: usize = 3;
        /// Longest wait for a writer.
        idle acquire_writer_timeout: Duration = millis(250);
        /// Messages waiting to be read (3.x).
        idle received_messages_queue_size: usize = 1024;
        /// Messages waiting to be applied (3.x).
        idle processed_messages_queue_size: usize = 1024;
        /// Gossip that prefers the own zone.
        idle zone_aware_routing: Ignored = default();
        /// Measurement of how long gossip takes (3.x).
        idle propagation_delay_tracker: Ignored = default();
        /// Whether gossip speaks TLS.
        refused tls_enabled: bool = false;
        /// File with the certificate, PEM.
        idle tls_cert_path: String = String::new();
        /// File with the key, PEM.
        idle tls_key_path: String = String::new();
        /// File with the authorities trusted, PEM.
        idle tls_ca_path: String = String::new();
        /// Name expected in certificates.
        idle tls_server_name: String = String::new();
        /// Whether certificates go unchecked.
        idle tls_insecure_skip_verify: bool = false;
        /// Cipher suites allowed, comma-separated.
        idle tls_cipher_suites: String = String::new();
        /// Lowest TLS version.
        idle tls_min_version: String = String::new();
    }
}
