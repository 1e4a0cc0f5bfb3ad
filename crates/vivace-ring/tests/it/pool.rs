use vivace_ring::{ClientPool, Membership, PoolOptions, Registration, Role, State};

use crate::clock;

fn registration(addr: &str) -> Registration {
    Registration { id: "a".to_owned(), addr: addr.to_owned(), zone: String::new() }
}

#[tokio::test]
async fn channels_to_addresses_that_left_the_ring_are_dropped() {
    let membership = Membership::local(clock);
    membership.register(Role::Ingester, registration("127.0.0.1:1"), State::Active).await;
    let pool = ClientPool::new(membership.ring(Role::Ingester), PoolOptions::default());
    pool.channel("127.0.0.1:1").expect("an address");
    pool.channel("127.0.0.1:1").expect("an address");
    assert_eq!(pool.len(), 1);
    membership.register(Role::Ingester, registration("127.0.0.1:2"), State::Active).await;
    pool.channel("127.0.0.1:2").expect("an address");
    assert_eq!(pool.len(), 1);
    assert!(pool.channel("no address").is_err_and(|e| e.to_string().contains("no address")));
}
