//! Sends spans to an OTLP receiver.

use std::time::Duration;

use anyhow::{Context, bail};
use prost::Message;
use reqwest::StatusCode;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use vivace_proto::otlp::TracesData;

use crate::client::{Client, Refusal, first_line, innermost};
use crate::tls::Tls;

const GRPC: &str = "grpc://";
const GRPC_TLS: &str = "grpcs://";
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// An OTLP receiver: over HTTP, or over gRPC where the address begins with `grpc://` or `grpcs://`.
pub(crate) enum Receiver {
    Http(Client),
    Grpc { address: String, channel: Channel, org_id: Option<MetadataValue<Ascii>> },
}

/// Why spans were not taken.
pub(crate) struct NotTaken {
    pub(crate) reason: String,
    /// Whether OTLP lets a client try again.
    pub(crate) again: bool,
}

impl NotTaken {
    fn for_now(reason: String) -> Self {
        Self { reason, again: true }
    }

    fn for_good(reason: String) -> Self {
        Self { reason, again: false }
    }
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`, its details left out.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Receiver {
    /// A request is given up after `timeout`.
    ///
    /// # Errors
    /// The address or the tenant cannot be used.
    pub(crate) fn new(address: &str, org_id: Option<String>, tls: &Tls, timeout: Duration) -> anyhow::Result<Self> {
        let (scheme, is_tls) = if address.starts_with(GRPC_TLS) { (GRPC_TLS, true) } else { (GRPC, false) };
        let Some(host) = address.strip_prefix(scheme) else {
            return Ok(Self::Http(Client::of_option("--write", address.trim_end_matches("/v1/traces"), org_id, tls, timeout)?));
        };
        let host = host.trim_end_matches('/');
        let address = format!("{scheme}{host}");
        let Ok(mut endpoint) = Endpoint::from_shared(format!("{}://{host}", if is_tls { "https" } else { "http" })) else {
            bail!("--write {address} is no address: expected grpc://host:port");
        };
        if is_tls {
            endpoint = endpoint.tls_config(tls.grpc()?).with_context(|| format!("--write {address}"))?;
        }
        let channel = endpoint.connect_timeout(timeout).timeout(timeout).connect_lazy();
        let org_id = org_id.map(|id| id.parse().with_context(|| format!("--org-id {id:?} is no tenant"))).transpose()?;
        Ok(Self::Grpc { address, channel, org_id })
    }

    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Http(client) => client.address(),
            Self::Grpc { address, .. } => address,
        }
    }

    /// Sends spans once.
    pub(crate) async fn send(&self, spans: &TracesData) -> Result<(), NotTaken> {
        let response = match self {
            Self::Http(client) => send_http(client, spans).await?,
            Self::Grpc { address, channel, org_id } => send_grpc(address, channel.clone(), org_id.clone(), spans).await?,
        };
        match response.partial_success {
            Some(partial) if partial.rejected_spans > 0 => {
                Err(NotTaken::for_good(format!("{} spans were rejected: {}", partial.rejected_spans, partial.error_message)))
            }
            _ => Ok(()),
        }
    }
}

async fn send_http(client: &Client, spans: &TracesData) -> Result<Response, NotTaken> {
    match client.post("/v1/traces", spans.encode_to_vec()).await {
        Ok(Ok(body)) => Response::decode(body).map_err(|_| NotTaken::for_good("the answer is not that of an OTLP receiver".to_owned())),
        Ok(Err(Refusal { status, text })) => {
            let again =
                [StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]
                    .contains(&status);
            Err(NotTaken { reason: format!("the answer was {status}: {}", readable(&text)), again })
        }
        Err(error) => Err(NotTaken::for_now(first_line(&error))),
    }
}

async fn send_grpc(
    address: &str,
    channel: Channel,
    org_id: Option<MetadataValue<Ascii>>,
    spans: &TracesData,
) -> Result<Response, NotTaken> {
    let mut grpc = Grpc::new(channel);
    if let Err(error) = grpc.ready().await {
        return Err(NotTaken::for_now(format!("cannot reach {address}: {}", innermost(&error))));
    }
    let mut request = Request::new(spans.clone());
    if let Some(org_id) = org_id {
        request.metadata_mut().insert("x-scope-orgid", org_id);
    }
    let codec = ProstCodec::<TracesData, Response>::default();
    match grpc.unary(request, PathAndQuery::from_static(EXPORT), codec).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(not_taken(address, &status)),
    }
}

fn not_taken(address: &str, status: &Status) -> NotTaken {
    if std::error::Error::source(status).is_some() {
        return NotTaken::for_now(format!("cannot reach {address}: {}", innermost(status)));
    }
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => false,
    };
    NotTaken { reason: format!("the answer was {:?}: {}", status.code(), status.message()), again }
}

/// The reason in a refusal: OTLP receivers send a `google.rpc.Status`, what stands before them a text.
fn readable(text: &str) -> String {
    match RpcStatus::decode(text.as_bytes()) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => text.chars().filter(|c| !c.is_control() && *c != char::REPLACEMENT_CHARACTER).collect(),
    }
}
