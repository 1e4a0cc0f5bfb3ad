//! A span of Zipkin's version 1 in thrift. Shared with the tests of the converters.

use thrift::protocol::{TBinaryOutputProtocol, TFieldIdentifier, TListIdentifier, TOutputProtocol, TStructIdentifier, TType};

/// A client's call of the service `cart` by the service `shop`.
pub(crate) fn call() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_call(&mut TBinaryOutputProtocol::new(&mut bytes, true)).expect("written to memory");
    bytes
}

fn write_call(out: &mut dyn TOutputProtocol) -> thrift::Result<()> {
    out.write_list_begin(&TListIdentifier::new(TType::Struct, 1))?;
    out.write_struct_begin(&TStructIdentifier::new("Span"))?;
    for (id, value) in [(1, 0xb), (12, 0xa), (4, 0xc), (5, 0xd)] {
        field(out, TType::I64, id)?;
        out.write_i64(value)?;
    }
    field(out, TType::String, 3)?;
    out.write_string("get")?;
    let start = 1_700_000_000_000_000;
    list(out, 6, &[("cs", 0), ("retry", 300), ("cr", 900)], |out, (value, after)| {
        field(out, TType::I64, 1)?;
        out.write_i64(start + after)?;
        field(out, TType::String, 2)?;
        out.write_string(value)?;
        endpoint(out, 3, "shop", [10, 0, 0, 1], 8080)
    })?;
    let annotations: [(&str, &[u8], i32); 9] = [
        ("http.path", b"/cart", 6),
        ("tries", &[0, 0, 0, 2], 3),
        ("ratio", &0.5f64.to_be_bytes(), 5),
        ("hit", &[1], 0),
        ("raw", &[0xff, 0], 1),
        ("short", &(-2i16).to_be_bytes(), 2),
        ("long", &(-4i64).to_be_bytes(), 4),
        ("sa", &[1], 0),
        ("lc", b"", 6),
    ];
    list(out, 8, &annotations, |out, (key, value, kind)| {
        field(out, TType::String, 1)?;
        out.write_string(key)?;
        field(out, TType::String, 2)?;
        out.write_bytes(value)?;
        field(out, TType::I32, 3)?;
        out.write_i32(*kind)?;
        match *key {
            "sa" => endpoint(out, 4, "cart", [10, 0, 0, 2], 0),
            _ => endpoint(out, 4, "shop", [10, 0, 0, 1], 8080),
        }
    })?;
    field(out, TType::Bool, 9)?;
    out.write_bool(true)?;
    out.write_field_stop()?;
    out.write_struct_end()?;
    out.write_list_end()
}

fn field(out: &mut dyn TOutputProtocol, kind: TType, id: i16) -> thrift::Result<()> {
    out.write_field_begin(&TFieldIdentifier::new("", kind, id))
}

fn list<T>(
    out: &mut dyn TOutputProtocol,
    id: i16,
    items: &[T],
    write: impl Fn(&mut dyn TOutputProtocol, &T) -> thrift::Result<()>,
) -> thrift::Result<()> {
    field(out, TType::List, id)?;
    out.write_list_begin(&TListIdentifier::new(TType::Struct, i32::try_from(items.len()).expect("few")))?;
    for item in items {
        out.write_struct_begin(&TStructIdentifier::new(""))?;
        write(out, item)?;
        out.write_field_stop()?;
        out.write_struct_end()?;
    }
    out.write_list_end()
}

fn endpoint(out: &mut dyn TOutputProtocol, id: i16, service: &str, ip: [u8; 4], port: i16) -> thrift::Result<()> {
    field(out, TType::Struct, id)?;
    out.write_struct_begin(&TStructIdentifier::new("Endpoint"))?;
    field(out, TType::I32, 1)?;
    out.write_i32(i32::from_be_bytes(ip))?;
    field(out, TType::I16, 2)?;
    out.write_i16(port)?;
    field(out, TType::String, 3)?;
    out.write_string(service)?;
    out.write_field_stop()?;
    out.write_struct_end()
}
