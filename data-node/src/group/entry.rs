//! Entries of a data group's log and the outcomes of applying them: conversion between messages and
//! bytes.

use std::ops::Deref;
use std::time::Duration;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, WriteRequest, group_entry};

use super::producers::Eviction;

#[cfg(test)]
mod tests;

/// Field numbers of the kinds of entries in `GroupEntry`.
const KINDS: [u32; 21] =
    [1, 2, 3, 4, 6, 7, 8, 9, 10, 13, 15, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26];
/// Level of refreshable tables.
const REFRESH_LEVEL: FeatureLevel = FeatureLevel::new(6);
/// Alignment in bytes that columns of 64-bit values need.
const ALIGNMENT: usize = 8;
/// Time after which a caller repeats what the split or merge of a region has delayed.
const SPLIT_TIME: Duration = Duration::from_millis(500);
/// Time after which a write to a fenced region is repeated.
const FENCE_TIME: Duration = Duration::from_millis(50);

/// Bytes that are not an entry of a data group.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The bytes do not decode.
    #[error("a log entry of {bytes} bytes does not decode: {source}")]
    Malformed {
        /// Length of the entry.
        bytes: usize,
        /// Error of the decoder.
        source: prost::DecodeError,
    },
    /// The entry has no content.
    #[error("a log entry of {0} bytes has no content")]
    Empty(usize),
    /// The entry's kind is unknown to this release.
    #[error("unknown kind of log entry: it was written by a newer release; upgrade this node")]
    UnknownKind,
    /// The entry raises the group to a feature level that this release does not support.
    #[error(
        "the group is raised to feature level {0}, and this release supports levels up to {highest}: start a \
         release that supports level {0}",
        highest = FeatureLevel::HIGHEST
    )]
    LevelAboveRelease(FeatureLevel),
}

/// An encoded entry, and the feature level that a group needs for it.
#[derive(Debug, Clone)]
pub struct EncodedEntry {
    bytes: Bytes,
    level: FeatureLevel,
}

impl EncodedEntry {
    /// Wraps any bytes, for tests of entries that this release does not write.
    #[doc(hidden)]
    pub fn from_bytes(bytes: Bytes, level: FeatureLevel) -> Self {
        Self { bytes, level }
    }

    /// Level that the group must have reached before the entry is proposed.
    pub fn level(&self) -> FeatureLevel {
        self.level
    }
}

impl Deref for EncodedEntry {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<EncodedEntry> for Bytes {
    fn from(entry: EncodedEntry) -> Self {
        entry.bytes
    }
}

/// Returns the level that a group needs for an entry of this kind: a release below it cannot apply it. No
/// wildcard: a new kind needs a decision, and a level above those that exist.
pub fn entry_level(entry: &group_entry::Entry) -> FeatureLevel {
    use group_entry::Entry;
    match entry {
        // A raise leaves the level below, so that levels are raised one at a time.
        Entry::LevelRaised(raised) => FeatureLevel::new(raised.level).previous(),
        Entry::Opened(opened) => {
            let options = opened.region.as_ref().and_then(|region| region.options.as_ref());
            options_level(options).max(refreshable_level(options))
        }
        Entry::Altered(altered) => options_level(altered.options.as_ref()),
        Entry::Barrier(barrier) if !barrier.tables.is_empty() => FeatureLevel::COLLECTIONS,
        Entry::AreaAbandoned(abandoned) if abandoned.published_epoch > 0 => REFRESH_LEVEL,
        Entry::MergeBegun(_) | Entry::Chunk(_) => REFRESH_LEVEL,
        Entry::Dropped(_)
        | Entry::Writes(_)
        | Entry::ManifestAdvanced(_)
        | Entry::Truncated(_)
        | Entry::AreaOpened(_)
        | Entry::AreaPublished(_)
        | Entry::AreaAbandoned(_) => FeatureLevel::FIRST,
        Entry::Held(_)
        | Entry::Split(_)
        | Entry::Merged(_)
        | Entry::Closed(_)
        | Entry::Prepared(_)
        | Entry::Received(_)
        | Entry::Released(_)
        | Entry::Activated(_) => FeatureLevel::new(4),
        Entry::Barrier(_) => FeatureLevel::new(5),
    }
}

/// Returns the level of the table options that a region gets. Refreshable tables have an own oldest readable epoch from a later
/// level on.
fn options_level(options: Option<&v1::TableOptions>) -> FeatureLevel {
    match options {
        Some(options) if options.refreshable && options.explicit_since => {
            FeatureLevel::HELD_REFRESHES
        }
        Some(options) if options.dropped => FeatureLevel::HELD_DROPS,
        Some(options) if options.explicit_since => FeatureLevel::COLLECTIONS,
        Some(options) if options.compaction_window_ms.is_some() || options.holds_events => {
            FeatureLevel::EVENT_TABLES
        }
        _ => FeatureLevel::FIRST,
    }
}

/// Returns the level at which a region of a refreshable table is opened.
fn refreshable_level(options: Option<&v1::TableOptions>) -> FeatureLevel {
    let is_refreshable = options.is_some_and(|options| options.refreshable);
    if is_refreshable { REFRESH_LEVEL } else { FeatureLevel::FIRST }
}

/// A manifest version that the owner has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestAdvance {
    /// Region of the manifest.
    pub region_id: RegionId,
    /// The committed version.
    pub version: ManifestVersion,
    /// Every row at or below this sequence is in files.
    pub flushed: Sequence,
    /// Owner that committed the version.
    pub owner: OwnerEpoch,
    /// Every decision of the log at or below this sequence is recorded in the manifest.
    pub done: Sequence,
}

/// Encodes the opening of a region.
pub fn opened(region: v1::RegionDescriptor, base: Sequence) -> EncodedEntry {
    encode(group_entry::Entry::Opened(v1::RegionOpened { region: Some(region), base: base.get() }))
}

/// Encodes the removal of a region.
pub fn dropped(region: RegionId) -> EncodedEntry {
    encode(group_entry::Entry::Dropped(v1::RegionDropped { region_id: region.get() }))
}

/// Encodes writes as received: the only copy between the network and the log.
pub fn writes(writes: Vec<WriteRequest>) -> EncodedEntry {
    let eviction = Eviction::CURRENT.to_wire();
    encode(group_entry::Entry::Writes(v1::RegionWrites { writes, eviction }))
}

/// Encodes a manifest advance.
pub fn manifest_advanced(advance: &ManifestAdvance) -> EncodedEntry {
    encode(group_entry::Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: advance.region_id.get(),
        version: advance.version.get(),
        flushed_sequence: advance.flushed.get(),
        move_epoch: advance.owner.move_epoch,
        term: advance.owner.term.get(),
        done_sequence: advance.done.get(),
    }))
}

/// Encodes a change of schema and options.
pub fn altered(altered: v1::RegionAltered) -> EncodedEntry {
    encode(group_entry::Entry::Altered(altered))
}

/// Encodes a truncation.
pub fn truncated(truncated: v1::RegionTruncated) -> EncodedEntry {
    encode(group_entry::Entry::Truncated(truncated))
}

/// Encodes the opening of a staging area.
pub fn area_opened(opened: v1::AreaOpened) -> EncodedEntry {
    encode(group_entry::Entry::AreaOpened(opened))
}

/// Encodes the publication of a staging area.
pub fn area_published(published: v1::AreaPublished) -> EncodedEntry {
    encode(group_entry::Entry::AreaPublished(published))
}

/// Encodes the abandonment of a staging area.
pub fn area_abandoned(abandoned: v1::AreaAbandoned) -> EncodedEntry {
    encode(group_entry::Entry::AreaAbandoned(abandoned))
}

/// Encodes that a region is held, or no longer held.
pub fn held(held: v1::RegionHeld) -> EncodedEntry {
    encode(group_entry::Entry::Held(held))
}

/// Encodes the replacement of a region by its children.
pub fn split(split: v1::RegionSplit) -> EncodedEntry {
    encode(group_entry::Entry::Split(split))
}

/// Encodes the replacement of regions by one child.
pub fn merged(merged: v1::RegionsMerged) -> EncodedEntry {
    encode(group_entry::Entry::Merged(merged))
}

/// Encodes the end of a region that its children have replaced.
pub fn closed(closed: v1::RegionClosed) -> EncodedEntry {
    encode(group_entry::Entry::Closed(closed))
}

/// Encodes that the group is about to receive a region.
pub fn prepared(prepared: v1::RegionPrepared) -> EncodedEntry {
    encode(group_entry::Entry::Prepared(prepared))
}

/// Encodes that the group has taken a region over.
pub fn received(received: v1::RegionReceived) -> EncodedEntry {
    encode(group_entry::Entry::Received(received))
}

/// Encodes that another group has a region.
pub fn released(released: v1::RegionReleased) -> EncodedEntry {
    encode(group_entry::Entry::Released(released))
}

/// Encodes that the group serves a region that it has received.
pub fn activated(activated: v1::RegionActivated) -> EncodedEntry {
    encode(group_entry::Entry::Activated(activated))
}

/// Encodes the begin of an epoch.
pub fn barrier(barrier: v1::GroupBarrier) -> EncodedEntry {
    encode(group_entry::Entry::Barrier(barrier))
}

/// Encodes the begin of a merge.
pub fn merge_begun(begun: v1::RegionMergeBegun) -> EncodedEntry {
    encode(group_entry::Entry::MergeBegun(begun))
}

/// Encodes a chunk of a merge.
pub fn chunk(chunk: v1::RegionChunk) -> EncodedEntry {
    encode(group_entry::Entry::Chunk(chunk))
}

/// Encodes the raise of the group's feature level.
pub fn level_raised(level: FeatureLevel) -> EncodedEntry {
    encode(group_entry::Entry::LevelRaised(v1::LevelRaised { level: level.get() }))
}

fn encode(entry: group_entry::Entry) -> EncodedEntry {
    let level = entry_level(&entry);
    EncodedEntry { bytes: v1::GroupEntry { entry: Some(entry) }.encode_to_vec().into(), level }
}

/// Decodes an entry; the rows of writes share its bytes.
///
/// # Errors
/// [`EntryError::UnknownKind`] or [`EntryError::LevelAboveRelease`] if a later release may apply the entry.
/// Any other error is the same in every release.
pub fn decode(bytes: &Bytes) -> Result<group_entry::Entry, EntryError> {
    let decoded = v1::GroupEntry::decode(bytes.clone())
        .map_err(|source| EntryError::Malformed { bytes: bytes.len(), source })?;
    match decoded.entry {
        Some(group_entry::Entry::Writes(writes))
            if Eviction::from_wire(writes.eviction).is_none() =>
        {
            Err(EntryError::UnknownKind)
        }
        Some(group_entry::Entry::Merged(merged))
            if Eviction::from_wire(merged.eviction).is_none() =>
        {
            Err(EntryError::UnknownKind)
        }
        Some(group_entry::Entry::LevelRaised(raised))
            if FeatureLevel::new(raised.level) > FeatureLevel::HIGHEST =>
        {
            Err(EntryError::LevelAboveRelease(FeatureLevel::new(raised.level)))
        }
        Some(entry) => Ok(entry),
        None if bytes.is_empty() => Err(EntryError::Empty(0)),
        None => Err(EntryError::UnknownKind),
    }
}

/// Checks that the kind of an entry is known to this release, without decoding its content. Bytes
/// that are no entry pass: applying them refuses them.
///
/// # Errors
/// [`EntryError::UnknownKind`].
pub fn check_kind(bytes: &Bytes) -> Result<(), EntryError> {
    let mut rest = bytes.clone();
    let mut is_known = bytes.is_empty();
    while rest.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { return Ok(()) };
        is_known |= KINDS.contains(&tag);
        if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
            return Ok(());
        }
    }
    if is_known { Ok(()) } else { Err(EntryError::UnknownKind) }
}

/// Copies the rows of writes that would keep an entry of `whole` bytes alive for a small part of
/// it: a memtable keeps a write's rows in the received bytes, and accounts for no others.
///
/// Rows at an unaligned address are copied too. Arrow would copy most of their columns anyway, and
/// keep the entry alive for the rest.
pub fn detach(entry: &mut group_entry::Entry, whole: usize) {
    let group_entry::Entry::Writes(entry) = entry else { return };
    for write in &mut entry.writes {
        let aligned = write.rows.as_ptr().addr().is_multiple_of(ALIGNMENT);
        if !aligned || write.rows.len() < whole / 2 {
            write.rows = Bytes::copy_from_slice(&write.rows);
        }
    }
}

impl From<&v1::ManifestAdvanced> for ManifestAdvance {
    fn from(wire: &v1::ManifestAdvanced) -> Self {
        Self {
            region_id: RegionId(wire.region_id),
            version: ManifestVersion(wire.version),
            flushed: Sequence(wire.flushed_sequence),
            owner: OwnerEpoch { move_epoch: wire.move_epoch, term: Term(wire.term) },
            done: Sequence(wire.done_sequence),
        }
    }
}

/// Outcome of one write, or of one entry of another kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryOutcome {
    /// The write or entry took effect.
    Done {
        /// Sequence of the rows or of the opening write; 0 if there is neither.
        sequence: Sequence,
        /// Rows applied, now or by the first attempt.
        rows: u32,
        /// True if an earlier attempt had already taken effect.
        repeated: bool,
    },
    /// The write or entry changed nothing.
    Refused {
        /// Machine-readable reason.
        reason: Reason,
        /// Human-readable message.
        message: String,
    },
}

impl EntryOutcome {
    /// Success without a sequence or rows to report.
    pub const DONE: Self = Self::Done { sequence: Sequence(0), rows: 0, repeated: false };

    /// Success of an entry whose work an earlier one has done.
    pub const REPEATED: Self = Self::Done { sequence: Sequence(0), rows: 0, repeated: true };

    /// Creates a refusal.
    pub fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self::Refused { reason, message: message.into() }
    }

    fn into_wire(self) -> v1::EntryOutcome {
        match self {
            Self::Done { sequence, rows, repeated } => v1::EntryOutcome {
                sequence: sequence.get(),
                rows_applied: rows,
                repeated,
                ..Default::default()
            },
            Self::Refused { reason, message } => {
                v1::EntryOutcome { refused: reason.into(), message, ..Default::default() }
            }
        }
    }

    fn from_wire(wire: v1::EntryOutcome) -> Self {
        if wire.refused == i32::from(Reason::Unspecified) {
            return Self::Done {
                sequence: Sequence(wire.sequence),
                rows: wire.rows_applied,
                repeated: wire.repeated,
            };
        }
        let reason = Reason::try_from(wire.refused).unwrap_or(Reason::Internal);
        Self::Refused { reason, message: wire.message }
    }

    /// Converts to the reply for the caller.
    pub fn into_result(self) -> Result<v1::WriteResponse, Refusal> {
        match self {
            Self::Done { sequence, rows, repeated } => {
                Ok(v1::WriteResponse { sequence: sequence.get(), rows_applied: rows, repeated })
            }
            refused @ Self::Refused { .. } => Err(refused.into_refusal()),
        }
    }

    /// Returns the error for the caller of an entry that was refused.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused { reason, message } => {
                let refusal = Refusal::new(reason, message);
                match reason {
                    Reason::RouteBusy => refusal.retry_after(SPLIT_TIME),
                    Reason::RouteWriteFenced => refusal.retry_after(FENCE_TIME),
                    _ => refusal,
                }
            }
            Self::Done { .. } => Refusal::new(Reason::Internal, "refused without a reason"),
        }
    }
}

/// Encodes the outcomes of one entry.
pub fn encode_reply(outcomes: Vec<EntryOutcome>) -> Bytes {
    let outcomes = outcomes.into_iter().map(EntryOutcome::into_wire).collect();
    v1::GroupReply { outcomes }.encode_to_vec().into()
}

/// Decodes the outcomes of one entry.
pub fn decode_reply(bytes: &Bytes) -> Result<Vec<EntryOutcome>, EntryError> {
    let reply = v1::GroupReply::decode(bytes.clone())
        .map_err(|source| EntryError::Malformed { bytes: bytes.len(), source })?;
    Ok(reply.outcomes.into_iter().map(EntryOutcome::from_wire).collect())
}
