//! Asks a running Vivace questions, looks into blocks, checks configuration
