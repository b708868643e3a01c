//! Choice of the node to call for a group: a leader learned from responses, then the catalog's
//! leader, then one replica after the other.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

/// Leaders learned from responses. They are hints: a wrong one costs a round trip.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    hints: Mutex<HashMap<GroupId, String>>,
}

/// Maximum number of hints: more than a cluster has groups, a bound against a faulty catalog.
const MAX_HINTS: usize = 65_536;

impl Leaders {
    pub(crate) fn hint(&self, group: GroupId) -> Option<String> {
        self.hints.lock().get(&group).cloned()
    }

    /// Records a node that responded as leader, or that a response named as leader.
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

    /// Removes the leader of a group, before the leadership is transferred.
    pub(crate) fn forget_group(&self, group: GroupId) {
        self.hints.lock().remove(&group);
    }

    /// Removes a leader that turned out not to be one.
    pub(crate) fn forget(&self, group: GroupId, address: &str) {
        let mut hints = self.hints.lock();
        if hints.get(&group).is_some_and(|known| known == address) {
            hints.remove(&group);
        }
    }
}

/// Returns the address to call next.
///
/// `failed` is the address of the last failed attempt. It is skipped while there is another one,
/// since a dead leader stays the catalog's leader until the meta service notices.
/// `turn` counts the attempts, to rotate over the replicas.
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
    // No other address is known: the failed one may be available again.
    catalog_leader.or(hint).or(failed).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_address_prefers_hint_then_leader_then_replicas() {
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
            // The hint has failed: the other replicas in turn.
            (Some("a"), Some("a"), &all, Some("a"), 0, Some("b")),
            (Some("a"), Some("a"), &all, Some("a"), 1, Some("c")),
            (None, Some("a"), &all, Some("a"), 2, Some("b")),
            // A single replica: call it again.
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
    fn only_the_failed_address_is_forgotten() {
        let leaders = Leaders::default();
        leaders.learn(GroupId(1), "a");
        leaders.forget(GroupId(1), "b");
        assert_eq!(leaders.hint(GroupId(1)).as_deref(), Some("a"));
        leaders.forget(GroupId(1), "a");
        assert_eq!(leaders.hint(GroupId(1)), None);
    }
}
