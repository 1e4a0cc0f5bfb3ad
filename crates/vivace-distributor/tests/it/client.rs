//! Clients of both receivers.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Status};
use vivace_proto::otlp::{AnyValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, TracesData, any_value};

use crate::cluster::Cluster;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(crate) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(crate) error_message: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Cluster {
    /// Exports over gRPC with this metadata.
    pub(crate) async fn export(&self, traces: &TracesData, metadata: &[(&'static str, &str)]) -> Result<ExportResponse, Status> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.expect("listens");
        let mut grpc = tonic::client::Grpc::new(channel).send_compressed(CompressionEncoding::Zstd);
        grpc.ready().await.expect("connected");
        let mut request = Request::new(traces.clone());
        for (key, value) in metadata {
            request.metadata_mut().insert(*key, value.parse().unwrap());
        }
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<TracesData, ExportResponse>::default();
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }

    /// Any HTTP request to the OTLP receiver.
    pub(crate) async fn http(&self, method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.http_at(self.http, method, headers, body).await
    }

    /// The same at another port.
    pub(crate) async fn http_at(&self, at: SocketAddr, method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.request(method, &format!("http://{at}/v1/traces"), headers, body).await
    }

    /// A page of the process.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        self.request("GET", &format!("http://{}{path}", self.pages), &[], "").await
    }

    /// Any HTTP request.
    pub(crate) async fn request(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.body(Full::new(body.into())).unwrap()).await.expect("an answer");
        let (head, body) = response.into_parts();
        Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.expect("a body").to_bytes() }
    }

    pub(crate) async fn post(&self, content_type: &str, body: impl Into<Bytes>) -> Answer {
        self.http("POST", &[("content-type", content_type)], body).await
    }
}

/// One span per given (trace, span), ids made of the numbers repeated, in one scope.
pub(crate) fn traces(spans: &[(u8, u8)]) -> TracesData {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
    };
    let span = |(trace, id): &(u8, u8)| Span {
        trace_id: vec![*trace; 16].into(),
        span_id: vec![*id; 8].into(),
        name: format!("span {id}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_500_000_000,
        attributes: vec![attribute("http.route", "/checkout/confirm"), attribute("http.method", "POST")],
        ..Default::default()
    };
    TracesData {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: vec![attribute("service.name", "shop")], ..Default::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "lib".to_owned(), ..Default::default() }),
                spans: spans.iter().map(span).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}
