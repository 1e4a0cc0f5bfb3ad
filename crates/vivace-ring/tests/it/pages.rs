use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use vivace_ring::{Membership, Registration, Role, State, router};

use crate::clock;

async fn get(membership: &Membership, path: &str, accept: &str) -> anyhow::Result<String> {
    let request = Request::get(path).header("accept", accept).body(Body::empty())?;
    let response = router(membership, &[Role::Ingester]).oneshot(request).await?;
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
}

#[tokio::test]
async fn the_ring_page_shows_every_member() -> anyhow::Result<()> {
    let membership = Membership::local(clock);
    let registration = Registration { id: "ingester-0<".to_owned(), addr: "10.0.0.1:9095".to_owned(), zone: "a".to_owned() };
    membership.register(Role::Ingester, registration, State::Active).await;
    let page: serde_json::Value = serde_json::from_str(&get(&membership, "/ingester/ring", "application/json").await?)?;
    assert_eq!(page["now"], "2023-11-14T22:13:20Z");
    let shard = &page["shards"][0];
    assert_eq!((&shard["id"], &shard["state"], &shard["zone"]), (&"ingester-0<".into(), &"ACTIVE".into(), &"a".into()));
    assert_eq!(shard["tokens"].as_array().map(Vec::len), Some(128));

    let html = get(&membership, "/ingester/ring", "text/html").await?;
    assert!(html.contains("<td>ingester-0&lt;</td>"), "{html}");
    assert!(get(&membership, "/memberlist", "*/*").await?.contains("does not gossip"));
    Ok(())
}

#[tokio::test]
async fn only_dead_members_can_be_forgotten() -> anyhow::Result<()> {
    let membership = Membership::local(clock);
    let request = Request::post("/ingester/ring")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("forget=ingester-0"))?;
    let response = router(&membership, &[Role::Ingester]).oneshot(request).await?;
    assert_eq!(response.status(), 404);
    Ok(())
}
