use proptest::prelude::*;
use tidewater_common::ids::{
    GroupId, ManifestVersion, OwnerEpoch, RegionId, SchemaVersion, Sequence, Term,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::TableOptions;
use uuid::Uuid;

use super::*;
use crate::file_meta::{FileMeta, Stamp};
use crate::manifest::codec::{decode_checkpoint, encode_checkpoint};
use crate::manifest::samples::*;
use crate::manifest::state::RegionOwner;
use crate::manifest::{Action, AreaId, Author, Change, Edit, ProcedureStep, RequiredProgress};

const AREA: AreaId = AreaId(Uuid::from_u128(4));

fn push(state: &mut ManifestState, change: Change) -> ReplayOutcome {
    let delta = delta(state.version.get() + 1, change);
    apply(state, &delta)
}

/// Replays changes, each of which must take effect.
fn state(changes: Vec<Change>) -> ManifestState {
    let mut state = ManifestState::empty(DIR);
    for change in changes {
        assert_eq!(push(&mut state, change.clone()), ReplayOutcome::Applied, "{change:?}");
    }
    state
}

/// Asserts that the change is void for that reason and changes only version and slot.
#[track_caller]
fn assert_void(state: &ManifestState, change: Change, reason: Void) {
    let mut after = state.clone();
    let delta = delta(state.version.get() + 1, change);
    assert_eq!(check(state, &delta), Err(reason.clone()));
    assert_eq!(apply(&mut after, &delta), ReplayOutcome::Void(reason));
    assert_eq!(after.version, delta.version);
    assert!(after.names(delta.version, delta.writer), "a void delta keeps its slot");
    after.version = state.version;
    after.time_ms = state.time_ms;
    after.slots = state.slots.clone();
    assert_eq!(after, *state);
}

fn opened() -> Vec<Change> {
    vec![fence(1), create(1)]
}

fn with(more: Vec<Change>) -> ManifestState {
    state([opened(), more].concat())
}

fn owned(kind: ActionKind) -> Change {
    Change::new(Author::Owner(owner(1)), vec![kind])
}

fn system(kind: ActionKind) -> Change {
    Change::new(Author::System, vec![kind])
}

fn edit(add: Vec<FileMeta>, remove: &[&FileMeta]) -> Edit {
    let remove = remove.iter().map(|file| file.reference()).collect();
    Edit { add, remove, ..Edit::default() }
}

fn area(step: AreaStep) -> ActionKind {
    ActionKind::Area { area: AREA, step }
}

fn open_area(logged: bool) -> Change {
    owned(area(AreaStep::Open { logged, deadline_ms: 9 }))
}

fn stage(edit: Edit) -> Change {
    let mut change = by_owner(1, edit.clone());
    change.actions = vec![Action::staged(AREA, ActionKind::Edit(edit))];
    change
}

#[test]
fn state_contains_all_committed_changes() {
    let state = with(vec![flush(1, 1), flush(1, 2), by_job(edit(vec![file(1)], &[&file(1)]))]);
    assert_eq!(state.version.get(), 5);
    assert_eq!(state.table.as_ref().unwrap().schema, schema(1));
    assert_eq!(state.range, Some(KeyRange::whole()));
    assert_eq!(state.owner.unwrap().epoch, owner(1));
    assert_eq!(state.flushed, Sequence(29));
    assert_eq!(state.live.len(), 2);
    assert_eq!(state.slots.len(), 5);
}

#[test]
fn fence_voids_deltas_of_earlier_owners() {
    let state = with(vec![fence(3)]);
    for late in [flush(1, 1), owned(ActionKind::Remove), fence(2)] {
        let Author::Owner(own) = late.author else { unreachable!() };
        assert_void(&state, late, Void::Fenced { own, later: owner(3) });
    }
    // Terms of different groups are not compared.
    for term in [2, 3, 4] {
        let other = taken_over((0, term), GroupId(99), RequiredProgress::default());
        let own = OwnerEpoch { move_epoch: 0, term: Term(term) };
        assert_void(&state, other, Void::OwnedByGroup { own, group: GROUP });
    }
    // Jobs and the system are not fenced.
    let mut after = state.clone();
    assert_eq!(
        push(&mut after, system(ActionKind::GcFloor { floor_ms: 1 })),
        ReplayOutcome::Applied
    );
    assert_eq!(push(&mut after, flush(3, 1)), ReplayOutcome::Applied);
}

/// The fence of an owner (move epoch, term) of a group.
fn taken_over(
    (move_epoch, term): (u64, u64),
    group: GroupId,
    required: RequiredProgress,
) -> Change {
    let owner = OwnerEpoch { move_epoch, term: Term(term) };
    Change::new(Author::Owner(owner), vec![ActionKind::Fence { owner, group, required }])
}

// T4.
#[test]
fn first_group_that_fences_a_move_owns_the_region() {
    const TARGET: GroupId = GroupId(99);
    let before = with(vec![fence(3), flush(3, 1)]);
    let required = RequiredProgress { flushed: Sequence(19), done: Sequence(0) };
    let by_target = |term| taken_over((5, term), TARGET, required);
    let by_source = |term| taken_over((5, term), GROUP, RequiredProgress::default());
    let own = |term| OwnerEpoch { move_epoch: 5, term: Term(term) };
    // The target's term is lower than that of the source's owner.
    let mut moved = before.clone();
    assert_eq!(push(&mut moved, by_target(1)), ReplayOutcome::Applied);
    assert_eq!(moved.owner, Some(RegionOwner { epoch: own(1), group: TARGET }));
    for term in [1, 2, 9] {
        let reason = Void::OwnedByGroup { own: own(term), group: TARGET };
        assert_void(&moved, by_source(term), reason);
    }
    assert_void(&moved, flush(3, 2), Void::Fenced { own: owner(3), later: own(1) });
    assert_eq!(push(&mut moved, by_target(2)), ReplayOutcome::Applied);
    // An abandoned move: the target comes too late, in any term.
    let mut kept = before;
    assert_eq!(push(&mut kept, by_source(3)), ReplayOutcome::Applied);
    for term in [1, 3, 9] {
        let reason = Void::OwnedByGroup { own: own(term), group: GROUP };
        assert_void(&kept, by_target(term), reason);
    }
    // The next move, and one back.
    let next = taken_over((6, 1), TARGET, required);
    assert_eq!(push(&mut kept, next), ReplayOutcome::Applied);
    assert_eq!(push(&mut kept, taken_over((7, 4), GROUP, required)), ReplayOutcome::Applied);
    let late = taken_over((6, 9), TARGET, required);
    let own = OwnerEpoch { move_epoch: 6, term: Term(9) };
    let later = OwnerEpoch { move_epoch: 7, term: Term(4) };
    assert_void(&kept, late, Void::Fenced { own, later });
}

#[test]
fn required_needs_the_last_flush_and_decision() {
    let state = with(vec![flush(1, 1)]);
    let (flushed, done) = (state.flushed, state.done_through);
    let required = |more_flushed, more_done| RequiredProgress {
        flushed: Sequence(flushed.get() + more_flushed),
        done: Sequence(done.get() + more_done),
    };
    let by_target = |required| taken_over((5, 1), GroupId(99), required);
    for behind in [required(1, 0), required(0, 1)] {
        assert_void(&state, by_target(behind), Void::ProgressMissing { flushed, done });
    }
    let mut state = state;
    assert_eq!(push(&mut state, by_target(required(0, 0))), ReplayOutcome::Applied);
}

#[test]
fn owner_must_fence_before_its_first_delta() {
    assert_void(&ManifestState::empty(DIR), create(1), Void::NotFenced { own: owner(1) });
    assert_void(&with(vec![]), flush(2, 1), Void::NotFenced { own: owner(2) });
    let mut foreign = fence(1);
    foreign.author = Author::Owner(owner(7));
    let what = "fence for another owner";
    assert_void(&with(vec![]), foreign, Void::NotAllowed { author: "an owner", what });
}

#[test]
fn jobs_may_only_replace_files_and_add_indexes() {
    let state = with(vec![flush(1, 1), flush(1, 2)]);
    let job = |kind| Change { author: by_job(Edit::default()).author, ..owned(kind) };
    let not_allowed = |what| Void::NotAllowed { author: "a job", what };
    let other = "do anything but replace live files or add an index";
    for kind in [
        ActionKind::Remove,
        ActionKind::GcFloor { floor_ms: 1 },
        ActionKind::Truncate(Truncate::UpTo(Sequence(1))),
        area(AreaStep::Open { logged: true, deadline_ms: 1 }),
        ActionKind::Fence { owner: owner(9), group: GROUP, required: RequiredProgress::default() },
        ActionKind::PartitionExprChange { range: KeyRange::whole() },
    ] {
        assert_void(&state, job(kind), not_allowed(other));
    }
    let flushing = Edit { flushed: Some(Sequence(99)), ..edit(vec![file(3)], &[&file(1)]) };
    assert_void(&state, by_job(flushing), not_allowed("flush"));
    let adding = edit(vec![file(3)], &[]);
    assert_void(&state, by_job(adding), not_allowed("add files without removing any"));
    let newer = edit(vec![file(3)], &[&file(1), &file(2)]);
    let why = "it has newer rows";
    assert_void(&state, by_job(newer), Void::NotASwap { file: file(3).file_id, why });
}

#[test]
fn job_outputs_must_stay_within_the_inputs_clip() {
    let clip = KeyRange::new([5], Some(vec![9]));
    let input = FileMeta { clip: clip.clone(), ..file(1) };
    let first = by_owner(1, Edit { flushed: Some(Sequence(19)), ..edit(vec![input.clone()], &[]) });
    let state = with(vec![first]);
    let output = |clip| FileMeta { file_id: file_id(1_000_050, 50), clip, ..file(1) };
    let wide = edit(vec![output(KeyRange::whole())], &[&input]);
    let why = "its clip range exceeds theirs";
    assert_void(&state, by_job(wide), Void::NotASwap { file: file_id(1_000_050, 50), why });
    // The same file with another clip range is not live.
    let unclipped = edit(vec![output(clip.clone())], &[&file(1)]);
    assert_void(&state, by_job(unclipped), Void::InputsGone { file: file(1).file_id });
    let mut after = state;
    assert_eq!(
        push(&mut after, by_job(edit(vec![output(clip)], &[&input]))),
        ReplayOutcome::Applied
    );
    assert_eq!(after.removed.len(), 1);
}

#[test]
fn compaction_under_an_older_schema_is_refused() {
    let live = |input: &FileMeta| {
        let add = edit(vec![input.clone()], &[]);
        with(vec![by_owner(1, Edit { flushed: Some(Sequence(19)), ..add })])
    };
    let newer = FileMeta { schema_version: SchemaVersion(2), ..file(1) };
    let state = live(&newer);
    let swap = |state: &ManifestState, output: &FileMeta, input: &FileMeta| {
        delta(state.version.get() + 1, by_job(edit(vec![output.clone()], &[input])))
    };
    let older = FileMeta { file_id: file_id(1_000_050, 50), ..file(1) };
    let why = "it has an older schema";
    let refused = Err(Void::NotASwap { file: older.file_id, why });
    assert_eq!(check(&state, &swap(&state, &older, &newer)), refused);
    // A delta that is already committed is replayed as before.
    let mut replayed = state.clone();
    let delta = swap(&state, &older, &newer);
    assert_eq!(apply(&mut replayed, &delta), ReplayOutcome::Applied);
    for version in [2, 3] {
        let output = FileMeta { schema_version: SchemaVersion(version), ..older.clone() };
        assert_eq!(check(&state, &swap(&state, &output, &newer)), Ok(()));
    }
    let relabelled = FileMeta { level: 1, ..newer.clone() };
    assert_eq!(check(&state, &swap(&state, &relabelled, &newer)), Ok(()));
    // Another table numbers its schemas independently.
    let table_id = tidewater_common::ids::TableId(DIR.table_id.0 + 1);
    let origin = crate::layout::RegionDir { table_id, ..DIR };
    let copied = FileMeta { origin, ..newer };
    let state = live(&copied);
    assert_eq!(check(&state, &swap(&state, &older, &copied)), Ok(()));
}

#[test]
fn compaction_of_removed_inputs_is_void() {
    let swap =
        by_job(edit(vec![FileMeta { file_id: file_id(1_000_050, 50), ..file(1) }], &[&file(1)]));
    let gone = Void::InputsGone { file: file(1).file_id };
    assert_void(&with(vec![]), swap.clone(), gone.clone());
    let truncated = owned(ActionKind::Truncate(Truncate::UpTo(Sequence(19))));
    assert_void(&with(vec![flush(1, 1), truncated]), swap.clone(), gone.clone());
    assert_void(&with(vec![flush(1, 1), swap.clone()]), swap.clone(), gone);
    assert_void(&with(vec![flush(1, 1), owned(ActionKind::Remove)]), swap, Void::Removed);
    let twice = edit(vec![], &[&file(1), &file(1)]);
    let gone = Void::InputsGone { file: file(1).file_id };
    assert_void(&with(vec![flush(1, 1)]), by_owner(1, twice), gone);
}

#[test]
fn rows_are_not_flushed_twice() {
    let state = with(vec![flush(1, 1), flush(1, 2)]);
    let again = Void::AlreadyFlushed { flushed: Sequence(29) };
    assert_void(&state, flush(1, 2), again.clone());
    // The same rows under another id, with or without newer ones.
    let other = FileMeta { file_id: file_id(1_000_050, 50), ..file(2) };
    let same = Edit { flushed: Some(Sequence(29)), ..edit(vec![other.clone()], &[]) };
    assert_void(&state, by_owner(1, same), again.clone());
    let wider = Edit { flushed: Some(Sequence(39)), ..edit(vec![other], &[]) };
    assert_void(&state, by_owner(1, wider), again);
}

#[test]
fn file_is_added_once() {
    let state = with(vec![flush(1, 1), flush(1, 2), by_owner(1, edit(vec![], &[&file(1)]))]);
    for known in [file(1), file(2)] {
        let known_id = Void::FileKnown { file: known.file_id };
        assert_void(&state, by_owner(1, edit(vec![known], &[])), known_id);
    }
    let twice = edit(vec![file(3), file(3)], &[]);
    assert_void(&state, by_owner(1, twice), Void::FileKnown { file: file(3).file_id });
}

#[test]
fn flushed_and_truncated_never_decrease() {
    let truncate = |sequence| owned(ActionKind::Truncate(Truncate::UpTo(Sequence(sequence))));
    let state = with(vec![flush(1, 1), truncate(50), truncate(20)]);
    assert_eq!((state.flushed, state.truncated), (Sequence(50), Sequence(50)));
    assert!(state.live.is_empty());
    assert_eq!(state.removed.len(), 1);
}

#[test]
fn truncation_removes_older_rows_added_after_it() {
    let truncate = owned(ActionKind::Truncate(Truncate::UpTo(Sequence(39))));
    let mut state = with(vec![truncate]);
    // Bulk files keep their sequences; a stamp above the truncation saves a file.
    let stamp = Some(Stamp { sequence: Sequence(60), epoch: Default::default() });
    let saved = FileMeta { stamp, ..file(2) };
    let adopted = edit(vec![file(1), file(3), file(5), saved.clone()], &[]);
    assert_eq!(push(&mut state, by_owner(1, adopted)), ReplayOutcome::Applied);
    let live: Vec<_> = state.files().map(|file| file.file_id).collect();
    assert_eq!(live, [saved.file_id, file(5).file_id]);
    assert_eq!(state.removed.len(), 2);
}

#[test]
fn files_expire_only_if_no_older_version_reappears() {
    let expire = owned(ActionKind::Truncate(Truncate::Files(vec![file(1).reference()])));
    assert_void(&with(vec![flush(1, 1)]), expire.clone(), Void::NoExpiry);
    let options = TableOptions::append_only();
    let append = owned(ActionKind::Alter { schema: Box::new(schema(1)), options });
    let state = with(vec![append, flush(1, 2)]);
    assert_void(&state, expire, Void::InputsGone { file: file(1).file_id });
    let expire = owned(ActionKind::Truncate(Truncate::Files(vec![file(2).reference()])));
    let mut after = state;
    assert_eq!(push(&mut after, expire), ReplayOutcome::Applied);
    assert!(after.live.is_empty());
    assert_eq!(after.flushed, Sequence(29));
}

#[test]
fn region_removal_is_final() {
    let state = with(vec![flush(1, 1), open_area(true), owned(ActionKind::Remove)]);
    assert!(state.is_removed());
    assert!(state.live.is_empty() && state.areas.is_empty());
    assert_eq!(state.removed.len(), 1);
    for late in [fence(9), flush(1, 2), owned(ActionKind::Remove)] {
        assert_void(&state, late, Void::Removed);
    }
    assert_void(&state, system(ActionKind::GcFloor { floor_ms: 9 }), Void::Removed);
}

#[test]
fn floor_refuses_old_ids_of_its_own_directory() {
    let floor = |floor_ms| system(ActionKind::GcFloor { floor_ms });
    let state = with(vec![flush(1, 1), floor(1_000_003), floor(1_000_001)]);
    assert_eq!(state.gc_floor_ms, 1_000_003);
    let below = Void::BelowFloor { file: file(2).file_id, floor_ms: 1_000_003 };
    assert_void(&state, flush(1, 2), below);
    let foreign = |number| FileMeta {
        origin: crate::layout::RegionDir { region_id: RegionId(11), ..DIR },
        ..file(number)
    };
    let random = FileMeta { file_id: tidewater_common::ids::FileId(Uuid::from_u128(3)), ..file(3) };
    let refused = Void::BelowFloor { file: random.file_id, floor_ms: 1_000_003 };
    assert_void(&state, by_owner(1, edit(vec![random], &[])), refused);
    let mut after = state;
    // A known file may change its reference.
    let relabelled = FileMeta { level: 1, ..file(1) };
    let swap = by_job(edit(vec![relabelled], &[&file(1)]));
    for change in [flush(1, 3), by_owner(1, edit(vec![foreign(2)], &[])), swap] {
        assert_eq!(push(&mut after, change), ReplayOutcome::Applied);
    }
}

#[test]
fn removed_files_are_recorded_until_the_floor_passes() {
    let floor = |floor_ms| system(ActionKind::GcFloor { floor_ms });
    let removal = by_owner(1, edit(vec![], &[&file(1)]));
    // The removal is delta 4: at 5,000,004 ms.
    let mut state = with(vec![flush(1, 1), removal, floor(5_000_004)]);
    assert_eq!(state.removed.len(), 1);
    assert_eq!(push(&mut state, floor(5_000_005)), ReplayOutcome::Applied);
    assert!(state.removed.is_empty());
    let below = Void::BelowFloor { file: file(1).file_id, floor_ms: 5_000_005 };
    assert_void(&state, by_owner(1, edit(vec![file(1)], &[])), below);
}

// Scans that began just before would lose their files.
#[test]
fn slow_clock_does_not_shorten_the_grace_period() {
    let slow = |state: &mut ManifestState, change: Change| {
        let delta = Delta { time_ms: 0, ..delta(state.version.get() + 1, change) };
        assert_eq!(apply(state, &delta), ReplayOutcome::Applied);
    };
    let remove = |number| by_owner(1, edit(vec![], &[&file(number)]));
    let at_ms = |state: &ManifestState, number: u64| state.removed[&file(number).reference()].at_ms;
    let mut state = with(vec![flush(1, 1), flush(1, 2), flush(1, 3), flush(1, 4)]);
    // The last of them is delta 6: at 5,000,006 ms.
    slow(&mut state, remove(1));
    assert_eq!(at_ms(&state, 1), 5_000_006);
    slow(&mut state, system(ActionKind::GcFloor { floor_ms: 9_000_000 }));
    slow(&mut state, remove(2));
    slow(&mut state, owned(ActionKind::Truncate(Truncate::UpTo(Sequence(39)))));
    slow(&mut state, owned(ActionKind::Remove));
    assert_eq!([2, 3, 4].map(|number| at_ms(&state, number)), [9_000_000; 3]);
    assert_eq!(state.removed_at_ms, Some(9_000_000));
}

#[test]
fn system_may_create_a_child_and_raise_the_floor() {
    let parent = crate::layout::RegionDir { region_id: RegionId(11), ..DIR };
    let reference = FileMeta { origin: parent, clip: KeyRange::new([5], None), ..file(1) };
    let mut child = Change::new(
        Author::System,
        vec![
            ActionKind::Alter { schema: Box::new(schema(4)), options: TableOptions::upsert() },
            ActionKind::PartitionExprChange { range: KeyRange::new([5], None) },
            ActionKind::Edit(Edit { flushed: Some(Sequence(19)), ..edit(vec![reference], &[]) }),
        ],
    );
    let what = "do anything but raise the floor or create a child";
    let not_allowed = Void::NotAllowed { author: "the system", what };
    assert_void(&ManifestState::empty(DIR), child.clone(), not_allowed.clone());
    child.by_reference = vec![RegionId(11)];
    let state = state(vec![child.clone(), fence(1)]);
    assert_eq!(state.flushed, Sequence(19));
    assert_eq!(state.parents, [RegionId(11)]);
    assert_eq!(state.live.len(), 1);
    assert_void(&state, child, not_allowed.clone());
    assert_void(&state, system(ActionKind::Remove), not_allowed);
}

fn seal() -> Change {
    owned(ActionKind::PartitionExprChange { range: KeyRange::new([1], Some(vec![1])) })
}

fn unseal() -> Change {
    owned(ActionKind::PartitionExprChange { range: KeyRange::whole() })
}

#[test]
fn sealed_region_keeps_its_content() {
    let alter = ActionKind::Alter { schema: Box::new(schema(2)), options: TableOptions::upsert() };
    let add_index = Edit { add_indexes: vec![(file(1).reference(), index(1))], ..Edit::default() };
    let changes = [
        flush(1, 2),
        by_job(edit(vec![file(1)], &[&file(1)])),
        by_job(add_index),
        owned(alter),
        owned(ActionKind::Truncate(Truncate::UpTo(Sequence(5)))),
        owned(ActionKind::Truncate(Truncate::Files(vec![file(1).reference()]))),
        open_area(true),
    ];
    let mut state = with(vec![flush(1, 1), seal()]);
    assert_eq!(state.sealed_at, Some(ManifestVersion(4)));
    let live = state.live.clone();
    for change in changes {
        assert_void(&state, change, Void::Sealed);
    }
    // Bookkeeping goes on, and a repeated seal keeps the version of the first.
    let floor = system(ActionKind::GcFloor { floor_ms: 999_999 });
    for change in [seal(), fence(1), floor] {
        assert_eq!(push(&mut state, change), ReplayOutcome::Applied);
        assert_eq!((state.sealed_at, &state.live), (Some(ManifestVersion(4)), &live));
    }
    assert_eq!(push(&mut state, unseal()), ReplayOutcome::Applied);
    assert_eq!(state.sealed_at, None);
    assert_eq!(push(&mut state, flush(1, 2)), ReplayOutcome::Applied);
    assert_eq!(push(&mut state, seal()), ReplayOutcome::Applied);
    assert_eq!(state.sealed_at, Some(state.version));
}

#[test]
fn region_with_open_area_is_not_sealed() {
    let mut state = with(vec![open_area(true), stage(edit(vec![file(2)], &[]))]);
    assert_void(&state, seal(), Void::AreaOpen { area: AREA });
    assert_eq!(push(&mut state, owned(area(AreaStep::Abandon))), ReplayOutcome::Applied);
    assert_eq!(push(&mut state, seal()), ReplayOutcome::Applied);
    assert_void(&state, stage(edit(vec![file(3)], &[])), Void::AreaNotOpen { area: AREA });
}

#[test]
fn schema_versions_only_increase() {
    let alter = |version| {
        let options = TableOptions::upsert();
        owned(ActionKind::Alter { schema: Box::new(schema(version)), options })
    };
    let state = with(vec![alter(3)]);
    assert_void(&state, alter(2), Void::SchemaNotNewer { version: SchemaVersion(2) });
    let mut after = state;
    assert_eq!(push(&mut after, alter(3)), ReplayOutcome::Applied);
}

#[test]
fn repeated_operations_and_procedure_steps_are_void() {
    let mut first = open_area(true);
    first.cause = Some(Sequence(70));
    first.procedure = Some(ProcedureStep { number: 4, step: 2 });
    let state = with(vec![first.clone()]);
    assert_eq!(state.done_through, Sequence(70));
    assert_void(&state, first.clone(), Void::AlreadyDone { cause: Sequence(70) });
    for (number, step) in [(4, 2), (4, 1), (3, 9)] {
        let procedure = Some(ProcedureStep { number, step });
        let late = Change { cause: None, procedure, ..first.clone() };
        assert_void(&state, late, Void::StaleStep { number, step });
    }
}

#[test]
fn index_is_added_to_a_live_file_once() {
    let add = |file: &FileMeta, index| {
        by_job(Edit { add_indexes: vec![(file.reference(), index)], ..Edit::default() })
    };
    let mut state = with(vec![flush(1, 1)]);
    assert_void(&state, add(&file(2), index(1)), Void::InputsGone { file: file(2).file_id });
    let other = crate::file_meta::IndexMeta { schema_version: SchemaVersion(2), ..index(1) };
    assert_void(&state, add(&file(1), other), Void::SchemaChanged { file: file(1).file_id });
    assert_eq!(push(&mut state, add(&file(1), index(1))), ReplayOutcome::Applied);
    assert_eq!(state.files().next().unwrap().indexes, [index(1)]);
    let known = tidewater_common::ids::FileId(index(1).index_id);
    assert_void(&state, add(&file(1), index(1)), Void::FileKnown { file: known });
}

#[test]
fn staging_area_is_invisible_until_published() {
    let stamp = Some(Stamp { sequence: Sequence(70), epoch: Default::default() });
    let bulk = FileMeta { stamp, ..file(2) };
    let mut state = with(vec![flush(1, 1), open_area(true), stage(edit(vec![bulk.clone()], &[]))]);
    assert_eq!(state.live.len(), 1);
    assert_eq!(state.areas[&AREA].actions.len(), 1);
    // The staged file cannot be added directly, and publication is exempt from the floor.
    let known = Void::FileKnown { file: bulk.file_id };
    assert_void(&state, by_owner(1, edit(vec![bulk.clone()], &[])), known);
    assert_eq!(
        push(&mut state, system(ActionKind::GcFloor { floor_ms: 9_000_000 })),
        ReplayOutcome::Applied
    );
    let mut publish = owned(ActionKind::Edit(edit(vec![bulk], &[])));
    publish.actions.push(Action::live(area(AreaStep::Publish)));
    publish.cause = Some(Sequence(70));
    assert_eq!(push(&mut state, publish.clone()), ReplayOutcome::Applied);
    assert_eq!(state.live.len(), 2);
    assert_void(&state, publish, Void::AlreadyDone { cause: Sequence(70) });
    // The merged actions are for the record only.
    let merged = owned(area(AreaStep::Merged(stage(edit(vec![file(4)], &[])).actions)));
    assert_eq!(push(&mut state, merged), ReplayOutcome::Applied);
    assert_eq!(state.live.len(), 2);
    assert_void(&state, open_area(true), Void::AreaUsed { area: AREA });
    assert_void(&state, stage(Edit::default()), Void::AreaNotOpen { area: AREA });
}

#[test]
fn unlogged_staging_area_ends_with_its_owner() {
    for logged in [true, false] {
        let state = with(vec![open_area(logged), fence(1), fence(2)]);
        assert_eq!(state.areas.contains_key(&AREA), logged);
        assert_eq!(state.closed_areas.get(&AREA), (!logged).then_some(AreaOutcome::Abandoned));
    }
    let state = with(vec![open_area(true), owned(area(AreaStep::Abandon))]);
    assert_void(&state, owned(area(AreaStep::Publish)), Void::AreaNotOpen { area: AREA });
}

#[test]
fn delta_of_several_actions_is_atomic() {
    let mut both = flush(1, 1);
    both.actions.push(Action::live(ActionKind::Edit(edit(vec![], &[&file(9)]))));
    assert_void(&with(vec![]), both, Void::InputsGone { file: file(9).file_id });
}

#[test]
fn slots_are_kept_for_the_retention_by_delta_times() {
    let mut state = with(vec![]);
    let mut late = delta(3, flush(1, 1));
    late.time_ms += SLOT_RETENTION_MS + 10;
    assert_eq!(apply(&mut state, &late), ReplayOutcome::Applied);
    assert_eq!(state.slots.len(), 1);
    // A delta by a slow clock still keeps its own slot.
    let slow = Delta { time_ms: 0, ..delta(4, flush(1, 2)) };
    assert_eq!(apply(&mut state, &slow), ReplayOutcome::Applied);
    assert!(state.names(slow.version, slow.writer));
}

fn any_change() -> impl Strategy<Value = Change> {
    let number = 1..8_u64;
    let term = 1..4_u64;
    prop_oneof![
        4 => (term.clone(), number.clone()).prop_map(|(term, number)| flush(term, number)),
        2 => term.clone().prop_map(fence),
        1 => term.clone().prop_map(create),
        2 => (number.clone(), number.clone()).prop_map(|(a, b)| {
            let output = FileMeta { file_id: file_id(1_000_050 + a, 50 + a), ..file(a.min(b)) };
            by_job(edit(vec![output], &[&file(a), &file(b)]))
        }),
        2 => (term.clone(), number.clone()).prop_map(|(term, a)| by_owner(term, edit(vec![], &[&file(a)]))),
        1 => number.clone().prop_map(|a| by_job(Edit { add_indexes: vec![(file(a).reference(), index(a))], ..Edit::default() })),
        1 => (0..90_u64).prop_map(|s| owned(ActionKind::Truncate(Truncate::UpTo(Sequence(s))))),
        1 => (1_000_000..1_000_009_u64).prop_map(|floor_ms| system(ActionKind::GcFloor { floor_ms })),
        1 => any::<bool>().prop_map(open_area),
        1 => prop_oneof![Just(seal()), Just(unseal()), Just(unseal())],
        1 => number.clone().prop_map(|a| stage(edit(vec![file(a)], &[]))),
        1 => Just(owned(area(AreaStep::Publish))),
        1 => Just(owned(area(AreaStep::Abandon))),
        1 => (1..20_u64, 0..3_u32, number).prop_map(|(cause, step, a)| Change {
            cause: Some(Sequence(cause)),
            procedure: Some(ProcedureStep { number: a, step }),
            ..by_owner(1, Edit::default())
        }),
    ]
}

proptest! {
    /// S1, and the invariants of every intermediate state.
    #[test]
    fn every_checkpoint_leads_to_the_same_state(
        changes in prop::collection::vec(any_change(), 0..60),
        skips in prop::collection::vec(prop_oneof![6 => Just(0_u64), 1 => Just(SLOT_RETENTION_MS / 2)], 60),
    ) {
        let changes = [opened(), changes].concat();
        let mut time_ms = 5_000_000;
        let deltas: Vec<Delta> = changes
            .into_iter()
            .zip(1..)
            .map(|(change, version)| {
                time_ms += skips[version as usize % skips.len()] + 1;
                Delta { time_ms, ..delta(version, change) }
            })
            .collect();
        let mut states = vec![ManifestState::empty(DIR)];
        for delta in &deltas {
            let before = states.last().unwrap();
            let mut after = before.clone();
            let outcome = apply(&mut after, delta);
            prop_assert_eq!(check(before, delta).is_ok(), outcome == ReplayOutcome::Applied);
            prop_assert!(after.flushed >= before.flushed && after.truncated >= before.truncated);
            prop_assert!(after.owner.map(|o| o.epoch) >= before.owner.map(|o| o.epoch));
            prop_assert!(after.live.values().all(|file| file.max_sequence() > after.truncated));
            prop_assert!(after.live.keys().all(|file| !after.removed.contains_key(file)));
            states.push(after);
        }
        let last = states.last().unwrap();
        for (at, state) in states.iter().enumerate() {
            let mut replayed = decode_checkpoint(&encode_checkpoint(state)).unwrap();
            prop_assert_eq!(&replayed, state);
            for delta in &deltas[at..] {
                let _ = apply(&mut replayed, delta);
            }
            prop_assert_eq!(&replayed, last);
            prop_assert_eq!(encode_checkpoint(&replayed), encode_checkpoint(last));
        }
    }
}
