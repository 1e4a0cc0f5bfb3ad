use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::IntoResponse;

use crate::{cli, serve};

/// Notes what it is asked. The second claim is not there; a StatefulSet is gone at the second look after it was deleted.
async fn cluster(asked: Arc<Mutex<Vec<String>>>) -> String {
    let answer = move |request: Request<Body>| {
        let asked = Arc::clone(&asked);
        async move {
            assert_eq!(request.headers().get("authorization").expect("a token"), "Bearer secret");
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 16).await.expect("a body");
            let line = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
            let mut asked = asked.lock().expect("no panic");
            let before = asked.iter().filter(|other| **other == line).count();
            asked.push(line.clone());
            if line.contains("size-too-small") {
                let body = r#"{"kind":"Status","message":"field can not be less than status.capacity","code":422}"#;
                return (StatusCode::UNPROCESSABLE_ENTITY, body).into_response();
            }
            let is_missing = line.contains("data-a-1") || (parts.method == Method::GET && before > 0);
            (if is_missing { StatusCode::NOT_FOUND } else { StatusCode::OK }, "{}").into_response()
        }
    };
    serve(Router::new().fallback(answer)).await
}

fn credentials(folder: &Path) {
    std::fs::write(folder.join("token"), "secret\n").expect("written");
    // The server here speaks no TLS.
    std::fs::write(folder.join("ca.crt"), "").expect("written");
}

#[tokio::test]
async fn claims_are_enlarged_and_the_sets_deleted_without_their_pods() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let server = cluster(Arc::clone(&asked)).await;
    let folder = tempfile::tempdir().expect("a folder");
    credentials(folder.path());
    let path = folder.path().to_str().expect("a path");
    let place = ["kubernetes", "enlarge-claims", "--server", &server, "--credentials", path, "--namespace", "n", "--claim", "data"];

    let said = cli(&[place.as_slice(), &["--size", "20Gi", "--stateful-set", "a=2", "--stateful-set", "b=1"]].concat()).await;
    let want = "\
claim data-a-0 asks for 20Gi now
claim data-a-1 is not there; the StatefulSet will make it
StatefulSet a is deleted, its pods run on
claim data-b-0 asks for 20Gi now
StatefulSet b is deleted, its pods run on
";
    assert_eq!(said, Ok(want.to_owned()));
    let claim = |name| {
        format!(
            r#"PATCH /api/v1/namespaces/n/persistentvolumeclaims/{name} {{"spec":{{"resources":{{"requests":{{"storage":"20Gi"}}}}}}}}"#
        )
    };
    let set = |name, how: &str| format!("{how} ").replace("SET", &format!("/apis/apps/v1/namespaces/n/statefulsets/{name}"));
    let of_set = |name| [set(name, "DELETE SET?propagationPolicy=Orphan"), set(name, "GET SET"), set(name, "GET SET")];
    let expected =
        [vec![claim("data-a-0"), claim("data-a-1")], of_set("a").to_vec(), vec![claim("data-b-0")], of_set("b").to_vec()].concat();
    assert_eq!(*asked.lock().expect("no panic"), expected);

    let error = cli(&[place.as_slice(), &["--size", "size-too-small", "--stateful-set", "a=1"]].concat()).await.expect_err("it is refused");
    assert!(
        error.starts_with("cannot enlarge the claim data-a-0 to size-too-small; volumes only grow")
            && error.contains("field can not be less than status.capacity"),
        "{error}"
    );
    let error = cli(&[place.as_slice(), &["--size", "1Gi", "--stateful-set", "a"]].concat()).await.expect_err("no number");
    assert!(error.contains("expected a name and a number"), "{error}");
}
