use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use vivace_config::{Azure, Backend, Gcs, LocalBackend, S3, TraceStorage};
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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
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

    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").to_string();
    let error = open_error(s3(&closed)).await;
    assert!(error.contains(&closed) && error.to_lowercase().contains("connection refused"), "{error}");
}

/// Every kind of client, over HTTP and TLS, for a server at this address.
fn clients(address: &str) -> Vec<(String, TraceStorage)> {
    let mut clients = Vec::new();
    for insecure in [true, false] {
        for tls_insecure_skip_verify in [true, false] {
            let mut config = s3(address);
            (config.s3.insecure, config.s3.tls_insecure_skip_verify) = (insecure, tls_insecure_skip_verify);
            clients.push((format!("S3, insecure {insecure}, tls_insecure_skip_verify {tls_insecure_skip_verify}"), config));
        }
        let scheme = if insecure { "http" } else { "https" };
        let endpoint = format!("{scheme}://{address}");
        let gcs = Gcs { bucket_name: "tempo".to_owned(), endpoint: endpoint.clone(), insecure: true, max_retries: 1, ..Default::default() };
        clients.push((format!("GCS over {scheme}"), TraceStorage { backend: Backend::Gcs, gcs, ..Default::default() }));
        let azure = Azure {
            storage_account_name: "account".to_owned(),
            storage_account_key: "a2V5".into(),
            container_name: "tempo".to_owned(),
            endpoint_suffix: endpoint,
            ..Default::default()
        };
        clients.push((format!("Azure over {scheme}"), TraceStorage { backend: Backend::Azure, azure, ..Default::default() }));
    }
    clients
}

/// No client waits without an end for this address. Time is paused: it passes while all wait.
async fn all_give_up(address: &str) {
    for (client, config) in clients(address) {
        let opened = tokio::time::timeout(Duration::from_secs(3600), Bucket::open(&config, &|_| None)).await;
        let error = opened.unwrap_or_else(|_| panic!("still waiting after an hour: {client}")).expect_err("nothing answers").to_string();
        assert!(error.contains(address), "{client}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_connections_and_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut silent = tokio::task::JoinSet::new();
    silent.spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    all_give_up(&address).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_answer_is_given_up() {
    // With its queue full the system drops what asks for a connection, as a host that is gone does.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("bound");
    let _queued = futures::future::join_all((0..2).map(|_| TcpStream::connect(address))).await;
    all_give_up(&address.to_string()).await;
}

/// A server that lists its bucket and answers everything else with `status`; the requests that it was sent are told too.
async fn listing_server(status: &'static str, body: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 16 << 10];
            let len = connection.read(&mut request).await.unwrap_or_default();
            let line = String::from_utf8_lossy(&request[..len]).lines().next().unwrap_or_default().to_owned();
            let (status, body) = match line.split(' ').next() {
                Some("GET") => ("200 OK", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
                _ => (status, body),
            };
            seen.lock().expect("not poisoned").push(line);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\netag: \"e\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_bucket_that_refuses_writes_is_named() {
    let (address, _) = listing_server("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>Not you.</Message></Error>").await;
    let bucket = Bucket::open(&s3(&address), &|_| None).await.expect("it can be read");
    let error = bucket.check_writable().await.expect_err("it cannot be written").to_string();
    assert!(error.starts_with(&format!("cannot write to S3 bucket \"tempo\" at http://{address}: ")), "{error}");
    assert!(error.contains("403 AccessDenied: Not you.") && error.contains("queriers") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_writes_just_now_holds_up_nobody() {
    let (address, _) = listing_server("503 Service Unavailable", "<Error><Code>SlowDown</Code><Message>Later.</Message></Error>").await;
    let bucket = Bucket::open(&s3(&address), &|_| None).await.expect("it can be read");
    bucket.check_writable().await.expect("it may work later");
}

#[tokio::test]
async fn whether_a_bucket_can_be_written_is_found_out_without_an_object() {
    let (address, requests) = listing_server(
        "200 OK",
        "<InitiateMultipartUploadResult><Bucket>tempo</Bucket><Key>k</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
    )
    .await;
    let bucket = Bucket::open(&s3(&address), &|_| None).await.expect("it can be read");
    bucket.check_writable().await.expect("it can be written");
    let requests: Vec<String> = requests.lock().expect("not poisoned").iter().filter(|line| !line.starts_with("GET")).cloned().collect();
    let [begun, part, aborted] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(begun.starts_with("POST /tempo/vivace-write-probe?uploads"), "{begun}");
    assert!(part.starts_with("PUT /tempo/vivace-write-probe?") && part.contains("uploadId=u1"), "{part}");
    assert!(aborted.starts_with("DELETE /tempo/vivace-write-probe?") && aborted.contains("uploadId=u1"), "{aborted}");

    let folder = tempfile::tempdir().expect("a folder");
    let local = LocalBackend { path: folder.path().display().to_string() };
    let bucket = Bucket::open(&TraceStorage { backend: Backend::Local, local, ..Default::default() }, &|_| None).await.expect("opens");
    bucket.check_writable().await.expect("it can be written");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    // As after a read-only mount, which no test can make.
    std::fs::remove_dir(folder.path()).expect("removed");
    std::fs::write(folder.path(), "x").expect("written");
    let error = bucket.check_writable().await.expect_err("it cannot be written").to_string();
    assert!(error.starts_with(&format!("cannot write to folder {}: ", folder.path().display())), "{error}");
    std::fs::remove_file(folder.path()).expect("removed");
}
