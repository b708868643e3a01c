mod dropped_tables;

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::group_entry::Entry;

use super::*;
use crate::group::admits::ServingState;
use crate::group::testing::{TestGroup, key, opened, options, region, schema, write, writes};

const LEFT: RegionId = RegionId(8);
const RIGHT: RegionId = RegionId(9);

fn step(number: u64, step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number, step })
}

fn held(held: bool, at: Option<v1::ProcedureStep>) -> Entry {
    Entry::Held(v1::RegionHeld {
        region_id: 7,
        held,
        step: at,
        fenced: false,
        ..Default::default()
    })
}

fn child(id: RegionId, start: Option<i64>, end: Option<i64>) -> v1::SplitChild {
    let key = |id: i64| Bytes::from(key(id));
    let start = start.map(key).unwrap_or_default();
    v1::SplitChild { region_id: id.get(), start, end: end.map(key) }
}

/// Split of region 7 at the id 10.
fn split() -> v1::RegionSplit {
    v1::RegionSplit {
        region_id: 7,
        sealed_version: 5,
        children: vec![child(LEFT, None, Some(10)), child(RIGHT, Some(10), None)],
        step: step(1, 2),
    }
}

fn truncated(number: u64) -> Entry {
    Entry::Truncated(v1::RegionTruncated { region_id: 7, step: step(number, 1) })
}

fn reason(applied: &Applied) -> Option<Reason> {
    match &applied.outcomes[0] {
        EntryOutcome::Refused { reason, .. } => Some(*reason),
        EntryOutcome::Done { .. } => None,
    }
}

/// A group whose region 7 is held, with a producer that has written the rows 5 and 15.
fn with_held_region() -> TestGroup {
    let mut group = TestGroup::with_region();
    group.state.level = FeatureLevel::new(4);
    group.apply(writes(vec![write(1, 1, &[])]));
    group.apply(writes(vec![write(1, 2, &[5, 15])]));
    assert_eq!(reason(&group.apply(held(true, step(1, 1)))), None);
    group
}

fn with_split_region() -> TestGroup {
    let mut group = with_held_region();
    let applied = group.apply(Entry::Split(split()));
    assert_eq!(applied.effects.len(), 1, "{applied:?}");
    group
}

#[test]
fn held_region_takes_writes_and_no_decisions() {
    let mut group = with_held_region();
    assert_eq!(group.state.regions[&RegionId(7)].serving(), ServingState::Held);
    let altered = v1::RegionAltered {
        region_id: 7,
        schema: Some((&schema(2)).into()),
        options: Some((&options()).into()),
        step: step(2, 1),
    };
    let area_id = Bytes::copy_from_slice(uuid::Uuid::from_u128(1).as_bytes());
    let area = v1::AreaOpened { region_id: 7, area_id, deadline_ms: 9, step: step(2, 1) };
    let before = group.state.clone();
    for decision in [truncated(2), Entry::Altered(altered), Entry::AreaOpened(area)] {
        assert_eq!(reason(&group.apply(decision)), Some(Reason::RouteBusy));
    }
    assert_eq!(group.state, before);
    assert_eq!(reason(&group.apply(writes(vec![write(1, 3, &[6])]))), None);
    // Abandoned: a delayed hold or split has no effect.
    assert_eq!(reason(&group.apply(held(false, step(1, 9)))), None);
    for late in [held(true, step(1, 1)), Entry::Split(split())] {
        assert_eq!(reason(&group.apply(late)), Some(Reason::ProcedureSuperseded));
    }
    assert_eq!(reason(&group.apply(truncated(2))), None);
}

#[test]
fn children_take_the_writes_of_the_region() {
    let mut group = with_split_region();
    let applied = group.apply(writes(vec![write(1, 3, &[6, 16, 17])]));
    assert!(
        matches!(applied.outcomes[..], [EntryOutcome::Done { rows: 3, repeated: false, .. }]),
        "{applied:?}"
    );
    let seen = group.seen.rows.lock().clone();
    let last: Vec<_> = seen.iter().rev().take(2).map(|(id, _, rows)| (*id, rows.clone())).collect();
    assert_eq!(last, [(RIGHT, vec![16, 17]), (LEFT, vec![6])]);
    // A write with rows of one child is recorded in the other, too.
    group.apply(writes(vec![write(1, 4, &[7])]));
    let applied = group.apply(writes(vec![write(1, 5, &[18])]));
    assert_eq!(reason(&applied), None);
    let before = group.state.clone();
    let applied = group.apply(writes(vec![write(1, 5, &[18])]));
    assert!(matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: true, rows: 1, .. }]));
    let applied = group.apply(writes(vec![write(1, 3, &[6, 16, 17])]));
    assert_eq!(reason(&applied), Some(Reason::SerialOutOfOrder));
    assert_eq!(group.seen.rows.lock().len(), seen.len() + 2);
    let contents = |state: &GroupState| {
        [LEFT, RIGHT]
            .map(|child| (state.regions[&child].contents, state.regions[&child].last_sequence))
    };
    assert_eq!(contents(&group.state), contents(&before));
}

#[test]
fn earlier_write_is_repeated_by_both_routes() {
    let mut group = with_split_region();
    let rows = group.seen.rows.lock().len();
    let by_parent = write(1, 2, &[5, 15]);
    let by_child =
        |id: RegionId, ids: &[i64]| v1::WriteRequest { region_id: id.get(), ..write(1, 2, ids) };
    for repeated in [by_parent, by_child(LEFT, &[5]), by_child(RIGHT, &[15])] {
        let applied = group.apply(writes(vec![repeated]));
        assert!(
            matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]),
            "{applied:?}"
        );
    }
    assert_eq!(group.seen.rows.lock().len(), rows);
    // The next write, cut along the routes.
    for next in [by_child(LEFT, &[6]), by_child(RIGHT, &[16])] {
        let applied = group.apply(writes(vec![v1::WriteRequest { serial: 3, ..next }]));
        assert!(matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: false, .. }]));
    }
}

#[test]
fn children_begin_with_the_state_of_the_region() {
    let mut group = with_held_region();
    let parent = group.state.regions[&RegionId(7)].clone();
    group.apply(Entry::Split(split()));
    for id in [LEFT, RIGHT] {
        let child = &group.state.regions[&id];
        assert_eq!((child.base, child.flushed), (parent.base, parent.flushed));
        assert_eq!(child.parents[0].sealed_at, ManifestVersion(5));
        assert!(child.last_sequence >= parent.last_sequence && !child.held);
        assert_eq!(child.step, group.state.regions[&RegionId(7)].step);
        assert_eq!(&RegionState::from_wire(child.to_wire()).unwrap(), child);
    }
    let parent = &group.state.regions[&RegionId(7)];
    assert_eq!((parent.serving(), parent.producers.len()), (ServingState::Replaced, 0));
    assert_eq!(&RegionState::from_wire(parent.to_wire()).unwrap(), parent);
    // Everything else of the region is refused, and the split is not repeated.
    let advance = v1::ManifestAdvanced { region_id: 7, version: 6, ..Default::default() };
    assert_eq!(reason(&group.apply(truncated(2))), Some(Reason::RouteMoved));
    for entry in [Entry::ManifestAdvanced(advance), held(false, step(1, 9))] {
        assert_eq!(reason(&group.apply(entry)), Some(Reason::RouteBusy));
    }
    let again = group.apply(Entry::Split(split()));
    assert_eq!((&again.outcomes[..], again.effects.len()), (&[EntryOutcome::REPEATED][..], 0));
}

#[test]
fn child_needs_its_parents_until_it_is_born() {
    let mut group = with_split_region();
    group.apply(Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: LEFT.get(),
        version: 1,
        ..Default::default()
    }));
    assert_eq!(group.state.regions[&LEFT].parents.len(), 0);
    assert_eq!(group.state.regions[&RIGHT].parents.len(), 1);
}

#[test]
fn region_is_closed_after_its_split_only() {
    let closed = || Entry::Closed(v1::RegionClosed { region_id: 7, step: step(1, 3) });
    let mut group = with_held_region();
    assert_eq!(reason(&group.apply(closed())), Some(Reason::RouteBusy));
    group.apply(Entry::Split(split()));
    assert_eq!(group.apply(closed()).effects, [ApplyEffect::Close(RegionId(7))]);
    assert_eq!(group.apply(closed()).outcomes, [EntryOutcome::REPEATED]);
    let applied = group.apply(writes(vec![write(1, 3, &[6])]));
    assert_eq!(reason(&applied), Some(Reason::RegionNotFound));
    assert_eq!(group.state.regions.keys().copied().collect::<Vec<_>>(), [LEFT, RIGHT]);
}

#[test]
fn invalid_split_changes_nothing() {
    let with = |children: Vec<v1::SplitChild>| v1::RegionSplit { children, ..split() };
    let right = || child(RIGHT, Some(10), None);
    let cases = [
        v1::RegionSplit { sealed_version: 0, ..split() },
        with(vec![child(LEFT, None, None)]),
        with(vec![child(LEFT, None, Some(10)), child(RIGHT, Some(11), None)]),
        with(vec![child(LEFT, None, Some(10)), child(RIGHT, Some(9), None)]),
        with(vec![child(LEFT, None, Some(10)), child(RIGHT, Some(10), Some(20))]),
        with(vec![child(LEFT, Some(1), Some(10)), right()]),
        with(vec![child(LEFT, None, None), right()]),
        with(vec![child(RegionId(6), None, Some(10)), right()]),
        with(vec![child(RIGHT, None, Some(10)), right()]),
        with(vec![child(RegionId(0), None, Some(10)), right()]),
        v1::RegionSplit { step: None, ..split() },
    ];
    for case in cases {
        let mut group = with_held_region();
        let before = group.state.clone();
        let applied = group.apply(Entry::Split(case.clone()));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "{case:?}");
        assert_eq!(group.state, before);
    }
    let mut group = TestGroup::with_region();
    let early = group.apply(Entry::Split(split()));
    assert_eq!(reason(&early), Some(Reason::Unsupported), "below level 4");
    group.state.level = FeatureLevel::new(4);
    assert_eq!(reason(&group.apply(Entry::Split(split()))), Some(Reason::RouteBusy));
    let unknown = Entry::Split(v1::RegionSplit { region_id: 6, ..split() });
    assert_eq!(reason(&group.apply(unknown)), Some(Reason::RegionNotFound));
}

#[test]
fn split_waits_for_decisions_that_no_manifest_records() {
    let mut group = TestGroup::with_region();
    group.state.level = FeatureLevel::new(4);
    group.apply(truncated(1));
    group.apply(held(true, step(2, 1)));
    let split = || Entry::Split(v1::RegionSplit { step: step(2, 2), ..split() });
    assert_eq!(reason(&group.apply(split())), Some(Reason::RouteBusy));
    let done = group.state.regions[&RegionId(7)].last_sequence;
    group.apply(Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: 7,
        version: 3,
        done_sequence: done.get(),
        ..Default::default()
    }));
    assert_eq!(reason(&group.apply(split())), None);
}

#[test]
fn region_with_open_staging_area_is_not_held() {
    let mut group = TestGroup::with_region();
    group.state.level = FeatureLevel::new(4);
    let area_id = Bytes::copy_from_slice(uuid::Uuid::from_u128(1).as_bytes());
    let area =
        v1::AreaOpened { region_id: 7, area_id: area_id.clone(), deadline_ms: 9, step: step(1, 1) };
    assert_eq!(reason(&group.apply(Entry::AreaOpened(area))), None);
    let before = group.state.clone();
    assert_eq!(reason(&group.apply(held(true, step(2, 1)))), Some(Reason::RouteBusy));
    assert_eq!(group.state, before);
    let abandoned =
        v1::AreaAbandoned { region_id: 7, area_id, step: step(1, 2), ..Default::default() };
    assert_eq!(reason(&group.apply(Entry::AreaAbandoned(abandoned))), None);
    assert_eq!(reason(&group.apply(held(true, step(2, 1)))), None);
}

#[test]
fn split_into_a_known_region_is_refused() {
    for is_dropped in [false, true] {
        let mut group = with_held_region();
        group.apply(opened(region(RIGHT.get(), None, None)));
        if is_dropped {
            group.apply(Entry::Dropped(v1::RegionDropped { region_id: RIGHT.get() }));
        }
        let before = group.state.clone();
        let applied = group.apply(Entry::Split(split()));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "dropped: {is_dropped}");
        assert_eq!(group.state, before);
    }
}

#[test]
fn opening_by_the_old_route_reaches_both_children() {
    let mut group = with_split_region();
    assert_eq!(reason(&group.apply(writes(vec![write(2, 1, &[])]))), None);
    for (child, id) in [(LEFT, 6), (RIGHT, 16)] {
        let next = v1::WriteRequest { region_id: child.get(), ..write(2, 2, &[id]) };
        assert_eq!(reason(&group.apply(writes(vec![next]))), None, "region {child}");
    }
}

#[test]
fn write_that_one_child_refuses_changes_neither() {
    let mut group = with_split_region();
    let by_left = v1::WriteRequest { region_id: LEFT.get(), ..write(1, 3, &[6]) };
    assert_eq!(reason(&group.apply(writes(vec![by_left]))), None);
    let before = (group.state.clone(), group.seen.rows.lock().len());
    let applied = group.apply(writes(vec![write(1, 4, &[7, 17])]));
    assert_eq!(reason(&applied), Some(Reason::SerialOutOfOrder));
    assert_eq!((group.state.clone(), group.seen.rows.lock().len()), before);
}

// Locks of the catalog prevent it: the child takes no writes any more.
#[test]
fn write_is_refused_when_a_child_is_replaced() {
    let mut group = with_split_region();
    let region_id = LEFT.get();
    let held = v1::RegionHeld {
        region_id,
        held: true,
        step: step(2, 1),
        fenced: false,
        ..Default::default()
    };
    assert_eq!(reason(&group.apply(Entry::Held(held))), None);
    let children = vec![child(RegionId(10), None, Some(5)), child(RegionId(11), Some(5), Some(10))];
    let again = v1::RegionSplit { region_id, children, step: step(2, 2), ..split() };
    assert_eq!(reason(&group.apply(Entry::Split(again))), None);
    let before = group.state.clone();
    let applied = group.apply(writes(vec![write(1, 3, &[6, 16])]));
    assert_eq!(reason(&applied), Some(Reason::RouteBusy));
    assert_eq!(group.state, before);
}
