//! A membership without gossip.

use tokio::task::JoinSet;
use vivace_ring::{Membership, Registration, Role, State};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn services_that_register_at_once_are_all_seen() {
    for round in 0..300 {
        let membership = Membership::local(|| 1_700_000_000_000_000_000);
        let mut registering = JoinSet::new();
        for role in Role::ALL {
            let membership = membership.clone();
            registering.spawn(async move {
                let registration = Registration { id: "one".to_owned(), addr: "127.0.0.1:9095".to_owned(), zone: String::new() };
                membership.register(role, registration, State::Joining).await;
                membership.set_state(role, State::Active).await;
            });
        }
        registering.join_all().await;
        for role in Role::ALL {
            let active = membership.ring(role).snapshot().instances().iter().filter(|i| i.state == State::Active).count();
            assert_eq!(active, 1, "{role} in round {round}");
        }
    }
}
