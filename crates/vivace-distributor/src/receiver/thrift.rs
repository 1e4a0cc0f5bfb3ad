//! Structs and lists in thrift, read as they come.
//!
//! The library refuses lengths below zero and above what it is told, so that nothing is taken for what is only claimed; whatever is
//! in a list takes a byte at least, so a list ends with the bytes that there are.

use std::cell::Cell;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};

use thrift::protocol::{TBinaryInputProtocol, TCompactInputProtocol, TInputProtocol, TType};
use thrift::{TConfiguration, TransportErrorKind};
use vivace_core::wire::varint;

use crate::error::PushError;

/// How thrift is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Compact,
    Binary,
}

/// What is being read. The library's methods read numbers and structs; [`Input::text`] borrows, where the library would copy.
pub(super) struct Input<'i, 'b, P> {
    protocol: P,
    rest: &'i Cell<&'b [u8]>,
    encoding: Encoding,
}

/// Where the library takes its bytes from.
pub(super) struct Source<'i, 'b>(&'i Cell<&'b [u8]>);

pub(super) type Compact<'i, 'b> = Input<'i, 'b, TCompactInputProtocol<Source<'i, 'b>>>;
pub(super) type Binary<'i, 'b> = Input<'i, 'b, TBinaryInputProtocol<Source<'i, 'b>>>;

impl<'i, 'b> Compact<'i, 'b> {
    pub(super) fn compact(rest: &'i Cell<&'b [u8]>) -> Self {
        let protocol = TCompactInputProtocol::with_config(Source(rest), configuration(rest.get().len()));
        Self { protocol, rest, encoding: Encoding::Compact }
    }
}

impl<'i, 'b> Binary<'i, 'b> {
    /// Calls may be of the older form, without a version.
    pub(super) fn binary(rest: &'i Cell<&'b [u8]>) -> Self {
        let protocol = TBinaryInputProtocol::with_config(Source(rest), false, configuration(rest.get().len()));
        Self { protocol, rest, encoding: Encoding::Binary }
    }
}

impl<'b, P: TInputProtocol> Input<'_, 'b, P> {
    /// A text, or bytes: the library finds its end, and where it starts is told by its length.
    pub(super) fn text(&mut self) -> Result<&'b [u8], Broken> {
        let before = self.rest.get();
        self.protocol.skip(TType::String).or_broken()?;
        let read = &before[..before.len() - self.rest.get().len()];
        let of_length = match self.encoding {
            Encoding::Compact => varint(read).map_or(0, |(_, len)| len),
            Encoding::Binary => 4,
        };
        Ok(&read[of_length..])
    }
}

impl<P> Deref for Input<'_, '_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.protocol
    }
}

impl<P> DerefMut for Input<'_, '_, P> {
    fn deref_mut(&mut self) -> &mut P {
        &mut self.protocol
    }
}

impl Read for Source<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (now, later) = self.0.get().split_at(out.len().min(self.0.get().len()));
        out[..now.len()].copy_from_slice(now);
        self.0.set(later);
        Ok(now.len())
    }

    #[inline]
    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        let Some((now, later)) = self.0.get().split_at_checked(out.len()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(now);
        self.0.set(later);
        Ok(())
    }
}

/// Nothing in the bytes can be longer than they are.
fn configuration(len: usize) -> TConfiguration {
    let limits = TConfiguration::builder().max_frame_size(Some(len)).max_message_size(Some(len)).max_string_size(Some(len));
    limits.build().expect("a frame is no larger than its message")
}

/// Why reading ended.
#[derive(Debug)]
pub(super) enum Broken {
    Push(PushError),
    Thrift(thrift::Error),
}

impl<E: Into<PushError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Push(error.into())
    }
}

/// So that `?` has one conversion for each: the library's errors come through here.
pub(super) trait OrBroken<T> {
    fn or_broken(self) -> Result<T, Broken>;
}

impl<T> OrBroken<T> for thrift::Result<T> {
    fn or_broken(self) -> Result<T, Broken> {
        self.map_err(Broken::Thrift)
    }
}

impl Broken {
    /// The error with its place in what was read.
    pub(super) fn at(self, what: &str, offset: usize) -> PushError {
        match self {
            Self::Push(error) => error,
            Self::Thrift(error) => PushError::Malformed(format!("the {what} is no valid thrift at byte {offset}: {}", reason(&error))),
        }
    }
}

/// The library shows the kind alone of its errors.
fn reason(error: &thrift::Error) -> &str {
    match error {
        thrift::Error::Protocol(error) => &error.message,
        thrift::Error::Transport(error) if error.kind == TransportErrorKind::EndOfFile => "it ends too early",
        thrift::Error::Transport(error) => &error.message,
        thrift::Error::Application(error) => &error.message,
        thrift::Error::User(_) => "it could not be read",
    }
}

/// Hands each field of a struct to a function, which says whether it has read it. Fields that it has not are skipped.
pub(super) fn fields<'i, 'b, P: TInputProtocol>(
    input: &mut Input<'i, 'b, P>,
    mut read: impl FnMut(&mut Input<'i, 'b, P>, i16, TType) -> Result<bool, Broken>,
) -> Result<(), Broken> {
    input.read_struct_begin().or_broken()?;
    loop {
        let field = input.read_field_begin().or_broken()?;
        if field.field_type == TType::Stop {
            break;
        }
        if !read(input, field.id.unwrap_or_default(), field.field_type)? {
            input.skip(field.field_type).or_broken()?;
        }
        input.read_field_end().or_broken()?;
    }
    input.read_struct_end().or_broken()
}

/// Hands each struct of a list to a function. Items of another type are skipped.
pub(super) fn structs<'i, 'b, P: TInputProtocol>(
    input: &mut Input<'i, 'b, P>,
    mut read: impl FnMut(&mut Input<'i, 'b, P>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let list = input.read_list_begin().or_broken()?;
    for _ in 0..list.size {
        match list.element_type {
            TType::Struct => read(input)?,
            other => input.skip(other).or_broken()?,
        }
    }
    input.read_list_end().or_broken()
}
