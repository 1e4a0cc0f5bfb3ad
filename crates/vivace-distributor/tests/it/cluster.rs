//! A distributor in this process with ingesters and generators that do as they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use vivace_config::{Config, GrpcReceiver, OtlpHttpReceiver, OtlpProtocols, OtlpReceiver};
use vivace_proto::otlp::TracesData;
use vivace_proto::tempopb::metrics_generator_server::{MetricsGenerator, MetricsGeneratorServer};
use vivace_proto::tempopb::{PushSpansRequest, PushSpansResponse};
use vivace_proto::vivace::v1::push_request::Compression;
use vivace_proto::vivace::v1::segment_log_server::{SegmentLog, SegmentLogServer};
use vivace_proto::vivace::v1::{CoveredRequest, CoveredResponse, PushRequest, PushResponse, RefusedTrace, ReleaseRequest, ReleaseResponse};
use vivace_ring::{GossipOptions, Membership, MemoryNetwork, Registration, Role, State};
use vivace_server::{Overrides, Process, Shutdown, clock};

/// What an instance does with what it is sent.
#[derive(Debug, Clone, Default)]
pub(crate) enum Behaviour {
    #[default]
    Store,
    Fail(Status),
    Hang,
    Refuse(Vec<RefusedTrace>),
}

/// One ingester and metrics-generator.
#[derive(Clone, Default)]
pub(crate) struct Instance {
    pub(crate) id: String,
    behaviour: Arc<Mutex<Behaviour>>,
    segments: Arc<Mutex<Vec<PushRequest>>>,
    copies: Arc<Mutex<Vec<PushSpansRequest>>>,
}

impl Instance {
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn segments(&self) -> Vec<PushRequest> {
        self.segments.lock().unwrap().clone()
    }

    pub(crate) fn copies(&self) -> Vec<PushSpansRequest> {
        self.copies.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl SegmentLog for Instance {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let behaviour = self.behaviour.lock().unwrap().clone();
        match behaviour {
            Behaviour::Fail(status) => return Err(status),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Store | Behaviour::Refuse(_) => {}
        }
        let request = request.into_inner();
        let refused = match behaviour {
            Behaviour::Refuse(refused) if request.primary == self.id => refused,
            _ => Vec::new(),
        };
        self.segments.lock().unwrap().push(request);
        Ok(Response::new(PushResponse { refused }))
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Err(Status::unimplemented("not of interest here"))
    }

    async fn covered(&self, _: Request<CoveredRequest>) -> Result<Response<CoveredResponse>, Status> {
        Err(Status::unimplemented("not of interest here"))
    }
}

#[tonic::async_trait]
impl MetricsGenerator for Instance {
    async fn push_spans(&self, request: Request<PushSpansRequest>) -> Result<Response<PushSpansResponse>, Status> {
        assert!(request.metadata().contains_key("x-scope-orgid"));
        self.copies.lock().unwrap().push(request.into_inner());
        Ok(Response::new(PushSpansResponse {}))
    }
}

pub(crate) struct Cluster {
    pub(crate) instances: Vec<Instance>,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) listening: vivace_distributor::Listening,
    /// Where pages and metrics are.
    pub(crate) pages: SocketAddr,
    shutdown: Shutdown,
    _members: Vec<Membership>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Cluster {
    /// A distributor before `instances` ingesters with this replication factor.
    pub(crate) fn start(
        instances: usize,
        replication_factor: usize,
        change: impl FnOnce(&mut Config) + Send + 'static,
    ) -> BoxFuture<'static, Self> {
        Box::pin(Self::start_unboxed(instances, replication_factor, change))
    }

    async fn start_unboxed(instances: usize, replication_factor: usize, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.ingester.lifecycler.ring.replication_factor = replication_factor;
        config.ingester_client.remote_timeout = Duration::from_millis(500);
        config.distributor.receivers.otlp = vec![OtlpReceiver {
            id: "otlp".to_owned(),
            protocols: OtlpProtocols {
                grpc: Some(GrpcReceiver { endpoint: "127.0.0.1:0".to_owned(), ..Default::default() }),
                http: Some(OtlpHttpReceiver { endpoint: "127.0.0.1:0".to_owned(), ..Default::default() }),
            },
        }];
        change(&mut config);
        let (net, mut tasks) = (MemoryNetwork::default(), JoinSet::new());
        let (mut members, mut all) = (Vec::new(), Vec::new());
        for number in 0..instances {
            let instance = Instance { id: format!("ingester-{number}"), ..Default::default() };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            let server = tonic::transport::Server::builder()
                .add_service(SegmentLogServer::new(instance.clone()))
                .add_service(MetricsGeneratorServer::new(instance.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tasks.spawn(async move { Ok(server.await?) });
            let member = member(&net, &instance.id, number as u16 + 2).await;
            for role in [Role::Ingester, Role::MetricsGenerator] {
                let registration = Registration { id: instance.id.clone(), addr: addr.clone(), zone: String::new() };
                member.register(role, registration, State::Active).await;
            }
            members.push(member);
            all.push(instance);
        }
        let membership = member(&net, "distributor-0", 1).await;
        let mut seen = membership.ring(Role::MetricsGenerator).watch();
        let joined = seen.wait_for(|snapshot| snapshot.writable().count() == instances);
        tokio::time::timeout(Duration::from_secs(20), joined).await.expect("all join").expect("the ring lives");

        let mut process = Process::test_with(&config, "vivace-distributor").await.expect("starts");
        let overrides = Overrides::fixed(config.overrides.defaults.clone());
        let listening = vivace_distributor::start(&config, &membership, overrides, &mut process).await.expect("starts");
        members.push(membership);
        let (shutdown, pages) = (process.shutdown(), process.http_addr());
        tasks.spawn(process.run());
        Self {
            instances: all,
            grpc: listening.otlp_grpc[0],
            http: listening.otlp_http[0],
            listening,
            pages,
            shutdown,
            _members: members,
            tasks,
        }
    }

    /// What the ingesters hold: of each, the segments it is primary of, and those that it follows, as primary and spans.
    pub(crate) fn held(&self) -> Held {
        let mut held = Held::default();
        for instance in &self.instances {
            for segment in instance.segments() {
                let spans = span_ids(&payload(&segment));
                let map = if segment.primary == instance.id { &mut held.by_primary } else { &mut held.by_follower };
                map.entry(instance.id.clone()).or_default().extend(spans);
            }
        }
        held
    }

    /// Tells the distributor to stop.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.begin();
    }

    /// Stops the distributor and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.begin();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.tasks.join_next()).await.expect("ends in time");
        ended.expect("a task").expect("no panic").expect("no error");
    }
}

/// Span ids by instance.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) by_primary: BTreeMap<String, Vec<u8>>,
    pub(crate) by_follower: BTreeMap<String, Vec<u8>>,
}

impl Held {
    /// All span ids that primaries have, sorted.
    pub(crate) fn primaries(&self) -> Vec<u8> {
        let mut ids: Vec<u8> = self.by_primary.values().flatten().copied().collect();
        ids.sort_unstable();
        ids
    }
}

async fn member(net: &MemoryNetwork, name: &str, port: u16) -> Membership {
    let options = GossipOptions {
        join_members: vec!["127.0.0.1:2".parse().unwrap()],
        gossip_interval: Duration::from_millis(200),
        min_join_backoff: Duration::from_millis(50),
        ..GossipOptions::new(name, 1, ([127, 0, 0, 1], port).into())
    };
    Membership::start_on(options, clock::unix_nanos, net.bind(([127, 0, 0, 1], port).into())).await.expect("gossips")
}

/// A segment's spans as protobuf.
pub(crate) fn payload(segment: &PushRequest) -> Bytes {
    match segment.compression() {
        Compression::None => segment.payload.clone(),
        Compression::Lz4 => lz4_flex::block::decompress(&segment.payload, segment.uncompressed_bytes as usize).expect("valid lz4").into(),
    }
}

/// The first byte of each span id.
pub(crate) fn span_ids(payload: &[u8]) -> Vec<u8> {
    let traces: TracesData = prost::Message::decode(payload).expect("valid spans");
    traces.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).map(|s| s.span_id[0]).collect()
}

/// Waits for a condition, and says what it was waiting for if it never comes.
pub(crate) async fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
