//! Headers of a message as attributes of the resources in it.

use vivace_core::wire::{Reader, Value as Wire};
use vivace_server::RequestCharge;

use crate::error::PushError;
use crate::receiver::output::{FIXED32, FIXED64, Output, Value};

/// Field numbers. Source: OpenTelemetry protocol, `trace.proto`.
const RESOURCE_SPANS: u32 = 1;
const RESOURCE: u32 = 1;
const ATTRIBUTES: u32 = 1;

/// A request with these attributes in each resource of it, and what is charged for it.
///
/// # Errors
/// It is no request, or there is no memory for it.
pub(crate) fn with_attributes(
    request: &[u8],
    attributes: &[(&str, &[u8])],
    charge: &RequestCharge,
) -> Result<(Vec<u8>, RequestCharge), PushError> {
    // A resource while it is put together.
    let mut aside = charge.another();
    aside.grow(request.len() as u64)?;
    let mut of_attributes = Vec::new();
    for (name, value) in attributes {
        let mut all = Output::new(charge.another());
        all.attribute(ATTRIBUTES, format!("kafka.header.{name}").as_bytes(), Value::Text(value))?;
        of_attributes.extend_from_slice(all.bytes());
    }
    let mut out = Output::new(charge.another());
    let mut fields = Reader::new(request);
    while let Some((number, value)) = fields.next_field().map_err(broken)? {
        // What else there may be says nothing of spans.
        let (RESOURCE_SPANS, Wire::Bytes(group)) = (number, value) else { continue };
        let start = out.begin(RESOURCE_SPANS)?;
        write_group(group, &of_attributes, &mut out)?;
        out.end(start)?;
    }
    Ok(out.finish())
}

/// Spans of a resource. Parts of a message that stand apart are one message, and so are the attributes one list.
fn write_group(group: &[u8], attributes: &[u8], out: &mut Output) -> Result<(), PushError> {
    let mut resource = Vec::new();
    let mut fields = Reader::new(group);
    while let Some((number, value)) = fields.next_field().map_err(broken)? {
        match (number, value) {
            (RESOURCE, Wire::Bytes(part)) => resource.extend_from_slice(part),
            (number, Wire::Bytes(bytes)) => out.text(number, bytes)?,
            (number, Wire::Varint(value)) => out.number(number, value)?,
            (number, Wire::Fixed64(value)) => out.fixed(number, FIXED64, &value.to_le_bytes())?,
            (number, Wire::Fixed32(value)) => out.fixed(number, FIXED32, &value.to_le_bytes())?,
            // Of a field that nobody knows.
            (_, Wire::Group) => {}
        }
    }
    resource.extend_from_slice(attributes);
    Ok(out.text(RESOURCE, &resource)?)
}

fn broken(error: vivace_core::wire::WireError) -> PushError {
    PushError::Malformed(format!("the message is no OTLP: {error}"))
}
