//! Conversion of deltas to and from protobuf.

use tidewater_common::ids::{JobId, ManifestVersion, RegionId, Sequence, WriterId};
use tidewater_proto::v1;
use tidewater_proto::v1::manifest_author::Author as AuthorMessage;

use super::CodecError;
use super::action::actions;
use super::file::{owner_epoch, owner_epoch_message, uuid, uuid_bytes};
use crate::manifest::{Author, Delta, ProcedureStep};

impl From<&Delta> for v1::ManifestDelta {
    fn from(delta: &Delta) -> Self {
        let author = match delta.author {
            Author::Owner(epoch) => AuthorMessage::Owner(owner_epoch_message(epoch)),
            Author::Job(job) => AuthorMessage::JobId(uuid_bytes(&job.0)),
            Author::System => AuthorMessage::System(v1::ManifestSystem {}),
        };
        Self {
            region_id: delta.region.get(),
            version: delta.version.get(),
            author: Some(v1::ManifestAuthor { author: Some(author) }),
            writer_id: uuid_bytes(&delta.writer.0),
            time_ms: delta.time_ms,
            cause: delta.cause.map(Sequence::get),
            procedure: delta.procedure.map(step_message),
            by_reference: delta.by_reference.first().copied().map(RegionId::get),
            actions: delta.actions.iter().map(Into::into).collect(),
            further_by_reference: delta.by_reference.iter().skip(1).map(|id| id.get()).collect(),
        }
    }
}

impl TryFrom<v1::ManifestDelta> for Delta {
    type Error = CodecError;

    fn try_from(message: v1::ManifestDelta) -> Result<Self, CodecError> {
        let message_author = message.author.and_then(|author| author.author);
        let author = match message_author.ok_or_else(|| CodecError::missing("author"))? {
            AuthorMessage::Owner(epoch) => Author::Owner(owner_epoch(epoch)),
            AuthorMessage::JobId(job) => Author::Job(JobId(uuid(&job, "job id")?)),
            AuthorMessage::System(v1::ManifestSystem {}) => Author::System,
        };
        Ok(Self {
            region: RegionId(message.region_id),
            version: ManifestVersion(message.version),
            author,
            writer: WriterId(uuid(&message.writer_id, "writer id")?),
            time_ms: message.time_ms,
            cause: message.cause.map(Sequence),
            procedure: message.procedure.map(step),
            by_reference: message
                .by_reference
                .into_iter()
                .chain(message.further_by_reference)
                .map(RegionId)
                .collect(),
            actions: actions(message.actions)?,
        })
    }
}

pub(super) fn step_message(step: ProcedureStep) -> v1::ManifestProcedureStep {
    v1::ManifestProcedureStep { number: step.number, step: step.step }
}

pub(super) fn step(message: v1::ManifestProcedureStep) -> ProcedureStep {
    ProcedureStep { number: message.number, step: message.step }
}
