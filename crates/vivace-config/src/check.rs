use crate::reader::Reader;
use crate::{Config, Limits};

/// Checks values that stand alone.
pub(crate) fn values(config: &Config, reader: &mut Reader) {
    limits(&config.overrides.defaults, "overrides.defaults", reader);
}

/// Checks the limits of a tenant, or the defaults, which are at `path`.
pub(crate) fn limits(_limits: &Limits, _path: &str, _reader: &mut Reader) {}

/// Checks relations between values, for the target that the process runs.
pub(crate) fn relations(_config: &Config, _reader: &mut Reader) {}
