//! Conversion of checkpoints to and from protobuf.

use std::collections::BTreeSet;

use tidewater_common::ids::{Epoch, GroupId, ManifestVersion, RegionId, Sequence, WriterId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

use super::CodecError;
use super::action::{actions, mark, mark_message, table, table_message};
use super::delta::{step, step_message};
use super::file::{RangeMessage, owner_epoch, owner_epoch_message, region_dir, uuid, uuid_bytes};
use crate::file_meta::{FileMeta, FileRef};
use crate::hooks::RemovalReason;
use crate::manifest::state::{RegionOwner, RemovedFile, StagingArea, TableState, VersionSlot};
use crate::manifest::{AreaId, AreaOutcome, ManifestState};

impl From<&ManifestState> for v1::ManifestCheckpoint {
    fn from(state: &ManifestState) -> Self {
        Self {
            dir: Some(state.dir.into()),
            version: state.version.get(),
            time_ms: state.time_ms,
            table: state.table.as_ref().map(|table| table_message(&table.schema, &table.options)),
            range: state.range.as_ref().map(KeyRange::to_message),
            live: state.live.values().map(Into::into).collect(),
            removed: state.removed.iter().map(removed_message).collect(),
            flushed: state.flushed.get(),
            truncated: state.truncated.get(),
            done_through: state.done_through.get(),
            since: state.since.get(),
            window_ms: state.window_ms,
            owner: state.owner.map(|owner| v1::ManifestFence {
                owner: Some(owner_epoch_message(owner.epoch)),
                group_id: owner.group.get(),
                ..v1::ManifestFence::default()
            }),
            gc_floor_ms: state.gc_floor_ms,
            removed_at_ms: state.removed_at_ms,
            areas: state.areas.iter().map(area_message).collect(),
            closed_area_ids: state
                .closed_areas
                .iter()
                .map(|(area, _)| uuid_bytes(&area.0))
                .collect(),
            published_area_ids: state
                .closed_areas
                .iter()
                .filter(|(_, outcome)| *outcome == AreaOutcome::Published)
                .map(|(area, _)| uuid_bytes(&area.0))
                .collect(),
            procedure: state.procedure.map(step_message),
            slots: state.slots.iter().map(slot_message).collect(),
            expired: state.expired.iter().map(mark_message).collect(),
            sealed_at: state.sealed_at.map(ManifestVersion::get),
            parent_ids: state.parents.iter().map(|id| id.get()).collect(),
        }
    }
}

impl TryFrom<v1::ManifestCheckpoint> for ManifestState {
    type Error = CodecError;

    fn try_from(message: v1::ManifestCheckpoint) -> Result<Self, CodecError> {
        let mut state = Self::empty(region_dir(message.dir, "dir")?);
        state.version = ManifestVersion(message.version);
        state.time_ms = message.time_ms;
        state.table = message
            .table
            .map(|message| table(message).map(|(schema, options)| TableState { schema, options }))
            .transpose()?;
        state.range = message.range.map(KeyRange::from_message);
        state.sealed_at = message.sealed_at.map(ManifestVersion);
        state.parents = message.parent_ids.into_iter().map(RegionId).collect();
        for file in message.live {
            let file = FileMeta::try_from(file)?;
            state.live.insert(file.reference(), file);
        }
        for removed in message.removed {
            let (file, removed) = removed_file(removed)?;
            state.removed.insert(file, removed);
        }
        state.flushed = Sequence(message.flushed);
        state.truncated = Sequence(message.truncated);
        state.done_through = Sequence(message.done_through);
        state.since = Epoch(message.since);
        state.window_ms = message.window_ms;
        state.owner = message.owner.map(owner).transpose()?;
        state.gc_floor_ms = message.gc_floor_ms;
        state.removed_at_ms = message.removed_at_ms;
        for area in message.areas {
            let id = AreaId(uuid(&area.area_id, "area id")?);
            let area = StagingArea {
                logged: area.logged,
                deadline_ms: area.deadline_ms,
                actions: actions(area.actions)?,
            };
            state.areas.insert(id, area);
        }
        let published: BTreeSet<&[u8]> =
            message.published_area_ids.iter().map(|area| area.as_ref()).collect();
        for area in &message.closed_area_ids {
            let outcome = if published.contains(area.as_ref() as &[u8]) {
                AreaOutcome::Published
            } else {
                AreaOutcome::Abandoned
            };
            state.closed_areas.insert(AreaId(uuid(area, "closed area id")?), outcome);
        }
        state.procedure = message.procedure.map(step);
        for message in message.expired {
            state.expired.add(mark(message));
        }
        for slot in message.slots {
            let writer = WriterId(uuid(&slot.writer_id, "slot's writer id")?);
            let version = ManifestVersion(slot.version);
            state.slots.insert(version, VersionSlot { writer, time_ms: slot.time_ms });
        }
        Ok(state)
    }
}

fn owner(message: v1::ManifestFence) -> Result<RegionOwner, CodecError> {
    let epoch = message.owner.map(owner_epoch).ok_or_else(|| CodecError::missing("owner"))?;
    Ok(RegionOwner { epoch, group: GroupId(message.group_id) })
}

fn removed_message((file, removed): (&FileRef, &RemovedFile)) -> v1::ManifestRemovedFile {
    let index = |(id, kind): &(uuid::Uuid, String)| v1::ManifestIndexRef {
        index_id: uuid_bytes(id),
        kind: kind.clone(),
    };
    v1::ManifestRemovedFile {
        file: Some(file.into()),
        origin: Some(removed.origin.into()),
        at_ms: removed.at_ms,
        reason: reason_number(removed.reason),
        indexes: removed.indexes.iter().map(index).collect(),
    }
}

fn removed_file(message: v1::ManifestRemovedFile) -> Result<(FileRef, RemovedFile), CodecError> {
    let file = message.file.ok_or_else(|| CodecError::missing("removed file"))?;
    let index = |index: v1::ManifestIndexRef| Ok((uuid(&index.index_id, "index id")?, index.kind));
    let removed = RemovedFile {
        origin: region_dir(message.origin, "origin of a removed file")?,
        at_ms: message.at_ms,
        reason: reason(message.reason)?,
        indexes: message.indexes.into_iter().map(index).collect::<Result<_, CodecError>>()?,
    };
    Ok((file.try_into()?, removed))
}

fn reason_number(reason: RemovalReason) -> u32 {
    match reason {
        RemovalReason::Compaction => 0,
        RemovalReason::Truncate => 1,
        RemovalReason::Drop => 2,
        RemovalReason::Orphan => 3,
    }
}

fn reason(number: u32) -> Result<RemovalReason, CodecError> {
    Ok(match number {
        0 => RemovalReason::Compaction,
        1 => RemovalReason::Truncate,
        2 => RemovalReason::Drop,
        3 => RemovalReason::Orphan,
        other => return Err(CodecError::Damaged(format!("unknown removal reason {other}"))),
    })
}

fn area_message((id, area): (&AreaId, &StagingArea)) -> v1::ManifestArea {
    v1::ManifestArea {
        area_id: uuid_bytes(&id.0),
        logged: area.logged,
        deadline_ms: area.deadline_ms,
        actions: area.actions.iter().map(Into::into).collect(),
    }
}

fn slot_message((version, slot): (&ManifestVersion, &VersionSlot)) -> v1::ManifestSlot {
    v1::ManifestSlot {
        version: version.get(),
        writer_id: uuid_bytes(&slot.writer.0),
        time_ms: slot.time_ms,
    }
}
