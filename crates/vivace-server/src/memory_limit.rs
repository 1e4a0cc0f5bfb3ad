//! How much memory this process may take: the lowest of the limits that are set for it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use vivace_core::budget::Budget;

use crate::load::environment;

/// Share of the limit that the budget gives out, percent. The rest is for code, threads, the allocator's slack, and what is
/// too small to be charged.
const BUDGET_PERCENT: u64 = 75;
/// Taken as the limit where none can be read, bytes.
const UNKNOWN_BYTES: u64 = 4 << 30;
/// The key of the configuration.
const KEY: &str = "memory.limit";
/// Go's variable, which charts and units for Tempo set.
const GO_VARIABLE: &str = "GOMEMLIMIT";

/// A limit, and who set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    pub(crate) source: Source,
}

/// Who sets a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `memory.limit`
    Configuration,
    /// `GOMEMLIMIT`
    Environment,
    /// A file of a control group: of the process' own, or of one above it.
    ControlGroup(PathBuf),
    /// All there is.
    Machine,
    /// Nobody that can be asked.
    Unknown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str(KEY),
            Self::Environment => f.write_str(GO_VARIABLE),
            Self::ControlGroup(file) => write!(f, "{}", file.display()),
            Self::Machine => f.write_str("the machine's memory"),
            Self::Unknown => f.write_str("a guess, since none could be read"),
        }
    }
}

impl MemoryLimit {
    /// Of this process. `configured`: `memory.limit`, bytes; 0 leaves it to the others.
    pub(crate) fn of_this_process(configured: u64) -> Self {
        let variable = environment(GO_VARIABLE);
        let from_go = variable.as_deref().and_then(|text| {
            let bytes = go_bytes(text);
            if bytes.is_none() && text != "off" {
                tracing::warn!(value = text, "{GO_VARIABLE} is no size such as 512MiB, and has no effect");
            }
            bytes
        });
        Self::find(Path::new("/"), configured, from_go)
    }

    /// The lowest limit under a root of the file system. The configuration's takes the place of the environment's; neither can
    /// raise what a control group or the machine allows.
    fn find(root: &Path, configured: u64, from_go: Option<u64>) -> Self {
        let set = match (configured, from_go) {
            (0, None) => None,
            (0, Some(bytes)) => Some(Self { bytes, source: Source::Environment }),
            (bytes, _) => Some(Self { bytes, source: Source::Configuration }),
        };
        let machine = machine_bytes(root).map(|bytes| Self { bytes, source: Source::Machine });
        let all = set.into_iter().chain(control_groups(root)).chain(machine);
        all.filter(|limit| limit.bytes > 0)
            .min_by_key(|limit| limit.bytes)
            .unwrap_or(Self { bytes: UNKNOWN_BYTES, source: Source::Unknown })
    }

    /// What of it is given out, to those that ask first.
    pub(crate) fn budget(&self) -> Budget {
        let bytes = (u128::from(self.bytes) * u128::from(BUDGET_PERCENT) / 100) as u64;
        tracing::info!(limit_bytes = self.bytes, budget_bytes = bytes, source = %self.source, "memory limit");
        Budget::new(bytes)
    }
}

/// A size as Go's runtime takes it: bytes, or a number with B, KiB, MiB, GiB, TiB. None: `off`, or not a size.
fn go_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// The two interfaces of control groups. A hybrid machine has both, and the memory in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Files of a group that limit its memory, bytes or `max`. Above `memory.high` a group is slowed down until it hardly runs.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            Self::Two => &["memory.max", "memory.high"],
        }
    }

    /// Whether a line of `/proc/self/cgroup` (`number:controllers:path`) names the group that holds the memory.
    fn names_memory(self, controllers: &str) -> bool {
        match self {
            Self::One => controllers.split(',').any(|c| c == "memory"),
            Self::Two => controllers.is_empty(),
        }
    }
}

/// A place where control groups are seen.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount point; others than `/` where a container sees a part only.
    group: PathBuf,
    point: PathBuf,
}

/// The limits of this process' group and of every group above it that can be seen.
fn control_groups(root: &Path) -> Vec<MemoryLimit> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for mount in mounts(root) {
        let own = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next().filter(|controllers| mount.version.names_memory(controllers))?;
            fields.next()
        });
        // A group that is not under the mounted one lies outside of what a container sees: then its own is what is mounted.
        let below = own.and_then(|group| Path::new(group).strip_prefix(&mount.group).ok()).unwrap_or(Path::new(""));
        for group in below.ancestors().filter(|group| !group.iter().any(|part| part == "..")) {
            let folder = mount.point.join(group);
            limits.extend(mount.version.files().iter().filter_map(|file| limit(root, folder.join(file))));
            if mount.version == Version::One {
                limits.extend(hierarchical_limit(root, folder.join("memory.stat")));
            }
        }
    }
    limits
}

fn mounts(root: &Path) -> Vec<Mount> {
    let usual = |version, point: &str| Mount { version, group: "/".into(), point: point.into() };
    match fs::read_to_string(root.join("proc/self/mountinfo")) {
        Ok(text) => text.lines().filter_map(mount).collect(),
        Err(_) => vec![usual(Version::Two, "/sys/fs/cgroup"), usual(Version::One, "/sys/fs/cgroup/memory")],
    }
}

/// A line of `mountinfo`, if it mounts control groups that may hold the memory. Source: proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<Mount> {
    let (fields, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let version = match (kind.next()?, kind.nth(1)?) {
        ("cgroup2", _) => Version::Two,
        ("cgroup", options) if options.split(',').any(|option| option == "memory") => Version::One,
        _ => return None,
    };
    let mut fields = fields.split(' ').skip(3);
    Some(Mount { version, group: unescaped(fields.next()?).into(), point: unescaped(fields.next()?).into() })
}

/// Spaces, tabs and the like stand as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

fn read_in(root: &Path, file: &Path) -> Option<String> {
    fs::read_to_string(root.join(file.strip_prefix("/").unwrap_or(file))).ok()
}

fn limit(root: &Path, file: PathBuf) -> Option<MemoryLimit> {
    let bytes = read_in(root, &file)?.trim().parse().ok()?;
    Some(MemoryLimit { bytes, source: Source::ControlGroup(file) })
}

/// Version 1 tells the lowest limit of all groups above too, also of those that a container cannot see.
fn hierarchical_limit(root: &Path, file: PathBuf) -> Option<MemoryLimit> {
    let text = read_in(root, &file)?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "))?.trim().parse().ok()?;
    Some(MemoryLimit { bytes, source: Source::ControlGroup(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "34 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    const UNLIMITED_V1: &str = "9223372036854771712\n";

    #[track_caller]
    fn found(files: &[(&str, &str)], configured: u64, from_go: Option<u64>) -> (u64, String) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("under the root")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let limit = MemoryLimit::find(root.path(), configured, from_go);
        (limit.bytes, limit.source.to_string())
    }

    #[track_caller]
    fn finds(what: &str, files: &[(&str, &str)], bytes: u64, source: &str) {
        assert_eq!(found(files, 0, None), (bytes, source.to_owned()), "{what}");
    }

    #[test]
    fn control_groups_of_both_versions_and_all_above_them_count() {
        let own = |path: &'static str| ("proc/self/cgroup", path);
        finds("none", &[MEMINFO], 16 * GIB, "the machine's memory");
        finds("nothing at all", &[], UNKNOWN_BYTES, "a guess, since none could be read");
        finds(
            "a container with a namespace of its own",
            &[MEMINFO, ("proc/self/mountinfo", V2), own("0::/\n"), ("sys/fs/cgroup/memory.max", "1073741824\n")],
            GIB,
            "/sys/fs/cgroup/memory.max",
        );
        finds(
            "without a limit",
            &[MEMINFO, ("proc/self/mountinfo", V2), own("0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")],
            16 * GIB,
            "the machine's memory",
        );
        finds(
            "a unit whose slice is limited",
            &[
                MEMINFO,
                ("proc/self/mountinfo", V2),
                own("0::/traces.slice/vivace.service\n"),
                ("sys/fs/cgroup/traces.slice/vivace.service/memory.max", "4294967296\n"),
                ("sys/fs/cgroup/traces.slice/vivace.service/memory.high", "max\n"),
                ("sys/fs/cgroup/traces.slice/memory.max", "2147483648\n"),
            ],
            2 * GIB,
            "/sys/fs/cgroup/traces.slice/memory.max",
        );
        finds(
            "slowed down before it is killed",
            &[
                MEMINFO,
                ("proc/self/mountinfo", V2),
                own("0::/vivace.service\n"),
                ("sys/fs/cgroup/vivace.service/memory.max", "2147483648\n"),
                ("sys/fs/cgroup/vivace.service/memory.high", "1073741824\n"),
            ],
            GIB,
            "/sys/fs/cgroup/vivace.service/memory.high",
        );
        finds(
            "version 1, seen from the machine",
            &[
                MEMINFO,
                ("proc/self/mountinfo", V1),
                own("5:cpu,cpuacct:/other\n4:memory:/docker/ab\n0::/\n"),
                ("sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "1073741824\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1),
            ],
            GIB,
            "/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes",
        );
        finds(
            "version 1, a container that sees its own group only",
            &[
                MEMINFO,
                ("proc/self/mountinfo", "34 31 0:32 /docker/ab /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n"),
                own("4:memory:/docker/ab\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1),
                ("sys/fs/cgroup/memory/memory.stat", "cache 1\nhierarchical_memory_limit 1073741824\ntotal_cache 1\n"),
            ],
            GIB,
            "/sys/fs/cgroup/memory/memory.stat",
        );
        finds(
            "a hybrid machine: version 2 without the memory",
            &[
                MEMINFO,
                ("proc/self/mountinfo", &format!("41 31 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n{V1}")),
                own("4:memory:/a\n0::/b\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n"),
            ],
            GIB,
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
        );
        finds(
            "a group outside of what is mounted",
            &[MEMINFO, ("proc/self/mountinfo", V2), own("0::/../../other\n"), ("sys/fs/cgroup/memory.max", "1073741824\n")],
            GIB,
            "/sys/fs/cgroup/memory.max",
        );
        finds(
            "a mount point with a space",
            &[
                MEMINFO,
                ("proc/self/mountinfo", "31 23 0:28 / /my\\040groups rw - cgroup2 cgroup2 rw\n"),
                own("0::/\n"),
                ("my groups/memory.max", "1073741824\n"),
            ],
            GIB,
            "/my groups/memory.max",
        );
        finds("no mountinfo", &[MEMINFO, ("sys/fs/cgroup/memory.max", "1073741824\n")], GIB, "/sys/fs/cgroup/memory.max");
    }

    #[test]
    fn what_is_set_lowers_what_the_machine_allows() {
        let group = [MEMINFO, ("proc/self/mountinfo", V2), ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "2147483648")];
        assert_eq!(found(&group, 0, Some(GIB)), (GIB, "GOMEMLIMIT".to_owned()));
        assert_eq!(found(&group, GIB / 2, Some(GIB)), (GIB / 2, "memory.limit".to_owned()));
        assert_eq!(found(&group, GIB, Some(GIB / 2)), (GIB, "memory.limit".to_owned()), "the configuration is the later word");
        assert_eq!(found(&group, 3 * GIB, None), (2 * GIB, "/sys/fs/cgroup/memory.max".to_owned()));
    }

    #[test]
    fn sizes_are_written_as_go_takes_them() {
        assert_eq!(go_bytes("1024"), Some(1024));
        assert_eq!(go_bytes("1024B"), Some(1024));
        assert_eq!(go_bytes("512MiB"), Some(512 << 20));
        assert_eq!(go_bytes("2GiB"), Some(2 << 30));
        for text in ["off", "", "MiB", "1MB", "-1", "99999999TiB"] {
            assert_eq!(go_bytes(text), None, "{text:?}");
        }
    }
}
