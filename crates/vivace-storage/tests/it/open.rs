use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vivace_config::{Backend, LocalBackend, S3, TraceStorage};
use vivace_storage::Bucket;

async fn open_error(config: TraceStorage) -> String {
    Bucket::open(&config, &|_| None).await.expect_err("cannot be opened").to_string()
}

fn s3(endpoint: &str) -> TraceStorage {
    let s3 = S3 {
        endpoint: endpoint.to_owned(),
        bucket: "tempo".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".into(),
        insecure: true,
        retry_max_attempts: 1,
        ..Default::default()
    };
    TraceStorage { backend: Backend::S3, s3, ..Default::default() }
}

/// A server that gives one answer to everything.
async fn server(status: &str, body: &str) -> String {
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_named() {
    assert_eq!(open_error(TraceStorage::default()).await, "storage.trace.backend: is empty, expected local, s3, gcs or azure");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let local = LocalBackend { path: file.path().display().to_string() };
    let error = open_error(TraceStorage { backend: Backend::Local, local, ..Default::default() }).await;
    assert!(error.starts_with("storage.trace.local.path: ") && error.contains("is no folder"), "{error}");
    let mut config = s3("minio:9000");
    config.s3.bucket.clear();
    assert_eq!(open_error(config).await, "storage.trace.s3.bucket: is empty, expected the bucket's name");
    let error = open_error(TraceStorage { backend: Backend::Gcs, ..Default::default() }).await;
    assert_eq!(error, "storage.trace.gcs.bucket_name: is empty, expected the bucket's name");
}

#[tokio::test]
async fn an_unusable_bucket_is_named_with_the_servers_answer() {
    let denied =
        server("403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist in our records</Message></Error>")
            .await;
    let error = open_error(s3(&denied)).await;
    assert!(error.starts_with(&format!("could not list S3 bucket \"tempo\" at http://{denied}: ")), "{error}");
    assert!(error.contains("403 InvalidAccessKeyId: The key does not exist in our records"), "{error}");

    let missing = server("404 Not Found", "<Error><Code>NoSuchBucket</Code><Message>No bucket here!</Message></Error>").await;
    let error = open_error(s3(&missing)).await;
    assert!(error.contains("404 NoSuchBucket: No bucket here!"), "{error}");

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").to_string();
    let error = open_error(s3(&closed)).await;
    assert!(error.contains(&closed) && error.to_lowercase().contains("connection refused"), "{error}");
}
