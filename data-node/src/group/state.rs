//! What a data group's replicas agree on: the registry of regions. Changed only by applying
//! entries; a pure value without I/O, clock or local knowledge.
//!
//! Not in here, because it is local: which manifest version a replica has loaded, how its memtable
//! runs are merged, how much memory they take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use tidewater_common::ids::{LogIndex, ManifestVersion, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::manifest::{AreaId, ProcedureStep};
use tidewater_region_engine::region::{Cause, PendingObligation};

use super::descriptor::{Descriptor, DescriptorError};
use super::entry::Outcome;
use super::obligation;
use super::producers::Producers;

/// Dropped regions that a group remembers, so that a late `opened` does not bring one back.
pub const DROPPED_REMEMBERED: usize = 65_536;

/// What the replicas know of one region.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionState {
    /// Identity, schema, range.
    pub descriptor: Arc<Descriptor>,
    /// Sequences of this group's writes start above it.
    pub base: Sequence,
    /// The last manifest version that the owner advanced to.
    pub manifest_version: ManifestVersion,
    /// Everything at or below lies in files.
    pub flushed: Sequence,
    /// Who advanced last.
    pub owner: OwnerEpoch,
    /// The greatest sequence applied; at least the base.
    pub last_sequence: Sequence,
    /// crc32c over all writes applied, in order: replicas that applied the same have the same.
    pub contents: u32,
    /// Exactly once.
    pub producers: Producers,
    /// What the manifest has still to record, in order of sequence.
    pub obligations: Vec<PendingObligation>,
    /// The greatest step of a procedure that was taken.
    pub step: Option<ProcedureStep>,
    /// Staging areas that the log has opened and has yet to close.
    pub areas: BTreeSet<AreaId>,
}

/// What became of a procedure's step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is taken by this entry.
    Now(Cause),
    /// It was taken before, or a later one.
    Before,
    /// It cannot be taken.
    Refused(Outcome),
}

impl RegionState {
    /// A region as it is when it is opened.
    pub fn new(descriptor: Arc<Descriptor>, base: Sequence) -> Self {
        Self {
            descriptor,
            base,
            manifest_version: ManifestVersion(0),
            flushed: base,
            owner: OwnerEpoch::default(),
            last_sequence: base,
            contents: 0,
            producers: Producers::new(Producers::CAPACITY),
            obligations: Vec::new(),
            step: None,
            areas: BTreeSet::new(),
        }
    }

    /// Takes a procedure's step at a log index: of a region, the greatest one counts.
    pub fn take_step(&mut self, index: LogIndex, step: Option<v1::ProcedureStep>) -> Taken {
        let refused = |reason, message: &str| Taken::Refused(Outcome::refused(reason, message));
        let Some(step) = step.map(|wire| ProcedureStep { number: wire.number, step: wire.step })
        else {
            return refused(Reason::InvalidArgument, "a change names the step that causes it");
        };
        if self.took(step) {
            return Taken::Before;
        }
        match self.take_sequence(index) {
            Taken::Now(cause) => {
                self.step = Some(step);
                Taken::Now(Cause { procedure: Some(step), ..cause })
            }
            other => other,
        }
    }

    /// Whether a procedure's step, or a later one, was taken.
    pub fn took(&self, step: ProcedureStep) -> bool {
        self.step.is_some_and(|last| (last.number, last.step) >= (step.number, step.step))
    }

    /// Takes the sequence of a log index for something that no procedure asks for.
    pub fn take_sequence(&mut self, index: LogIndex) -> Taken {
        let Some(sequence) = Sequence::at(self.base, index, 0) else {
            let reason = "the region's sequences are used up";
            return Taken::Refused(Outcome::refused(Reason::Internal, reason));
        };
        self.last_sequence = self.last_sequence.max(sequence);
        Taken::Now(Cause { sequence, procedure: None })
    }

    /// Accounts for rows that were applied at `sequence`.
    pub fn note_write(&mut self, sequence: Sequence, rows: &[u8]) {
        self.last_sequence = self.last_sequence.max(sequence);
        self.contents = crc32c::crc32c_append(self.contents, &sequence.get().to_le_bytes());
        self.contents = crc32c::crc32c_append(self.contents, rows);
    }

    /// The region as it is stored.
    pub fn to_wire(&self) -> v1::GroupSnapshotRegion {
        v1::GroupSnapshotRegion {
            region: Some(self.descriptor.to_wire()),
            base: self.base.get(),
            manifest_version: self.manifest_version.get(),
            flushed_sequence: self.flushed.get(),
            move_epoch: self.owner.move_epoch,
            term: self.owner.term.get(),
            last_sequence: self.last_sequence.get(),
            contents: self.contents,
            producers: self.producers.to_records(),
            obligations: obligation::to_wire(self.descriptor.region_id, &self.obligations),
            step: self.step.map(obligation::step_to_wire),
            areas: self.areas.iter().map(|area| obligation::area_to_wire(*area)).collect(),
        }
    }

    /// The region out of its stored form.
    pub fn from_wire(wire: v1::GroupSnapshotRegion) -> Result<Self, DescriptorError> {
        let region = wire.region.as_ref().ok_or(DescriptorError::Missing("descriptor"))?;
        Ok(Self {
            descriptor: Descriptor::new(region)?,
            base: Sequence(wire.base),
            manifest_version: ManifestVersion(wire.manifest_version),
            flushed: Sequence(wire.flushed_sequence),
            owner: OwnerEpoch { move_epoch: wire.move_epoch, term: Term(wire.term) },
            last_sequence: Sequence(wire.last_sequence),
            contents: wire.contents,
            producers: Producers::from_records(Producers::CAPACITY, wire.producers)
                .ok_or(DescriptorError::Missing("producers"))?,
            obligations: obligation::from_wire(wire.obligations)?,
            step: wire.step.as_ref().map(obligation::step_from_wire),
            areas: wire
                .areas
                .iter()
                .map(|area| obligation::area_from_wire(area))
                .collect::<Option<_>>()
                .ok_or(DescriptorError::Missing("staging area"))?,
        })
    }

    /// Hex digest of everything replicated about the region, rows included: 16 characters. Two
    /// replicas that applied the same entries have the same.
    pub fn digest(&self) -> String {
        format!("{:016x}", fnv1a(&self.to_wire().encode_to_vec()))
    }
}

/// The registry of one group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupState {
    /// By id.
    pub regions: BTreeMap<RegionId, RegionState>,
    /// Regions dropped here, the greatest [`DROPPED_REMEMBERED`] ids.
    pub dropped: BTreeSet<RegionId>,
}

impl GroupState {
    /// Forgets a region for good; whether there was one.
    pub fn drop_region(&mut self, region: RegionId) -> bool {
        self.dropped.insert(region);
        while self.dropped.len() > DROPPED_REMEMBERED {
            self.dropped.pop_first();
        }
        self.regions.remove(&region).is_some()
    }

    /// Hex digest of the whole registry: 16 characters.
    pub fn digest(&self) -> String {
        let mut bytes = Vec::new();
        for region in self.regions.values() {
            bytes.extend_from_slice(&region.to_wire().encode_to_vec());
        }
        for region in &self.dropped {
            bytes.extend_from_slice(&region.get().to_le_bytes());
        }
        format!("{:016x}", fnv1a(&bytes))
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
