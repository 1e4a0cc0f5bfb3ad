//! Thrift's compact protocol as a tree, to take a file's own metadata apart, change it and put it together again.

use vivace_core::wire::{self, put_varint};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Bool(bool),
    /// With its type: byte, i16, i32 or i64.
    Int(u8, i64),
    Double([u8; 8]),
    Binary(Vec<u8>),
    /// With the type of its elements.
    List(u8, Vec<Node>),
    Struct(Vec<(i16, Node)>),
}

const I32: u8 = 5;
const I64: u8 = 6;
const STRUCT: u8 = 12;

impl Node {
    pub(crate) fn i32(value: i64) -> Self {
        Self::Int(I32, value)
    }

    pub(crate) fn i64(value: i64) -> Self {
        Self::Int(I64, value)
    }

    /// A struct and its length.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        let node = value(bytes, &mut at, STRUCT)?;
        Some((node, at))
    }

    /// The bytes of a struct.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    pub(crate) fn get(&self, field: i16) -> Option<&Self> {
        let Self::Struct(fields) = self else { return None };
        fields.iter().find(|(id, _)| *id == field).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, field: i16) -> Option<&mut Self> {
        let Self::Struct(fields) = self else { return None };
        fields.iter_mut().find(|(id, _)| *id == field).map(|(_, value)| value)
    }

    pub(crate) fn int(&self, field: i16) -> Option<i64> {
        if let Some(Self::Int(_, value)) = self.get(field) { Some(*value) } else { None }
    }

    pub(crate) fn list(&self, field: i16) -> &[Self] {
        if let Some(Self::List(_, elements)) = self.get(field) { elements } else { &[] }
    }

    /// Sets, adds or removes a field; the others keep their order.
    pub(crate) fn set(&mut self, field: i16, value: Option<Self>) {
        let Self::Struct(fields) = self else { return };
        let at = fields.iter().position(|(id, _)| *id >= field).unwrap_or(fields.len());
        let is_there = fields.get(at).is_some_and(|(id, _)| *id == field);
        match value {
            Some(value) if is_there => fields[at].1 = value,
            Some(value) => fields.insert(at, (field, value)),
            None if is_there => drop(fields.remove(at)),
            None => {}
        }
    }

    /// All values below this one, itself included, in the order of the bytes; `at` counts down to the wanted one.
    pub(crate) fn nth(&mut self, at: &mut usize) -> Option<&mut Self> {
        if *at == 0 {
            return Some(self);
        }
        *at -= 1;
        match self {
            Self::List(_, elements) => elements.iter_mut().find_map(|element| element.nth(at)),
            Self::Struct(fields) => fields.iter_mut().find_map(|(_, value)| value.nth(at)),
            _ => None,
        }
    }

    /// How many values there are for [`Node::nth`].
    pub(crate) fn count(&self) -> usize {
        1 + match self {
            Self::List(_, elements) => elements.iter().map(Self::count).sum(),
            Self::Struct(fields) => fields.iter().map(|(_, value)| value.count()).sum(),
            _ => 0,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Bool(true) => 1,
            Self::Bool(false) => 2,
            Self::Int(kind, _) => *kind,
            Self::Double(_) => 7,
            Self::Binary(_) => 8,
            Self::List(..) => 9,
            Self::Struct(_) => STRUCT,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(_) => {}
            Self::Int(3, value) => out.push(*value as u8),
            Self::Int(_, value) => put_zigzag(out, *value),
            Self::Double(bytes) => out.extend(bytes),
            Self::Binary(bytes) => {
                put_varint(out, bytes.len() as u64);
                out.extend(bytes);
            }
            Self::List(kind, elements) => {
                if elements.len() < 15 {
                    out.push((elements.len() as u8) << 4 | kind);
                } else {
                    out.push(0xf0 | kind);
                    put_varint(out, elements.len() as u64);
                }
                for element in elements {
                    match element {
                        Self::Bool(_) => out.push(element.kind()),
                        element => element.put(out),
                    }
                }
            }
            Self::Struct(fields) => {
                let mut last = 0i16;
                for (id, value) in fields {
                    match id.checked_sub(last) {
                        Some(delta @ 1..=15) => out.push((delta as u8) << 4 | value.kind()),
                        _ => {
                            out.push(value.kind());
                            put_zigzag(out, i64::from(*id));
                        }
                    }
                    value.put(out);
                    last = *id;
                }
                out.push(0);
            }
        }
    }
}

fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value << 1 ^ value >> 63).cast_unsigned());
}

fn byte(bytes: &[u8], at: &mut usize) -> Option<u8> {
    *at += 1;
    bytes.get(*at - 1).copied()
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let (value, len) = wire::varint(bytes.get(*at..)?).ok()?;
    *at += len;
    Some(value)
}

fn zigzag(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let raw = varint(bytes, at)?;
    Some((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
}

/// No maps and sets: Parquet has none.
fn value(bytes: &[u8], at: &mut usize, kind: u8) -> Option<Node> {
    Some(match kind {
        1 | 2 => Node::Bool(kind == 1),
        3 => Node::Int(3, i64::from(byte(bytes, at)?.cast_signed())),
        4..=6 => Node::Int(kind, zigzag(bytes, at)?),
        7 => {
            let part = bytes.get(*at..*at + 8)?;
            *at += 8;
            Node::Double(part.try_into().ok()?)
        }
        8 => {
            let len = usize::try_from(varint(bytes, at)?).ok()?;
            let part = bytes.get(*at..at.checked_add(len)?)?;
            *at += len;
            Node::Binary(part.to_vec())
        }
        9 => {
            let head = byte(bytes, at)?;
            let len = if head >> 4 == 15 { varint(bytes, at)? } else { u64::from(head >> 4) };
            let element = |_| match head & 0x0f {
                1 | 2 => byte(bytes, at).map(|byte| Node::Bool(byte == 1)),
                kind => value(bytes, at, kind),
            };
            Node::List(head & 0x0f, (0..len).map(element).collect::<Option<_>>()?)
        }
        STRUCT => {
            let mut fields = Vec::new();
            let mut last = 0i16;
            loop {
                let head = byte(bytes, at)?;
                if head == 0 {
                    break Node::Struct(fields);
                }
                last = match head >> 4 {
                    0 => i16::try_from(zigzag(bytes, at)?).ok()?,
                    delta => last.checked_add(i16::from(delta))?,
                };
                fields.push((last, value(bytes, at, head & 0x0f)?));
            }
        }
        _ => return None,
    })
}
