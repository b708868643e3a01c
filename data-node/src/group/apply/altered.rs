//! `altered`: the region has another schema and other options from here on.

use tidewater_common::ids::{LogIndex, RegionId};
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::region::{Obligation, PendingObligation};

use super::{Applied, Effect};
use crate::group::descriptor::Descriptor;
use crate::group::entry::Outcome;
use crate::group::state::{GroupState, Taken};

pub(super) fn apply(state: &mut GroupState, index: LogIndex, entry: &v1::RegionAltered) -> Applied {
    let id = RegionId(entry.region_id);
    let refuse = |reason, message: String| Applied::outcome(Outcome::refused(reason, message));
    let Some(region) = state.regions.get_mut(&id) else {
        return refuse(
            Reason::RegionNotFound,
            format!("region {id} is not served by this group any more"),
        );
    };
    let altered = v1::RegionDescriptor {
        schema: entry.schema.clone(),
        options: entry.options.clone(),
        ..region.descriptor.to_wire()
    };
    let descriptor = match Descriptor::new(&altered) {
        Ok(descriptor) => descriptor,
        Err(error) => return refuse(Reason::InvalidArgument, error.to_string()),
    };
    if let Err(problem) = fits(&region.descriptor, &descriptor) {
        return refuse(Reason::InvalidArgument, format!("region {id}: {problem}"));
    }
    let cause = match region.take_step(index, entry.step) {
        Taken::Now(cause) => cause,
        Taken::Before => return Applied::repeated(),
        Taken::Refused(refused) => return Applied::outcome(refused),
    };
    region.descriptor = descriptor.clone();
    let obligation = Obligation::Alter {
        schema: Box::new(descriptor.schema.clone()),
        options: descriptor.options.clone(),
    };
    region.obligations.push(PendingObligation { cause, obligation });
    Applied::with_effect(Effect::Alter { descriptor, cause })
}

/// What identifies a row never changes, else the rows that are there could not be found.
fn fits(before: &Descriptor, after: &Descriptor) -> Result<(), String> {
    let key = |schema: &TableSchema| -> Vec<_> {
        let columns = schema.key_indices().iter().map(|index| &schema.columns()[*index]);
        columns.map(|column| (column.id, column.data_type.clone())).collect()
    };
    if key(&before.schema) != key(&after.schema) {
        return Err("the primary key of a table cannot be altered".to_owned());
    }
    if before.options.write_mode != after.options.write_mode
        || before.options.hash != after.options.hash
    {
        return Err("write mode and distribution of a table cannot be altered".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Sequence;
    use tidewater_proto::v1::group_entry::Entry;

    use super::*;
    use crate::group::testing::{Group, options, schema, write, writes};

    fn altered(version: u32, number: u64) -> Entry {
        Entry::Altered(v1::RegionAltered {
            region_id: 7,
            schema: Some((&schema(version)).into()),
            options: Some((&options()).into()),
            step: Some(v1::ProcedureStep { number, step: 1 }),
        })
    }

    fn reason(applied: &Applied) -> Option<Reason> {
        match &applied.outcomes[0] {
            Outcome::Refused { reason, .. } => Some(*reason),
            Outcome::Done { .. } => None,
        }
    }

    #[test]
    fn a_region_is_altered_once_and_owes_it_to_the_manifest() {
        let mut group = Group::with_region();
        let applied = group.apply(altered(2, 1));
        let at = Sequence::at(Sequence(0), LogIndex(2), 0).unwrap();
        assert_eq!(applied.outcomes, [Outcome::Done { sequence: at, rows: 0, repeated: false }]);
        assert!(
            matches!(&applied.effects[..], [Effect::Alter { cause, .. }] if cause.sequence == at)
        );
        let region = &group.state.regions[&RegionId(7)];
        assert_eq!(region.descriptor.schema_version().get(), 2);
        assert_eq!(region.obligations.len(), 1);
        assert_eq!(region.last_sequence, at);
        for late in [altered(2, 1), altered(3, 0)] {
            let again = group.apply(late);
            assert!(matches!(again.outcomes[..], [Outcome::Done { repeated: true, .. }]));
            assert!(again.effects.is_empty());
        }
        assert_eq!(group.state.regions[&RegionId(7)].obligations.len(), 1);
    }

    #[test]
    fn writes_under_the_schema_before_are_refused_from_there_on() {
        let mut group = Group::with_region();
        group.apply(writes(vec![write(1, 1, &[])]));
        group.apply(altered(2, 1));
        let applied = group.apply(writes(vec![write(1, 2, &[5])]));
        assert_eq!(reason(&applied), Some(Reason::SchemaVersionStale));
        assert!(group.seen.rows.lock().is_empty());
    }

    // The answer was lost, and its client asks again.
    #[test]
    fn a_write_that_was_applied_before_is_answered_as_it_was() {
        let mut group = Group::with_region();
        let elsewhere = |serial, ids: &[i64]| {
            let write = write(2, serial, ids);
            v1::WriteRequest { origin_region_id: 8, ..write }
        };
        group.apply(writes(vec![write(1, 1, &[]), elsewhere(1, &[])]));
        let first = group.apply(writes(vec![write(1, 2, &[5]), elsewhere(2, &[6])]));
        let Outcome::Done { sequence, rows: 1, repeated: false } = first.outcomes[0] else {
            panic!("{first:?}")
        };
        group.apply(altered(2, 1));
        let before = group.state.clone();
        let again = group.apply(writes(vec![write(1, 2, &[5])]));
        assert_eq!(again.outcomes, [Outcome::Done { sequence, rows: 1, repeated: true }]);
        // What came here from another region, or is cut in another way, may have been applied in part,
        // and without an opening it may be another's serial.
        let nameless = v1::WriteRequest { opening: 0, ..write(1, 2, &[5]) };
        let others = [
            write(1, 1, &[]),
            write(1, 3, &[7]),
            write(1, 2, &[5, 6]),
            elsewhere(2, &[6]),
            nameless,
        ];
        for other in others {
            let applied = group.apply(writes(vec![other]));
            assert_eq!(reason(&applied), Some(Reason::SchemaVersionStale));
        }
        assert_eq!(group.state, before, "replicas of the release before come to the same");
        assert_eq!(group.seen.rows.lock().len(), 2);
    }

    #[test]
    fn keys_and_modes_stay_what_they_are() {
        let Entry::Altered(good) = altered(2, 1) else { unreachable!() };
        let append = v1::TableOptions {
            write_mode: v1::WriteMode::AppendOnly.into(),
            ..good.options.clone().unwrap()
        };
        let mut other_key = good.schema.clone().unwrap();
        other_key.columns[1].nullable = false;
        other_key.primary_key = vec![1, 2];
        let cases = [
            v1::RegionAltered { options: Some(append), ..good.clone() },
            v1::RegionAltered { schema: Some(other_key), ..good.clone() },
            v1::RegionAltered { schema: None, ..good.clone() },
            v1::RegionAltered { step: None, ..good },
        ];
        for case in cases {
            let mut group = Group::with_region();
            let before = group.state.clone();
            let applied = group.apply(Entry::Altered(case));
            assert_eq!(reason(&applied), Some(Reason::InvalidArgument));
            assert_eq!(group.state, before);
        }
        let gone = v1::RegionAltered { region_id: 8, ..Default::default() };
        let applied = Group::with_region().apply(Entry::Altered(gone));
        assert_eq!(reason(&applied), Some(Reason::RegionNotFound));
    }
}
