//! Refusals for lack of room, summed by resource (pure).

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_proto::v1::Reason;

/// Least time between two events of a resource.
const INTERVAL: Duration = Duration::from_secs(60);

/// Resource that has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Memory of unflushed rows or of reads.
    Memory,
    /// Disk of the data directory.
    Disk,
    /// Object store of the files that bulk loads and refreshes stage.
    Staging,
}

/// Refusals since the last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusalSum {
    /// Number of refused requests.
    pub(super) refused: u64,
    /// Text of the last refusal.
    pub(super) cause: String,
}

/// Refusals of each resource.
#[derive(Debug, Default)]
pub(super) struct RoomRefusals {
    resources: BTreeMap<Room, ResourceRefusals>,
}

#[derive(Debug, Default)]
struct ResourceRefusals {
    recorded_at: Option<Duration>,
    refused: u64,
    cause: String,
}

impl Room {
    /// All resources.
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Staging];

    /// Returns the resource that a write or a point read lacked; `None`: it was refused for another reason.
    pub(crate) fn from_call(reason: Reason) -> Option<Self> {
        match reason {
            Reason::Overloaded => Some(Self::Memory),
            Reason::DiskFull => Some(Self::Disk),
            _ => None,
        }
    }

    /// Returns the resource that a call with files lacked. It may be refused as overloaded by its number of calls.
    pub(crate) fn from_file_call(reason: Reason) -> Option<Self> {
        (reason == Reason::DiskFull).then_some(Self::Staging)
    }

    /// Returns the name in events.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Staging => "staging",
        }
    }
}

impl RoomRefusals {
    /// Counts a refusal.
    pub(super) fn count(&mut self, room: Room, cause: &str) {
        let resource = self.resources.entry(room).or_default();
        resource.refused = resource.refused.saturating_add(1);
        cause.clone_into(&mut resource.cause);
    }

    /// Takes the sum of a resource, if it has refusals and its last event is long enough ago.
    pub(super) fn take_due(&mut self, room: Room, now: Duration) -> Option<RefusalSum> {
        let resource = self.resources.get_mut(&room)?;
        let is_early = |last: Duration| now.saturating_sub(last) < INTERVAL;
        if resource.refused == 0 || resource.recorded_at.is_some_and(is_early) {
            return None;
        }
        resource.recorded_at = Some(now);
        let refused = std::mem::take(&mut resource.refused);
        Some(RefusalSum { refused, cause: std::mem::take(&mut resource.cause) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(refused: u64, cause: &str) -> Option<RefusalSum> {
        Some(RefusalSum { refused, cause: cause.to_owned() })
    }

    #[test]
    fn refusals_are_summed_by_resource_and_minute() {
        let mut refusals = RoomRefusals::default();
        let at = Duration::from_secs;
        assert_eq!(refusals.take_due(Room::Memory, at(0)), None);
        refusals.count(Room::Memory, "a");
        assert_eq!(refusals.take_due(Room::Memory, at(5)), sum(1, "a"), "the first one at once");
        refusals.count(Room::Memory, "b");
        refusals.count(Room::Memory, "c");
        assert_eq!(refusals.take_due(Room::Memory, at(64)), None);
        refusals.count(Room::Disk, "d");
        assert_eq!(refusals.take_due(Room::Disk, at(64)), sum(1, "d"));
        assert_eq!(refusals.take_due(Room::Memory, at(65)), sum(2, "c"));
        assert_eq!(refusals.take_due(Room::Memory, at(500)), None, "none since");
    }

    #[test]
    fn reasons_name_the_resource_of_a_call() {
        for (reason, call, file_call) in [
            (Reason::Overloaded, Some(Room::Memory), None),
            (Reason::DiskFull, Some(Room::Disk), Some(Room::Staging)),
            (Reason::NotLeader, None, None),
        ] {
            assert_eq!(Room::from_call(reason), call, "{reason:?}");
            assert_eq!(Room::from_file_call(reason), file_call, "{reason:?}");
        }
    }
}
