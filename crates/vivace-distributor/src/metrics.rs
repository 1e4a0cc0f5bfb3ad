//! What is counted. Source: docs/facts/metrics.md, "Distributor".

use vivace_core::TenantId;

use crate::plan::Survey;

/// Which receiver took a request, as its series are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    OtlpGrpc,
    OtlpHttp,
}

impl Receiver {
    pub(crate) fn accepted(self, spans: u64) {
        let (receiver, transport) = self.labels();
        metrics::counter!("tempo_receiver_accepted_spans", "receiver" => receiver, "transport" => transport).increment(spans);
    }

    pub(crate) fn refused(self, spans: u64) {
        let (receiver, transport) = self.labels();
        metrics::counter!("tempo_receiver_refused_spans", "receiver" => receiver, "transport" => transport).increment(spans);
    }

    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::OtlpGrpc => ("otlp/otlp_receiver", "grpc"),
            Self::OtlpHttp => ("otlp/otlp_receiver", "http"),
        }
    }
}

/// A request of a known tenant has arrived.
pub(crate) fn ingress(tenant: &TenantId, bytes: u64) {
    metrics::counter!("tempo_distributor_ingress_bytes_total", "tenant" => tenant.to_string()).increment(bytes);
}

/// A request is within its tenant's limits and was taken apart.
pub(crate) fn surveyed(tenant: &TenantId, bytes: u64, survey: &Survey) {
    let tenant_label = tenant.to_string();
    let spans = u64::from(survey.spans) + u64::from(survey.rejected());
    metrics::counter!("tempo_distributor_bytes_received_total", "tenant" => tenant_label.clone()).increment(bytes);
    metrics::counter!("tempo_distributor_spans_received_total", "tenant" => tenant_label.clone()).increment(spans);
    metrics::histogram!("tempo_distributor_traces_per_batch").record(survey.traces as f64);
    if survey.truncated > 0 {
        metrics::counter!("tempo_distributor_attributes_truncated_total", "tenant" => tenant_label).increment(survey.truncated);
    }
    for (reason, spans) in [("invalid_trace_id", survey.bad_trace_ids), ("invalid_span_id", survey.bad_span_ids)] {
        if spans > 0 {
            discarded(tenant, reason, u64::from(spans));
        }
    }
}

/// Spans are dropped for good.
pub(crate) fn discarded(tenant: &TenantId, reason: &'static str, spans: u64) {
    metrics::counter!("tempo_discarded_spans_total", "reason" => reason, "tenant" => tenant.to_string()).increment(spans);
}
