//! The entries of a data group's log, and what applying them answers: between messages and bytes.

use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, WriteRequest, group_entry};

#[cfg(test)]
mod tests;

/// What columns of 64-bit values want of an address.
const ALIGNMENT: usize = 8;

/// Bytes that are not an entry of a data group.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// They do not decode.
    #[error("a log entry of {bytes} bytes does not decode: {source}")]
    Malformed {
        /// How many there are.
        bytes: usize,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// They decode to a kind that this release does not know.
    #[error(
        "a log entry is of a kind that this release does not know: it was written by a newer one"
    )]
    UnknownKind,
}

/// That the owner has committed a manifest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// Whose manifest.
    pub region_id: RegionId,
    /// The version committed.
    pub version: ManifestVersion,
    /// Everything at or below lies in files.
    pub flushed: Sequence,
    /// Who committed it.
    pub owner: OwnerEpoch,
    /// Every alter and truncation at or below is recorded.
    pub done: Sequence,
}

/// Encodes the taking up of a region.
pub fn opened(region: v1::RegionDescriptor, base: Sequence) -> Bytes {
    encode(group_entry::Entry::Opened(v1::RegionOpened { region: Some(region), base: base.get() }))
}

/// Encodes the forgetting of a region.
pub fn dropped(region: RegionId) -> Bytes {
    encode(group_entry::Entry::Dropped(v1::RegionDropped { region_id: region.get() }))
}

/// Encodes writes as they came; the one copy between the network and the log.
pub fn writes(writes: Vec<WriteRequest>) -> Bytes {
    encode(group_entry::Entry::Writes(v1::RegionWrites { writes }))
}

/// Encodes a manifest advance.
pub fn manifest_advanced(advance: &Advance) -> Bytes {
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
pub fn altered(altered: v1::RegionAltered) -> Bytes {
    encode(group_entry::Entry::Altered(altered))
}

/// Encodes a truncation.
pub fn truncated(truncated: v1::RegionTruncated) -> Bytes {
    encode(group_entry::Entry::Truncated(truncated))
}

/// Encodes the beginning of a staging area.
pub fn area_opened(opened: v1::AreaOpened) -> Bytes {
    encode(group_entry::Entry::AreaOpened(opened))
}

/// Encodes the publication of a staging area.
pub fn area_published(published: v1::AreaPublished) -> Bytes {
    encode(group_entry::Entry::AreaPublished(published))
}

/// Encodes the giving up of a staging area.
pub fn area_abandoned(abandoned: v1::AreaAbandoned) -> Bytes {
    encode(group_entry::Entry::AreaAbandoned(abandoned))
}

fn encode(entry: group_entry::Entry) -> Bytes {
    v1::GroupEntry { entry: Some(entry) }.encode_to_vec().into()
}

/// Decodes an entry; the rows of writes share its bytes.
pub fn decode(bytes: &Bytes) -> Result<group_entry::Entry, EntryError> {
    v1::GroupEntry::decode(bytes.clone())
        .map_err(|source| EntryError::Malformed { bytes: bytes.len(), source })?
        .entry
        .ok_or(EntryError::UnknownKind)
}

/// Gives writes bytes of their own where their rows would hold on to an entry of `whole` bytes for
/// little: a memtable keeps the rows of a write in the bytes that they came in, and counts no others.
///
/// Rows that do not stand at an aligned address are moved too. Arrow would copy most of their
/// columns anyway, and keep the entry for the rest.
pub fn detach(entry: &mut group_entry::Entry, whole: usize) {
    let group_entry::Entry::Writes(entry) = entry else { return };
    for write in &mut entry.writes {
        let aligned = write.rows.as_ptr().addr().is_multiple_of(ALIGNMENT);
        if !aligned || write.rows.len() < whole / 2 {
            write.rows = Bytes::copy_from_slice(&write.rows);
        }
    }
}

impl From<&v1::ManifestAdvanced> for Advance {
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

/// What one write, or one entry of another kind, came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done {
        /// Sequence of the rows, or of the opening write; 0 where there is neither.
        sequence: Sequence,
        /// Rows applied, now or by the first attempt.
        rows: u32,
        /// An earlier attempt had already taken effect.
        repeated: bool,
    },
    /// It changed nothing.
    Refused {
        /// For programs.
        reason: Reason,
        /// For people.
        message: String,
    },
}

impl Outcome {
    /// It took effect and there is nothing to tell.
    pub const DONE: Self = Self::Done { sequence: Sequence(0), rows: 0, repeated: false };

    /// It changed nothing, for this reason.
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

    /// As an answer to the caller.
    pub fn into_result(self) -> Result<v1::WriteResponse, Refusal> {
        match self {
            Self::Done { sequence, rows, repeated } => {
                Ok(v1::WriteResponse { sequence: sequence.get(), rows_applied: rows, repeated })
            }
            Self::Refused { reason, message } => Err(Refusal::new(reason, message)),
        }
    }
}

/// Encodes the outcomes of one entry.
pub fn encode_reply(outcomes: Vec<Outcome>) -> Bytes {
    let outcomes = outcomes.into_iter().map(Outcome::into_wire).collect();
    v1::GroupReply { outcomes }.encode_to_vec().into()
}

/// Decodes the outcomes of one entry.
pub fn decode_reply(bytes: &Bytes) -> Result<Vec<Outcome>, EntryError> {
    let reply = v1::GroupReply::decode(bytes.clone())
        .map_err(|source| EntryError::Malformed { bytes: bytes.len(), source })?;
    Ok(reply.outcomes.into_iter().map(Outcome::from_wire).collect())
}
