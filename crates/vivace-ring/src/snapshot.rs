//! Who owns a token, and who follows whom. All of it follows from the members, so that processes that know the same members agree
//! without a word.

use rustc_hash::{FxHashMap, FxHashSet};
use vivace_core::Token;
use xxhash_rust::xxh3::xxh3_64;

use crate::Instance;

/// The members of one ring at one moment, and who owns what among them. Pure: no clock, no IO.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Sorted by id.
    instances: Vec<Instance>,
    /// Tokens of the instances that take writes, ascending, with their index into `instances`.
    tokens: Vec<(Token, u32)>,
}

/// Some of a snapshot's members; see [`Snapshot::shard`].
#[derive(Debug, Clone)]
pub struct Shard {
    /// Indexes of instances; none is all.
    members: Option<FxHashSet<u32>>,
}

impl Snapshot {
    /// Builds the ring. Of instances with the same id the last one given stays.
    #[must_use]
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let by_id: std::collections::BTreeMap<String, Instance> = instances.into_iter().map(|i| (i.id.clone(), i)).collect();
        let instances: Vec<Instance> = by_id.into_values().collect();
        let mut tokens: Vec<(Token, u32)> = Vec::new();
        for (index, instance) in (0u32..).zip(&instances) {
            if instance.takes_writes() {
                tokens.extend(instance.tokens().map(|token| (token, index)));
            }
        }
        // Equal tokens go to the lexicographically lower id, as instances are sorted by id.
        tokens.sort_unstable();
        Self { instances, tokens }
    }

    /// All members, dead or alive, by id.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Instance> {
        let index = self.instances.binary_search_by(|i| i.id.as_str().cmp(id)).ok()?;
        self.instances.get(index)
    }

    /// Members whose heartbeat is fresh, in whatever state. They answer reads.
    pub fn live(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| i.alive)
    }

    /// Members that have not been heard of in time.
    pub fn dead(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| !i.alive)
    }

    /// Members that take writes: alive and active.
    pub fn writable(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| i.takes_writes())
    }

    /// The instance that owns `token`: the one with the first token strictly greater, wrapping around.
    ///
    /// None when no instance takes writes.
    ///
    /// Source: docs/facts/components.md, "Ring".
    #[must_use]
    pub fn primary(&self, token: Token) -> Option<&Instance> {
        let at = self.position_after(token);
        self.tokens.get(at).map(|(_, index)| &self.instances[*index as usize])
    }

    /// The instances that serve a tenant of which no more than `size` shall know; 0 is all. Each zone gives the same number of them.
    ///
    /// They are those that take writes, in the rendezvous order of the tenant's name, so that everybody who knows the same members
    /// chooses the same ones, and a member that comes or goes changes at most one of them.
    #[must_use]
    pub fn shard(&self, tenant: &str, size: usize) -> Shard {
        let all: Vec<(u32, &Instance)> = (0u32..).zip(&self.instances).filter(|(_, instance)| instance.takes_writes()).collect();
        if size == 0 || size >= all.len() {
            return Shard { members: None };
        }
        let zones: FxHashSet<&str> = all.iter().map(|(_, instance)| instance.zone.as_str()).collect();
        let per_zone = size.div_ceil(zones.len());
        let mut wanted: Vec<(u64, u32, &Instance)> =
            all.into_iter().map(|(index, instance)| (rendezvous(tenant, &instance.id), index, instance)).collect();
        wanted.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let mut taken: FxHashMap<&str, usize> = FxHashMap::default();
        let members = wanted.into_iter().filter(|(_, _, instance)| {
            let of_zone = taken.entry(&instance.zone).or_default();
            *of_zone += 1;
            *of_zone <= per_zone
        });
        Shard { members: Some(members.map(|(_, index, _)| index).collect()) }
    }

    /// The owner of `token` among the members of a shard of this snapshot.
    #[must_use]
    pub fn primary_in(&self, token: Token, shard: &Shard) -> Option<&Instance> {
        let Some(members) = &shard.members else { return self.primary(token) };
        let (before, after) = self.tokens.split_at(self.position_after(token));
        let (_, index) = after.iter().chain(before).find(|(_, index)| members.contains(index))?;
        self.instances.get(*index as usize)
    }

    /// The owner of `token`, then those who would own it if the ones before were gone. Each once.
    pub fn owners(&self, token: Token) -> impl Iterator<Item = &Instance> {
        let at = self.position_after(token);
        let (before, after) = self.tokens.split_at(at);
        let mut seen = FxHashSet::default();
        after.iter().chain(before).filter(move |(_, index)| seen.insert(*index)).map(|(_, index)| &self.instances[*index as usize])
    }

    /// The instances that hold the log of `primary` beside itself, at most `replication_factor - 1`.
    ///
    /// They come in the rendezvous order of the primary's id. Each is from a zone of its own, other than the
    /// primary's, as long as there are such; then the remaining places are filled regardless of zones.
    /// The result depends on the primary and the membership alone, never on a trace, and a member that comes
    /// or goes changes at most one of them. Fewer than asked for means that there are not more.
    #[must_use]
    pub fn followers(&self, primary: &str, replication_factor: usize) -> Vec<&Instance> {
        self.followers_among(primary, replication_factor, Instance::takes_writes)
    }

    /// Whether a member will hold the log of `primary` once it takes writes. One that is not known may.
    #[must_use]
    pub fn will_follow(&self, id: &str, primary: &str, replication_factor: usize) -> bool {
        let followers = self.followers_among(primary, replication_factor, |i| i.takes_writes() || i.id == id);
        followers.iter().any(|i| i.id == id) || self.get(id).is_none() && replication_factor > 1
    }

    fn followers_among(&self, primary: &str, replication_factor: usize, is_candidate: impl Fn(&Instance) -> bool) -> Vec<&Instance> {
        let wanted = replication_factor.saturating_sub(1);
        if wanted == 0 {
            return Vec::new();
        }
        let candidates = self.instances.iter().filter(|i| i.id != primary && is_candidate(i));
        let mut candidates: Vec<(u64, &Instance)> = candidates.map(|i| (rendezvous(primary, &i.id), i)).collect();
        candidates.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
        let mut zones: FxHashSet<&str> = self.get(primary).map(|p| p.zone.as_str()).into_iter().collect();
        let mut chosen: Vec<&Instance> = Vec::with_capacity(wanted);
        for (_, instance) in &candidates {
            if chosen.len() < wanted && zones.insert(&instance.zone) {
                chosen.push(instance);
            }
        }
        for (_, instance) in &candidates {
            if chosen.len() < wanted && chosen.iter().all(|c| c.id != instance.id) {
                chosen.push(instance);
            }
        }
        chosen
    }

    /// Index of the first token strictly greater than this one, or 0 after the last.
    fn position_after(&self, token: Token) -> usize {
        let at = self.tokens.partition_point(|(t, _)| *t <= token);
        if at == self.tokens.len() { 0 } else { at }
    }

    pub(crate) fn same_membership(&self, other: &Self) -> bool {
        self.instances.len() == other.instances.len() && self.instances.iter().zip(&other.instances).all(|(a, b)| a.same_membership(b))
    }
}

/// How much `candidate` is wanted by `primary`. The separator cannot stand in an id that came through a host name.
fn rendezvous(primary: &str, candidate: &str) -> u64 {
    let mut key = Vec::with_capacity(primary.len() + candidate.len() + 1);
    key.extend_from_slice(primary.as_bytes());
    key.push(0);
    key.extend_from_slice(candidate.as_bytes());
    xxh3_64(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, State};
    use proptest::prelude::*;

    fn instance(id: &str, zone: &str) -> Instance {
        Instance {
            id: id.to_owned(),
            role: Role::Ingester,
            addr: format!("{id}:9095"),
            zone: zone.to_owned(),
            state: State::Active,
            alive: true,
            registered_unix_seconds: 0,
            last_heartbeat_unix_nanos: 0,
        }
    }

    fn ring(ids: impl IntoIterator<Item = u32>) -> Snapshot {
        Snapshot::new(ids.into_iter().map(|i| instance(&format!("ingester-{i}"), "")))
    }

    fn owner_ids(snapshot: &Snapshot, token: u32) -> Vec<&str> {
        snapshot.owners(Token(token)).map(|i| i.id.as_str()).collect()
    }

    /// Evenly spread tokens, including both ends.
    fn samples() -> impl Iterator<Item = Token> {
        (0..=u32::MAX).step_by(1 << 26).chain([u32::MAX]).map(Token)
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let snapshot = Snapshot::default();
        assert!(snapshot.primary(Token(7)).is_none());
        assert_eq!(snapshot.owners(Token(7)).count(), 0);
    }

    #[test]
    fn the_first_token_strictly_greater_owns() {
        let snapshot = ring(0..3);
        let (first, _) = snapshot.tokens[0];
        let (second, owner) = snapshot.tokens[1];
        let (last, _) = *snapshot.tokens.last().expect("tokens");
        assert_eq!(snapshot.primary(first), snapshot.instances.get(owner as usize));
        assert_eq!(snapshot.primary(Token(second.0 - 1)), snapshot.instances.get(owner as usize));
        assert_eq!(snapshot.primary(last), snapshot.primary(Token(0)));
    }

    #[test]
    fn only_live_and_active_instances_take_writes() {
        let mut leaving = instance("a", "");
        leaving.state = State::Leaving;
        let mut dead = instance("b", "");
        dead.alive = false;
        let snapshot = Snapshot::new([leaving, dead, instance("c", "")]);
        assert!(samples().all(|t| snapshot.primary(t).is_some_and(|i| i.id == "c")));
        assert!(snapshot.followers("c", 3).is_empty());
        assert_eq!(snapshot.live().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(snapshot.dead().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn followers_come_from_other_zones_first() {
        let snapshot = Snapshot::new(["a1", "a2", "a3", "b1", "b2", "c1"].map(|id| instance(id, &id[..1])));
        for primary in ["a1", "a2", "a3"] {
            let mut zones: Vec<&str> = snapshot.followers(primary, 3).iter().map(|i| i.zone.as_str()).collect();
            zones.sort_unstable();
            assert_eq!(zones, ["b", "c"], "{primary}");
        }
        let two_zones = Snapshot::new(["a1", "a2", "b1"].map(|id| instance(id, &id[..1])));
        let ids: Vec<&str> = two_zones.followers("a1", 3).iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["b1", "a2"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shares_are_balanced(members in 2u32..20, salt in 0u32..1000) {
            let snapshot = ring((0..members).map(|i| i + salt));
            let mut shares = vec![0u64; members as usize];
            let mut previous = 0u64;
            for (token, index) in &snapshot.tokens {
                shares[*index as usize] += u64::from(token.0) - previous;
                previous = u64::from(token.0);
            }
            let fair = (u64::from(u32::MAX) / u64::from(members)) as f64;
            for share in shares {
                prop_assert!((0.6..1.5).contains(&(share as f64 / fair)), "share is {} of fair", share as f64 / fair);
            }
        }

        #[test]
        fn a_member_that_comes_or_goes_moves_only_its_own(members in 1u32..12) {
            let (small, large) = (ring(0..members), ring(0..=members));
            let newcomer = format!("ingester-{members}");
            for token in samples() {
                let (before, after) = (small.primary(token), large.primary(token));
                prop_assert!(after == before || after.is_some_and(|i| i.id == newcomer));
                let without: Vec<&str> = owner_ids(&large, token.0).into_iter().filter(|id| *id != newcomer).collect();
                prop_assert_eq!(without, owner_ids(&small, token.0));
            }
            for primary in small.instances() {
                let before = small.followers(&primary.id, 3);
                let after = large.followers(&primary.id, 3);
                let kept = before.iter().filter(|i| after.contains(i)).count();
                prop_assert!(kept + 1 >= before.len());
            }
        }

        #[test]
        fn a_shard_has_its_size_and_changes_by_one(members in 2u32..20, size in 0usize..22, tenant in "[a-z]{1,8}") {
            let (small, large) = (ring(0..members), ring(0..=members));
            let owners = |snapshot: &Snapshot| {
                let shard = snapshot.shard(&tenant, size);
                // Many tokens, so that each member owns some.
                let tokens = (0..u32::MAX).step_by(1 << 20).map(Token);
                tokens.filter_map(|token| Some(snapshot.primary_in(token, &shard)?.id.clone())).collect::<FxHashSet<String>>()
            };
            let (before, after) = (owners(&small), owners(&large));
            let most = |members: u32| if size == 0 { members as usize } else { size.min(members as usize) };
            prop_assert_eq!((before.len(), after.len()), (most(members), most(members + 1)));
            let left = before.difference(&after).count();
            prop_assert!(left <= 1, "{left} members of the shard have changed");
        }

        #[test]
        fn a_shard_spreads_over_zones(tenant in "[a-z]{1,8}") {
            let ids = (0..9).map(|number| instance(&format!("i-{number}"), ["a", "b", "c"][number % 3]));
            let snapshot = Snapshot::new(ids);
            let shard = snapshot.shard(&tenant, 4);
            let mut zones: Vec<&str> = shard.members.expect("not all").iter().map(|i| snapshot.instances[*i as usize].zone.as_str()).collect();
            zones.sort_unstable();
            prop_assert_eq!(zones, ["a", "a", "b", "b", "c", "c"]);
        }

        #[test]
        fn followers_are_distinct_from_the_primary_and_each_other(members in 1u32..12, factor in 0usize..6) {
            let snapshot = ring(0..members);
            for primary in snapshot.instances() {
                let followers = snapshot.followers(&primary.id, factor);
                let distinct: FxHashSet<&str> = followers.iter().map(|i| i.id.as_str()).collect();
                prop_assert_eq!(distinct.len(), followers.len());
                prop_assert!(!distinct.contains(primary.id.as_str()));
                prop_assert_eq!(followers.len(), factor.saturating_sub(1).min(members as usize - 1));
            }
        }

        #[test]
        fn owners_start_with_the_primary_and_name_everyone_once(members in 1u32..12, token: u32) {
            let snapshot = ring(0..members);
            let owners = owner_ids(&snapshot, token);
            prop_assert_eq!(owners.first().copied(), snapshot.primary(Token(token)).map(|i| i.id.as_str()));
            prop_assert_eq!(owners.iter().collect::<FxHashSet<_>>().len(), members as usize);
        }
    }
}
