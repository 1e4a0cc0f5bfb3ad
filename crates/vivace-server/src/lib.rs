//! What every Vivace process has: configuration loading, listeners, the tenant header, admin routes, telemetry, drain.
//!
//! A main function is a list of parts in the order data needs them:
//!
//! ```no_run
//! vivace_server::allocator!();
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let config = vivace_server::load(std::env::args_os());
//!     let mut process = vivace_server::Process::start(&config, "vivace-example", &[]).await?;
//!     process.add_http(axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" })));
//!     let stop = process.stop_token();
//!     process.spawn("ticker", async move {
//!         stop.cancelled().await;
//!         Ok(())
//!     });
//!     process.run().await
//! }
//! ```
//!
//! Building binds, so tests bind port 0 ([`Process::test`]) and read the address back. Until [`Process::run`] a process serves
//! its own pages only, for probes; other requests wait.
//! This is the only crate that reads the wall clock ([`clock`]), the environment and signals.

mod activity;
mod admin;
mod build;
pub mod clock;
mod connection;
mod cors;
mod descriptors;
mod encoding;
mod grpc_messages;
mod host;
mod incoming;
mod instrument;
mod listen;
mod load;
mod log;
mod memory;
mod memory_limit;
mod metrics;
mod one_protocol;
mod outgoing;
mod overrides;
mod path;
mod places;
mod process;
mod reads;
mod ready;
mod recorder;
mod request_budget;
mod room;
mod settings;
mod socket;
pub mod tenant;
mod tls;
mod verify;
pub mod warning;

pub use activity::Timeouts;
pub use build::VERSION;
pub use cors::cors;
pub use encoding::{Encoding, EncodingError};

pub use host::host_name;
pub use incoming::BodyError;
pub use listen::ConnectionOptions;
pub use load::{BROKEN_PIPE_CODE, environment, load, load_service, read_text};
pub use one_protocol::{grpc_only, http_only};
pub use overrides::Overrides;
pub use process::{GrpcLimits, Process, Shutdown};
pub use request_budget::{RequestBudget, RequestCharge, over_budget_status};
pub use room::{HeldUntilSent, lookup_bytes, room, room_for_lookup};
pub use tenant::Tenancy;
pub use tls::{Tls, certificates};
pub use verify::verify;

/// What every process counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

#[doc(hidden)]
pub use tikv_jemallocator::Jemalloc;
#[doc(hidden)]
pub use tonic::codec::CompressionEncoding;

/// Makes jemalloc the allocator of a binary. Its statistics are served at `/metrics`.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::Jemalloc = $crate::Jemalloc;
    };
}

/// Adds a generated tonic server to a process, with the configured message sizes, and gzip and zstd requests accepted.
///
/// `add_grpc!(process, ThingServer::new(thing))`
#[macro_export]
macro_rules! add_grpc {
    ($process:expr, $server:expr) => {{
        let limits = $process.grpc_limits();
        let server = $server
            .max_decoding_message_size(limits.max_receive_bytes)
            .max_encoding_message_size(limits.max_send_bytes)
            .accept_compressed($crate::CompressionEncoding::Gzip)
            .accept_compressed($crate::CompressionEncoding::Zstd);
        $process.add_grpc(server);
    }};
}
