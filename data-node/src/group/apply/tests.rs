use bytes::Bytes;
use proptest::prelude::*;
use tidewater_common::ids::{ManifestVersion, RegionId, Sequence};
use tidewater_proto::v1::{self, Reason, WriteRequest};

use super::*;
use crate::group::entry::EntryOutcome;
use crate::group::producers::Producers;
use crate::group::state::RegionState;
use crate::group::testing::{TestGroup, append_only, delete, opened, region, rows, write, writes};

fn refused(outcome: &EntryOutcome) -> Option<Reason> {
    match outcome {
        EntryOutcome::Refused { reason, .. } => Some(*reason),
        EntryOutcome::Done { .. } => None,
    }
}

fn apply_write(group: &mut TestGroup, write: WriteRequest) -> EntryOutcome {
    let mut applied = group.apply(writes(vec![write]));
    assert_eq!(applied.outcomes.len(), 1);
    applied.outcomes.remove(0)
}

#[test]
fn region_is_opened_once_by_repeated_entries() {
    let mut group = TestGroup::default();
    let first = group.apply(opened(region(7, None, None)));
    assert!(matches!(first.effects[..], [ApplyEffect::Open { .. }]));
    let again = group.apply(opened(region(7, None, None)));
    assert!(again.effects.is_empty());
    assert!(matches!(again.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]));
    let other = group.apply(opened(region(7, Some(1), None)));
    assert_eq!(refused(&other.outcomes[0]), Some(Reason::InvalidArgument));
}

#[test]
fn dropped_region_cannot_be_opened_again() {
    let mut group = TestGroup::with_region();
    let entry = group_entry::Entry::Dropped(v1::RegionDropped { region_id: 7 });
    assert_eq!(group.apply(entry.clone()).effects, [ApplyEffect::Close(RegionId(7))]);
    assert!(group.apply(entry).effects.is_empty());
    let late = group.apply(opened(region(7, None, None)));
    assert_eq!(refused(&late.outcomes[0]), Some(Reason::RegionNotFound));
    assert_eq!(refused(&apply_write(&mut group, write(1, 1, &[]))), Some(Reason::RegionNotFound));
}

#[test]
fn writes_of_one_entry_get_distinct_sequences() {
    let mut group = TestGroup::with_region();
    group.apply(writes(vec![write(1, 1, &[]), write(2, 1, &[])]));
    let applied = group.apply(writes(vec![write(1, 2, &[1, 2]), write(2, 2, &[2])]));
    let at = |ordinal| Sequence::at(Sequence(0), LogIndex(3), ordinal).unwrap();
    assert_eq!(
        applied.outcomes,
        [
            EntryOutcome::Done { sequence: at(0), rows: 2, repeated: false },
            EntryOutcome::Done { sequence: at(1), rows: 1, repeated: false },
        ]
    );
    let seen = group.seen.rows.lock().clone();
    assert_eq!(seen, [(RegionId(7), at(0), vec![1, 2]), (RegionId(7), at(1), vec![2])]);
}

// A region from another group already has rows in its manifest: new writes must be newer than all
// of them.
#[test]
fn sequences_start_above_the_base_of_the_region() {
    let base = Sequence(10_000_000);
    let mut group = TestGroup::default();
    let entry = v1::RegionOpened { region: Some(region(7, None, None)), base: base.get() };
    let opened = group.apply(group_entry::Entry::Opened(entry));
    assert!(
        matches!(
            &opened.effects[..],
            [ApplyEffect::Open { base: opened_base, .. }] if *opened_base == base
        ),
        "{opened:?}"
    );
    let state = &group.state.regions[&RegionId(7)];
    assert_eq!((state.base, state.flushed, state.last_sequence), (base, base, base));
    let first = apply_write(&mut group, write(1, 1, &[]));
    let second = apply_write(&mut group, write(1, 2, &[1]));
    for (outcome, index) in [(first, 2), (second, 3)] {
        let EntryOutcome::Done { sequence, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(sequence, Sequence::at(base, LogIndex(index), 0).unwrap());
    }
}

#[test]
fn repeated_write_gets_the_first_outcome_without_rows() {
    let mut group = TestGroup::with_region();
    apply_write(&mut group, write(1, 1, &[]));
    let first = apply_write(&mut group, write(1, 2, &[4, 5]));
    let EntryOutcome::Done { sequence, rows: 2, repeated: false } = first else {
        panic!("{first:?}")
    };
    let again = apply_write(&mut group, write(1, 2, &[4, 5]));
    assert_eq!(again, EntryOutcome::Done { sequence, rows: 2, repeated: true });
    // The same write, split into smaller parts.
    let part = apply_write(&mut group, write(1, 2, &[5]));
    assert_eq!(part, EntryOutcome::Done { sequence, rows: 2, repeated: true });
    assert_eq!(group.seen.rows.lock().len(), 1);
}

#[test]
fn repeated_write_applies_rows_outside_the_covered_ranges() {
    let mut group = TestGroup::with_region();
    apply_write(&mut group, write(1, 1, &[]));
    apply_write(&mut group, write(1, 2, &[4, 5]));
    let wider = apply_write(&mut group, write(1, 2, &[3, 4, 5, 9]));
    assert!(matches!(wider, EntryOutcome::Done { rows: 4, repeated: true, .. }), "{wider:?}");
    assert_eq!(group.seen.rows.lock().last().unwrap().2, [3, 9]);
    apply_write(&mut group, write(1, 2, &[3, 4, 5, 9]));
    assert_eq!(group.seen.rows.lock().len(), 2);
}

#[test]
fn refused_writes_leave_the_state_unchanged() {
    let mut group = TestGroup::default();
    group.apply(opened(region(7, Some(0), Some(100))));
    apply_write(&mut group, write(1, 1, &[]));
    apply_write(&mut group, write(1, 2, &[1]));
    let before = group.state.clone();
    let stale = WriteRequest { schema_version: 0, ..write(1, 3, &[1]) };
    let behind = WriteRequest { schema_version: 2, ..write(1, 3, &[1]) };
    let other_region = WriteRequest { region_id: 8, ..write(1, 3, &[1]) };
    let torn = WriteRequest { rows: rows(&[1]).slice(..20), ..write(1, 3, &[1]) };
    let no_producer = WriteRequest { producer_id: Default::default(), ..write(1, 3, &[1]) };
    let opening_with_rows = write(2, 1, &[1]);
    let unknown_op = WriteRequest { op: 9, ..write(1, 3, &[1]) };
    let cases = [
        (stale, Reason::SchemaVersionStale),
        (behind, Reason::SchemaVersionBehind),
        (other_region, Reason::RegionNotFound),
        (torn, Reason::SchemaMismatch),
        (no_producer, Reason::InvalidArgument),
        (opening_with_rows, Reason::InvalidArgument),
        (unknown_op, Reason::Unsupported),
        (write(1, 0, &[1]), Reason::InvalidArgument),
        (write(1, 3, &[100]), Reason::KeyOutsideRegion),
        (write(1, 3, &[-1, 5]), Reason::KeyOutsideRegion),
        (write(1, 4, &[1]), Reason::SerialOutOfOrder),
        (write(9, 2, &[1]), Reason::ProducerForgotten),
    ];
    for (write, reason) in cases {
        let outcome = apply_write(&mut group, write);
        assert_eq!(refused(&outcome), Some(reason), "{outcome:?}");
        assert_eq!(group.state, before, "{reason:?}");
    }
    assert_eq!(group.seen.rows.lock().len(), 1);
    // Refusals were not recorded: the same serial goes through once it is right.
    assert_eq!(refused(&apply_write(&mut group, write(1, 3, &[2]))), None);
}

// A node of an older release may have proposed the delete.
#[test]
fn apply_refuses_deletes_from_append_only_tables() {
    let mut group = TestGroup::default();
    group.apply(opened(append_only(7)));
    apply_write(&mut group, write(1, 1, &[]));
    let before = group.state.clone();
    let outcome = apply_write(&mut group, delete(1, 2, &[1]));
    assert_eq!(refused(&outcome), Some(Reason::InvalidArgument), "{outcome:?}");
    assert_eq!(group.state, before);
    assert_eq!(group.seen.rows.lock().len(), 0);
    assert_eq!(refused(&apply_write(&mut group, write(1, 2, &[1]))), None);
}

/// Opens a producer and writes with it, so that it evicts others once the table is full.
fn establish(group: &mut TestGroup, number: u128) {
    let id = Bytes::copy_from_slice(&number.to_be_bytes());
    let opened = apply_write(group, WriteRequest { producer_id: id.clone(), ..write(0, 1, &[]) });
    let EntryOutcome::Done { sequence, .. } = opened else { panic!("{opened:?}") };
    let second = WriteRequest { producer_id: id, opening: sequence.get(), ..write(0, 2, &[]) };
    assert_eq!(refused(&apply_write(group, second)), None);
}

// Strangers open producers only: the table keeps those of live writers.
#[test]
fn live_producer_outlives_openings_of_strangers() {
    let mut group = TestGroup::with_region();
    apply_write(&mut group, write(1, 1, &[]));
    assert_eq!(refused(&apply_write(&mut group, write(1, 2, &[4]))), None);
    for number in 0..5_000_u128 {
        let id = Bytes::copy_from_slice(&(number + (1 << 100)).to_be_bytes());
        apply_write(&mut group, WriteRequest { producer_id: id, ..write(0, 1, &[]) });
    }
    assert_eq!(refused(&apply_write(&mut group, write(1, 3, &[5]))), None);
    let repeated = apply_write(&mut group, write(1, 3, &[5]));
    assert!(matches!(repeated, EntryOutcome::Done { repeated: true, .. }), "{repeated:?}");
}

// A second copy of an opening write arrives after the producer was forgotten. The retry of a write
// that took effect under the first opening must not take effect again.
#[test]
fn late_opening_write_does_not_revive_a_forgotten_producer() {
    let mut group = TestGroup::with_region();
    let opened = apply_write(&mut group, write(1, 1, &[]));
    let EntryOutcome::Done { sequence: first, repeated: false, .. } = opened else {
        panic!("{opened:?}")
    };
    let kept = WriteRequest { opening: first.get(), ..write(1, 2, &[4]) };
    assert_eq!(refused(&apply_write(&mut group, kept.clone())), None);
    for number in 0..Producers::CAPACITY as u128 {
        establish(&mut group, number + (1 << 100));
    }
    assert_eq!(refused(&apply_write(&mut group, kept.clone())), Some(Reason::ProducerForgotten));
    let again = apply_write(&mut group, write(1, 1, &[]));
    let EntryOutcome::Done { sequence, repeated: false, .. } = again else { panic!("{again:?}") };
    assert!(sequence > first);
    assert_eq!(refused(&apply_write(&mut group, kept)), Some(Reason::ProducerForgotten));
    assert_eq!(group.seen.rows.lock().len(), 1, "once");
    // A repeated opening write that is not late returns the same opening.
    let repeat = apply_write(&mut group, write(1, 1, &[]));
    assert_eq!(repeat, EntryOutcome::Done { sequence, rows: 0, repeated: true });
    assert_eq!(refused(&apply_write(&mut group, write(1, 2, &[5]))), None);
}

// Retries of a client without a reply count as use of the producer.
#[test]
fn repeated_write_keeps_its_producer_remembered() {
    let mut group = TestGroup::with_region();
    for producer in [1, 2] {
        apply_write(&mut group, write(producer, 1, &[]));
        apply_write(&mut group, write(producer, 2, &[1]));
    }
    apply_write(&mut group, write(1, 2, &[1]));
    for number in 0..Producers::CAPACITY as u128 - 1 {
        establish(&mut group, number + (1 << 100));
    }
    assert_eq!(
        refused(&apply_write(&mut group, write(2, 2, &[1]))),
        Some(Reason::ProducerForgotten)
    );
    assert!(matches!(
        apply_write(&mut group, write(1, 2, &[1])),
        EntryOutcome::Done { repeated: true, .. }
    ));
}

// Logs hold writes of releases without openings: replaying them must give the same state.
#[test]
fn logged_write_without_an_opening_is_judged_by_serial() {
    let mut group = TestGroup::with_region();
    apply_write(&mut group, write(1, 1, &[]));
    let old = WriteRequest { opening: 0, ..write(1, 2, &[4]) };
    assert!(matches!(
        apply_write(&mut group, old.clone()),
        EntryOutcome::Done { repeated: false, .. }
    ));
    assert!(matches!(apply_write(&mut group, old), EntryOutcome::Done { repeated: true, .. }));
}

fn advance(version: u64, flushed: u64, term: u64) -> group_entry::Entry {
    group_entry::Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: 7,
        version,
        flushed_sequence: flushed,
        move_epoch: 0,
        term,
        done_sequence: 0,
    })
}

#[test]
fn manifest_advances_only_forward_and_for_the_latest_owner() {
    let mut group = TestGroup::with_region();
    let id = RegionId(7);
    let applied = group.apply(advance(3, 500, 2));
    assert_eq!(applied.effects, [ApplyEffect::Follow(id, ManifestVersion(3))]);
    assert!(group.apply(advance(2, 900, 2)).effects.is_empty(), "versions never go back");
    let old = group.apply(advance(9, 900, 1));
    assert_eq!(refused(&old.outcomes[0]), Some(Reason::RegionFenced));
    let state = &group.state.regions[&id];
    assert_eq!((state.manifest_version, state.flushed), (ManifestVersion(3), Sequence(900)));
    let unknown = group_entry::Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: 8,
        ..Default::default()
    });
    assert_eq!(refused(&group.apply(unknown).outcomes[0]), Some(Reason::RegionNotFound));
}

fn entries() -> impl Strategy<Value = Vec<group_entry::Entry>> {
    let write = (0u8..3, 1u64..5, 0i64..50, 0usize..3).prop_map(|(producer, serial, from, n)| {
        let ids: Vec<i64> = (from..).take(if serial == 1 { 0 } else { n }).collect();
        write(producer, serial, &ids)
    });
    let entry = prop_oneof![
        8 => proptest::collection::vec(write, 1..4).prop_map(writes),
        1 => (1u64..5, 0u64..1_000, 1u64..3).prop_map(|(v, s, t)| advance(v, s, t)),
        1 => Just(opened(region(8, None, None))),
        1 => Just(group_entry::Entry::Dropped(v1::RegionDropped { region_id: 8 })),
    ];
    proptest::collection::vec(entry, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    // R2: a replica that applied all entries equals one that was restored from a snapshot at `cut`
    // and applied the rest.
    #[test]
    fn replicas_agree_after_snapshot_and_replay(entries in entries(), cut in 0usize..40) {
        let mut whole = TestGroup::with_region();
        for entry in &entries {
            whole.apply(entry.clone());
        }
        let cut = cut.min(entries.len());
        let mut first = TestGroup::with_region();
        for entry in &entries[..cut] {
            first.apply(entry.clone());
        }
        let mut second = TestGroup {
            index: first.index,
            openings: first.openings.clone(),
            ..TestGroup::default()
        };
        second.state.dropped = first.state.dropped.clone();
        for (id, region) in &first.state.regions {
            second.state.regions.insert(*id, RegionState::from_wire(region.to_wire()).unwrap());
        }
        prop_assert_eq!(first.state.digest(), second.state.digest());
        for entry in &entries[cut..] {
            second.apply(entry.clone());
        }
        prop_assert_eq!(whole.state.digest(), second.state.digest());
        prop_assert_eq!(&whole.state, &second.state);
        let mut rows = first.seen.rows.lock().clone();
        rows.extend(second.seen.rows.lock().clone());
        prop_assert_eq!(&*whole.seen.rows.lock(), &rows);
    }
}

#[test]
fn digest_depends_on_the_written_rows() {
    let mut a = TestGroup::with_region();
    let mut b = TestGroup::with_region();
    for group in [&mut a, &mut b] {
        apply_write(group, write(1, 1, &[]));
    }
    assert_eq!(a.state.digest(), b.state.digest());
    apply_write(&mut a, write(1, 2, &[1]));
    apply_write(&mut b, write(1, 2, &[2]));
    assert_ne!(a.state.digest(), b.state.digest());
}

#[test]
fn write_without_a_sequence_is_refused_on_every_replica() {
    let mut group = TestGroup::default();
    // The base leaves the sequences of three log entries.
    let base = u64::MAX - 3 * Sequence::PER_ENTRY;
    let entry = v1::RegionOpened { region: Some(region(7, None, None)), base };
    group.apply(group_entry::Entry::Opened(entry));
    assert_eq!(refused(&apply_write(&mut group, write(1, 1, &[]))), None);
    group.index = 9;
    let before = group.state.clone();
    for late in [write(2, 1, &[]), write(1, 2, &[1])] {
        let outcome = apply_write(&mut group, late);
        assert_eq!(refused(&outcome), Some(Reason::InvalidArgument), "{outcome:?}");
    }
    assert_eq!(group.state, before);
    assert!(group.seen.rows.lock().is_empty());
}

#[test]
fn group_level_rises_one_at_a_time() {
    let mut group = TestGroup::with_region();
    let mut raise = |level| {
        let entry = group_entry::Entry::LevelRaised(v1::LevelRaised { level });
        let applied = group.apply(entry);
        assert!(applied.effects.is_empty());
        let outcome = match &applied.outcomes[..] {
            [EntryOutcome::Done { repeated, .. }] => Ok(*repeated),
            [EntryOutcome::Refused { reason, .. }] => Err(*reason),
            other => panic!("{other:?}"),
        };
        (outcome, group.state.level.get())
    };
    // (level of the entry, outcome, level of the group after it)
    assert_eq!(raise(3), (Err(Reason::Unsupported), 1));
    assert_eq!(raise(2), (Ok(false), 2));
    // Repeats, also of an earlier leader.
    assert_eq!(raise(2), (Ok(true), 2));
    assert_eq!(raise(1), (Ok(true), 2));
    assert_eq!(raise(0), (Ok(true), 2));
    assert_eq!(raise(4), (Err(Reason::Unsupported), 2));
}
