//! Notifications of hooks about manifest deltas.

use super::replay::ReplayOutcome;
use super::{Action, ActionKind, AreaStep, Author, Delta};
use crate::hooks::ManifestKind;

/// Returns the kind under which a delta is delivered to durable hooks, which receive every version,
/// bookkeeping included.
pub(super) fn delivered_as(delta: &Delta, outcome: &ReplayOutcome) -> ManifestKind {
    match outcome {
        ReplayOutcome::Void(_) => ManifestKind::Void,
        ReplayOutcome::Applied => announced_as(delta).unwrap_or(ManifestKind::Bookkeeping),
    }
}

/// Returns the kind under which a committed delta is announced to hooks; `None` for bookkeeping,
/// which is not announced.
///
/// The one home of this decision: receipts and [`delivered_as`] use it.
pub(crate) fn announced_as(delta: &Delta) -> Option<ManifestKind> {
    if opens_with_content(delta) {
        return None;
    }
    let kinds = || delta.actions.iter().map(|action| announced(delta.author, action));
    if kinds().any(|kind| kind == Some(ManifestKind::Live)) {
        return Some(ManifestKind::Live);
    }
    kinds().flatten().next()
}

/// Returns `true` if the delta names files of a bulk load or a copy, which have an area of their
/// own: hooks are notified when these are published. A staging area is filled by later deltas.
fn opens_with_content(delta: &Delta) -> bool {
    delta.actions.iter().any(|action| match action.kind {
        ActionKind::Area { area, step: AreaStep::Open { .. } } => {
            delta.actions.iter().any(|other| other.staged == Some(area))
        }
        _ => false,
    })
}

fn announced(author: Author, action: &Action) -> Option<ManifestKind> {
    if action.staged.is_some() {
        return Some(ManifestKind::Staging);
    }
    match &action.kind {
        // The first delta of a split's or merge's child: hooks are notified when the region opens.
        _ if author == Author::System => None,
        ActionKind::Alter { .. }
        | ActionKind::PartitionExprChange { .. }
        | ActionKind::Edit(_)
        | ActionKind::Truncate(_) => Some(ManifestKind::Live),
        ActionKind::Area { step, .. } => match step {
            AreaStep::Open { .. } => Some(ManifestKind::Staging),
            AreaStep::Publish | AreaStep::Merged(_) => Some(ManifestKind::Live),
            AreaStep::Abandon => None,
        },
        ActionKind::Remove | ActionKind::Fence { .. } | ActionKind::GcFloor { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Sequence;
    use tidewater_common::keys::KeyRange;
    use uuid::Uuid;

    use super::*;
    use crate::manifest::samples::*;
    use crate::manifest::{AreaId, Change, Edit, Truncate};

    #[test]
    fn logical_changes_are_announced_and_bookkeeping_is_not() {
        use ManifestKind::{Live, Staging};
        let area = AreaId(Uuid::from_u128(1));
        let by_owner = |kind| Change::new(Author::Owner(owner(1)), vec![kind]);
        let by_system = |kind| Change::new(Author::System, vec![kind]);
        let step = |step| by_owner(ActionKind::Area { area, step });
        let open = AreaStep::Open { logged: true, deadline_ms: 0 };
        let range = KeyRange::whole();
        let staged = Change {
            actions: vec![Action::staged(area, ActionKind::Edit(Edit::default()))],
            ..create(1)
        };
        let mut published = staged.clone();
        published.actions.push(Action::live(ActionKind::Edit(Edit::default())));
        let mut filled = staged.clone();
        let opens = AreaStep::Open { logged: true, deadline_ms: 0 };
        filled.actions.insert(0, Action::live(ActionKind::Area { area, step: opens }));
        let cases = [
            (filled, None),
            (create(1), Some(Live)),
            (flush(1, 1), Some(Live)),
            (by_job(Edit::default()), Some(Live)),
            (by_owner(ActionKind::Truncate(Truncate::UpTo(Sequence(1)))), Some(Live)),
            (by_owner(ActionKind::PartitionExprChange { range: range.clone() }), Some(Live)),
            (step(open), Some(Staging)),
            (staged, Some(Staging)),
            (published, Some(Live)),
            (step(AreaStep::Publish), Some(Live)),
            (step(AreaStep::Merged(Vec::new())), Some(Live)),
            (step(AreaStep::Abandon), None),
            (by_owner(ActionKind::Remove), None),
            (fence(1), None),
            (by_system(ActionKind::GcFloor { floor_ms: 1 }), None),
            (by_system(ActionKind::PartitionExprChange { range }), None),
        ];
        for (change, expected) in cases {
            let delta = delta(1, change.clone());
            assert_eq!(announced_as(&delta), expected, "{change:?}");
            let delivered = expected.unwrap_or(ManifestKind::Bookkeeping);
            assert_eq!(delivered_as(&delta, &ReplayOutcome::Applied), delivered, "{change:?}");
            let void = ReplayOutcome::Void(crate::manifest::Void::Removed);
            assert_eq!(delivered_as(&delta, &void), ManifestKind::Void, "{change:?}");
        }
    }
}
