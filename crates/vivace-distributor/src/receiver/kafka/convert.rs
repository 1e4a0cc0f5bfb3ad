//! What a message holds, as OTLP.

use bytes::Bytes;
use krafka::Headers;
use vivace_config::KafkaEncoding;
use vivace_core::wire::Reader;
use vivace_server::{RequestBudget, RequestCharge};

use super::headers::with_attributes;
use crate::error::PushError;
use crate::receiver::body::{Conversion, worked_on};
use crate::receiver::tags::Dialect;
use crate::receiver::{jaeger, json, zipkin};

/// How messages are read.
#[derive(Debug, Clone)]
pub(super) struct Converter {
    pub(super) encoding: KafkaEncoding,
    /// Headers that become attributes.
    pub(super) headers: Vec<String>,
    pub(super) requests: RequestBudget,
}

impl Converter {
    /// A message as OTLP, and what is charged for it. It is a copy: the message itself holds all that came with it.
    ///
    /// # Errors
    /// It is not what it should be, or there is no memory for it.
    pub(super) async fn convert(&self, message: &Bytes, headers: &Headers) -> Result<(Bytes, RequestCharge), PushError> {
        let (this, message, headers) = (self.clone(), message.clone(), headers.clone());
        worked_on(message.len(), move || this.otlp(&message, &headers)).await
    }

    fn otlp(&self, message: &[u8], headers: &Headers) -> Result<(Bytes, RequestCharge), PushError> {
        let mut charge = self.requests.open();
        let (body, charge): (Bytes, _) = match self.encoding {
            KafkaEncoding::OtlpProto => {
                check_whole(message)?;
                charge.grow(message.len() as u64)?;
                (Bytes::copy_from_slice(message), charge)
            }
            KafkaEncoding::OtlpJson => (json::to_protobuf(message, &mut charge)?.into(), charge),
            KafkaEncoding::JaegerProto => Conversion { dialect: Dialect::Jaeger, read: jaeger::span }.of(message, &charge)?,
            KafkaEncoding::JaegerJson => Conversion { dialect: Dialect::Jaeger, read: jaeger::json_span }.of(message, &charge)?,
            KafkaEncoding::ZipkinProto => Conversion { dialect: ZIPKIN, read: zipkin::spans_proto }.of(message, &charge)?,
            KafkaEncoding::ZipkinJson => Conversion { dialect: ZIPKIN, read: zipkin::spans_v2 }.of(message, &charge)?,
            KafkaEncoding::ZipkinThrift => Conversion { dialect: ZIPKIN, read: zipkin::spans_thrift }.of(message, &charge)?,
        };
        let attributes: Vec<(&str, &[u8])> = self.headers.iter().filter_map(|name| Some((name.as_str(), value(headers, name)?))).collect();
        if attributes.is_empty() {
            return Ok((body, charge));
        }
        let (body, charge) = with_attributes(&body, &attributes, &charge)?;
        Ok((body.into(), charge))
    }
}

/// Whether a request ends where it should: what follows it in a larger one must not be taken for a part of it.
fn check_whole(request: &[u8]) -> Result<(), PushError> {
    let mut fields = Reader::new(request);
    loop {
        match fields.next_field() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(PushError::Malformed(format!("the message is no OTLP: {error}"))),
        }
    }
}

/// Texts of tags stay texts.
const ZIPKIN: Dialect = Dialect::Zipkin { parse_string_tags: false };

/// The value of a header, of the first of this name that has one.
fn value<'h>(headers: &'h Headers, name: &str) -> Option<&'h [u8]> {
    headers.iter().find_map(|(key, value)| (key == name).then_some(value.as_deref()?))
}
