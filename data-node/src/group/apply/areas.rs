//! Staging areas: opened, published, abandoned. What is staged is known to the owner's manifest only;
//! the log says when it becomes live.

use tidewater_common::ids::{Epoch, LogIndex, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{
    Obligation, PendingObligation, Publication, PublicationContent,
};

use super::{Applied, Effect};
use crate::group::descriptor::Descriptor;
use crate::group::entry::Outcome;
use crate::group::obligation::{area_from_wire, content_from_wire, step_from_wire};
use crate::group::state::{GroupState, RegionState, Taken};

pub(super) fn open(state: &mut GroupState, index: LogIndex, entry: &v1::AreaOpened) -> Applied {
    let deadline_ms = entry.deadline_ms;
    decide(state, index, entry.region_id, &entry.area_id, entry.step, |_, area| {
        Ok(Obligation::OpenArea { area, deadline_ms })
    })
}

pub(super) fn abandon(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::AreaAbandoned,
) -> Applied {
    decide(state, index, entry.region_id, &entry.area_id, entry.step, |_, area| {
        Ok(Obligation::Abandon { area })
    })
}

pub(super) fn publish(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::AreaPublished,
) -> Applied {
    let Some(content) = content_from_wire(entry.content()) else {
        let message = "an area is published as what it was made for";
        return Applied::outcome(Outcome::refused(Reason::InvalidArgument, message));
    };
    decide(state, index, entry.region_id, &entry.area_id, entry.step, |region, area| {
        let staged = matches!(content, PublicationContent::Area { .. });
        if staged && !region.areas.contains(&area) {
            let id = region.descriptor.region_id;
            return Err(Outcome::refused(
                Reason::LoadEnded,
                format!("region {id} has no open staging area {area}"),
            ));
        }
        unchanged(&region.descriptor, entry)?;
        Ok(Obligation::Publish(Publication { area, epoch: Epoch(0), content }))
    })
}

/// Everything that an area was checked against must still hold.
fn unchanged(descriptor: &Descriptor, entry: &v1::AreaPublished) -> Result<(), Outcome> {
    let version = descriptor.schema_version().get();
    if version != entry.schema_version {
        let region = descriptor.region_id;
        return Err(Outcome::refused(
            Reason::SchemaVersionStale,
            format!(
                "region {region} has schema version {version}, and what is staged was checked \
                 against version {}: load it again",
                entry.schema_version
            ),
        ));
    }
    let end = entry.end.as_ref().map(|end| end.to_vec());
    if descriptor.range != (KeyRange { start: entry.start.to_vec(), end }) {
        let region = descriptor.region_id;
        return Err(Outcome::refused(
            Reason::KeyOutsideRegion,
            format!("region {region} has another range since the files were checked"),
        ));
    }
    Ok(())
}

/// Decides about an area of a region, once: as a step of a procedure, or, without one, whenever it is
/// asked, for an area is closed only once.
fn decide(
    state: &mut GroupState,
    index: LogIndex,
    region_id: u64,
    area: &[u8],
    step: Option<v1::ProcedureStep>,
    what: impl FnOnce(&RegionState, AreaId) -> Result<Obligation, Outcome>,
) -> Applied {
    let id = RegionId(region_id);
    let Some(region) = state.regions.get_mut(&id) else {
        return Applied::outcome(Outcome::refused(
            Reason::RegionNotFound,
            format!("region {id} is not served by this group any more"),
        ));
    };
    let Some(area) = area_from_wire(area) else {
        let message = "a staging area is named by a UUID of 16 bytes";
        return Applied::outcome(Outcome::refused(Reason::InvalidArgument, message));
    };
    if step.as_ref().is_some_and(|step| region.took(step_from_wire(step))) {
        return Applied::repeated();
    }
    let obligation = match what(region, area) {
        Ok(obligation) => obligation,
        Err(refused) => return Applied::outcome(refused),
    };
    let taken = match step {
        Some(_) => region.take_step(index, step),
        None => region.take_sequence(index),
    };
    let cause = match taken {
        Taken::Now(cause) => cause,
        Taken::Before => return Applied::repeated(),
        Taken::Refused(refused) => return Applied::outcome(refused),
    };
    match obligation {
        Obligation::OpenArea { .. } => drop(region.areas.insert(area)),
        _ => drop(region.areas.remove(&area)),
    }
    let pending = PendingObligation { cause, obligation };
    region.obligations.push(pending.clone());
    Applied::with_effect(Effect::Decide(id, pending))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidewater_common::ids::Sequence;
    use tidewater_proto::v1::group_entry::Entry;
    use tidewater_proto::v1::{AreaContent, ProcedureStep};
    use uuid::Uuid;

    use super::*;
    use crate::group::testing::{Group, schema};

    fn area(number: u128) -> Bytes {
        Bytes::copy_from_slice(Uuid::from_u128(number).as_bytes())
    }

    fn step(number: u64, step: u32) -> Option<ProcedureStep> {
        Some(ProcedureStep { number, step })
    }

    fn opened(number: u128, at: Option<ProcedureStep>) -> Entry {
        let area_id = area(number);
        Entry::AreaOpened(v1::AreaOpened { region_id: 7, area_id, deadline_ms: 9, step: at })
    }

    fn published(number: u128, at: Option<ProcedureStep>) -> v1::AreaPublished {
        v1::AreaPublished {
            region_id: 7,
            area_id: area(number),
            content: AreaContent::Staged.into(),
            schema_version: schema(1).version().get(),
            start: Bytes::new(),
            end: None,
            step: at,
        }
    }

    fn reason(applied: &Applied) -> Option<Reason> {
        match &applied.outcomes[0] {
            Outcome::Refused { reason, .. } => Some(*reason),
            Outcome::Done { .. } => None,
        }
    }

    #[test]
    fn an_area_is_opened_and_published_once_by_its_procedure() {
        let mut group = Group::with_region();
        let first = group.apply(opened(4, step(1, 1)));
        assert!(matches!(first.effects[..], [Effect::Decide(RegionId(7), _)]));
        assert!(group.apply(opened(4, step(1, 1))).effects.is_empty());
        assert_eq!(group.state.regions[&RegionId(7)].areas.len(), 1);
        let applied = group.apply(Entry::AreaPublished(published(4, step(1, 2))));
        let at = Sequence::at(Sequence(0), LogIndex(4), 0).unwrap();
        assert_eq!(applied.outcomes, [Outcome::Done { sequence: at, rows: 0, repeated: false }]);
        // Its procedure was given up, and this comes late.
        let late = v1::AreaAbandoned { region_id: 7, area_id: area(4), step: step(1, 2) };
        let late = group.apply(Entry::AreaAbandoned(late));
        assert!(matches!(late.outcomes[..], [Outcome::Done { repeated: true, .. }]));
        assert!(late.effects.is_empty());
        let region = &group.state.regions[&RegionId(7)];
        assert!(region.areas.is_empty());
        assert_eq!(region.obligations.len(), 2);
        assert_eq!(region.last_sequence, at);
    }

    #[test]
    fn snapshots_know_the_areas_that_are_open() {
        let mut group = Group::with_region();
        group.apply(opened(4, step(1, 1)));
        let region = &group.state.regions[&RegionId(7)];
        let restored = RegionState::from_wire(region.to_wire()).unwrap();
        assert_eq!(restored.areas.len(), 1);
        assert_eq!(restored, *region);
    }

    #[test]
    fn what_was_abandoned_is_not_published_any_more() {
        let mut group = Group::with_region();
        group.apply(opened(4, step(1, 1)));
        let abandoned = v1::AreaAbandoned { region_id: 7, area_id: area(4), step: step(1, 2) };
        assert!(!group.apply(Entry::AreaAbandoned(abandoned)).effects.is_empty());
        let late = group.apply(Entry::AreaPublished(published(4, step(1, 2))));
        assert!(late.effects.is_empty());
        assert!(group.state.regions[&RegionId(7)].areas.is_empty());
    }

    #[test]
    fn without_a_procedure_a_publication_names_its_own_sequence() {
        let mut group = Group::with_region();
        for index in [2, 3] {
            let entry =
                v1::AreaPublished { content: AreaContent::Files.into(), ..published(4, None) };
            let applied = group.apply(Entry::AreaPublished(entry));
            let at = Sequence::at(Sequence(0), LogIndex(index), 0).unwrap();
            let [Outcome::Done { sequence, .. }] = applied.outcomes[..] else { panic!() };
            assert_eq!(sequence, at);
        }
    }

    #[test]
    fn what_was_checked_against_something_else_is_refused_and_changes_nothing() {
        let good = published(4, step(1, 2));
        let unopened = published(5, step(1, 2));
        let cases = [
            (unopened, Reason::LoadEnded),
            (v1::AreaPublished { schema_version: 2, ..good.clone() }, Reason::SchemaVersionStale),
            (
                v1::AreaPublished { start: Bytes::from_static(b"a"), ..good.clone() },
                Reason::KeyOutsideRegion,
            ),
            (
                v1::AreaPublished { end: Some(Bytes::from_static(b"a")), ..good.clone() },
                Reason::KeyOutsideRegion,
            ),
            (v1::AreaPublished { content: 0, ..good.clone() }, Reason::InvalidArgument),
            (
                v1::AreaPublished { area_id: Bytes::from_static(b"a"), ..good.clone() },
                Reason::InvalidArgument,
            ),
            (v1::AreaPublished { region_id: 8, ..good }, Reason::RegionNotFound),
        ];
        for (case, expected) in cases {
            let mut group = Group::with_region();
            group.apply(opened(4, step(1, 1)));
            let before = group.state.clone();
            let applied = group.apply(Entry::AreaPublished(case));
            assert_eq!(reason(&applied), Some(expected));
            assert_eq!(group.state, before);
        }
    }
}
