use std::net::SocketAddr;
use std::time::Duration;

use vivace_ring::{GossipOptions, Membership, MembershipError, MemoryNetwork, Registration, Role, State};

use crate::{clock, until};

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Quick gossip: a dead member is noticed within half a second.
async fn node(net: &MemoryNetwork, name: &str, generation: u64, port: u16, seed: u16) -> Membership {
    let options = GossipOptions {
        join_members: vec![format!("127.0.0.1:{seed}").parse().expect("a seed")],
        gossip_interval: Duration::from_millis(100),
        min_join_backoff: Duration::from_millis(50),
        ..GossipOptions::new(name, generation, address(port))
    };
    let membership = Membership::start_on(options, clock, net.bind(address(port))).await.expect("starts");
    let registration = Registration { id: name.to_owned(), addr: format!("127.0.0.1:{port}"), zone: String::new() };
    membership.register(Role::Ingester, registration, State::Active).await;
    membership
}

async fn writable(membership: &Membership, wanted: &[&str], what: &'static str) {
    until(membership.ring(Role::Ingester), what, |s| s.writable().map(|i| i.id.as_str()).eq(wanted.iter().copied())).await;
}

#[tokio::test]
async fn members_join_leave_die_and_come_back() {
    let net = MemoryNetwork::default();
    let a = node(&net, "a", 1, 1, 1).await;
    let b = node(&net, "b", 1, 2, 1).await;
    let c = node(&net, "c", 1, 3, 1).await;
    for member in [&a, &b, &c] {
        writable(member, &["a", "b", "c"], "all know all").await;
    }
    assert_eq!(a.ring(Role::Compactor).snapshot().instances(), []);

    c.set_state(Role::Ingester, State::Leaving).await;
    writable(&a, &["a", "b"], "who leaves takes no writes").await;
    let left = a.ring(Role::Ingester).snapshot().get("c").cloned().expect("still there");
    assert!(left.alive && left.state == State::Leaving, "reads go on: {left:?}");

    drop(b);
    let before = tokio::time::Instant::now();
    until(a.ring(Role::Ingester), "the dead are noticed", |s| s.get("b").is_some_and(|i| !i.alive)).await;
    assert!(before.elapsed() < a.dead_after().expect("gossips") + Duration::from_millis(500), "after {:?}", before.elapsed());
    writable(&a, &["a"], "the dead take no writes").await;

    let b = node(&net, "b", 2, 4, 1).await;
    writable(&a, &["a", "b"], "a new run under another address").await;
    assert_eq!(a.ring(Role::Ingester).snapshot().get("b").map(|i| i.addr.clone()), Some("127.0.0.1:4".into()));
    drop(b);
}

#[tokio::test]
async fn who_says_that_it_ends_is_dead_or_gone_at_once() {
    let net = MemoryNetwork::default();
    let a = node(&net, "a", 1, 1, 1).await;
    let b = node(&net, "b", 1, 2, 1).await;
    let c = node(&net, "c", 1, 3, 1).await;
    writable(&a, &["a", "b", "c"], "all joined").await;

    // Their heartbeats go on: nothing but their word makes the difference.
    b.end(Role::Ingester).await;
    until(a.ring(Role::Ingester), "taken for dead", |s| s.get("b").is_some_and(|i| !i.alive)).await;
    c.deregister(Role::Ingester).await;
    until(a.ring(Role::Ingester), "dropped", |s| s.get("c").is_none()).await;
    drop((b, c));

    let b = node(&net, "b", 2, 4, 1).await;
    let c = node(&net, "c", 2, 5, 1).await;
    writable(&a, &["a", "b", "c"], "new runs are members again").await;
    drop((b, c));
}

#[tokio::test]
async fn a_dead_member_is_forgotten_everywhere() {
    let net = MemoryNetwork::default();
    let a = node(&net, "a", 1, 1, 1).await;
    let b = node(&net, "b", 1, 2, 1).await;
    let c = node(&net, "c", 1, 3, 1).await;
    writable(&a, &["a", "b", "c"], "all joined").await;
    writable(&b, &["a", "b", "c"], "all joined").await;
    assert!(!a.forget(Role::Ingester, "c").await, "a live member cannot be forgotten");
    drop(c);
    until(a.ring(Role::Ingester), "noticed", |s| s.get("c").is_some_and(|i| !i.alive)).await;
    assert!(a.forget(Role::Ingester, "c").await);
    until(a.ring(Role::Ingester), "forgotten here", |s| s.get("c").is_none()).await;
    until(b.ring(Role::Ingester), "forgotten there", |s| s.get("c").is_none()).await;
}

#[tokio::test]
async fn clusters_with_another_label_stay_apart() {
    let net = MemoryNetwork::default();
    let a = node(&net, "a", 1, 1, 1).await;
    let options = GossipOptions {
        cluster_label: "other".to_owned(),
        join_members: vec!["127.0.0.1:1".parse().expect("a seed")],
        abort_if_join_fails: true,
        max_join_retries: 3,
        min_join_backoff: Duration::from_millis(50),
        gossip_interval: Duration::from_millis(50),
        ..GossipOptions::new("b", 1, address(2))
    };
    let stranger = Membership::start_on(options, clock, net.bind(address(2))).await;
    assert!(matches!(stranger, Err(MembershipError::Join { tries: 3, .. })));
    writable(&a, &["a"], "nobody else").await;
}

#[tokio::test]
async fn members_find_each_other_over_udp() {
    let config = |join_members| vivace_config::Memberlist {
        bind_addr: vec!["127.0.0.1".to_owned()],
        bind_port: 0,
        join_members,
        gossip_interval: Duration::from_millis(100),
        ..Default::default()
    };
    let options = |generation, join| GossipOptions::from_config(&config(join), "host", generation).expect("valid");
    let a = Membership::start(options(1, vec![]), clock).await.expect("starts");
    let addr = a.gossip_addr().expect("gossips");
    let b = Membership::start(options(2, vec![format!("dns+localhost:{}", addr.port())]), clock).await.expect("starts");
    for (id, member) in [("a", &a), ("b", &b)] {
        let registration = Registration { id: id.to_owned(), addr: addr.to_string(), zone: String::new() };
        member.register(Role::Ingester, registration, State::Active).await;
    }
    writable(&a, &["a", "b"], "a knows both").await;
    writable(&b, &["a", "b"], "b knows both").await;
    let taken = Membership::start(GossipOptions::new("c", 3, addr), clock).await;
    assert!(matches!(taken, Err(MembershipError::Bind { .. })));
}
