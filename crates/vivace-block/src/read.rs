//! Reading a block: by trace id, by query, by tag, and as a whole.
//!
//! The footer and page locations come first; then only the pages that can matter are read, their levels and dictionary
//! codes decoded into plain vectors, conditions decided once per dictionary entry, and texts made where they are handed out.

mod assemble;
mod column;
mod encoding;
mod fault;
mod footer;
mod group;
mod layout;
mod page;
mod reader;
mod source;
mod thrift;

pub use fault::ReadError;
pub use reader::{BlockReader, Traces};
pub use source::ReadAt;
