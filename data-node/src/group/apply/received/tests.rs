use bytes::Bytes;
use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, Sequence};
use tidewater_proto::v1::group_entry::Entry;
use tidewater_proto::v1::{RegionActivated, RegionHeld, RegionPrepared, RegionReceived};

use super::*;
use crate::group::testing::{TestGroup, opened, region, write, writes};

const REGION: RegionId = RegionId(7);
const SOURCE: u64 = 5;
const TARGET: u64 = 6;
const FENCE_VERSION: u64 = 9;

fn step(number: u64, step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number, step })
}

fn held(number: u64, at: u32, target: u64) -> Entry {
    let region_id = REGION.get();
    let fenced = target != 0;
    let step = step(number, at);
    Entry::Held(RegionHeld {
        region_id,
        held: true,
        step,
        fenced,
        target_group_id: target,
        move_epoch: 0,
    })
}

/// The end of an abandoned move, after the group has fenced the manifest.
fn kept(number: u64, move_epoch: u64) -> Entry {
    let region_id = REGION.get();
    Entry::Held(RegionHeld { region_id, step: step(number, 5), move_epoch, ..Default::default() })
}

fn prepared(number: u64) -> Entry {
    Entry::Prepared(RegionPrepared { region_id: REGION.get(), step: step(number, 2) })
}

fn received(number: u64, left: &RegionState) -> Entry {
    Entry::Received(RegionReceived {
        region: Some(left.to_wire()),
        fence_version: FENCE_VERSION,
        step: step(number, 4),
        level: 4,
    })
}

fn released(number: u64, to: u64) -> Entry {
    let step = step(number, 6);
    Entry::Released(v1::RegionReleased { region_id: REGION.get(), group_id: to, step })
}

fn activated(number: u64) -> Entry {
    Entry::Activated(RegionActivated { region_id: REGION.get(), step: step(number, 7) })
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

fn done(group: &mut TestGroup, entry: Entry) -> Applied {
    let applied = group.apply(entry);
    assert_eq!(reason(&applied), None, "{applied:?}");
    assert!(!is_repeat(&applied));
    applied
}

fn refused(group: &mut TestGroup, entry: Entry, expected: Reason) {
    let before = group.state.clone();
    assert_eq!(reason(&group.apply(entry)), Some(expected));
    assert_eq!(group.state, before);
}

fn repeated(group: &mut TestGroup, entry: Entry) {
    let before = group.state.clone();
    let applied = group.apply(entry);
    assert!(is_repeat(&applied), "{applied:?}");
    assert_eq!((&group.state, &applied.effects[..]), (&before, &[][..]));
}

fn group() -> TestGroup {
    let mut group = TestGroup::default();
    group.state.level = FeatureLevel::new(4);
    group
}

/// A group that has written row 5 with serial 2 of producer 1, all of it flushed, and has fenced its region for a move.
fn departing(number: u64) -> TestGroup {
    let mut group = group();
    group.apply(opened(region(REGION.get(), None, None)));
    group.apply(writes(vec![write(1, 1, &[])]));
    group.apply(writes(vec![write(1, 2, &[5])]));
    fence(&mut group, number, TARGET);
    group
}

fn fence(group: &mut TestGroup, number: u64, target: u64) {
    done(group, held(number, 1, 0));
    done(group, held(number, 3, target));
    let last = group.state.regions[&REGION].last_sequence.get();
    let owner = group.state.regions[&REGION].owner;
    done(
        group,
        Entry::ManifestAdvanced(v1::ManifestAdvanced {
            region_id: REGION.get(),
            version: group.state.regions[&REGION].manifest_version.get() + 1,
            flushed_sequence: last,
            move_epoch: owner.move_epoch,
            term: owner.term.get(),
            done_sequence: last,
        }),
    );
}

/// A group that has received the region, and does not serve it yet.
fn arriving(number: u64, left: &RegionState) -> TestGroup {
    let mut group = group();
    done(&mut group, prepared(number));
    done(&mut group, received(number, left));
    group
}

#[test]
fn region_moves_with_its_producers_and_its_sequences() {
    let mut source = departing(4);
    let left = source.state.regions[&REGION].clone();
    assert_eq!(left.serving(), ServingState::Departing);
    assert_eq!(RegionState::from_wire(left.to_wire()).unwrap(), left);
    refused(&mut source, writes(vec![write(1, 3, &[6])]), Reason::RouteWriteFenced);
    let mut target = group();
    refused(&mut target, received(4, &left), Reason::ProcedureSuperseded);
    done(&mut target, prepared(4));
    repeated(&mut target, prepared(4));
    let applied = done(&mut target, received(4, &left));
    let begun = target.state.regions[&REGION].clone();
    let effect = ApplyEffect::Receive {
        descriptor: left.descriptor.clone(),
        base: left.last_sequence,
        version: ManifestVersion(FENCE_VERSION),
    };
    assert_eq!(applied.effects, [effect]);
    assert_eq!((begun.base, begun.flushed), (left.last_sequence, left.last_sequence));
    assert_eq!(begun.owner.move_epoch, 4);
    assert_eq!(begun.serving(), ServingState::Arriving);
    assert_eq!(RegionState::from_wire(begun.to_wire()).unwrap(), begun);
    target.openings = source.openings.clone();
    refused(&mut target, writes(vec![write(1, 3, &[6])]), Reason::RouteWriteFenced);
    let closed = done(&mut source, released(4, TARGET));
    assert_eq!(closed.effects, [ApplyEffect::Close(REGION)]);
    let moved = Reason::RouteMoved;
    refused(&mut source, writes(vec![write(1, 3, &[6])]), moved);
    let applied = done(&mut target, activated(4));
    assert_eq!(applied.effects, [ApplyEffect::Activate(REGION)]);
    // The write that the source group has acknowledged is a repeat; the next one has a greater sequence.
    let again = target.apply(writes(vec![write(1, 2, &[5])]));
    assert!(is_repeat(&again), "{again:?}");
    let next = target.apply(writes(vec![write(1, 3, &[6])]));
    let [EntryOutcome::Done { sequence, rows: 1, repeated: false }] = next.outcomes[..] else {
        panic!("{next:?}")
    };
    assert!(sequence > left.last_sequence);
}

#[test]
fn late_entries_of_a_move_have_no_effect() {
    let mut source = departing(4);
    let left = source.state.regions[&REGION].clone();
    let mut target = arriving(4, &left);
    done(&mut source, released(4, TARGET));
    done(&mut target, activated(4));
    for entry in [prepared(4), received(4, &left), activated(4)] {
        repeated(&mut target, entry);
    }
    refused(&mut target, released(4, SOURCE), Reason::ProcedureSuperseded);
    repeated(&mut source, released(4, TARGET));
    // T7: the region comes back.
    fence(&mut target, 8, SOURCE);
    let back = target.state.regions[&REGION].clone();
    refused(&mut source, opened(region(REGION.get(), None, None)), Reason::RouteMoved);
    refused(&mut source, prepared(4), Reason::ProcedureSuperseded);
    refused(&mut source, received(4, &left), Reason::ProcedureSuperseded);
    done(&mut source, prepared(8));
    done(&mut source, received(8, &back));
    done(&mut target, released(8, SOURCE));
    done(&mut source, activated(8));
    repeated(&mut source, released(4, TARGET));
    refused(&mut source, received(4, &left), Reason::ProcedureSuperseded);
    refused(&mut target, received(4, &left), Reason::ProcedureSuperseded);
    refused(&mut target, activated(4), Reason::RouteMoved);
    assert_eq!(source.state.moves, Default::default());
}

#[test]
fn abandoned_move_needs_a_fence_of_the_manifest() {
    let mut source = departing(4);
    for epoch in [0, 3, 5] {
        refused(&mut source, kept(4, epoch), Reason::InvalidArgument);
    }
    done(&mut source, kept(4, 4));
    let region = &source.state.regions[&REGION];
    assert_eq!((region.serving(), region.owner.move_epoch), (ServingState::Active, 4));
    refused(&mut source, held(4, 3, TARGET), Reason::ProcedureSuperseded);
    refused(&mut source, released(4, TARGET), Reason::ProcedureSuperseded);
    // An advance of the owner before that fence.
    let stale = v1::ManifestAdvanced { region_id: 7, version: 20, term: 9, ..Default::default() };
    refused(&mut source, Entry::ManifestAdvanced(stale), Reason::RegionFenced);
    let next = source.apply(writes(vec![write(1, 3, &[6])]));
    assert_eq!(reason(&next), None);
}

#[test]
fn group_that_forgets_a_region_refuses_its_move() {
    let left = departing(4).state.regions[&REGION].clone();
    let mut target = group();
    done(&mut target, prepared(4));
    done(&mut target, released(4, SOURCE));
    for entry in [prepared(4), received(4, &left), prepared(3)] {
        refused(&mut target, entry, Reason::ProcedureSuperseded);
    }
    // An older preparation does not replace a newer one.
    done(&mut target, prepared(6));
    refused(&mut target, prepared(5), Reason::ProcedureSuperseded);
    // A region that the group serves or has dropped.
    let mut serving = departing(4);
    refused(&mut serving, prepared(9), Reason::RouteBusy);
    done(&mut serving, Entry::Dropped(v1::RegionDropped { region_id: REGION.get() }));
    refused(&mut serving, prepared(9), Reason::RegionNotFound);
    repeated(&mut serving, released(9, TARGET));
}

#[test]
fn only_fenced_and_recorded_regions_are_received() {
    let left = departing(4).state.regions[&REGION].clone();
    let truncated = RegionState {
        obligations: vec![tidewater_region_engine::region::PendingObligation {
            cause: tidewater_region_engine::region::Cause {
                sequence: Sequence(9),
                procedure: None,
            },
            obligation: tidewater_region_engine::region::Obligation::Truncate,
        }],
        ..left.clone()
    };
    for other in [
        truncated,
        RegionState { moving_to: None, ..left.clone() },
        RegionState { fenced: false, moving_to: None, ..left.clone() },
        RegionState { last_sequence: Sequence(GREATEST_BASE.get() + 1), ..left.clone() },
    ] {
        let mut target = group();
        done(&mut target, prepared(4));
        refused(&mut target, received(4, &other), Reason::InvalidArgument);
    }
    let mut target = group();
    done(&mut target, prepared(4));
    let absent = RegionReceived { step: step(4, 4), ..Default::default() };
    refused(&mut target, Entry::Received(absent), Reason::InvalidArgument);
    let later = RegionReceived {
        region: Some(left.to_wire()),
        fence_version: FENCE_VERSION,
        step: step(4, 4),
        level: 5,
    };
    refused(&mut target, Entry::Received(later), Reason::RouteBusy);
    for entry in [
        Entry::Prepared(RegionPrepared { region_id: 7, step: None }),
        Entry::Received(RegionReceived { region: Some(left.to_wire()), ..Default::default() }),
        Entry::Released(v1::RegionReleased { region_id: 7, group_id: TARGET, step: None }),
    ] {
        refused(&mut target, entry, Reason::InvalidArgument);
    }
}

#[test]
fn region_is_released_to_the_group_of_its_move() {
    let mut source = departing(4);
    refused(&mut source, released(4, 9), Reason::RouteBusy);
    refused(&mut source, released(5, TARGET), Reason::RouteBusy);
    let mut held_only = group();
    held_only.apply(opened(region(REGION.get(), None, None)));
    done(&mut held_only, held(4, 1, 0));
    refused(&mut held_only, released(4, TARGET), Reason::RouteBusy);
}

// T5: positions in the log of another group, however great they are.
#[test]
fn producers_of_the_other_group_are_forgotten_first() {
    let mut source = group();
    source.index = 1_000_000_000;
    source.apply(opened(region(REGION.get(), None, None)));
    let producer = |id: u64| Bytes::from(u128::from(id).to_be_bytes().to_vec());
    let capacity = crate::group::producers::Producers::CAPACITY as u64;
    let opening = |id| v1::WriteRequest { producer_id: producer(id), ..write(1, 1, &[]) };
    for id in 0..capacity {
        source.apply(writes(vec![opening(id)]));
    }
    fence(&mut source, 4, TARGET);
    let left = source.state.regions[&REGION].clone();
    let mut target = arriving(4, &left);
    done(&mut target, activated(4));
    for id in [capacity, capacity + 1] {
        target.apply(writes(vec![opening(id)]));
    }
    let known = target.state.regions[&REGION].producers.to_records();
    let knows = |id| known.iter().any(|record| record.producer_id == producer(id));
    assert_eq!(known.len() as u64, capacity);
    // The least recently used ones of the other group, in its order.
    assert!(!knows(0) && !knows(1) && knows(2));
    assert!(knows(capacity) && knows(capacity + 1));
}

#[test]
fn moves_are_part_of_the_digest() {
    let mut target = group();
    let before = target.state.digest();
    done(&mut target, prepared(4));
    let after = target.state.digest();
    assert_ne!(before, after);
    done(&mut target, released(4, SOURCE));
    assert_ne!(target.state.digest(), before);
    assert_eq!(target.state.moves.departure(REGION).unwrap().to, GroupId(SOURCE));
    // Producers are stored in the order of use.
    let left = departing(4).state.regions[&REGION].clone();
    let arrived = arriving(4, &left).state.regions[&REGION].clone();
    assert_eq!(arrived.to_wire().encode_to_vec(), {
        let stored = RegionState::from_wire(arrived.to_wire()).unwrap();
        stored.to_wire().encode_to_vec()
    });
}

#[test]
fn region_is_received_at_its_epoch_only() {
    let barrier = |previous, epoch| {
        Entry::Barrier(v1::GroupBarrier { previous, epoch, ..v1::GroupBarrier::default() })
    };
    let mut source = group();
    source.state.level = FeatureLevel::HIGHEST;
    done(&mut source, barrier(0, 20));
    source.apply(opened(region(REGION.get(), None, None)));
    fence(&mut source, 1, TARGET);
    // Later epochs are not complete in the region.
    done(&mut source, barrier(20, 30));
    assert_eq!(source.state.readable_epochs(REGION), Some((Epoch(20), Epoch(20))));
    let left = source.state.regions[&REGION].clone();

    let mut target = group();
    target.state.level = FeatureLevel::HIGHEST;
    done(&mut target, prepared(1));
    done(&mut target, barrier(0, 19));
    refused(&mut target, received(1, &left), Reason::RouteBusy);
    done(&mut target, barrier(19, 21));
    done(&mut target, received(1, &left));
    let received = &target.state.regions[&REGION];
    assert_eq!((received.fence_epoch, received.since), (None, Epoch(20)));
    assert_eq!(target.state.readable_epochs(REGION), Some((Epoch(20), Epoch(21))));
}
