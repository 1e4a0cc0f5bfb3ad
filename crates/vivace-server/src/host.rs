//! Who this process is where the configuration gives it no name.

/// The machine's name, which in a container is the pod's: the default id of an instance.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "vivace".to_owned(),
        name => name.to_owned(),
    }
}
