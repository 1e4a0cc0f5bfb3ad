//! Who does a piece of work: the member whose place on the compactors' ring is next to the hash of its name. There is no lock, so
//! members that see different rings may both do it, or none of them for a while.

use vivace_core::Token;
use vivace_ring::Ring;

/// Which part of the work is this process' own.
#[derive(Debug, Clone)]
pub struct Owner {
    ring: Option<(Ring, String)>,
}

impl Owner {
    /// All of it: no ring is configured.
    #[must_use]
    pub fn of_everything() -> Self {
        Self { ring: None }
    }

    /// What falls to the member `instance_id` of the compactors' ring.
    #[must_use]
    pub fn member(ring: Ring, instance_id: &str) -> Self {
        Self { ring: Some((ring, instance_id.to_owned())) }
    }

    /// Whether the work of this name is this process'. While members disagree on who is there, none or several may say
    /// yes; the work is such that doing it twice costs space, never a trace.
    #[must_use]
    pub fn owns(&self, key: &str) -> bool {
        let Some((ring, own_id)) = &self.ring else { return true };
        ring.snapshot().primary(Token(fnv1a_32(key.as_bytes()))).is_some_and(|i| i.id == *own_id)
    }
}

fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vivace_ring::{Instance, Role, State};

    #[test]
    fn every_piece_of_work_has_one_owner() {
        let instance = |id: &str, alive| Instance {
            id: id.to_owned(),
            role: Role::Compactor,
            addr: String::new(),
            zone: String::new(),
            state: State::Active,
            alive,
            registered_unix_seconds: 0,
            last_heartbeat_unix_nanos: 0,
        };
        let ring = Ring::fixed(Role::Compactor, [instance("a", true), instance("b", true), instance("gone", false)]);
        let (a, b) = (Owner::member(ring.clone(), "a"), Owner::member(ring.clone(), "b"));
        let keys: Vec<String> = (0..200).map(|i| format!("tenant-0-{i}-0")).collect();
        assert!(keys.iter().all(|key| a.owns(key) != b.owns(key)));
        assert!((50..150).contains(&keys.iter().filter(|key| a.owns(key)).count()));
        assert!(keys.iter().all(|key| !Owner::member(ring.clone(), "gone").owns(key)));
        assert!(keys.iter().all(|key| Owner::of_everything().owns(key)));
        assert_eq!(fnv1a_32(b"a"), 0xe40c_292c);
    }
}
