use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::{TableOptions, WriteMode};
use tidewater_proto::v1::group_entry::Entry;
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{Cause, Obligation, PendingObligation};

use super::*;
use crate::group::admits::ServingState;
use crate::group::testing::{TestGroup, key, opened, options, region, schema, write, writes};

const LEFT: RegionId = RegionId(7);
const RIGHT: RegionId = RegionId(8);
const CHILD: RegionId = RegionId(9);

fn step(step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number: 4, step })
}

fn held(region: RegionId, at: u32, fenced: bool) -> Entry {
    let held = at < 4;
    Entry::Held(v1::RegionHeld {
        region_id: region.get(),
        held,
        step: step(at),
        fenced,
        ..Default::default()
    })
}

fn whole(id: RegionId) -> v1::SplitChild {
    v1::SplitChild { region_id: id.get(), start: Bytes::new(), end: None }
}

fn sealed(region: RegionId, sealed_version: u64) -> v1::SealedRegion {
    v1::SealedRegion { region_id: region.get(), sealed_version }
}

fn merged() -> v1::RegionsMerged {
    v1::RegionsMerged {
        parents: vec![sealed(LEFT, 5), sealed(RIGHT, 6)],
        child: Some(whole(CHILD)),
        step: step(3),
        eviction: Eviction::CURRENT.to_wire(),
    }
}

fn to(region: RegionId, write: v1::WriteRequest) -> v1::WriteRequest {
    let id = region.get();
    v1::WriteRequest { region_id: id, origin_region_id: id, ..write }
}

fn reason(applied: &Applied) -> Option<Reason> {
    match &applied.outcomes[0] {
        EntryOutcome::Refused { reason, .. } => Some(*reason),
        EntryOutcome::Done { .. } => None,
    }
}

fn is_repeat(applied: &Applied) -> bool {
    matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: true, .. }])
}

/// The owner's flush and seal after the fence.
fn advanced(group: &TestGroup, region: RegionId, version: u64) -> Entry {
    let flushed = group.state.regions[&region].last_sequence;
    Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id: region.get(),
        version,
        flushed_sequence: flushed.get(),
        done_sequence: flushed.get(),
        ..Default::default()
    })
}

/// A group at level 4 with the regions 7 (ids below 10) and 8; one producer has written to both.
fn with_regions() -> TestGroup {
    let mut group = TestGroup::default();
    group.state.level = FeatureLevel::new(4);
    for (id, start, end) in [(LEFT, None, Some(10)), (RIGHT, Some(10), None)] {
        group.apply(opened(region(id.get(), start, end)));
    }
    for (id, producer, ids) in [(LEFT, 1, [5]), (RIGHT, 2, [15])] {
        group.apply(writes(vec![to(id, write(producer, 1, &[]))]));
        group.apply(writes(vec![to(id, write(producer, 2, &ids))]));
    }
    group
}

fn with_fenced_regions() -> TestGroup {
    let mut group = with_regions();
    for (region, version) in [(LEFT, 5), (RIGHT, 6)] {
        assert_eq!(reason(&group.apply(held(region, 1, false))), None);
        assert_eq!(reason(&group.apply(held(region, 2, true))), None);
        let advanced = advanced(&group, region, version);
        assert_eq!(reason(&group.apply(advanced)), None);
    }
    group
}

#[test]
fn fenced_region_takes_no_writes() {
    let mut group = with_regions();
    group.apply(held(LEFT, 1, false));
    assert_eq!(reason(&group.apply(writes(vec![to(LEFT, write(1, 3, &[6]))]))), None);
    group.apply(held(LEFT, 2, true));
    assert_eq!(group.state.regions[&LEFT].serving(), ServingState::Fenced);
    let before = group.state.clone();
    let refused = group.apply(writes(vec![to(LEFT, write(1, 4, &[7]))]));
    assert_eq!(reason(&refused), Some(Reason::RouteWriteFenced));
    let truncated = v1::RegionTruncated { region_id: 7, step: step(3) };
    assert_eq!(reason(&group.apply(Entry::Truncated(truncated))), Some(Reason::RouteBusy));
    assert_eq!(group.state, before);
    assert_eq!(
        &RegionState::from_wire(before.regions[&LEFT].to_wire()).unwrap(),
        &before.regions[&LEFT]
    );
    // Abandoned: it takes writes again, and a delayed merge has no effect.
    assert_eq!(reason(&group.apply(held(LEFT, 4, true))), None);
    assert_eq!(group.state.regions[&LEFT].serving(), ServingState::Active);
    assert_eq!(reason(&group.apply(writes(vec![to(LEFT, write(1, 4, &[7]))]))), None);
    for late in [held(LEFT, 2, true), Entry::Merged(merged())] {
        assert_eq!(reason(&group.apply(late)), Some(Reason::ProcedureSuperseded));
    }
}

#[test]
fn child_begins_with_the_state_of_its_parents() {
    let mut group = with_fenced_regions();
    group.state.regions.get_mut(&LEFT).unwrap().base = Sequence(1 << 10);
    let parents = [LEFT, RIGHT].map(|id| group.state.regions[&id].clone());
    let applied = group.apply(Entry::Merged(merged()));
    let effect = ApplyEffect::Merge { parents: vec![LEFT, RIGHT], child: CHILD };
    assert_eq!(applied.effects, [effect]);
    let child = &group.state.regions[&CHILD];
    assert_eq!(child.base, Sequence(1 << 10));
    assert_eq!(child.flushed, parents[0].flushed.max(parents[1].flushed));
    assert!(parents.iter().all(|parent| child.last_sequence > parent.last_sequence));
    let begun: Vec<_> = child
        .parents
        .iter()
        .map(|parent| (parent.dir.region_id, parent.sealed_at.get(), parent.last_sequence))
        .collect();
    assert_eq!(begun, [(LEFT, 5, parents[0].flushed), (RIGHT, 6, parents[1].flushed)]);
    assert_eq!((child.serving(), child.producers.len()), (ServingState::Active, 2));
    assert_eq!(&RegionState::from_wire(child.to_wire()).unwrap(), child);
    for id in [LEFT, RIGHT] {
        let parent = &group.state.regions[&id];
        assert_eq!((parent.serving(), parent.producers.len()), (ServingState::Replaced, 0));
        assert_eq!(parent.step, child.step);
    }
    let again = group.apply(Entry::Merged(merged()));
    assert_eq!((&again.outcomes[..], again.effects.len()), (&[EntryOutcome::REPEATED][..], 0));
}

#[test]
fn child_takes_the_writes_of_its_parents() {
    let mut group = with_fenced_regions();
    group.apply(Entry::Merged(merged()));
    let rows = group.seen.rows.lock().len();
    // Writes of the time before are recognized, by both routes.
    for (region, producer, id) in [(LEFT, 1, 5), (RIGHT, 2, 15)] {
        let repeated = to(region, write(producer, 2, &[id]));
        assert!(is_repeat(&group.apply(writes(vec![repeated.clone()]))));
        let by_child = v1::WriteRequest { region_id: CHILD.get(), ..repeated };
        assert!(is_repeat(&group.apply(writes(vec![by_child]))));
    }
    assert_eq!(group.seen.rows.lock().len(), rows);
    for (region, producer, id) in [(LEFT, 1, 6), (RIGHT, 2, 16)] {
        let next = to(region, write(producer, 3, &[id]));
        assert_eq!(reason(&group.apply(writes(vec![next.clone()]))), None);
        assert!(is_repeat(&group.apply(writes(vec![next]))));
    }
    let seen: Vec<_> = group.seen.rows.lock()[rows..].to_vec();
    let seen: Vec<_> = seen.into_iter().map(|(region, _, ids)| (region, ids)).collect();
    assert_eq!(seen, [(CHILD, vec![6]), (CHILD, vec![16])]);
    // Each route has its keys only.
    let outside = group.apply(writes(vec![to(LEFT, write(1, 4, &[17]))]));
    assert_eq!(reason(&outside), Some(Reason::KeyOutsideRegion));
}

// A write of serial 3 to a region that was split, of which only the left child has received its part.
#[test]
fn half_of_a_write_is_completed_after_the_merge() {
    let mut group = TestGroup::with_region();
    group.state.level = FeatureLevel::new(4);
    group.apply(writes(vec![write(1, 1, &[])]));
    group.apply(writes(vec![write(1, 2, &[4, 14])]));
    let hold = |at| v1::ProcedureStep { number: 3, step: at };
    let region_id = 7;
    group.apply(Entry::Held(v1::RegionHeld {
        region_id,
        held: true,
        step: Some(hold(1)),
        ..Default::default()
    }));
    let part = |id: u64, start: Option<i64>, end: Option<i64>| v1::SplitChild {
        region_id: id,
        start: start.map(key).unwrap_or_default().into(),
        end: end.map(|end| key(end).into()),
    };
    group.apply(Entry::Split(v1::RegionSplit {
        region_id,
        sealed_version: 5,
        children: vec![part(8, None, Some(10)), part(9, Some(10), None)],
        step: Some(hold(2)),
    }));
    let by = |region: u64, serial, ids: &[i64]| v1::WriteRequest {
        region_id: region,
        ..write(1, serial, ids)
    };
    assert_eq!(reason(&group.apply(writes(vec![by(8, 3, &[5])]))), None);
    let [left, right, child] = [8, 9, 10].map(RegionId);
    for region in [left, right] {
        group.apply(held(region, 2, true));
        let advanced = advanced(&group, region, 6);
        group.apply(advanced);
    }
    let entry = v1::RegionsMerged {
        parents: vec![sealed(left, 6), sealed(right, 6)],
        child: Some(whole(child)),
        ..merged()
    };
    assert_eq!(reason(&group.apply(Entry::Merged(entry))), None);
    let rows = group.seen.rows.lock().len();
    assert!(is_repeat(&group.apply(writes(vec![by(10, 3, &[5])]))));
    assert_eq!(group.seen.rows.lock().len(), rows);
    assert_eq!(reason(&group.apply(writes(vec![by(10, 3, &[15])]))), None);
    assert_eq!(group.seen.rows.lock().last().unwrap().2, [15]);
    assert!(is_repeat(&group.apply(writes(vec![by(10, 3, &[5, 15])]))));
    assert_eq!(group.seen.rows.lock().len(), rows + 1);
    let earlier = group.apply(writes(vec![by(10, 2, &[14])]));
    assert_eq!(reason(&earlier), Some(Reason::SerialOutOfOrder));
}

#[test]
fn invalid_merge_changes_nothing() {
    let with = |parents| v1::RegionsMerged { parents, ..merged() };
    let child = |child| v1::RegionsMerged { child, ..merged() };
    let part = |start: Option<i64>, end: Option<i64>| {
        let start = start.map(key).unwrap_or_default().into();
        Some(v1::SplitChild { region_id: 9, start, end: end.map(|end| key(end).into()) })
    };
    let cases = [
        with(vec![]),
        with(vec![sealed(LEFT, 5)]),
        with(vec![sealed(RIGHT, 6), sealed(LEFT, 5)]),
        with(vec![sealed(LEFT, 5), sealed(LEFT, 5)]),
        with(vec![sealed(LEFT, 0), sealed(RIGHT, 6)]),
        child(None),
        child(part(Some(1), None)),
        child(part(None, Some(20))),
        child(part(None, Some(10))),
        child(Some(whole(RIGHT))),
        child(Some(whole(RegionId(6)))),
        v1::RegionsMerged { step: None, ..merged() },
    ];
    for case in cases {
        let mut group = with_fenced_regions();
        let before = group.state.clone();
        let applied = group.apply(Entry::Merged(case.clone()));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "{case:?}");
        assert_eq!(group.state, before);
    }
    let unknown = with(vec![sealed(LEFT, 5), sealed(RegionId(6), 6)]);
    let mut group = with_fenced_regions();
    assert_eq!(reason(&group.apply(Entry::Merged(unknown))), Some(Reason::RegionNotFound));
    // A seal that the log does not know: rows might be in no file.
    let unrecorded = with(vec![sealed(LEFT, 5), sealed(RIGHT, 7)]);
    assert_eq!(reason(&group.apply(Entry::Merged(unrecorded))), Some(Reason::RouteBusy));
    let mut group = with_regions();
    assert_eq!(reason(&group.apply(Entry::Merged(merged()))), Some(Reason::RouteBusy));
    group.state.level = FeatureLevel::new(3);
    assert_eq!(reason(&group.apply(Entry::Merged(merged()))), Some(Reason::Unsupported));
}

#[test]
fn regions_of_different_tables_are_not_merged() {
    let append_only = TableOptions { write_mode: WriteMode::AppendOnly, ..options() };
    let changes: [fn(v1::RegionDescriptor) -> v1::RegionDescriptor; 2] = [
        |region| v1::RegionDescriptor { table_id: 4, ..region },
        |region| v1::RegionDescriptor { incarnation: 2, ..region },
    ];
    let mut others: Vec<_> =
        changes.map(|change| change(region(8, Some(10), None))).into_iter().collect();
    others.push(v1::RegionDescriptor {
        options: Some((&append_only).into()),
        ..region(8, Some(10), None)
    });
    for other in others {
        let mut group = with_fenced_regions();
        let right = group.state.regions.get_mut(&RIGHT).unwrap();
        right.descriptor = Descriptor::new(&other).unwrap();
        let before = group.state.clone();
        let applied = group.apply(Entry::Merged(merged()));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "{other:?}");
        assert_eq!(group.state, before);
    }
}

// The manifest of a region without rows does not know the base.
#[test]
fn region_without_rows_has_no_last_sequence() {
    let mut group = with_fenced_regions();
    let base = Sequence(1 << 44);
    let left = group.state.regions.get_mut(&LEFT).unwrap();
    (left.base, left.flushed) = (base, base);
    let flushed = group.state.regions[&RIGHT].flushed;
    group.apply(Entry::Merged(merged()));
    let child = &group.state.regions[&CHILD];
    let last: Vec<Sequence> = child.parents.iter().map(|parent| parent.last_sequence).collect();
    assert_eq!((last, child.flushed), (vec![Sequence(0), flushed], base));
}

#[test]
fn child_serves_the_version_before_if_both_parents_do() {
    let altered = |descriptor: &Arc<Descriptor>| {
        let before = descriptor.clone();
        let schema = Some((&schema(2)).into());
        let altered = v1::RegionDescriptor { schema, ..descriptor.to_wire() };
        (Descriptor::new(&altered).unwrap(), before)
    };
    for both in [true, false] {
        let mut group = with_fenced_regions();
        for (id, keeps) in [(LEFT, true), (RIGHT, both)] {
            let region = group.state.regions.get_mut(&id).unwrap();
            let (altered, before) = altered(&region.descriptor);
            region.descriptor = if keeps { altered.altered_from(&before) } else { altered };
        }
        assert_eq!(reason(&group.apply(Entry::Merged(merged()))), None);
        assert_eq!(group.state.regions[&CHILD].descriptor.previous().is_some(), both);
    }
}

#[test]
fn child_has_the_greatest_base_sequence_and_epoch() {
    for with_base in [LEFT, RIGHT] {
        let mut group = with_fenced_regions();
        let parent = group.state.regions.get_mut(&with_base).unwrap();
        (parent.base, parent.since) = (Sequence(1 << 44), Epoch(9));
        assert_eq!(reason(&group.apply(Entry::Merged(merged()))), None);
        let last = |id| group.state.regions[&id].last_sequence;
        let child = &group.state.regions[&CHILD];
        let begin = (child.base, child.since);
        assert_eq!(begin, (Sequence(1 << 44), Epoch(9)), "region {with_base}");
        assert_eq!(child.last_sequence, last(LEFT).max(last(RIGHT)), "region {with_base}");
    }
}

#[test]
fn regions_that_do_not_adjoin_are_not_merged() {
    let mut group = with_fenced_regions();
    let right = group.state.regions.get_mut(&RIGHT).unwrap();
    right.descriptor = Descriptor::new(&region(8, Some(20), None)).unwrap();
    let one = v1::SplitChild { end: Some(key(10).into()), ..whole(CHILD) };
    let one = v1::RegionsMerged { parents: vec![sealed(LEFT, 5)], child: Some(one), ..merged() };
    let before = group.state.clone();
    for entry in [merged(), one] {
        let applied = group.apply(Entry::Merged(entry.clone()));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "{entry:?}");
        assert_eq!(group.state, before);
    }
}

#[test]
fn merge_into_a_known_region_is_refused() {
    for is_dropped in [false, true] {
        let mut group = with_fenced_regions();
        group.apply(opened(region(CHILD.get(), None, None)));
        if is_dropped {
            group.apply(Entry::Dropped(v1::RegionDropped { region_id: CHILD.get() }));
        }
        let before = group.state.clone();
        let applied = group.apply(Entry::Merged(merged()));
        assert_eq!(reason(&applied), Some(Reason::InvalidArgument), "dropped: {is_dropped}");
        assert_eq!(group.state, before);
    }
}

#[test]
fn merge_waits_for_decisions_that_no_manifest_records() {
    let truncate = PendingObligation {
        cause: Cause { sequence: Sequence(1 << 40), procedure: None },
        obligation: Obligation::Truncate,
    };
    let undecided: [&dyn Fn(&mut RegionState); 2] =
        [&|region| region.obligations.push(truncate.clone()), &|region| {
            region.areas.extend([AreaId(uuid::Uuid::from_u128(1))])
        }];
    for (open, id) in undecided.into_iter().zip([LEFT, RIGHT]) {
        let mut group = with_fenced_regions();
        open(group.state.regions.get_mut(&id).unwrap());
        let before = group.state.clone();
        let applied = group.apply(Entry::Merged(merged()));
        assert_eq!(reason(&applied), Some(Reason::RouteBusy), "region {id}");
        assert_eq!(group.state, before);
    }
}
