//! Conversion of a region's obligations (log decisions that its manifest has yet to record) to and
//! from their form in snapshots.

use bytes::Bytes;
use tidewater_common::ids::{Epoch, RegionId, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, AreaContent, region_obligation::Kind};
use tidewater_region_engine::manifest::{AreaId, ProcedureStep};
use tidewater_region_engine::region::{
    Cause, Obligation, PendingObligation, Publication, PublicationContent,
};
use uuid::Uuid;

use super::descriptor::DescriptorError;

/// Converts a step to its stored form.
pub fn step_to_wire(step: ProcedureStep) -> v1::ProcedureStep {
    v1::ProcedureStep { number: step.number, step: step.step }
}

/// Converts a step from its stored form.
pub fn step_from_wire(wire: &v1::ProcedureStep) -> ProcedureStep {
    ProcedureStep { number: wire.number, step: wire.step }
}

/// Converts the id of a staging area to its stored form.
pub fn area_to_wire(area: AreaId) -> Bytes {
    Bytes::copy_from_slice(area.0.as_bytes())
}

/// Converts the id of a staging area from its stored form; `None` unless it is a UUID.
pub fn area_from_wire(bytes: &[u8]) -> Option<AreaId> {
    Uuid::from_slice(bytes).ok().map(AreaId)
}

/// Converts a region's obligations to their stored form.
pub fn to_wire(region: RegionId, pending: &[PendingObligation]) -> Vec<v1::RegionObligation> {
    pending.iter().map(|pending| pending_to_wire(region, pending)).collect()
}

fn pending_to_wire(region: RegionId, pending: &PendingObligation) -> v1::RegionObligation {
    let region_id = region.get();
    let step = pending.cause.procedure.map(step_to_wire);
    let kind = match &pending.obligation {
        Obligation::Alter { schema, options } => Kind::Altered(v1::RegionAltered {
            region_id,
            schema: Some(schema.as_ref().into()),
            options: Some(options.into()),
            step,
        }),
        Obligation::Truncate => Kind::Truncated(v1::RegionTruncated { region_id, step }),
        Obligation::OpenArea { area, deadline_ms } => Kind::AreaOpened(v1::AreaOpened {
            region_id,
            area_id: area_to_wire(*area),
            deadline_ms: *deadline_ms,
            step,
        }),
        Obligation::Abandon { area } => {
            let area_id = area_to_wire(*area);
            Kind::AreaAbandoned(v1::AreaAbandoned {
                region_id,
                area_id,
                step,
                ..Default::default()
            })
        }
        Obligation::Publish(publication) => Kind::AreaPublished(v1::AreaPublished {
            region_id,
            area_id: area_to_wire(publication.area),
            content: content_to_wire(&publication.content).into(),
            step,
            epoch: publication.epoch.get(),
            // The log compared the checked schema and range when it decided.
            ..Default::default()
        }),
    };
    v1::RegionObligation { sequence: pending.cause.sequence.get(), kind: Some(kind) }
}

fn content_to_wire(content: &PublicationContent) -> AreaContent {
    match content {
        PublicationContent::Files => AreaContent::Files,
        PublicationContent::Copies => AreaContent::Copies,
        PublicationContent::Area { .. } => AreaContent::Staged,
    }
}

/// PublicationContent of a publication; `None` if unknown to this release. A schema staged with files is for
/// programs that embed a region: no log entry carries one.
pub fn content_from_wire(content: AreaContent) -> Option<PublicationContent> {
    match content {
        AreaContent::Unspecified => None,
        AreaContent::Files => Some(PublicationContent::Files),
        AreaContent::Copies => Some(PublicationContent::Copies),
        AreaContent::Staged => Some(PublicationContent::Area { table: None }),
    }
}

/// Converts obligations from their stored form.
///
/// # Errors
/// [`DescriptorError`] for an obligation that this release cannot carry out.
pub fn from_wire(
    wire: Vec<v1::RegionObligation>,
) -> Result<Vec<PendingObligation>, DescriptorError> {
    wire.into_iter().map(pending_from_wire).collect()
}

fn pending_from_wire(wire: v1::RegionObligation) -> Result<PendingObligation, DescriptorError> {
    let missing = DescriptorError::Missing;
    let area = |bytes: &[u8]| area_from_wire(bytes).ok_or(missing("staging area"));
    let (step, obligation) = match wire.kind.ok_or(missing("obligation"))? {
        Kind::Truncated(truncated) => (truncated.step, Obligation::Truncate),
        Kind::Altered(altered) => {
            let invalid = |error| DescriptorError::Schema(RegionId(altered.region_id), error);
            let schema = altered.schema.as_ref().ok_or(missing("schema"))?;
            let options = altered.options.as_ref().ok_or(missing("table options"))?;
            let schema = Box::new(TableSchema::try_from(schema).map_err(invalid)?);
            let options = TableOptions::try_from(options).map_err(invalid)?;
            (altered.step, Obligation::Alter { schema, options })
        }
        Kind::AreaOpened(opened) => {
            let area = area(&opened.area_id)?;
            let deadline_ms = opened.deadline_ms;
            (opened.step, Obligation::OpenArea { area, deadline_ms })
        }
        Kind::AreaAbandoned(abandoned) => {
            (abandoned.step, Obligation::Abandon { area: area(&abandoned.area_id)? })
        }
        Kind::AreaPublished(published) => {
            let area = area(&published.area_id)?;
            let content =
                content_from_wire(published.content()).ok_or(missing("area's content"))?;
            let publication = Publication { area, epoch: Epoch(published.epoch), content };
            (published.step, Obligation::Publish(publication))
        }
    };
    let procedure = step.as_ref().map(step_from_wire);
    Ok(PendingObligation {
        cause: Cause { sequence: Sequence(wire.sequence), procedure },
        obligation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::testing::{options, schema};

    #[test]
    fn obligations_survive_their_stored_form() {
        let cause = |sequence, procedure| Cause { sequence: Sequence(sequence), procedure };
        let step = ProcedureStep { number: 3, step: 2 };
        let alter = Obligation::Alter { schema: Box::new(schema(4)), options: options() };
        let pending = vec![
            PendingObligation { cause: cause(70, Some(step)), obligation: alter },
            PendingObligation { cause: cause(90, None), obligation: Obligation::Truncate },
        ];
        let area = AreaId(Uuid::from_u128(4));
        let publish = |content| Obligation::Publish(Publication { area, epoch: Epoch(6), content });
        let areas = [
            Obligation::OpenArea { area, deadline_ms: 9 },
            Obligation::Abandon { area },
            publish(PublicationContent::Files),
            publish(PublicationContent::Copies),
            publish(PublicationContent::Area { table: None }),
        ];
        let pending: Vec<PendingObligation> =
            pending
                .into_iter()
                .chain(areas.map(|obligation| PendingObligation {
                    cause: cause(95, Some(step)),
                    obligation,
                }))
                .collect();
        assert_eq!(from_wire(to_wire(RegionId(7), &pending)).unwrap(), pending);
        let newer = vec![v1::RegionObligation { sequence: 1, kind: None }];
        assert!(matches!(from_wire(newer), Err(DescriptorError::Missing(_))));
    }
}
