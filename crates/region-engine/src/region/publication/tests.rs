use tidewater_common::ids::Epoch;
use uuid::Uuid;

use super::*;
use crate::manifest::replay::{ReplayOutcome, apply};
use crate::manifest::samples::*;
use crate::region::Cause;

const AREA: AreaId = AreaId(Uuid::from_u128(4));

/// State after the creation of the region, with a staging area of two files.
fn staged() -> ManifestState {
    let mut state = ManifestState::empty(DIR);
    let open = AreaStep::Open { logged: true, deadline_ms: 9 };
    let edit = Edit { add: vec![file(3), file(1)], ..Edit::default() };
    let mut stage = Change::new(Author::Owner(owner(1)), vec![]);
    stage.actions = vec![
        Action::live(ActionKind::Area { area: AREA, step: open }),
        Action::staged(AREA, ActionKind::Edit(edit)),
    ];
    for change in [fence(1), create(1), stage] {
        take(&mut state, change);
    }
    state
}

fn take(state: &mut ManifestState, change: Change) {
    let delta = delta(state.version.get() + 1, change);
    assert_eq!(apply(state, &delta), ReplayOutcome::Applied);
}

fn pending(obligation: Obligation) -> PendingObligation {
    PendingObligation { cause: Cause { sequence: Sequence(1_000), procedure: None }, obligation }
}

fn publish(content: PublicationContent) -> PendingObligation {
    pending(Obligation::Publish(Publication { area: AREA, epoch: Epoch(7), content }))
}

fn sequences(state: &ManifestState) -> Vec<(u64, u64)> {
    let mut shown: Vec<_> =
        state.files().map(|file| (file.max_sequence().get(), file.max_epoch().get())).collect();
    shown.sort_unstable();
    shown
}

#[test]
fn published_files_get_new_sequences_and_copies_keep_theirs() {
    for (content, expected) in [
        (PublicationContent::Files, [(1_000, 7), (1_001, 7)]),
        (PublicationContent::Copies, [(19, 0), (39, 0)]),
    ] {
        let mut state = staged();
        let change = publish(content).next_change(owner(1), &state);
        take(&mut state, change);
        assert_eq!(sequences(&state), expected);
        assert_eq!(state.done_through, Sequence(1_000));
        assert!(
            state.areas.is_empty() && state.closed_areas.get(&AREA) == Some(AreaOutcome::Published)
        );
    }
}

#[test]
fn new_owner_records_merge_of_published_staging_area() {
    let mut state = staged();
    let newer = (schema(2), tidewater_common::schema::TableOptions::upsert());
    let publish = publish(PublicationContent::Area { table: Some(Box::new(newer)) });
    let first = publish.next_change(owner(1), &state);
    assert_eq!(first.cause, None);
    take(&mut state, first);
    assert_eq!(sequences(&state), [(1_000, 7), (1_001, 7)]);
    assert_eq!(state.table.as_ref().unwrap().schema, schema(2));
    assert!(state.done_through < Sequence(1_000));
    take(&mut state, fence(2));
    let second = publish.next_change(owner(2), &state);
    assert_eq!(second.cause, Some(Sequence(1_000)));
    let ActionKind::Area { step: AreaStep::Merged(merged), .. } = &second.actions[0].kind else {
        panic!("{second:?}");
    };
    let [alter, edit] = merged.as_slice() else { panic!("{merged:?}") };
    assert!(matches!(alter.kind, ActionKind::Alter { .. }));
    let ActionKind::Edit(edit) = &edit.kind else { panic!("{edit:?}") };
    let ids: Vec<_> = edit.add.iter().map(|file| file.file_id).collect();
    assert_eq!(ids, [file(3).file_id, file(1).file_id]);
    take(&mut state, second);
    assert_eq!(state.done_through, Sequence(1_000));
    assert_eq!(sequences(&state), [(1_000, 7), (1_001, 7)]);
}

#[test]
fn completed_obligation_is_recorded_without_actions() {
    let open = pending(Obligation::OpenArea { area: AREA, deadline_ms: 5 });
    let abandon = pending(Obligation::Abandon { area: AREA });
    let mut state = staged();
    assert_eq!(open.next_change(owner(1), &state).actions, []);
    let change = abandon.next_change(owner(1), &state);
    take(&mut state, change);
    assert!(state.areas.is_empty());
    for pending in [&open, &abandon, &publish(PublicationContent::Files)] {
        let change = pending.next_change(owner(1), &state);
        assert_eq!((change.actions, change.cause), (vec![], Some(Sequence(1_000))));
    }
    // Nothing is recorded for an area that never existed.
    let never = ManifestState { closed_areas: Default::default(), ..state };
    let change = publish(PublicationContent::Area { table: None }).next_change(owner(1), &never);
    assert_eq!(change.actions, []);
}

#[test]
fn publication_is_flushed_through_its_last_file() {
    let mut state = staged();
    let change = publish(PublicationContent::Files).next_change(owner(1), &state);
    take(&mut state, change);
    assert_eq!(state.flushed, Sequence(1_001));
    let mut state = staged();
    let change = publish(PublicationContent::Copies).next_change(owner(1), &state);
    take(&mut state, change);
    assert_eq!(state.flushed, Sequence(1_000), "no row in memory is older than the publication");
}
