//! Keys of the log store. All numbers are big endian, so that keys sort like the numbers.

use tidewater_common::ids::GroupId;

/// Column family of the entries.
pub(super) const LOG: &str = "raft_log";
/// Column family of vote, committed and last purged of each group.
pub(super) const STATE: &str = "raft_state";

/// Kind of a record in [`STATE`]; the number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateKind {
    Vote = 1,
    Committed = 2,
    Purged = 3,
}

/// Key of an entry: (group, index).
pub(super) fn log_key(group: GroupId, index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&group.get().to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Splits the key of an entry into group and index; `None` when it is not such a key.
pub(super) fn split_log_key(key: &[u8]) -> Option<(GroupId, u64)> {
    let (group, index) = key.split_first_chunk::<8>()?;
    let index: [u8; 8] = index.try_into().ok()?;
    Some((GroupId(u64::from_be_bytes(*group)), u64::from_be_bytes(index)))
}

/// Key of a group's state: (group, kind).
pub(super) fn state_key(group: GroupId, kind: StateKind) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&group.get().to_be_bytes());
    key[8] = kind as u8;
    key
}

/// Returns the group of a state key; `None` when it is not such a key.
pub(super) fn state_key_group(key: &[u8]) -> Option<GroupId> {
    let (group, kind) = key.split_first_chunk::<8>()?;
    (kind.len() == 1).then(|| GroupId(u64::from_be_bytes(*group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_frozen_and_sort_by_group_then_index() {
        assert_eq!(log_key(GroupId(1), 258), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(state_key(GroupId(1), StateKind::Vote), [0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(state_key(GroupId(1), StateKind::Committed)[8], 2);
        assert_eq!(state_key(GroupId(1), StateKind::Purged)[8], 3);
        assert!(log_key(GroupId(1), u64::MAX) < log_key(GroupId(2), 0));
        assert_eq!(split_log_key(&log_key(GroupId(7), 9)), Some((GroupId(7), 9)));
        assert_eq!(split_log_key(&[0; 15]), None);
        assert_eq!(state_key_group(&state_key(GroupId(7), StateKind::Vote)), Some(GroupId(7)));
        assert_eq!(state_key_group(&[0; 8]), None);
    }
}
