//! `altered`: changes a region's schema and options.

use std::sync::Arc;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{LogIndex, RegionId};
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::region::{Obligation, PendingObligation};

use super::{Applied, ApplyEffect, admitted};
use crate::group::admits::Operation;
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

/// Level from which a region serves the schema version before the last alteration, too.
const SERVES_PREVIOUS: FeatureLevel = FeatureLevel::new(4);

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionAltered,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let serves_previous = state.level >= SERVES_PREVIOUS;
    let (since, _) = state.readable_epochs(id).unwrap_or_default();
    let step = entry.step.as_ref();
    let region = admitted(state, id, step, Operation::Decide)?;
    let descriptor = altered(&region.descriptor, entry)?;
    let cause = region.take_step(index, step)?;
    // A call that names the version before the drop of a table is stale: its client looks up the name, which is free.
    let serves_previous = serves_previous && !descriptor.options.dropped;
    let descriptor =
        if serves_previous { descriptor.altered_from(&region.descriptor) } else { descriptor };
    if descriptor.options.explicit_since {
        // The alteration itself changes no readable epoch: from now on, they no longer follow those of the group. A publication
        // before that of the group has lost rows.
        let refreshable = descriptor.options.refreshable;
        let since = if refreshable { region.published.from(since) } else { since };
        region.since = region.since.max(since);
    }
    region.descriptor = descriptor.clone();
    let obligation = Obligation::Alter {
        schema: Box::new(descriptor.schema.clone()),
        options: descriptor.options.clone(),
    };
    region.obligations.push(PendingObligation { cause, obligation });
    Ok(Applied::with_effect(ApplyEffect::Alter { descriptor, cause }))
}

/// Checks that an alteration would have an effect, or has had it: as [`apply`], without a change.
///
/// # Errors
/// The outcome that the entry would have.
pub(crate) fn check_altered(
    state: &GroupState,
    entry: &v1::RegionAltered,
) -> Result<(), EntryOutcome> {
    let id = RegionId(entry.region_id);
    let region = state.regions.get(&id).ok_or_else(|| state.not_served(id))?;
    match region.check_step(entry.step.as_ref(), Operation::Decide) {
        Ok(()) => altered(&region.descriptor, entry).map(drop),
        Err(EntryOutcome::Done { .. }) => Ok(()),
        Err(refused) => Err(refused),
    }
}

/// Returns a region's description after an alteration, if the region can be altered so.
fn altered(
    before: &Descriptor,
    entry: &v1::RegionAltered,
) -> Result<Arc<Descriptor>, EntryOutcome> {
    let id = before.region_id;
    let invalid = |text: String| EntryOutcome::refused(Reason::InvalidArgument, text);
    let altered = v1::RegionDescriptor {
        schema: entry.schema.clone(),
        options: entry.options.clone(),
        ..before.to_wire()
    };
    let after = Descriptor::new(&altered).map_err(|error| invalid(error.to_string()))?;
    check_identity_kept(before, &after)
        .map_err(|problem| invalid(format!("region {id}: {problem}")))?;
    // The manifest refuses such a schema: the obligation would never be met.
    let (now, next) = (before.schema_version(), after.schema_version());
    if next <= now {
        let text = format!("region {id} has schema version {now}: version {next} is not newer");
        return Err(invalid(text));
    }
    Ok(after)
}

/// Checks that the primary key and the write mode are unchanged, since existing rows could not be found otherwise, and that
/// an own oldest readable epoch is not taken back: that of the group may be beyond what is held.
fn check_identity_kept(before: &Descriptor, after: &Descriptor) -> Result<(), String> {
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
    if before.options.explicit_since && !after.options.explicit_since {
        return Err("a table keeps its own oldest readable epoch".to_owned());
    }
    if before.options.dropped && !after.options.dropped {
        return Err("a dropped table remains dropped".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Sequence;
    use tidewater_common::rows::{convert_batch, encode_batch};
    use tidewater_common::schema::{ColumnType, SchemaChange, TableOptions};
    use tidewater_proto::v1::group_entry::Entry;

    use super::*;
    use crate::group::state::RegionState;
    use crate::group::testing::{TestGroup, batch, options, schema, write, writes};

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
            EntryOutcome::Refused { reason, .. } => Some(*reason),
            EntryOutcome::Done { .. } => None,
        }
    }

    #[test]
    fn alter_is_applied_once_and_left_for_the_manifest() {
        let mut group = TestGroup::with_region();
        let applied = group.apply(altered(2, 1));
        let at = Sequence::at(Sequence(0), LogIndex(2), 0).unwrap();
        assert_eq!(
            applied.outcomes,
            [EntryOutcome::Done { sequence: at, rows: 0, repeated: false }]
        );
        assert!(matches!(
            &applied.effects[..],
            [ApplyEffect::Alter { cause, .. }] if cause.sequence == at
        ));
        let region = &group.state.regions[&RegionId(7)];
        assert_eq!(region.descriptor.schema_version().get(), 2);
        assert_eq!(region.obligations.len(), 1);
        assert_eq!(region.last_sequence, at);
        let again = group.apply(altered(2, 1));
        assert_eq!((&again.outcomes[..], again.effects.len()), (&[EntryOutcome::REPEATED][..], 0));
        assert_eq!(group.state.regions[&RegionId(7)].obligations.len(), 1);
    }

    #[test]
    fn check_of_an_alter_predicts_its_outcome() {
        let mut group = TestGroup::with_region();
        let check = |group: &TestGroup, entry: Entry| {
            let Entry::Altered(entry) = entry else { unreachable!() };
            let before = group.state.clone();
            let checked = check_altered(&group.state, &entry);
            assert_eq!(group.state, before);
            checked.map_err(|outcome| match outcome {
                EntryOutcome::Refused { reason, .. } => Some(reason),
                EntryOutcome::Done { .. } => None,
            })
        };
        assert_eq!(check(&group, altered(2, 4)), Ok(()));
        assert_eq!(check(&group, altered(1, 4)), Err(Some(Reason::InvalidArgument)));
        let unknown = v1::RegionAltered { region_id: 8, ..Default::default() };
        assert_eq!(check(&group, Entry::Altered(unknown)), Err(Some(Reason::RegionNotFound)));
        group.apply(altered(2, 4));
        // The step was taken: a check that is repeated late succeeds.
        assert_eq!(check(&group, altered(2, 4)), Ok(()));
        assert_eq!(check(&group, altered(3, 3)), Err(Some(Reason::ProcedureSuperseded)));
        let region = group.state.regions.get_mut(&RegionId(7)).unwrap();
        region.held = true;
        assert_eq!(check(&group, altered(3, 5)), Err(Some(Reason::RouteBusy)));
    }

    #[test]
    fn step_is_superseded_after_a_later_procedure() {
        let mut group = TestGroup::with_region();
        group.apply(altered(2, 4));
        let before = group.state.clone();
        for late in [altered(3, 3), altered(9, 1)] {
            let applied = group.apply(late);
            assert_eq!(reason(&applied), Some(Reason::ProcedureSuperseded));
            assert!(applied.effects.is_empty());
        }
        assert_eq!(group.state, before);
    }

    // R10.
    #[test]
    fn write_of_the_version_before_is_converted() {
        let mut group = TestGroup::with_region();
        group.state.level = SERVES_PREVIOUS;
        group.apply(writes(vec![write(1, 1, &[])]));
        let first = group.apply(writes(vec![write(1, 2, &[4])]));
        let [EntryOutcome::Done { sequence, rows: 1, .. }] = first.outcomes[..] else {
            panic!("{first:?}")
        };
        let column = SchemaChange::AddColumn {
            name: "n".to_owned(),
            data_type: ColumnType::Int64,
            nullable: true,
            default: None,
        };
        let after = schema(1).altered(&[column]).unwrap();
        let Entry::Altered(entry) = altered(2, 1) else { unreachable!() };
        group.apply(Entry::Altered(v1::RegionAltered { schema: Some((&after).into()), ..entry }));
        // A repeat finds its first outcome, with rows of either version.
        let converted = convert_batch(&batch(&[4]), &schema(1), &after).unwrap();
        let converted = v1::WriteRequest {
            schema_version: 2,
            rows: encode_batch(&converted).unwrap(),
            ..write(1, 2, &[4])
        };
        for repeated in [write(1, 2, &[4]), converted] {
            let again = group.apply(writes(vec![repeated]));
            assert_eq!(again.outcomes, [EntryOutcome::Done { sequence, rows: 1, repeated: true }]);
        }
        let applied = group.apply(writes(vec![write(1, 3, &[5])]));
        assert!(matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: false, .. }]));
        assert_eq!(group.seen.columns.lock()[..], [2, 3]);
        let region = &group.state.regions[&RegionId(7)];
        assert_eq!(&RegionState::from_wire(region.to_wire()).unwrap(), region);
        // One version before is served, not two.
        group.apply(altered(3, 2));
        let applied = group.apply(writes(vec![write(1, 4, &[6])]));
        assert_eq!(reason(&applied), Some(Reason::SchemaVersionStale));
    }

    #[test]
    fn dropped_table_refuses_new_writes() {
        let mut group = TestGroup::with_region();
        group.state.level = FeatureLevel::HELD_DROPS;
        group.apply(writes(vec![write(1, 1, &[])]));
        let first = group.apply(writes(vec![write(1, 2, &[4])]));
        let [EntryOutcome::Done { sequence, rows: 1, .. }] = first.outcomes[..] else {
            panic!("{first:?}")
        };
        let dropped = TableOptions { dropped: true, ..options() };
        let Entry::Altered(entry) = altered(2, 1) else { unreachable!() };
        let entry = v1::RegionAltered { options: Some((&dropped).into()), ..entry };
        let applied = group.apply(Entry::Altered(entry));
        assert_eq!(reason(&applied), None);
        let kept_as = &group.state.regions[&RegionId(7)].descriptor.table_name;
        assert!(kept_as.starts_with("_tw_dropped_"), "{kept_as}");
        // The answer to a write from before the drop was lost.
        let again = group.apply(writes(vec![write(1, 2, &[4])]));
        assert_eq!(again.outcomes, [EntryOutcome::Done { sequence, rows: 1, repeated: true }]);
        let newer = |write| v1::WriteRequest { schema_version: 2, ..write };
        let loaded = v1::AreaPublished {
            region_id: 7,
            area_id: bytes::Bytes::from_static(&[5; 16]),
            content: v1::AreaContent::Files.into(),
            schema_version: 2,
            ..v1::AreaPublished::default()
        };
        for (refused, expected) in [
            // Its client refreshes the catalog, which no longer has the name.
            (writes(vec![write(1, 3, &[5])]), Reason::SchemaVersionStale),
            (writes(vec![newer(write(1, 3, &[5]))]), Reason::TableNotFound),
            (writes(vec![newer(write(2, 1, &[]))]), Reason::TableNotFound),
            (Entry::AreaPublished(loaded), Reason::TableNotFound),
        ] {
            assert_eq!(reason(&group.apply(refused)), Some(expected));
        }
        assert_eq!(group.seen.rows.lock().len(), 1);
        let applied = group.apply(altered(3, 2));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "it is not taken back");
    }

    #[test]
    fn version_before_is_refused_below_level_4() {
        let mut group = TestGroup::with_region();
        group.apply(writes(vec![write(1, 1, &[])]));
        group.apply(altered(2, 1));
        let applied = group.apply(writes(vec![write(1, 2, &[5])]));
        assert_eq!(reason(&applied), Some(Reason::SchemaVersionStale));
        assert!(group.seen.rows.lock().is_empty());
    }

    // The reply was lost, and the client retries.
    #[test]
    fn retried_write_gets_its_first_outcome_after_an_alter() {
        let mut group = TestGroup::with_region();
        let moved = |serial, ids: &[i64]| {
            let write = write(2, serial, ids);
            v1::WriteRequest { origin_region_id: 8, ..write }
        };
        group.apply(writes(vec![write(1, 1, &[]), moved(1, &[])]));
        let first = group.apply(writes(vec![write(1, 2, &[5]), moved(2, &[6])]));
        let EntryOutcome::Done { sequence, rows: 1, repeated: false } = first.outcomes[0] else {
            panic!("{first:?}")
        };
        group.apply(altered(2, 1));
        let before = group.state.clone();
        let again = group.apply(writes(vec![write(1, 2, &[5])]));
        assert_eq!(again.outcomes, [EntryOutcome::Done { sequence, rows: 1, repeated: true }]);
        // A write from another region, or one that was cut differently, may have been applied in
        // part. Without an opening, the serial may belong to another producer's life.
        let nameless = v1::WriteRequest { opening: 0, ..write(1, 2, &[5]) };
        let others =
            [write(1, 1, &[]), write(1, 3, &[7]), write(1, 2, &[5, 6]), moved(2, &[6]), nameless];
        for other in others {
            let applied = group.apply(writes(vec![other]));
            assert_eq!(reason(&applied), Some(Reason::SchemaVersionStale));
        }
        assert_eq!(group.state, before, "replicas of the previous release reach the same state");
        assert_eq!(group.seen.rows.lock().len(), 2);
    }

    #[test]
    fn alter_that_no_manifest_can_record_is_refused() {
        let Entry::Altered(good) = altered(2, 1) else { unreachable!() };
        let append = v1::TableOptions {
            write_mode: v1::WriteMode::AppendOnly.into(),
            ..good.options.clone().unwrap()
        };
        let mut other_key = good.schema.clone().unwrap();
        other_key.columns[1].nullable = false;
        other_key.primary_key = vec![1, 2];
        let unchanged = v1::RegionAltered { schema: Some((&schema(1)).into()), ..good.clone() };
        let cases = [
            unchanged,
            v1::RegionAltered { options: Some(append), ..good.clone() },
            v1::RegionAltered { schema: Some(other_key), ..good.clone() },
            v1::RegionAltered { schema: None, ..good.clone() },
            v1::RegionAltered { step: None, ..good },
        ];
        for case in cases {
            let mut group = TestGroup::with_region();
            let before = group.state.clone();
            let applied = group.apply(Entry::Altered(case));
            assert_eq!(reason(&applied), Some(Reason::InvalidArgument));
            assert_eq!(group.state, before);
        }
        let unknown = v1::RegionAltered { region_id: 8, ..Default::default() };
        let applied = TestGroup::with_region().apply(Entry::Altered(unknown));
        assert_eq!(reason(&applied), Some(Reason::RegionNotFound));
    }
}
