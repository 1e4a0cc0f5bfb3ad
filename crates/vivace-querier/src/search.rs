//! Searches and tags over one block.
