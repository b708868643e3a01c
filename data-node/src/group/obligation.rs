//! What a region owes its manifest, as snapshots hold it.

use tidewater_common::ids::{RegionId, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, region_obligation::Kind};
use tidewater_region_engine::manifest::ProcedureStep;
use tidewater_region_engine::region::{Cause, Obligation, Pending};

use super::descriptor::DescriptorError;

/// A step in its stored form.
pub fn step_to_wire(step: ProcedureStep) -> v1::ProcedureStep {
    v1::ProcedureStep { number: step.number, step: step.step }
}

/// A step out of its stored form.
pub fn step_from_wire(wire: &v1::ProcedureStep) -> ProcedureStep {
    ProcedureStep { number: wire.number, step: wire.step }
}

/// Obligations of a region in their stored form.
pub fn to_wire(region: RegionId, pending: &[Pending]) -> Vec<v1::RegionObligation> {
    let region_id = region.get();
    let one = |pending: &Pending| {
        let step = pending.cause.procedure.map(step_to_wire);
        let kind = match &pending.obligation {
            Obligation::Alter { schema, options } => Kind::Altered(v1::RegionAltered {
                region_id,
                schema: Some(schema.as_ref().into()),
                options: Some(options.into()),
                step,
            }),
            Obligation::Truncate => Kind::Truncated(v1::RegionTruncated { region_id, step }),
            // No entry of the log decides these.
            Obligation::OpenArea { .. } | Obligation::Publish(_) | Obligation::Abandon { .. } => {
                return None;
            }
        };
        Some(v1::RegionObligation { sequence: pending.cause.sequence.get(), kind: Some(kind) })
    };
    pending.iter().filter_map(one).collect()
}

/// Obligations out of their stored form.
///
/// # Errors
/// [`DescriptorError`] for one that this release cannot carry out.
pub fn from_wire(wire: Vec<v1::RegionObligation>) -> Result<Vec<Pending>, DescriptorError> {
    wire.into_iter().map(one_from_wire).collect()
}

fn one_from_wire(wire: v1::RegionObligation) -> Result<Pending, DescriptorError> {
    let missing = DescriptorError::Missing;
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
    };
    let procedure = step.as_ref().map(step_from_wire);
    Ok(Pending { cause: Cause { sequence: Sequence(wire.sequence), procedure }, obligation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::testing::{options, schema};

    #[test]
    fn obligations_come_back_as_they_were() {
        let cause = |sequence, procedure| Cause { sequence: Sequence(sequence), procedure };
        let step = ProcedureStep { number: 3, step: 2 };
        let alter = Obligation::Alter { schema: Box::new(schema(4)), options: options() };
        let pending = vec![
            Pending { cause: cause(70, Some(step)), obligation: alter },
            Pending { cause: cause(90, None), obligation: Obligation::Truncate },
        ];
        assert_eq!(from_wire(to_wire(RegionId(7), &pending)).unwrap(), pending);
        let newer = vec![v1::RegionObligation { sequence: 1, kind: None }];
        assert!(matches!(from_wire(newer), Err(DescriptorError::Missing(_))));
    }
}
