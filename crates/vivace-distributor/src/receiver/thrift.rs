//! Structs and lists in thrift, read as they come.
//!
//! The library refuses lengths below zero and above what it is told, so that nothing is taken for what is only claimed; whatever is
//! in a list takes a byte at least, so a list ends with the bytes that there are.

use thrift::protocol::{TInputProtocol, TType};
use thrift::{TConfiguration, TransportErrorKind};

use crate::error::PushError;

/// Nothing in the bytes can be longer than they are.
pub(super) fn configuration(len: usize) -> TConfiguration {
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
pub(super) fn fields<P: TInputProtocol>(
    input: &mut P,
    mut read: impl FnMut(&mut P, i16, TType) -> Result<bool, Broken>,
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
pub(super) fn structs<P: TInputProtocol>(input: &mut P, mut read: impl FnMut(&mut P) -> Result<(), Broken>) -> Result<(), Broken> {
    let list = input.read_list_begin().or_broken()?;
    for _ in 0..list.size {
        match list.element_type {
            TType::Struct => read(input)?,
            other => input.skip(other).or_broken()?,
        }
    }
    input.read_list_end().or_broken()
}
