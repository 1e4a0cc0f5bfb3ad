//! Which services a process runs. Ask [`Target::includes`], which knows of the targets that run them all.

use crate::section::choice;

choice! {
    /// The services of a process.
    pub enum Target {
        /// All of them, in one process.
        All = "all";
        /// Tempo: all of them, sharing work with other such processes. Here the same as `all` with the ring of the file.
        ScalableSingleBinary = "scalable-single-binary";
        /// Receives spans.
        Distributor = "distributor";
        /// Keeps recent spans and builds blocks.
        Ingester = "ingester";
        /// Runs jobs of queries.
        Querier = "querier";
        /// The query API.
        QueryFrontend = "query-frontend";
        /// Merges blocks and deletes old ones.
        Compactor = "compactor";
        /// Makes metrics from spans.
        MetricsGenerator = "metrics-generator";
    }
}

impl Target {
    /// Whether the process runs every service.
    #[must_use]
    pub fn is_single_binary(self) -> bool {
        matches!(self, Self::All | Self::ScalableSingleBinary)
    }

    /// Whether the process runs a service, itself or as one of all.
    #[must_use]
    pub fn includes(self, service: Self) -> bool {
        self == service || self.is_single_binary()
    }
}
