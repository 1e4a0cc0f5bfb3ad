//! What each member of a ring counts.

vivace_core::metrics! {
    /// Members of a ring as this process sees it, by their state; `Unhealthy` are those that are not heard of any more.
    gauge MEMBERS = "tempo_ring_members" by "name", "state";
    /// Datagrams of the gossip that were dropped unread: `label` is another cluster, `foreign` another program or version, `damaged`
    /// the network, `unasked` a repetition or a forgery.
    counter DROPPED_DATAGRAMS = "vivace_ring_gossip_dropped_datagrams_total" by "reason";
}
