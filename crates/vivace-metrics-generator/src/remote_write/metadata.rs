//! What metrics are: their types and what they say, sent now and then beside the series.

use vivace_proto::prometheus::MetricMetadata;
use vivace_proto::prometheus::metric_metadata::MetricType;

use crate::registry::Metric;

/// What a metric of this name is.
pub(crate) fn metadata(metric: Metric, name: &str) -> MetricMetadata {
    let (kind, help) = match metric {
        Metric::Calls => (MetricType::Counter, "Spans"),
        Metric::Latency => (MetricType::Histogram, "Durations of spans in seconds"),
        Metric::Size => (MetricType::Counter, "Bytes of spans"),
        Metric::TargetInfo => (MetricType::Gauge, "Attributes of what sent spans"),
        Metric::HostInfo => (MetricType::Gauge, "Hosts that sent spans"),
        Metric::Requests => (MetricType::Counter, "Requests from one service to another"),
        Metric::FailedRequests => (MetricType::Counter, "Requests from one service to another that failed"),
        Metric::ServerSeconds => (MetricType::Histogram, "Durations of requests in seconds, as the server saw them"),
        Metric::ClientSeconds => (MetricType::Histogram, "Durations of requests in seconds, as the client saw them"),
        Metric::MessagingSeconds => (MetricType::Histogram, "Seconds between a message's end of sending and begin of receiving"),
    };
    MetricMetadata { r#type: kind.into(), metric_family_name: name.to_owned(), help: help.to_owned(), unit: String::new() }
}
