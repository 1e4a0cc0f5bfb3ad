//! From runs, which gossip knows, to members, which rings have. After a restart several runs claim one id, and one of them is
//! shown.

use std::collections::BTreeMap;

use crate::gossip::{Gossip, Known, Millis};
use crate::{Instance, Role};

/// The rings' members as the others say.
///
/// Where several runs claim one id, a live one is shown before a dead one, of live ones that which started last, and of dead ones that which
/// was heard of last. What the hosts' clocks say has no part in it.
pub(crate) fn instances(gossip: &mut Gossip, now: Millis, now_unix_nanos: u64) -> BTreeMap<Role, Vec<Instance>> {
    let mut known = gossip.known(now);
    known.sort_by_key(|k| (if k.alive { k.started } else { k.heard }, k.run));
    let mut found: BTreeMap<Role, BTreeMap<&str, Instance>> = BTreeMap::new();
    for Known { word, alive, heard, .. } in &known {
        for (role, entry) in &word.content().entries {
            let silent = (now - heard).max(0);
            let alive = *alive && !entry.ended;
            if !alive && silent >= gossip.dead_max(*role, entry.state) {
                continue;
            }
            let by_id = found.entry(*role).or_default();
            if !alive && by_id.get(entry.id.as_str()).is_some_and(|known| known.alive) {
                continue;
            }
            let heard_unix_nanos = now_unix_nanos.saturating_sub(silent.unsigned_abs().saturating_mul(1_000_000));
            by_id.insert(&entry.id, entry.instance(*role, alive, heard_unix_nanos));
        }
    }
    found.into_iter().map(|(role, by_id)| (role, by_id.into_values().collect())).collect()
}
