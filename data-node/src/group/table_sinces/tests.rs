use bytes::Bytes;
use tidewater_common::ids::RegionId;
use tidewater_common::schema::TableOptions;
use tidewater_proto::v1::group_entry::Entry;
use tidewater_proto::v1::{self, Reason};

use super::*;
use crate::group::apply::{Applied, check_altered};
use crate::group::entry::EntryOutcome;
use crate::group::producers::Eviction;
use crate::group::testing::{TestGroup, key, opened, options, region, schema};

fn group() -> TestGroup {
    let mut group = TestGroup::default();
    group.state.level = FeatureLevel::HIGHEST;
    group
}

/// Opening of a region of table 3.
fn open(id: u64, explicit_since: bool) -> v1::RegionDescriptor {
    let options = TableOptions { explicit_since, ..options() };
    v1::RegionDescriptor { options: Some((&options).into()), ..region(id, None, None) }
}

fn named(tables: &[(u32, u64)]) -> Vec<TableSince> {
    tables
        .iter()
        .map(|(table_id, since)| TableSince { table_id: *table_id, since: *since })
        .collect()
}

fn barrier(previous: u64, epoch: u64, since: u64, tables: &[(u32, u64)]) -> Entry {
    Entry::Barrier(v1::GroupBarrier { previous, epoch, since, tables: named(tables) })
}

fn step(step: u32) -> Option<v1::ProcedureStep> {
    Some(v1::ProcedureStep { number: 4, step })
}

fn altered(version: u32, explicit_since: bool) -> v1::RegionAltered {
    let options = TableOptions { explicit_since, ..options() };
    v1::RegionAltered {
        region_id: 7,
        schema: Some((&schema(version)).into()),
        options: Some((&options).into()),
        step: step(version),
    }
}

fn truncated(at: u32) -> Entry {
    Entry::Truncated(v1::RegionTruncated { region_id: 7, step: step(at) })
}

fn held(region_id: u64, at: u32, target_group_id: u64, fenced: bool) -> Entry {
    Entry::Held(v1::RegionHeld {
        region_id,
        held: true,
        step: step(at),
        fenced,
        target_group_id,
        ..v1::RegionHeld::default()
    })
}

/// The owner's flush and seal after a fence.
fn advanced(group: &TestGroup, region_id: u64, version: u64) -> Entry {
    let last = group.state.regions[&RegionId(region_id)].last_sequence.get();
    Entry::ManifestAdvanced(v1::ManifestAdvanced {
        region_id,
        version,
        flushed_sequence: last,
        done_sequence: last,
        ..v1::ManifestAdvanced::default()
    })
}

fn reason(applied: &Applied) -> Option<Reason> {
    match applied.outcomes[..] {
        [EntryOutcome::Refused { reason, .. }] => Some(reason),
        _ => None,
    }
}

fn done(group: &mut TestGroup, entry: Entry) {
    let applied = group.apply(entry);
    assert!(
        matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: false, .. }]),
        "{applied:?}"
    );
}

/// Oldest readable epoch of a region.
fn since(group: &TestGroup, id: u64) -> u64 {
    group.state.readable_epochs(RegionId(id)).unwrap().0.get()
}

/// A group whose region 7 has its own oldest readable epoch, 40, and is at epoch 200 with 150 as that of the others.
fn with_own_since() -> TestGroup {
    let mut group = group();
    done(&mut group, opened(open(7, true)));
    done(&mut group, barrier(0, 100, 50, &[(3, 40)]));
    done(&mut group, barrier(100, 200, 150, &[]));
    assert_eq!((since(&group, 7), group.state.since), (40, Epoch(150)));
    group
}

#[test]
fn barrier_advances_only_the_tables_that_it_names() {
    let mut group = group();
    for region in [
        open(7, true),
        open(8, true),
        v1::RegionDescriptor { table_id: 4, ..open(9, true) },
        v1::RegionDescriptor { table_id: 5, ..open(10, false) },
    ] {
        done(&mut group, opened(region));
    }
    let sinces = |group: &TestGroup| [7, 8, 9, 10].map(|id| since(group, id));
    // Table 5 follows the group, and table 6 has no region in it.
    done(&mut group, barrier(0, 100, 50, &[(3, 40), (5, 90), (6, 90)]));
    assert_eq!(sinces(&group), [40, 40, 0, 50]);
    done(&mut group, barrier(100, 200, 150, &[(4, 20), (3, 30)]));
    assert_eq!(sinces(&group), [40, 40, 20, 150]);
    let epochs = group.state.readable_epochs(RegionId(9));
    assert_eq!(epochs, Some((Epoch(20), Epoch(200))));
}

#[test]
fn greatest_named_epoch_counts_up_to_the_barrier() {
    let mut group = with_own_since();
    done(&mut group, barrier(200, 300, 150, &[(3, 60), (3, 70), (3, 50)]));
    assert_eq!(since(&group, 7), 70);
    done(&mut group, barrier(300, 400, 150, &[(3, u64::MAX)]));
    assert_eq!(since(&group, 7), 400);
}

#[test]
fn barrier_with_tables_below_their_level_is_refused() {
    let mut group = with_own_since();
    group.state.level = FeatureLevel::COLLECTIONS.previous();
    let before = group.state.clone();
    let refused = group.apply(barrier(200, 300, 250, &[(3, 60)]));
    assert_eq!(reason(&refused), Some(Reason::Unsupported));
    assert_eq!(group.state, before);
    done(&mut group, barrier(200, 300, 250, &[]));
}

#[test]
fn entry_names_tables_that_it_advances() {
    let mut group = with_own_since();
    for region in [
        v1::RegionDescriptor { table_id: 4, ..open(9, true) },
        v1::RegionDescriptor { table_id: 5, ..open(10, false) },
    ] {
        done(&mut group, opened(region));
    }
    let of_group = |group: &TestGroup, tables: &[(u32, u64)]| {
        TableSinces::new(&named(tables), Epoch(300)).for_group(&group.state)
    };
    // Table 5 follows the group, and table 6 has no region in it. Region 9 begins at epoch 200.
    assert_eq!(
        of_group(&group, &[(4, 201), (6, 250), (5, 250), (3, 41)]),
        named(&[(3, 41), (4, 201)])
    );
    assert_eq!(of_group(&group, &[(3, 60), (3, 900), (4, 200)]), named(&[(3, 300)]));
    assert_eq!(of_group(&group, &[(3, 40), (4, 200)]), []);
    // One region of the table is behind.
    done(&mut group, opened(open(8, true)));
    assert_eq!(of_group(&group, &[(3, 60)]), named(&[(3, 60)]));
    group.state.level = FeatureLevel::COLLECTIONS.previous();
    assert_eq!(of_group(&group, &[(3, 60)]), []);
}

#[test]
fn alteration_freezes_the_oldest_readable_epoch() {
    let mut group = group();
    done(&mut group, opened(open(7, false)));
    done(&mut group, barrier(0, 100, 50, &[(3, 90)]));
    assert_eq!(since(&group, 7), 50);
    done(&mut group, Entry::Altered(altered(2, true)));
    assert_eq!(since(&group, 7), 50);
    done(&mut group, barrier(100, 200, 150, &[]));
    assert_eq!(since(&group, 7), 50);
    // A later alteration does not freeze it again.
    done(&mut group, Entry::Altered(altered(3, true)));
    assert_eq!(since(&group, 7), 50);
    let state = &group.state.regions[&RegionId(7)];
    assert_eq!(&RegionState::from_wire(state.to_wire()).unwrap(), state);
    done(&mut group, barrier(200, 300, 250, &[(3, 120)]));
    assert_eq!(since(&group, 7), 120);
}

#[test]
fn truncation_limits_an_own_oldest_readable_epoch() {
    let mut group = group();
    done(&mut group, opened(open(7, false)));
    done(&mut group, barrier(0, 100, 50, &[]));
    done(&mut group, truncated(1));
    done(&mut group, Entry::Altered(altered(2, true)));
    assert_eq!(since(&group, 7), 100, "truncated before");
    done(&mut group, barrier(100, 200, 50, &[]));
    done(&mut group, truncated(3));
    assert_eq!(since(&group, 7), 200, "truncated after");
}

#[test]
fn own_oldest_readable_epoch_is_not_taken_back() {
    let mut group = with_own_since();
    let before = group.state.clone();
    assert_eq!(check_altered(&before, &altered(2, true)), Ok(()));
    let checked = check_altered(&before, &altered(2, false)).unwrap_err();
    assert!(
        matches!(checked, EntryOutcome::Refused { reason: Reason::InvalidArgument, .. }),
        "{checked:?}"
    );
    let refused = group.apply(Entry::Altered(altered(2, false)));
    assert_eq!(refused.outcomes, [checked]);
    assert_eq!(group.state, before);
}

#[test]
fn children_of_split_keep_the_epoch_of_their_parent() {
    let mut group = with_own_since();
    done(&mut group, held(7, 1, 0, false));
    let cut = || Bytes::from(key(10));
    let children = vec![
        v1::SplitChild { region_id: 8, start: Bytes::new(), end: Some(cut()) },
        v1::SplitChild { region_id: 9, start: cut(), end: None },
    ];
    let split = v1::RegionSplit { region_id: 7, sealed_version: 5, children, step: step(2) };
    done(&mut group, Entry::Split(split));
    assert_eq!([8, 9].map(|id| since(&group, id)), [40, 40]);
    done(&mut group, barrier(200, 300, 250, &[(3, 60)]));
    assert_eq!([8, 9].map(|id| since(&group, id)), [60, 60]);
}

#[test]
fn merged_region_has_the_greatest_epoch_of_its_parents() {
    for (low, high) in [(30, 40), (40, 30)] {
        let mut group = group();
        let cut = Bytes::from(key(10));
        let left = v1::RegionDescriptor { end: Some(cut.clone()), ..open(7, true) };
        let right = v1::RegionDescriptor { start: cut, ..open(8, true) };
        for (region, since, version) in [(left, low, 5), (right, high, 6)] {
            let id = region.region_id;
            done(&mut group, opened(region));
            group.state.regions.get_mut(&RegionId(id)).unwrap().since = Epoch(since);
            done(&mut group, held(id, 1, 0, false));
            done(&mut group, held(id, 2, 0, true));
            let advanced = advanced(&group, id, version);
            done(&mut group, advanced);
        }
        done(&mut group, barrier(0, 100, 50, &[]));
        let sealed = |region_id, sealed_version| v1::SealedRegion { region_id, sealed_version };
        let merged = v1::RegionsMerged {
            parents: vec![sealed(7, 5), sealed(8, 6)],
            child: Some(v1::SplitChild { region_id: 9, start: Bytes::new(), end: None }),
            step: step(3),
            eviction: Eviction::CURRENT.to_wire(),
        };
        done(&mut group, Entry::Merged(merged));
        assert_eq!(since(&group, 9), 40);
    }
}

#[test]
fn moved_region_keeps_an_epoch_below_its_group() {
    let mut source = with_own_since();
    done(&mut source, held(7, 1, 0, false));
    done(&mut source, held(7, 3, 6, true));
    let advanced = advanced(&source, 7, 9);
    done(&mut source, advanced);
    let left = source.state.regions[&RegionId(7)].to_wire();

    let mut target = group();
    done(&mut target, barrier(0, 300, 250, &[]));
    done(&mut target, Entry::Prepared(v1::RegionPrepared { region_id: 7, step: step(2) }));
    let level = source.state.level.get();
    let received =
        v1::RegionReceived { region: Some(left), fence_version: 9, step: step(4), level };
    done(&mut target, Entry::Received(received));
    assert_eq!((since(&target, 7), target.state.since), (40, Epoch(250)));
    done(&mut target, barrier(300, 400, 350, &[]));
    assert_eq!(since(&target, 7), 40);
    done(&mut target, barrier(400, 500, 450, &[(3, 60)]));
    assert_eq!(since(&target, 7), 60);
}
