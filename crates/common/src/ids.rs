//! Typed ids and positions. None of them is a bare integer outside encoding code.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number, for encoding and display.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

integer_id! {
    /// A process with a data directory, or a compactor process. Never reused; 0 means "none".
    NodeId(u64)
}
integer_id! {
    /// A Raft group; 0 is the meta group.
    GroupId(u64)
}
integer_id! {
    /// A table. Never reused after a drop; 0 means "none".
    TableId(u32)
}
integer_id! {
    /// A region and the route to it, which share one id. 0 means "none".
    RegionId(u64)
}
integer_id! {
    /// A column within its table; also its Parquet field id. Never reused within the table.
    ColumnId(u32)
}
integer_id! {
    /// Version of a table's schema; starts at 1.
    SchemaVersion(u32)
}
integer_id! {
    /// Version of the route catalog; grows by exactly 1.
    CatalogVersion(u64)
}
integer_id! {
    /// Revision of everything that the catalog watch delivers; grows by exactly 1.
    Revision(u64)
}
integer_id! {
    /// Raised when a cluster is restored, so that ids issued again cannot collide.
    Incarnation(u64)
}
integer_id! {
    /// Number of a start of a node: counted in its data directory, from 1. 0: a process of a release that
    /// does not count its starts.
    BootNumber(u64)
}
integer_id! {
    /// Source of refreshable tables. Never reused; 0 means "none".
    SourceId(u64)
}
integer_id! {
    /// Number of a refresh of its table, from 1; 0 means "none".
    Generation(u64)
}
integer_id! {
    /// Index of an entry in a group's log; the first entry has index 0.
    LogIndex(u64)
}
integer_id! {
    /// Raft term.
    Term(u64)
}
integer_id! {
    /// Logical time of the whole cluster: see [`crate::epoch`]. 0: before the first barrier.
    Epoch(u64)
}
integer_id! {
    /// Version of a region's manifest; the first delta has version 1, 0 means "empty".
    ManifestVersion(u64)
}
integer_id! {
    /// Serial of a write within its producer; counts from 1.
    Serial(u64)
}
integer_id! {
    /// Position of a row version within its region; see [`Sequence::at`].
    Sequence(u64)
}

impl GroupId {
    /// The group of the meta nodes.
    pub const META: GroupId = GroupId(0);
}

impl Incarnation {
    /// The incarnation of a cluster that was never restored.
    pub const FIRST: Incarnation = Incarnation(1);
}

impl ManifestVersion {
    /// The version after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Sequence {
    /// Writes that one log entry may carry: ordinals are below this number.
    pub const PER_ENTRY: u64 = 65_536;

    /// `base + 65,536 x index + ordinal`; `None` when that overflows or the ordinal is too large.
    ///
    /// No two writes of a region tie: entries differ in the index, writes of one entry in the
    /// ordinal.
    pub fn at(base: Sequence, index: LogIndex, ordinal: u32) -> Option<Self> {
        if u64::from(ordinal) >= Self::PER_ENTRY {
            return None;
        }
        index
            .0
            .checked_mul(Self::PER_ENTRY)?
            .checked_add(u64::from(ordinal))?
            .checked_add(base.0)
            .map(Self)
    }
}

/// Total order of all owners that a region ever had; a later owner fences an earlier one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct OwnerEpoch {
    /// Number of the region's last move; 0 before the first.
    pub move_epoch: u64,
    /// Raft term in which the owner leads its group.
    pub term: Term,
}

impl fmt::Display for OwnerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.move_epoch, self.term)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Reads the 16 bytes of the wire form; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// The 16 bytes of its wire form.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// A cluster, for its whole life.
    ClusterId
}
uuid_id! {
    /// A client's write stream (UUIDv7 or v4).
    ProducerId
}
uuid_id! {
    /// A data or index object (UUIDv7: garbage collection reads its time).
    FileId
}
uuid_id! {
    /// The content of one manifest delta (UUIDv4, fresh for each).
    WriterId
}
uuid_id! {
    /// A compaction or index job (UUIDv7).
    JobId
}
uuid_id! {
    /// A data directory; identifies the caller when a node registers again.
    DirectoryId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_an_entry_stay_below_the_next_entry() {
        let base = Sequence(7);
        let last = Sequence::at(base, LogIndex(3), 65_535).unwrap();
        let next = Sequence::at(base, LogIndex(4), 0).unwrap();
        assert_eq!(next.0, last.0 + 1);
        assert_eq!(Sequence::at(base, LogIndex(3), 65_536), None);
        assert_eq!(Sequence::at(base, LogIndex(u64::MAX), 0), None);
    }

    #[test]
    fn owner_epochs_order_by_move_then_term() {
        let a = OwnerEpoch { move_epoch: 1, term: Term(9) };
        let b = OwnerEpoch { move_epoch: 2, term: Term(1) };
        assert!(a < b);
        assert_eq!(b.to_string(), "2.1");
    }

    #[test]
    fn uuid_ids_refuse_other_lengths() {
        assert!(ProducerId::from_slice(&[0; 15]).is_none());
        assert!(ProducerId::from_slice(&[0; 16]).is_some());
    }
}
