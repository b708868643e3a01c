//! Staging areas: opened, published, abandoned. Only the owner's manifest lists the staged files;
//! the log decides when they become live.

use tidewater_common::ids::{Epoch, LogIndex, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{
    Obligation, PendingObligation, Publication, PublicationContent,
};

use super::{Applied, ApplyEffect, admitted, check_not_dropped};
use crate::group::admits::Operation;
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::obligation::{area_from_wire, content_from_wire};
use crate::group::state::{GroupState, RegionState};

pub(super) fn open(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::AreaOpened,
) -> Result<Applied, EntryOutcome> {
    let deadline_ms = entry.deadline_ms;
    decide_area(state, index, entry.region_id, &entry.area_id, entry.step, |_, area| {
        Ok(Obligation::OpenArea { area, deadline_ms })
    })
}

pub(super) fn abandon(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::AreaAbandoned,
) -> Result<Applied, EntryOutcome> {
    let decided =
        decide_area(state, index, entry.region_id, &entry.area_id, entry.step, |_, area| {
            Ok(Obligation::Abandon { area })
        })?;
    let id = RegionId(entry.region_id);
    if let Some(region) = state.regions.get_mut(&id) {
        region.merge = None;
        if entry.published_epoch > 0 {
            region.published.publish(Epoch(entry.published_epoch), Epoch(entry.previous_until));
        }
    }
    forget_published(state, id);
    Ok(decided)
}

/// Forgets the publications of a region that no reader needs.
fn forget_published(state: &mut GroupState, id: RegionId) {
    let since = state.readable_epochs(id).map(|(since, _)| since);
    let Some(region) = state.regions.get_mut(&id) else { return };
    let own = since.filter(|_| region.descriptor.options.explicit_since);
    region.published.forget(own);
}

pub(super) fn publish(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::AreaPublished,
) -> Result<Applied, EntryOutcome> {
    let Some(content) = content_from_wire(entry.content()) else {
        let message = "the publication of a staging area names no known content";
        return Err(EntryOutcome::refused(Reason::InvalidArgument, message));
    };
    let epoch = state.epoch;
    decide_area(state, index, entry.region_id, &entry.area_id, entry.step, |region, area| {
        let staged = matches!(content, PublicationContent::Area { .. });
        if staged && !region.areas.contains(&area) {
            let id = region.descriptor.region_id;
            return Err(EntryOutcome::refused(
                Reason::LoadEnded,
                format!("region {id} has no open staging area {area}"),
            ));
        }
        check_not_dropped(&region.descriptor)?;
        check_unchanged(&region.descriptor, entry)?;
        if entry.only_if_unwritten {
            check_unwritten(region)?;
        }
        Ok(Obligation::Publish(Publication { area, epoch, content }))
    })
}

/// Checks that the schema version and the range are those that the staged files were checked
/// against.
fn check_unchanged(descriptor: &Descriptor, entry: &v1::AreaPublished) -> Result<(), EntryOutcome> {
    let version = descriptor.schema_version().get();
    if version != entry.schema_version {
        let region = descriptor.region_id;
        return Err(EntryOutcome::refused(
            Reason::SchemaVersionStale,
            format!(
                "region {region} has schema version {version}, but the staged files were checked \
                 against version {}: load them again",
                entry.schema_version
            ),
        ));
    }
    let end = entry.end.as_ref().map(|end| end.to_vec());
    if descriptor.range != (KeyRange { start: entry.start.to_vec(), end }) {
        let region = descriptor.region_id;
        return Err(EntryOutcome::refused(
            Reason::KeyOutsideRegion,
            format!("the range of region {region} changed after the files were checked"),
        ));
    }
    Ok(())
}

/// Checks that no write and no change of the region precedes the entry.
fn check_unwritten(region: &RegionState) -> Result<(), EntryOutcome> {
    if region.last_sequence == region.base {
        return Ok(());
    }
    let id = region.descriptor.region_id;
    Err(EntryOutcome::refused(
        Reason::TableBusy,
        format!(
            "region {id} was written before the copied files were published: drop the table and clone \
             it again"
        ),
    ))
}

/// Decides about a staging area of a region, once: as a step of a procedure, or, without a step, at
/// every call, since an area is closed only once.
fn decide_area(
    state: &mut GroupState,
    index: LogIndex,
    region_id: u64,
    area: &[u8],
    step: Option<v1::ProcedureStep>,
    decision: impl FnOnce(&RegionState, AreaId) -> Result<Obligation, EntryOutcome>,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(region_id);
    let Some(area) = area_from_wire(area) else {
        let message = "a staging area is named by a UUID of 16 bytes";
        return Err(EntryOutcome::refused(Reason::InvalidArgument, message));
    };
    let step = step.as_ref();
    let region = admitted(state, id, step, Operation::Decide)?;
    let obligation = decision(region, area)?;
    let cause = match step {
        Some(_) => region.take_step(index, step)?,
        None => region.take_sequence(index)?,
    };
    match obligation {
        Obligation::OpenArea { .. } => drop(region.areas.insert(area)),
        _ => drop(region.areas.remove(&area)),
    }
    let pending = PendingObligation { cause, obligation };
    region.obligations.push(pending.clone());
    Ok(Applied::with_effect(ApplyEffect::Decide(id, pending)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidewater_common::ids::Sequence;
    use tidewater_proto::v1::group_entry::Entry;
    use tidewater_proto::v1::{AreaContent, ProcedureStep};
    use uuid::Uuid;

    use super::*;
    use crate::group::testing::{TestGroup, delete, schema, write, writes};

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
            only_if_unwritten: false,
            epoch: 0,
        }
    }

    fn reason(applied: &Applied) -> Option<Reason> {
        match &applied.outcomes[0] {
            EntryOutcome::Refused { reason, .. } => Some(*reason),
            EntryOutcome::Done { .. } => None,
        }
    }

    #[test]
    fn procedure_opens_and_publishes_a_staging_area_once() {
        let mut group = TestGroup::with_region();
        let first = group.apply(opened(4, step(1, 1)));
        assert!(matches!(first.effects[..], [ApplyEffect::Decide(RegionId(7), _)]));
        assert!(group.apply(opened(4, step(1, 1))).effects.is_empty());
        assert_eq!(group.state.regions[&RegionId(7)].areas.len(), 1);
        let applied = group.apply(Entry::AreaPublished(published(4, step(1, 2))));
        let at = Sequence::at(Sequence(0), LogIndex(4), 0).unwrap();
        assert_eq!(
            applied.outcomes,
            [EntryOutcome::Done { sequence: at, rows: 0, repeated: false }]
        );
        // The procedure was abandoned, and its entry arrives late.
        let late = v1::AreaAbandoned {
            region_id: 7,
            area_id: area(4),
            step: step(1, 2),
            ..Default::default()
        };
        let late = group.apply(Entry::AreaAbandoned(late));
        assert!(matches!(late.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]));
        assert!(late.effects.is_empty());
        let superseded = group.apply(opened(4, step(1, 1)));
        assert_eq!(reason(&superseded), Some(Reason::ProcedureSuperseded));
        let region = &group.state.regions[&RegionId(7)];
        assert!(region.areas.is_empty());
        assert_eq!(region.obligations.len(), 2);
        assert_eq!(region.last_sequence, at);
    }

    #[test]
    fn snapshot_holds_open_staging_areas() {
        let mut group = TestGroup::with_region();
        group.apply(opened(4, step(1, 1)));
        let region = &group.state.regions[&RegionId(7)];
        let restored = RegionState::from_wire(region.to_wire()).unwrap();
        assert_eq!(restored.areas.len(), 1);
        assert_eq!(restored, *region);
    }

    #[test]
    fn abandoned_staging_area_is_not_published() {
        let mut group = TestGroup::with_region();
        group.apply(opened(4, step(1, 1)));
        let abandoned = v1::AreaAbandoned {
            region_id: 7,
            area_id: area(4),
            step: step(1, 2),
            ..Default::default()
        };
        assert!(!group.apply(Entry::AreaAbandoned(abandoned)).effects.is_empty());
        let late = group.apply(Entry::AreaPublished(published(4, step(1, 2))));
        assert!(late.effects.is_empty());
        assert!(group.state.regions[&RegionId(7)].areas.is_empty());
    }

    #[test]
    fn publication_without_a_procedure_has_its_own_sequence() {
        let mut group = TestGroup::with_region();
        for index in [2, 3] {
            let entry =
                v1::AreaPublished { content: AreaContent::Files.into(), ..published(4, None) };
            let applied = group.apply(Entry::AreaPublished(entry));
            let at = Sequence::at(Sequence(0), LogIndex(index), 0).unwrap();
            let [EntryOutcome::Done { sequence, .. }] = applied.outcomes[..] else { panic!() };
            assert_eq!(sequence, at);
        }
    }

    #[test]
    fn copies_are_published_only_in_unwritten_regions() {
        let copies = |only_if_unwritten| {
            let content = AreaContent::Copies.into();
            let entry = published(4, step(1, 1));
            Entry::AreaPublished(v1::AreaPublished { content, only_if_unwritten, ..entry })
        };
        let earlier = [
            vec![writes(vec![write(1, 1, &[])]), writes(vec![write(1, 2, &[5])])],
            vec![writes(vec![write(1, 1, &[])]), writes(vec![delete(1, 2, &[5])])],
            vec![opened(9, None)],
        ];
        for earlier in earlier {
            let replica = |only_if_unwritten| {
                let mut group = TestGroup::with_region();
                for entry in earlier.clone() {
                    group.apply(entry);
                }
                let before = group.state.clone();
                let applied = group.apply(copies(only_if_unwritten));
                (before, applied, group.state)
            };
            let (before, applied, after) = replica(true);
            assert_eq!(reason(&applied), Some(Reason::TableBusy), "{earlier:?}");
            assert_eq!((applied.effects.len(), after.digest()), (0, before.digest()));
            assert_eq!(replica(true).2.digest(), after.digest(), "on every replica");
            // Entries of older releases are applied as these did.
            assert_eq!(reason(&replica(false).1), None, "{earlier:?}");
        }
        let mut group = TestGroup::with_region();
        assert_eq!(reason(&group.apply(copies(true))), None);
        // A repeat after the first write finds the step taken.
        group.apply(writes(vec![write(1, 1, &[])]));
        group.apply(writes(vec![write(1, 2, &[5])]));
        let repeated = group.apply(copies(true));
        assert!(matches!(repeated.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]));
    }

    #[test]
    fn publication_with_outdated_checks_is_refused_without_changes() {
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
            let mut group = TestGroup::with_region();
            group.apply(opened(4, step(1, 1)));
            let before = group.state.clone();
            let applied = group.apply(Entry::AreaPublished(case));
            assert_eq!(reason(&applied), Some(expected));
            assert_eq!(group.state, before);
        }
    }
}
