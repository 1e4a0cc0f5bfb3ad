//! The client of a receiver, as its configuration asks for it.

use std::time::Duration;

use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerBuilder, ConsumerRebalanceListener, PartitionAssignmentStrategy};
use krafka::{Kafka, KafkaBuilder, KrafkaError};
use vivace_config::{KafkaConsumer, KafkaMechanism, KafkaOffset, KafkaStrategy, KafkaTls};

/// Where `max_fetch_size` is 0: most bytes of a broker's answer.
const FETCH_BYTES_MAX: u32 = 16 << 20;
/// Largest answer that is read at all. A single batch may be larger than what an answer should be.
const ANSWER_BYTES_MAX: usize = 100 << 20;
/// Largest batch once it is no longer compressed.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Most messages that are taken at once.
const MESSAGES_MAX: i32 = 500;
/// How long a request may take, and a connection to be made.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the cluster.
///
/// # Errors
/// No broker answers, or not as one; a file of TLS cannot be read or is none, which is [`KrafkaError::Config`].
pub(super) async fn connect(config: &KafkaConsumer) -> Result<Kafka, KrafkaError> {
    let builder = Kafka::builder(config.brokers.join(","))
        .client_id(&config.client_id)
        .request_timeout(REQUEST_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .metadata_max_age(config.metadata.refresh_interval)
        .connections_max_idle((!config.conn_idle_timeout.is_zero()).then_some(config.conn_idle_timeout))
        .max_response_size(ANSWER_BYTES_MAX);
    secured(builder, config).connect().await
}

/// A member of the group, which has not joined it yet.
///
/// # Errors
/// What is asked for does not go together.
pub(super) async fn consumer(
    kafka: &Kafka,
    config: &KafkaConsumer,
    listener: impl ConsumerRebalanceListener + 'static,
) -> Result<Consumer, KrafkaError> {
    let bytes = |bytes: u32| i32::try_from(bytes).unwrap_or(i32::MAX);
    let fetch_bytes_max = vivace_config::set_or(config.max_fetch_size, FETCH_BYTES_MAX).max(config.min_fetch_size);
    let mut builder = kafka
        .consumer(&config.group_id)
        .auto_offset_reset(match config.initial_offset {
            KafkaOffset::Latest => AutoOffsetReset::Latest,
            KafkaOffset::Earliest => AutoOffsetReset::Earliest,
        })
        // Committed is what was stored, not what was fetched.
        .enable_auto_commit(false)
        .session_timeout(config.session_timeout)
        .heartbeat_interval(config.heartbeat_interval)
        .fetch_min_bytes(bytes(config.min_fetch_size))
        .fetch_max_bytes(bytes(fetch_bytes_max))
        .max_partition_fetch_bytes(bytes(config.default_fetch_size.min(fetch_bytes_max)))
        .fetch_max_wait(config.max_fetch_wait)
        .max_poll_records(MESSAGES_MAX)
        .max_decompressed_size(BATCH_BYTES_MAX)
        .metrics_push(false)
        .rebalance_listener(listener);
    if !config.group_instance_id.is_empty() {
        builder = builder.group_instance_id(&config.group_instance_id);
    }
    if !config.rack_id.is_empty() {
        builder = builder.client_rack(&config.rack_id);
    }
    shared_by(builder, config.group_rebalance_strategy).build().await
}

fn shared_by(builder: ConsumerBuilder, strategy: KafkaStrategy) -> ConsumerBuilder {
    let strategy = match strategy {
        KafkaStrategy::Any => return builder,
        KafkaStrategy::Range => PartitionAssignmentStrategy::Range,
        KafkaStrategy::RoundRobin => PartitionAssignmentStrategy::RoundRobin,
        KafkaStrategy::CooperativeSticky => PartitionAssignmentStrategy::CooperativeSticky,
    };
    builder.partition_assignment_strategy(strategy)
}

/// With TLS and a password, where they are asked for.
fn secured(builder: KafkaBuilder, config: &KafkaConsumer) -> KafkaBuilder {
    let tls = config.tls().map(|(_, tls)| tls);
    let builder = match tls {
        Some(tls) if !tls.reload_interval.is_zero() => builder.tls_reload_interval(Some(tls.reload_interval)),
        _ => builder,
    };
    let user = match (&config.auth.sasl, &config.auth.plain_text) {
        (Some(sasl), _) => Some((sasl.mechanism, &sasl.username, sasl.password.expose())),
        (None, Some(plain)) => Some((KafkaMechanism::Plain, &plain.username, plain.password.expose())),
        (None, None) => None,
    };
    let auth = match (user, tls) {
        (None, None) => return builder,
        (None, Some(tls)) => AuthConfig::ssl(client_tls(tls)),
        (Some((mechanism, name, password)), tls) => {
            let auth = match mechanism {
                KafkaMechanism::Plain => AuthConfig::sasl_plain(name, password),
                KafkaMechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(name, password),
                KafkaMechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(name, password),
            };
            match tls {
                Some(tls) => auth.with_tls(client_tls(tls)),
                None => auth,
            }
        }
    };
    builder.security(auth)
}

fn client_tls(config: &KafkaTls) -> TlsConfig {
    let mut tls = if config.insecure_skip_verify { TlsConfig::insecure() } else { TlsConfig::new() };
    if !config.ca_file.is_empty() {
        tls = tls.with_ca_cert(&config.ca_file);
    } else if !config.ca_pem.is_empty() {
        tls = tls.with_ca_cert_pem(config.ca_pem.as_bytes());
    }
    if config.include_system_ca_certs_pool {
        tls = tls.with_native_roots();
    }
    if !config.cert_file.is_empty() {
        tls = tls.with_client_cert(&config.cert_file, &config.key_file);
    } else if !config.cert_pem.is_empty() {
        tls = tls.with_client_cert_pem(config.cert_pem.as_bytes(), config.key_pem.expose().as_bytes().to_vec());
    }
    if !config.server_name_override.is_empty() {
        tls = tls.with_sni_hostname(&config.server_name_override);
    }
    tls
}
