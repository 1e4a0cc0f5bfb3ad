//! Tempo's configuration: every key, its default and its check; no IO.
