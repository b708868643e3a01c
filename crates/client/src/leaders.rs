//! Choice of a node of a group: a learned leader, then the catalog's leader, then each replica in turn.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

/// Leaders learned from answers. They are hints: a wrong one costs one round trip.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    hints: Mutex<HashMap<GroupId, String>>,
}

/// Most hints; more than a cluster has groups, to bound the memory in case of a faulty catalog.
const MAX_HINTS: usize = 65_536;

impl Leaders {
    /// Returns the address of the presumed leader.
    pub(crate) fn hint(&self, group: GroupId) -> Option<String> {
        self.hints.lock().get(&group).cloned()
    }

    /// Records a node that answered as the leader or was named as the leader.
    pub(crate) fn learn(&self, group: GroupId, address: &str) {
        let mut hints = self.hints.lock();
        if hints.get(&group).is_some_and(|known| known == address) {
            return;
        }
        if hints.len() >= MAX_HINTS {
            hints.clear();
        }
        hints.insert(group, address.to_owned());
    }

    /// Removes the hint of a group whose leader is about to change.
    pub(crate) fn forget_group(&self, group: GroupId) {
        self.hints.lock().remove(&group);
    }

    /// Removes the hint if it is this node, which is not the leader.
    pub(crate) fn forget(&self, group: GroupId, address: &str) {
        let mut hints = self.hints.lock();
        if hints.get(&group).is_some_and(|known| known == address) {
            hints.remove(&group);
        }
    }
}

/// Returns the address of the next attempt.
///
/// `failed` is the address that did not answer the last attempt. It is skipped while there is another,
/// since a dead leader stays the catalog's leader until the meta service notices. `turn` counts the
/// attempts and selects each replica in turn.
pub(crate) fn choose(
    hint: Option<&str>,
    catalog_leader: Option<&str>,
    replicas: &[&str],
    failed: Option<&str>,
    turn: u32,
) -> Option<String> {
    let usable = |address: &&str| Some(*address) != failed;
    if let Some(hint) = hint.filter(usable) {
        return Some(hint.to_owned());
    }
    if failed.is_none()
        && let Some(leader) = catalog_leader
    {
        return Some(leader.to_owned());
    }
    let others: Vec<&str> = replicas.iter().copied().filter(usable).collect();
    if !others.is_empty() {
        return Some(others[turn as usize % others.len()].to_owned());
    }
    // No other address is known, and the failed node may be back.
    catalog_leader.or(hint).or(failed).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choose_prefers_hint_then_leader_then_replicas() {
        let all = ["a", "b", "c"];
        type Case<'a> = (
            Option<&'a str>,
            Option<&'a str>,
            &'a [&'a str],
            Option<&'a str>,
            u32,
            Option<&'a str>,
        );
        let table: &[Case] = &[
            // hint, catalog's leader, replicas, failed, turn, expected
            (None, None, &[], None, 0, None),
            (None, Some("a"), &all, None, 0, Some("a")),
            (Some("b"), Some("a"), &all, None, 0, Some("b")),
            (Some("b"), Some("a"), &all, Some("a"), 0, Some("b")),
            // The hint failed: the other replicas in turn.
            (Some("a"), Some("a"), &all, Some("a"), 0, Some("b")),
            (Some("a"), Some("a"), &all, Some("a"), 1, Some("c")),
            (None, Some("a"), &all, Some("a"), 2, Some("b")),
            // The only replica is tried again.
            (None, Some("a"), &["a"], Some("a"), 0, Some("a")),
            (None, None, &all, None, 4, Some("b")),
        ];
        for (index, (hint, leader, replicas, failed, turn, expected)) in table.iter().enumerate() {
            assert_eq!(
                choose(*hint, *leader, replicas, *failed, *turn).as_deref(),
                *expected,
                "case {index}"
            );
        }
    }

    #[test]
    fn leaders_forget_only_the_failed_address() {
        let leaders = Leaders::default();
        leaders.learn(GroupId(1), "a");
        leaders.forget(GroupId(1), "b");
        assert_eq!(leaders.hint(GroupId(1)).as_deref(), Some("a"));
        leaders.forget(GroupId(1), "a");
        assert_eq!(leaders.hint(GroupId(1)), None);
    }
}
