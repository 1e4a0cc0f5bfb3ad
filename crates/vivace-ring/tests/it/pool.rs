use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::routing::post;
use http::Request;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tower::ServiceExt as _;
use vivace_ring::{ClientPool, Connection, Membership, OwnServices, PoolOptions, Registration, Role, State};

use crate::clock;

fn registration(addr: &str) -> Registration {
    Registration { id: "a".to_owned(), addr: addr.to_owned(), zone: String::new() }
}

#[tokio::test]
async fn channels_to_addresses_that_left_the_ring_are_dropped() {
    let membership = Membership::local(clock);
    membership.register(Role::Ingester, registration("127.0.0.1:1"), State::Active).await;
    let pool = ClientPool::new(membership.ring(Role::Ingester), PoolOptions::default());
    pool.connection("127.0.0.1:1").expect("an address");
    pool.connection("127.0.0.1:1").expect("an address");
    assert_eq!(pool.len(), 1);
    membership.register(Role::Ingester, registration("127.0.0.1:2"), State::Active).await;
    pool.connection("127.0.0.1:2").expect("an address");
    assert_eq!(pool.len(), 1);
    assert!(pool.connection("no address").is_err_and(|e| e.to_string().contains("no address")));
}

#[tokio::test]
async fn a_process_that_is_alone_calls_itself_without_a_connection() {
    let served: Arc<OnceLock<Router>> = Arc::default();
    let services = OwnServices::new({
        let served = served.clone();
        move || served.get().cloned()
    });
    let membership = Membership::alone(clock, services);
    membership.register(Role::Ingester, registration("127.0.0.1:1"), State::Active).await;
    let pool = ClientPool::new(membership.ring(Role::Ingester), PoolOptions::default());
    assert!(matches!(pool.connection("127.0.0.1:1"), Ok(Connection::Remote(_))), "nothing is served yet");
    let twice = |body: String| async move { format!("{body}{body}") };
    let routes = Router::new().route("/twice", post(twice)).route(
        "/panic",
        post(|| async {
            if served_badly() {
                panic!("on purpose")
            }
        }),
    );
    served.set(routes).expect("once");
    let call = async |path: &str| {
        let request = Request::post(path).body(Body::new("ab".to_owned())).expect("a request");
        pool.connection("127.0.0.1:1").expect("an address").oneshot(request).await
    };
    let answer = call("/twice").await.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(&answer[..], b"abab");
    assert_eq!(call("/panic").await.expect_err("panics").to_string(), "the call panicked");
}

fn served_badly() -> bool {
    true
}
