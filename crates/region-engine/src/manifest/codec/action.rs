//! Conversion of actions to and from protobuf.

use tidewater_common::ids::{Epoch, GroupId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1;
use tidewater_proto::v1::manifest_action::Kind;
use tidewater_proto::v1::manifest_area_step::Step;
use tidewater_proto::v1::manifest_truncate::What;

use super::CodecError;
use super::file::{RangeMessage, owner_epoch, owner_epoch_message, uuid, uuid_bytes};
use crate::manifest::{
    Action, ActionKind, AreaId, AreaStep, Edit, ExpiryMark, RequiredProgress, Truncate,
};

pub(super) fn table_message(schema: &TableSchema, options: &TableOptions) -> v1::ManifestAlter {
    v1::ManifestAlter { schema: Some(schema.into()), options: Some(options.into()) }
}

pub(super) fn table(message: v1::ManifestAlter) -> Result<(TableSchema, TableOptions), CodecError> {
    let schema = message.schema.ok_or_else(|| CodecError::missing("schema"))?;
    let options = message.options.ok_or_else(|| CodecError::missing("options"))?;
    Ok((
        TableSchema::try_from(&schema).map_err(|error| CodecError::Damaged(error.to_string()))?,
        TableOptions::try_from(&options).map_err(|error| CodecError::Damaged(error.to_string()))?,
    ))
}

pub(super) fn actions(messages: Vec<v1::ManifestAction>) -> Result<Vec<Action>, CodecError> {
    messages.into_iter().map(TryInto::try_into).collect()
}

impl From<&Action> for v1::ManifestAction {
    fn from(action: &Action) -> Self {
        let kind = match &action.kind {
            ActionKind::Alter { schema, options } => Kind::Change(table_message(schema, options)),
            ActionKind::PartitionExprChange { range } => {
                Kind::PartitionExprChange(range.to_message())
            }
            ActionKind::Edit(edit) => Kind::Edit(edit.into()),
            ActionKind::Truncate(truncate) => Kind::Truncate(truncate.into()),
            ActionKind::Remove => Kind::Remove(v1::ManifestRemove {}),
            ActionKind::Fence { owner, group, required } => Kind::Fence(v1::ManifestFence {
                owner: Some(owner_epoch_message(*owner)),
                group_id: group.get(),
                flushed: required.flushed.get(),
                done: required.done.get(),
            }),
            ActionKind::GcFloor { floor_ms } => {
                Kind::GcFloor(v1::ManifestGcFloor { floor_ms: *floor_ms })
            }
            ActionKind::Area { area, step } => Kind::Area(v1::ManifestAreaStep {
                area_id: uuid_bytes(&area.0),
                step: Some(step.into()),
            }),
        };
        Self { staged_area_id: action.staged.map(|area| uuid_bytes(&area.0)), kind: Some(kind) }
    }
}

impl TryFrom<v1::ManifestAction> for Action {
    type Error = CodecError;

    fn try_from(message: v1::ManifestAction) -> Result<Self, CodecError> {
        let staged = message
            .staged_area_id
            .map(|area| uuid(&area, "staged area id").map(AreaId))
            .transpose()?;
        let kind = match message.kind.ok_or_else(|| CodecError::missing("action kind"))? {
            Kind::Change(change) => {
                let (schema, options) = table(change)?;
                ActionKind::Alter { schema: Box::new(schema), options }
            }
            Kind::PartitionExprChange(range) => {
                ActionKind::PartitionExprChange { range: KeyRange::from_message(range) }
            }
            Kind::Edit(edit) => ActionKind::Edit(edit.try_into()?),
            Kind::Truncate(truncate) => ActionKind::Truncate(truncate.try_into()?),
            Kind::Remove(v1::ManifestRemove {}) => ActionKind::Remove,
            Kind::Fence(fence) => ActionKind::Fence {
                owner: fence.owner.map(owner_epoch).ok_or_else(|| CodecError::missing("owner"))?,
                group: GroupId(fence.group_id),
                required: RequiredProgress {
                    flushed: Sequence(fence.flushed),
                    done: Sequence(fence.done),
                },
            },
            Kind::GcFloor(floor) => ActionKind::GcFloor { floor_ms: floor.floor_ms },
            Kind::Area(area) => ActionKind::Area {
                area: AreaId(uuid(&area.area_id, "area id")?),
                step: area.step.ok_or_else(|| CodecError::missing("area step"))?.try_into()?,
            },
        };
        Ok(Self { staged, kind })
    }
}

impl From<&Edit> for v1::ManifestEdit {
    fn from(edit: &Edit) -> Self {
        Self {
            add: edit.add.iter().map(Into::into).collect(),
            remove: edit.remove.iter().map(Into::into).collect(),
            add_indexes: edit
                .add_indexes
                .iter()
                .map(|(file, index)| v1::ManifestAddIndex {
                    file: Some(file.into()),
                    index: Some(index.into()),
                })
                .collect(),
            flushed: edit.flushed.map(Sequence::get),
            since: edit.since.map(Epoch::get),
            window_ms: edit.window_ms,
            expired: edit.expired.iter().map(mark_message).collect(),
        }
    }
}

impl TryFrom<v1::ManifestEdit> for Edit {
    type Error = CodecError;

    fn try_from(message: v1::ManifestEdit) -> Result<Self, CodecError> {
        let index = |add: v1::ManifestAddIndex| {
            let file = add.file.ok_or_else(|| CodecError::missing("indexed file"))?;
            let index = add.index.ok_or_else(|| CodecError::missing("index"))?;
            Ok::<_, CodecError>((file.try_into()?, index.try_into()?))
        };
        Ok(Self {
            add: message.add.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            remove: message.remove.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            add_indexes: message.add_indexes.into_iter().map(index).collect::<Result<_, _>>()?,
            flushed: message.flushed.map(Sequence),
            since: message.since.map(Epoch),
            window_ms: message.window_ms,
            expired: message.expired.into_iter().map(mark).collect(),
        })
    }
}

pub(super) fn mark_message(mark: &ExpiryMark) -> v1::ManifestExpiryMark {
    v1::ManifestExpiryMark { before_ms: mark.before_ms, through: mark.through.get() }
}

pub(super) fn mark(message: v1::ManifestExpiryMark) -> ExpiryMark {
    ExpiryMark { before_ms: message.before_ms, through: Sequence(message.through) }
}

impl From<&Truncate> for v1::ManifestTruncate {
    fn from(truncate: &Truncate) -> Self {
        let what = match truncate {
            Truncate::UpTo(sequence) => What::UpTo(sequence.get()),
            Truncate::Files(files) => {
                What::Files(v1::ManifestFileRefs { files: files.iter().map(Into::into).collect() })
            }
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<v1::ManifestTruncate> for Truncate {
    type Error = CodecError;

    fn try_from(message: v1::ManifestTruncate) -> Result<Self, CodecError> {
        match message.what.ok_or_else(|| CodecError::missing("truncate"))? {
            What::UpTo(sequence) => Ok(Self::UpTo(Sequence(sequence))),
            What::Files(refs) => {
                let files = refs.files.into_iter().map(TryInto::try_into);
                Ok(Self::Files(files.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl From<&AreaStep> for Step {
    fn from(step: &AreaStep) -> Self {
        match step {
            AreaStep::Open { logged, deadline_ms } => {
                Self::Open(v1::ManifestAreaOpen { logged: *logged, deadline_ms: *deadline_ms })
            }
            AreaStep::Publish => Self::Publish(v1::ManifestAreaPublish {}),
            AreaStep::Abandon => Self::Abandon(v1::ManifestAreaAbandon {}),
            AreaStep::Merged(actions) => Self::Merged(v1::ManifestAreaMerged {
                actions: actions.iter().map(Into::into).collect(),
            }),
        }
    }
}

impl TryFrom<Step> for AreaStep {
    type Error = CodecError;

    fn try_from(message: Step) -> Result<Self, CodecError> {
        Ok(match message {
            Step::Open(open) => Self::Open { logged: open.logged, deadline_ms: open.deadline_ms },
            Step::Publish(v1::ManifestAreaPublish {}) => Self::Publish,
            Step::Abandon(v1::ManifestAreaAbandon {}) => Self::Abandon,
            Step::Merged(merged) => Self::Merged(actions(merged.actions)?),
        })
    }
}
