//! Replicated state of a data group: the registry of regions. Changed only by applying entries; a
//! pure value without I/O, clock or local knowledge.
//!
//! Not part of it, because it is local to a replica: the loaded manifest version, the merging of
//! memtable runs, their memory use.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{
    Epoch, GroupId, Incarnation, LogIndex, ManifestVersion, OwnerEpoch, RegionId, Sequence,
    TableId, Term,
};
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::{AreaId, ProcedureStep};
use tidewater_region_engine::region::{Cause, Parent, PendingObligation};

use super::admits::{Operation, Server, ServingState, admit};
use super::apply::WritePoint;
use super::descriptor::{Descriptor, DescriptorError};
use super::entry::EntryOutcome;
use super::moves::{Moves, not_served};
use super::obligation;
use super::producers::Producers;
use super::refresh::{MergeState, PublishedEpochs};

/// Number of dropped regions that a group remembers, so that a late `opened` does not restore one.
pub const DROPPED_REMEMBERED: usize = 65_536;

/// Greatest base of a region's sequences: leaves room for 2^46 log entries.
pub const GREATEST_BASE: Sequence = Sequence(1 << 62);

/// Replicated state of one region.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionState {
    /// Identity, schema, range.
    pub descriptor: Arc<Descriptor>,
    /// Base of the sequences of this group's writes.
    pub base: Sequence,
    /// Last manifest version that the owner advanced to.
    pub manifest_version: ManifestVersion,
    /// Every row at or below this sequence is in files.
    pub flushed: Sequence,
    /// Owner of the last manifest advance.
    pub owner: OwnerEpoch,
    /// Greatest sequence applied; at least the base.
    pub last_sequence: Sequence,
    /// crc32c over all applied writes, in order: equal on replicas that applied the same writes.
    pub contents: u32,
    /// Producers, for exactly-once writes.
    pub producers: Producers,
    /// Decisions that the manifest has yet to record, by sequence.
    pub obligations: Vec<PendingObligation>,
    /// Greatest step of a procedure that was taken.
    pub step: Option<ProcedureStep>,
    /// Staging areas that the log has opened and not yet closed.
    pub areas: BTreeSet<AreaId>,
    /// Nothing is decided that the manifest must record.
    pub held: bool,
    /// Nothing is written either. A fenced region is held.
    pub fenced: bool,
    /// Group to which the fenced region is moved.
    pub moving_to: Option<GroupId>,
    /// The group owns the manifest, and does not serve the region yet.
    pub arriving: bool,
    /// Regions with whose files the region begins, until its own manifest is known to exist.
    pub parents: Vec<Parent>,
    /// Regions that have replaced it, in key order.
    pub children: Vec<RegionId>,
    /// Oldest epoch that can be read of a table with an own one (`TableOptions::explicit_since`). Of another table: if that
    /// of the group is earlier. Limited by the opening and by truncations.
    pub since: Epoch,
    /// Epoch at which the region was fenced for its move: later ones are not complete in it.
    pub fence_epoch: Option<Epoch>,
    /// Merge of an open staging area.
    pub merge: Option<MergeState>,
    /// Epochs as of which a refreshable table is read.
    pub published: PublishedEpochs,
}

impl RegionState {
    /// Creates the state of a newly opened region.
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
            held: false,
            fenced: false,
            moving_to: None,
            arriving: false,
            parents: Vec::new(),
            children: Vec::new(),
            since: Epoch(0),
            fence_epoch: None,
            merge: None,
            published: PublishedEpochs::default(),
        }
    }

    /// Returns the state that decides which operations the region admits.
    pub fn serving(&self) -> ServingState {
        match (self.held, self.fenced) {
            _ if !self.children.is_empty() => ServingState::Replaced,
            _ if self.arriving => ServingState::Arriving,
            (_, true) if self.moving_to.is_some() => ServingState::Departing,
            (_, true) => ServingState::Fenced,
            (true, false) => ServingState::Held,
            (false, false) => ServingState::Active,
        }
    }

    /// Returns the flushed sequence that the manifest has at least. A region without rows above its base counts as flushed up
    /// to it, of which its manifest does not know.
    pub fn flushed_rows(&self) -> Sequence {
        if self.flushed > self.base { self.flushed } else { Sequence(0) }
    }

    /// Returns which region carries out an operation on this one.
    ///
    /// # Errors
    /// As [`admit`].
    pub fn admit(&self, operation: Operation) -> Result<Server, EntryOutcome> {
        admit(self.serving(), operation, self.descriptor.region_id)
    }

    /// Checks that an entry with this step, if it names one, and of this kind has an effect on the region.
    ///
    /// # Errors
    /// The outcome of an entry that changes nothing: an earlier one took the step or a later one, or the state of
    /// the region does not admit the operation.
    pub fn check_step(
        &self,
        step: Option<&v1::ProcedureStep>,
        operation: Operation,
    ) -> Result<(), EntryOutcome> {
        let step = step.map(obligation::step_from_wire);
        if let Some(earlier) = step.and_then(|step| self.earlier_step(step)) {
            return Err(earlier);
        }
        self.admit(operation).map(drop)
    }

    /// Takes a procedure's step at a log index: the greatest step of a region counts.
    ///
    /// # Errors
    /// The outcome of an entry that changes nothing: an earlier one took the step or a later one, or it names none.
    pub fn take_step(
        &mut self,
        index: LogIndex,
        step: Option<&v1::ProcedureStep>,
    ) -> Result<Cause, EntryOutcome> {
        let Some(step) = step.map(obligation::step_from_wire) else {
            let text = "a change must name the procedure step that causes it";
            return Err(EntryOutcome::refused(Reason::InvalidArgument, text));
        };
        if let Some(earlier) = self.earlier_step(step) {
            return Err(earlier);
        }
        let cause = self.take_sequence(index)?;
        self.step = Some(step);
        Ok(Cause { procedure: Some(step), ..cause })
    }

    /// Returns the outcome of an entry with a step that an earlier entry has taken, or below such a step; `None`:
    /// the step is still to be taken.
    ///
    /// A step below the last one may never have been taken: its outcome is not a success.
    pub fn earlier_step(&self, step: ProcedureStep) -> Option<EntryOutcome> {
        let last = self.step?;
        match last.cmp(&step) {
            Ordering::Less => None,
            Ordering::Equal => Some(EntryOutcome::REPEATED),
            Ordering::Greater => Some(EntryOutcome::refused(
                Reason::ProcedureSuperseded,
                format!(
                    "region {} has taken step {} of procedure {}: step {} of procedure {} has no effect \
                     any more",
                    self.descriptor.region_id, last.step, last.number, step.step, step.number
                ),
            )),
        }
    }

    /// Takes the sequence of a log index for a decision without a procedure.
    ///
    /// # Errors
    /// The outcome of an entry at an index beyond the last sequence.
    pub fn take_sequence(&mut self, index: LogIndex) -> Result<Cause, EntryOutcome> {
        let Some(sequence) = Sequence::at(self.base, index, 0) else {
            let reason = "the region has no sequences left";
            return Err(EntryOutcome::refused(Reason::Internal, reason));
        };
        self.last_sequence = self.last_sequence.max(sequence);
        Ok(Cause { sequence, procedure: None })
    }

    /// Records rows that were applied.
    pub fn record_write(&mut self, point: WritePoint, rows: &[u8]) {
        let WritePoint { sequence, epoch } = point;
        self.last_sequence = self.last_sequence.max(sequence);
        self.contents = crc32c::crc32c_append(self.contents, &sequence.get().to_le_bytes());
        // Replicas of releases without barriers have the same contents before the first one.
        if epoch > Epoch(0) {
            self.contents = crc32c::crc32c_append(self.contents, &epoch.get().to_le_bytes());
        }
        self.contents = crc32c::crc32c_append(self.contents, rows);
    }

    /// Converts to the stored form.
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
            previous: self.descriptor.previous().map(|previous| v1::RegionShape {
                schema: Some((&previous.schema).into()),
                options: Some((&previous.options).into()),
            }),
            held: self.held,
            fenced: self.fenced,
            parents: self.parents.iter().map(parent_to_wire).collect(),
            children: self.children.iter().map(|child| child.get()).collect(),
            target_group_id: self.moving_to.map_or(0, GroupId::get),
            arriving: self.arriving,
            since: self.since.get(),
            fence_epoch: self.fence_epoch.map(Epoch::get),
            merge: self.merge.as_ref().map(MergeState::to_wire),
            published: self.published.to_wire(),
        }
    }

    /// Converts from the stored form.
    pub fn from_wire(wire: v1::GroupSnapshotRegion) -> Result<Self, DescriptorError> {
        let region = wire.region.as_ref().ok_or(DescriptorError::Missing("descriptor"))?;
        let parents = wire.parents.iter().map(|parent| parent_from_wire(region, parent));
        let parents = parents.collect();
        let mut descriptor = Descriptor::new(region)?;
        if let Some(v1::RegionShape { schema, options }) = wire.previous {
            let previous = v1::RegionDescriptor { schema, options, ..region.clone() };
            descriptor = descriptor.altered_from(&*Descriptor::new(&previous)?);
        }
        Ok(Self {
            descriptor,
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
            held: wire.held,
            fenced: wire.fenced,
            moving_to: Some(GroupId(wire.target_group_id)).filter(|group| group.get() != 0),
            arriving: wire.arriving,
            since: Epoch(wire.since),
            fence_epoch: wire.fence_epoch.map(Epoch),
            merge: wire.merge.map(MergeState::from_wire).transpose()?,
            published: PublishedEpochs::from_wire(wire.published),
            parents,
            children: wire.children.into_iter().map(RegionId).collect(),
        })
    }

    /// Hex digest of all replicated state of the region, rows included: 16 characters. Replicas
    /// that applied the same entries have the same digest.
    pub fn digest(&self) -> String {
        format!("{:016x}", fnv1a(&self.to_wire().encode_to_vec()))
    }
}

fn parent_to_wire(parent: &Parent) -> v1::RegionParent {
    v1::RegionParent {
        region_id: parent.dir.region_id.get(),
        sealed_version: parent.sealed_at.get(),
        last_sequence: parent.last_sequence.get(),
    }
}

/// Converts from the stored form. Parents have the table and the incarnation of their region.
fn parent_from_wire(region: &v1::RegionDescriptor, parent: &v1::RegionParent) -> Parent {
    Parent {
        dir: RegionDir {
            table_id: TableId(region.table_id),
            region_id: RegionId(parent.region_id),
            incarnation: Incarnation(region.incarnation),
        },
        sealed_at: ManifestVersion(parent.sealed_version),
        last_sequence: Sequence(parent.last_sequence),
    }
}

/// Replicated state of one group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupState {
    /// Regions by id.
    pub regions: BTreeMap<RegionId, RegionState>,
    /// Regions that this group dropped, at most the greatest [`DROPPED_REMEMBERED`] ids.
    pub dropped: BTreeSet<RegionId>,
    /// Entries that need a higher level are refused.
    pub level: FeatureLevel,
    /// Regions that other groups have or have kept, and regions that this group is about to receive.
    pub moves: Moves,
    /// Epoch of the rows that are written now; 0: no barrier was applied yet.
    pub epoch: Epoch,
    /// Oldest epoch that can be read of tables without an own one.
    pub since: Epoch,
}

impl GroupState {
    /// Returns the epochs of a region that can be read: from the first one, before the second one; `None` if the group
    /// does not have the region.
    pub fn readable_epochs(&self, region: RegionId) -> Option<(Epoch, Epoch)> {
        let region = self.regions.get(&region)?;
        let upper = region.fence_epoch.map_or(self.epoch, |fenced| fenced.min(self.epoch));
        let options = &region.descriptor.options;
        if options.explicit_since {
            // Something may hold an epoch that the group no longer keeps, also after a move to it.
            let published = &region.published;
            let since = if options.refreshable {
                published.oldest_kept(region.since, self.epoch)
            } else {
                region.since
            };
            return Some((since, upper));
        }
        let mut since = self.since;
        if options.refreshable {
            // Readers name a published epoch, whatever the history of the cluster.
            since = since.min(region.published.oldest_readable(self.epoch));
        }
        Some((region.since.max(since), upper))
    }

    /// Returns the epoch from which on a region has to keep its versions so that it is readable as of this one, apart from readers
    /// of earlier publications, whose time ends by itself.
    pub fn kept_epoch(&self, region: RegionId, since: Epoch) -> Epoch {
        match self.regions.get(&region) {
            Some(region) if region.descriptor.options.refreshable => {
                region.published.at_or_first(since)
            }
            _ => since,
        }
    }

    /// Returns the number of publications that a region of a refreshable table keeps readable.
    pub fn publications(&self, region: RegionId) -> u32 {
        let since = self.readable_epochs(region).map_or(Epoch(0), |(since, _)| since);
        let count =
            self.regions.get(&region).map_or(0, |region| region.published.count_from(since));
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Drops a region permanently; returns whether it existed.
    pub fn drop_region(&mut self, region: RegionId) -> bool {
        self.dropped.insert(region);
        while self.dropped.len() > DROPPED_REMEMBERED {
            self.dropped.pop_first();
        }
        self.moves.forget(region);
        self.regions.remove(&region).is_some()
    }

    /// Returns the refusal of an operation on a region that the group does not serve.
    pub fn not_served(&self, region: RegionId) -> EntryOutcome {
        not_served(region, self.moves.departure(region))
    }

    /// Hex digest of the whole state: 16 characters.
    pub fn digest(&self) -> String {
        let mut bytes = Vec::new();
        for region in self.regions.values() {
            bytes.extend_from_slice(&region.to_wire().encode_to_vec());
        }
        for region in &self.dropped {
            bytes.extend_from_slice(&region.get().to_le_bytes());
        }
        // Groups without moves have the digest of releases that know none.
        for departed in self.moves.departed_to_wire() {
            bytes.extend_from_slice(&departed.encode_to_vec());
        }
        for prepared in self.moves.prepared_to_wire() {
            bytes.extend_from_slice(&prepared.encode_to_vec());
        }
        // Replicas of releases without levels have the same digest at the first level.
        if self.level > FeatureLevel::FIRST {
            bytes.extend_from_slice(&self.level.get().to_le_bytes());
        }
        if self.epoch > Epoch(0) {
            bytes.extend_from_slice(&self.epoch.get().to_le_bytes());
            bytes.extend_from_slice(&self.since.get().to_le_bytes());
        }
        format!("{:016x}", fnv1a(&bytes))
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
