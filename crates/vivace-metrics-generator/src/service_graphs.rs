//! The service-graphs processor: who calls whom, how often, how long it takes, and how often it fails.
//!
//! Source: docs/facts/components.md, "Service graphs".

use std::sync::Arc;

use crate::edges::{Connection, Edge, EdgeKey, Edges, Side};
use crate::filter::Filter;
use crate::histogram::{HistogramShape, Observation};
use crate::labels::{LabelSet, Made, changed_labels, cut, label_name};
use crate::options::ServiceGraphOptions;
use crate::registry::{Metric, Registry};
use crate::spans::{MeasuredResource, MeasuredSpan};

const OWN_LABELS: &[&str] = &["client", "server", "connection_type", "virtual_node"];

/// What names a database beside the attributes that say that it is one.
const DATABASE_KEYS: [&str; 4] = ["peer.service", "server.address", "network.peer.address", "network.peer.port"];

/// How much longer than it must an edge waits where nothing is known of its other side, if there is room.
const LATE_NANOS_MAX: u64 = 600_000_000_000;

/// OTLP's numbers of the kinds that have another side.
const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
const KIND_PRODUCER: u64 = 4;
const KIND_CONSUMER: u64 = 5;

/// What became of spans and edges since it was asked last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) edges: u64,
    pub(crate) expired_edges: u64,
    pub(crate) dropped_spans: u64,
}

/// Pairs the two sides of each call.
#[derive(Debug)]
pub(crate) struct ServiceGraphs {
    options: ServiceGraphOptions,
    filter: Filter,
    shape: Arc<HistogramShape>,
    /// One of each dimension, or with prefixes two: the client's and the server's.
    dimension_labels: Vec<String>,
    edges: Edges,
    /// Longer names and values are cut before they wait, not only when they become labels.
    value_bytes_max: usize,
    account: Account,
}

impl ServiceGraphs {
    /// Cuts values of labels to `value_bytes_max`.
    pub(crate) fn new(options: ServiceGraphOptions, value_bytes_max: usize) -> Self {
        Self {
            filter: Filter::new(&options.filter_policies),
            shape: Arc::new(options.shape.clone()),
            dimension_labels: dimension_labels(&options),
            options,
            edges: Edges::default(),
            value_bytes_max,
            account: Account::default(),
        }
    }

    /// Takes other options. What waits goes on waiting. Gives the labels that changed, as [`changed_labels`] does.
    pub(crate) fn change(&mut self, options: ServiceGraphOptions) -> Option<Vec<String>> {
        let changed = changed_labels(&made(&self.options), &made(&options));
        if changed.is_some() {
            self.edges.forget_dimensions();
        }
        if *self.shape != options.shape {
            self.shape = Arc::new(options.shape.clone());
        }
        self.dimension_labels = dimension_labels(&options);
        self.filter = Filter::new(&options.filter_policies);
        self.options = options;
        changed
    }

    pub(crate) fn options(&self) -> &ServiceGraphOptions {
        &self.options
    }

    /// The attributes of spans and resources that are asked for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let options = &self.options;
        let lists = options.dimensions.iter().chain(&options.peer_attributes).chain(&options.database_attributes);
        let multiplier = Some(&options.multiplier.key).filter(|key| !key.is_empty());
        lists.chain(multiplier).map(String::as_str).chain(self.filter.keys()).chain(DATABASE_KEYS)
    }

    /// What happened since the last call.
    pub(crate) fn take_account(&mut self) -> Account {
        std::mem::take(&mut self.account)
    }

    /// Looks at a span: its other side may wait already.
    pub(crate) fn observe(
        &mut self,
        registry: &mut Registry,
        labels: &mut LabelSet,
        resource: &MeasuredResource<'_>,
        span: &MeasuredSpan<'_>,
        now_unix_nanos: u64,
    ) {
        let side = match span.kind {
            KIND_CLIENT | KIND_PRODUCER => Side::Client,
            KIND_SERVER | KIND_CONSUMER => Side::Server,
            _ => return,
        };
        let Some(service) = resource.attributes.text("service.name") else { return };
        if !self.filter.passes(resource, span) {
            return;
        }
        // A root has no other side that could come.
        let key = match side {
            Side::Client => Some((span.trace, span.id)),
            Side::Server => span.parent.map(|parent| (span.trace, parent)),
        };
        let (mut edge, since) = key.and_then(|key| self.edges.take(&key)).unwrap_or_default();
        self.fill(&mut edge, side, &service, resource, span);
        let Some(key) = key else {
            // A service without spans has called, or somebody outside.
            let caller = if edge.peer.is_empty() { "user".to_owned() } else { std::mem::take(&mut edge.peer) };
            (edge.client, edge.connection) = (caller, Connection::Virtual);
            return self.emit(registry, labels, &edge, Some(Side::Client), (span.trace, span.id), now_unix_nanos);
        };
        if edge.is_complete() {
            self.emit(registry, labels, &edge, None, key, now_unix_nanos);
        } else if !self.edges.put(key, edge, since, now_unix_nanos, self.options.edges_max) {
            self.account.dropped_spans += 1;
        }
    }

    /// Ends the waiting of edges whose other side did not come.
    pub(crate) fn expire(&mut self, registry: &mut Registry, labels: &mut LabelSet, now_unix_nanos: u64) {
        let before = now_unix_nanos.saturating_sub(self.options.wait_nanos);
        while let Some((key, mut edge, since)) = self.edges.expired(before) {
            if edge.server.is_empty() && !edge.peer.is_empty() {
                (edge.server, edge.connection) = (std::mem::take(&mut edge.peer), Connection::Virtual);
                self.emit(registry, labels, &edge, Some(Side::Server), key, now_unix_nanos);
            } else {
                self.account.expired_edges += 1;
                self.edges.keep(key, edge, since);
            }
        }
        self.edges.forget_late(before.saturating_sub(LATE_NANOS_MAX));
    }

    /// What one side knows of a call.
    fn fill(&self, edge: &mut Edge, side: Side, service: &str, resource: &MeasuredResource<'_>, span: &MeasuredSpan<'_>) {
        let kept = |text: &str| cut(text, self.value_bytes_max).to_owned();
        edge.connection = match span.kind {
            KIND_PRODUCER | KIND_CONSUMER => Connection::Messaging,
            _ => Connection::Call,
        };
        edge.is_failed |= span.is_failed();
        edge.weight = span.weight(&self.options.multiplier, resource);
        if let Some(peer) = self.options.peer_attributes.iter().find_map(|key| span.attributes.text(key)) {
            edge.peer = kept(&peer);
        }
        let offset = match side {
            Side::Client => {
                edge.client = kept(service);
                edge.client_seconds = span.duration_seconds();
                edge.client_end_unix_nanos = span.end_unix_nanos;
                0
            }
            Side::Server => {
                edge.server = kept(service);
                edge.server_seconds = span.duration_seconds();
                edge.server_start_unix_nanos = span.start_unix_nanos;
                usize::from(self.options.prefixed)
            }
        };
        let sides = 1 + usize::from(self.options.prefixed);
        for (number, key) in self.options.dimensions.iter().enumerate() {
            if let Some(value) = span.dimension(key, resource) {
                edge.set_dimension(number * sides + offset, kept(&value.text()));
            }
        }
        // A database has no spans of its own: nobody has to be waited for.
        if side == Side::Client
            && let Some(database) = self.options.database_attributes.iter().find_map(|key| span.attributes.text(key))
        {
            edge.connection = Connection::Database;
            edge.server = kept(&database_name(span, &database));
            edge.server_seconds = edge.client_seconds;
        }
    }

    fn emit(
        &mut self,
        registry: &mut Registry,
        labels: &mut LabelSet,
        edge: &Edge,
        virtual_side: Option<Side>,
        (trace, _): EdgeKey,
        now_unix_nanos: u64,
    ) {
        self.account.edges += 1;
        labels.clear();
        labels.push("client", &edge.client);
        labels.push("server", &edge.server);
        let connection = match edge.connection {
            Connection::Call => "",
            Connection::Messaging => "messaging_system",
            Connection::Database => "database",
            Connection::Virtual => "virtual_node",
        };
        labels.push("connection_type", connection);
        if self.options.virtual_node_label {
            let side = match virtual_side {
                Some(Side::Client) => "client",
                Some(Side::Server) => "server",
                None => "",
            };
            labels.push("virtual_node", side);
        }
        for (number, value) in &edge.dimensions {
            if let Some(label) = self.dimension_labels.get(*number) {
                labels.push(label, value);
            }
        }
        let entity = registry.entity(labels, 1, now_unix_nanos);
        registry.add(entity, Metric::Requests, edge.weight);
        if edge.is_failed {
            registry.add(entity, Metric::FailedRequests, edge.weight);
        }
        let observation = |seconds: f64| Observation { seconds, weight: edge.weight, trace, unix_nanos: now_unix_nanos };
        registry.observe(entity, Metric::ServerSeconds, &self.shape, observation(edge.server_seconds));
        registry.observe(entity, Metric::ClientSeconds, &self.shape, observation(edge.client_seconds));
        if self.options.messaging_latency && edge.connection == Connection::Messaging {
            // Clocks of two machines may say that it came before it was sent.
            let nanos = edge.server_start_unix_nanos.saturating_sub(edge.client_end_unix_nanos);
            if nanos > 0 {
                registry.observe(entity, Metric::MessagingSeconds, &self.shape, observation(nanos as f64 / 1e9));
            }
        }
    }
}

/// The name of a database's node.
fn database_name(span: &MeasuredSpan<'_>, database: &str) -> String {
    if let Some(name) = span.attributes.text("peer.service").or_else(|| span.attributes.text("server.address")) {
        return name.into_owned();
    }
    match (span.attributes.text("network.peer.address"), span.attributes.get("network.peer.port")) {
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address.into_owned(),
        (None, _) => database.to_owned(),
    }
}

fn dimension_labels(options: &ServiceGraphOptions) -> Vec<String> {
    sides(options).map(|(label, ..)| label).collect()
}

/// What each label is made of, but for those that are always there.
fn made(options: &ServiceGraphOptions) -> Vec<Made> {
    let virtual_node = options.virtual_node_label.then(|| ("virtual_node".to_owned(), String::new()));
    virtual_node.into_iter().chain(sides(options).map(|(label, prefix, key)| (label, format!("{prefix} {key}")))).collect()
}

/// The label, the prefix and the attribute of each dimension.
fn sides(options: &ServiceGraphOptions) -> impl Iterator<Item = (String, &'static str, &String)> {
    let prefixes: &[&str] = if options.prefixed { &["client_", "server_"] } else { &[""] };
    let pairs = options.dimensions.iter().flat_map(move |key| prefixes.iter().map(move |prefix| (*prefix, key)));
    pairs.map(|(prefix, key)| (label_name(&format!("{prefix}{key}"), OWN_LABELS), prefix, key))
}

#[cfg(test)]
mod tests;
