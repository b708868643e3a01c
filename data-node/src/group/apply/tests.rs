use bytes::Bytes;
use proptest::prelude::*;
use tidewater_common::ids::{ManifestVersion, RegionId, Sequence};
use tidewater_proto::v1::{self, Reason, WriteRequest};

use super::*;
use crate::group::entry::Outcome;
use crate::group::producers::Producers;
use crate::group::state::RegionState;
use crate::group::testing::{Group, append_only, delete, opened, region, rows, write, writes};

fn refused(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Refused { reason, .. } => Some(*reason),
        Outcome::Done { .. } => None,
    }
}

fn one(group: &mut Group, one: WriteRequest) -> Outcome {
    let mut applied = group.apply(writes(vec![one]));
    assert_eq!(applied.outcomes.len(), 1);
    applied.outcomes.remove(0)
}

#[test]
fn opening_twice_is_done_once() {
    let mut group = Group::default();
    let first = group.apply(opened(region(7, None, None)));
    assert!(matches!(first.effects[..], [Effect::Open { .. }]));
    let again = group.apply(opened(region(7, None, None)));
    assert!(again.effects.is_empty());
    assert!(matches!(again.outcomes[..], [Outcome::Done { repeated: true, .. }]));
    let other = group.apply(opened(region(7, Some(1), None)));
    assert_eq!(refused(&other.outcomes[0]), Some(Reason::InvalidArgument));
}

#[test]
fn a_dropped_region_does_not_come_back() {
    let mut group = Group::with_region();
    let entry = group_entry::Entry::Dropped(v1::RegionDropped { region_id: 7 });
    assert_eq!(group.apply(entry.clone()).effects, [Effect::Close(RegionId(7))]);
    assert!(group.apply(entry).effects.is_empty());
    let late = group.apply(opened(region(7, None, None)));
    assert_eq!(refused(&late.outcomes[0]), Some(Reason::RegionNotFound));
    assert_eq!(refused(&one(&mut group, write(1, 1, &[]))), Some(Reason::RegionNotFound));
}

#[test]
fn writes_of_one_entry_get_sequences_of_their_own() {
    let mut group = Group::with_region();
    group.apply(writes(vec![write(1, 1, &[]), write(2, 1, &[])]));
    let applied = group.apply(writes(vec![write(1, 2, &[1, 2]), write(2, 2, &[2])]));
    let at = |ordinal| Sequence::at(Sequence(0), LogIndex(3), ordinal).unwrap();
    assert_eq!(
        applied.outcomes,
        [
            Outcome::Done { sequence: at(0), rows: 2, repeated: false },
            Outcome::Done { sequence: at(1), rows: 1, repeated: false },
        ]
    );
    let seen = group.seen.rows.lock().clone();
    assert_eq!(seen, [(RegionId(7), at(0), vec![1, 2]), (RegionId(7), at(1), vec![2])]);
}

// A region that comes from elsewhere has rows in its manifest already: what is written here must
// count as newer than all of them.
#[test]
fn sequences_begin_above_the_base_that_a_region_was_opened_with() {
    let base = Sequence(10_000_000);
    let mut group = Group::default();
    let entry = v1::RegionOpened { region: Some(region(7, None, None)), base: base.get() };
    let opened = group.apply(group_entry::Entry::Opened(entry));
    assert!(
        matches!(&opened.effects[..], [Effect::Open { base: told, .. }] if *told == base),
        "{opened:?}"
    );
    let state = &group.state.regions[&RegionId(7)];
    assert_eq!((state.base, state.flushed, state.last_sequence), (base, base, base));
    let first = one(&mut group, write(1, 1, &[]));
    let second = one(&mut group, write(1, 2, &[1]));
    for (outcome, index) in [(first, 2), (second, 3)] {
        let Outcome::Done { sequence, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(sequence, Sequence::at(base, LogIndex(index), 0).unwrap());
    }
}

#[test]
fn a_repeat_gets_the_first_outcome_and_no_rows() {
    let mut group = Group::with_region();
    one(&mut group, write(1, 1, &[]));
    let first = one(&mut group, write(1, 2, &[4, 5]));
    let Outcome::Done { sequence, rows: 2, repeated: false } = first else { panic!("{first:?}") };
    let again = one(&mut group, write(1, 2, &[4, 5]));
    assert_eq!(again, Outcome::Done { sequence, rows: 2, repeated: true });
    // Cut finer.
    let part = one(&mut group, write(1, 2, &[5]));
    assert_eq!(part, Outcome::Done { sequence, rows: 2, repeated: true });
    assert_eq!(group.seen.rows.lock().len(), 1);
}

#[test]
fn rows_of_a_repeat_outside_of_what_was_covered_are_applied() {
    let mut group = Group::with_region();
    one(&mut group, write(1, 1, &[]));
    one(&mut group, write(1, 2, &[4, 5]));
    let wider = one(&mut group, write(1, 2, &[3, 4, 5, 9]));
    assert!(matches!(wider, Outcome::Done { rows: 4, repeated: true, .. }), "{wider:?}");
    assert_eq!(group.seen.rows.lock().last().unwrap().2, [3, 9]);
    one(&mut group, write(1, 2, &[3, 4, 5, 9]));
    assert_eq!(group.seen.rows.lock().len(), 2);
}

#[test]
fn each_refusal_changes_nothing() {
    let mut group = Group::default();
    group.apply(opened(region(7, Some(0), Some(100))));
    one(&mut group, write(1, 1, &[]));
    one(&mut group, write(1, 2, &[1]));
    let before = group.state.clone();
    let stale = WriteRequest { schema_version: 0, ..write(1, 3, &[1]) };
    let behind = WriteRequest { schema_version: 2, ..write(1, 3, &[1]) };
    let elsewhere = WriteRequest { region_id: 8, ..write(1, 3, &[1]) };
    let torn = WriteRequest { rows: rows(&[1]).slice(..20), ..write(1, 3, &[1]) };
    let nobody = WriteRequest { producer_id: Default::default(), ..write(1, 3, &[1]) };
    let opening_with_rows = write(2, 1, &[1]);
    let unknown_op = WriteRequest { op: 9, ..write(1, 3, &[1]) };
    let cases = [
        (stale, Reason::SchemaVersionStale),
        (behind, Reason::SchemaVersionBehind),
        (elsewhere, Reason::RegionNotFound),
        (torn, Reason::SchemaMismatch),
        (nobody, Reason::InvalidArgument),
        (opening_with_rows, Reason::InvalidArgument),
        (unknown_op, Reason::Unsupported),
        (write(1, 0, &[1]), Reason::InvalidArgument),
        (write(1, 3, &[100]), Reason::KeyOutsideRegion),
        (write(1, 3, &[-1, 5]), Reason::KeyOutsideRegion),
        (write(1, 4, &[1]), Reason::SerialOutOfOrder),
        (write(9, 2, &[1]), Reason::ProducerForgotten),
    ];
    for (write, reason) in cases {
        let outcome = one(&mut group, write);
        assert_eq!(refused(&outcome), Some(reason), "{outcome:?}");
        assert_eq!(group.state, before, "{reason:?}");
    }
    assert_eq!(group.seen.rows.lock().len(), 1);
    // Refusals were not recorded: the same serial goes through once it is right.
    assert_eq!(refused(&one(&mut group, write(1, 3, &[2]))), None);
}

// A node of an older release may have proposed it.
#[test]
fn a_delete_from_an_append_only_table_is_refused_and_not_recorded() {
    let mut group = Group::default();
    group.apply(opened(append_only(7)));
    one(&mut group, write(1, 1, &[]));
    let before = group.state.clone();
    let outcome = one(&mut group, delete(1, 2, &[1]));
    assert_eq!(refused(&outcome), Some(Reason::InvalidArgument), "{outcome:?}");
    assert_eq!(group.state, before);
    assert_eq!(group.seen.rows.lock().len(), 0);
    assert_eq!(refused(&one(&mut group, write(1, 2, &[1]))), None);
}

// An opening write whose first copy did its work long ago arrives again, after the producer was
// forgotten. The retry of a write that took effect under the first opening must not do so again.
#[test]
fn a_late_opening_write_does_not_revive_a_forgotten_producer() {
    let mut group = Group::with_region();
    let opened = one(&mut group, write(1, 1, &[]));
    let Outcome::Done { sequence: first, repeated: false, .. } = opened else {
        panic!("{opened:?}")
    };
    let kept = WriteRequest { opening: first.get(), ..write(1, 2, &[4]) };
    assert_eq!(refused(&one(&mut group, kept.clone())), None);
    for number in 0..Producers::CAPACITY as u128 {
        let id = Bytes::copy_from_slice(&(number + (1 << 100)).to_be_bytes());
        one(&mut group, WriteRequest { producer_id: id, ..write(0, 1, &[]) });
    }
    assert_eq!(refused(&one(&mut group, kept.clone())), Some(Reason::ProducerForgotten));
    let again = one(&mut group, write(1, 1, &[]));
    let Outcome::Done { sequence, repeated: false, .. } = again else { panic!("{again:?}") };
    assert!(sequence > first);
    assert_eq!(refused(&one(&mut group, kept)), Some(Reason::ProducerForgotten));
    assert_eq!(group.seen.rows.lock().len(), 1, "once");
    // A repeat of the opening write that is not late is told the same opening.
    let repeat = one(&mut group, write(1, 1, &[]));
    assert_eq!(repeat, Outcome::Done { sequence, rows: 0, repeated: true });
    assert_eq!(refused(&one(&mut group, write(1, 2, &[5]))), None);
}

// A client that gets no answer goes on asking: that is use, too.
#[test]
fn a_producer_whose_write_is_repeated_is_not_the_one_that_is_forgotten() {
    let mut group = Group::with_region();
    for producer in [1, 2] {
        one(&mut group, write(producer, 1, &[]));
        one(&mut group, write(producer, 2, &[1]));
    }
    one(&mut group, write(1, 2, &[1]));
    for number in 0..Producers::CAPACITY as u128 - 1 {
        let id = Bytes::copy_from_slice(&(number + (1 << 100)).to_be_bytes());
        one(&mut group, WriteRequest { producer_id: id, ..write(0, 1, &[]) });
    }
    assert_eq!(refused(&one(&mut group, write(2, 2, &[1]))), Some(Reason::ProducerForgotten));
    assert!(matches!(one(&mut group, write(1, 2, &[1])), Outcome::Done { repeated: true, .. }));
}

// Logs hold writes from before they named an opening: replaying them comes to what it came to.
#[test]
fn a_write_in_the_log_that_names_no_opening_is_judged_by_its_serial() {
    let mut group = Group::with_region();
    one(&mut group, write(1, 1, &[]));
    let old = WriteRequest { opening: 0, ..write(1, 2, &[4]) };
    assert!(matches!(one(&mut group, old.clone()), Outcome::Done { repeated: false, .. }));
    assert!(matches!(one(&mut group, old), Outcome::Done { repeated: true, .. }));
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
fn manifests_only_advance_and_only_for_the_latest_owner() {
    let mut group = Group::with_region();
    let id = RegionId(7);
    let applied = group.apply(advance(3, 500, 2));
    assert_eq!(applied.effects, [Effect::Follow(id, ManifestVersion(3))]);
    assert!(group.apply(advance(2, 900, 2)).effects.is_empty(), "versions never go back");
    let old = group.apply(advance(9, 900, 1));
    assert_eq!(refused(&old.outcomes[0]), Some(Reason::RegionFenced));
    let state = &group.state.regions[&id];
    assert_eq!((state.manifest_version, state.flushed), (ManifestVersion(3), Sequence(900)));
    let gone = group_entry::Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: 8,
        ..Default::default()
    });
    assert_eq!(refused(&group.apply(gone).outcomes[0]), Some(Reason::RegionNotFound));
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

    // R2: a replica that applied everything, and one that was brought up from a snapshot taken in
    // the middle and applied the rest, are the same.
    #[test]
    fn replicas_agree_also_after_snapshot_and_replay(entries in entries(), cut in 0usize..40) {
        let mut whole = Group::with_region();
        for entry in &entries {
            whole.apply(entry.clone());
        }
        let cut = cut.min(entries.len());
        let mut first = Group::with_region();
        for entry in &entries[..cut] {
            first.apply(entry.clone());
        }
        let mut second = Group {
            index: first.index,
            openings: first.openings.clone(),
            ..Group::default()
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
fn the_digest_sees_what_was_written() {
    let mut a = Group::with_region();
    let mut b = Group::with_region();
    for group in [&mut a, &mut b] {
        one(group, write(1, 1, &[]));
    }
    assert_eq!(a.state.digest(), b.state.digest());
    one(&mut a, write(1, 2, &[1]));
    one(&mut b, write(1, 2, &[2]));
    assert_ne!(a.state.digest(), b.state.digest());
}
