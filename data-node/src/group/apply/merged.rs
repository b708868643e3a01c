//! `merged`: one child replaces fenced regions. All of their rows are in files; it begins with these, and with their
//! producers.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidewater_common::ids::{LogIndex, ManifestVersion, OwnerEpoch, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::region::Parent;

use super::{Applied, ApplyEffect};
use crate::group::admits::Operation;
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::producers::{Eviction, PartlyKnown, Producers};
use crate::group::state::{GroupState, RegionState};

/// Regions of a merge, at least.
const MIN_PARENTS: usize = 2;

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionsMerged,
) -> Result<Applied, EntryOutcome> {
    let step = entry.step.as_ref();
    let mut parents = Vec::with_capacity(entry.parents.len());
    for parent in &entry.parents {
        let id = RegionId(parent.region_id);
        let region = state.regions.get(&id).ok_or_else(|| state.not_served(id))?;
        region.check_step(step, Operation::Merge)?;
        check_sealed(region, parent.sealed_version)?;
        parents.push((region.clone(), ManifestVersion(parent.sealed_version)));
    }
    let descriptor = describe(state, &parents, entry.child.as_ref())?;
    for (parent, _) in &mut parents {
        parent.take_step(index, step)?;
    }
    let id = descriptor.region_id;
    // Decoding refuses entries with another rule.
    let eviction = Eviction::from_wire(entry.eviction).unwrap_or(Eviction::CURRENT);
    let child = child(&parents, descriptor, eviction, PartlyKnown::at(state.level))?;
    let ids = parents.iter().map(|(parent, _)| parent.descriptor.region_id).collect();
    state.regions.insert(id, child);
    for (mut parent, _) in parents {
        parent.children = vec![id];
        // Writes that name it are recorded in its child.
        parent.producers.clear();
        state.regions.insert(parent.descriptor.region_id, parent);
    }
    Ok(Applied::with_effect(ApplyEffect::Merge { parents: ids, child: id }))
}

/// Checks that the manifest of a fenced region has recorded all: its flush after the fence, and its seal.
fn check_sealed(region: &RegionState, sealed_version: u64) -> Result<(), EntryOutcome> {
    let id = region.descriptor.region_id;
    if sealed_version == 0 {
        let text = format!("a merge of region {id} needs a seal");
        return Err(EntryOutcome::refused(Reason::InvalidArgument, text));
    }
    let is_recorded = region.manifest_version >= ManifestVersion(sealed_version)
        && region.obligations.is_empty()
        && region.areas.is_empty();
    if !is_recorded {
        let text = format!("the manifest of region {id} has yet to record a decision");
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    Ok(())
}

/// Returns the description of the child.
fn describe(
    state: &GroupState,
    parents: &[(RegionState, ManifestVersion)],
    child: Option<&v1::SplitChild>,
) -> Result<Arc<Descriptor>, EntryOutcome> {
    let invalid = |text: String| EntryOutcome::refused(Reason::InvalidArgument, text);
    let child = child.ok_or_else(|| invalid("a merge names no child".to_owned()))?;
    let id = RegionId(child.region_id);
    let range =
        KeyRange { start: child.start.to_vec(), end: child.end.as_ref().map(|end| end.to_vec()) };
    let ranges: Vec<&KeyRange> =
        parents.iter().map(|(parent, _)| &parent.descriptor.range).collect();
    let adjoin = ranges.windows(2).all(|pair| pair[0].end.as_ref() == Some(&pair[1].start));
    let is_whole = ranges.first().is_some_and(|first| first.start == range.start)
        && ranges.last().is_some_and(|last| last.end == range.end);
    if ranges.len() < MIN_PARENTS || !adjoin || !is_whole {
        return Err(invalid(format!("region {id} does not have the range of the merged regions")));
    }
    let is_known = state.regions.contains_key(&id) || state.dropped.contains(&id);
    // Files are referred to from higher ids only.
    if is_known || parents.iter().any(|(parent, _)| parent.descriptor.region_id >= id) {
        return Err(invalid(format!("region {id} cannot be the child of a merge")));
    }
    let mut described: Option<Arc<Descriptor>> = None;
    for (parent, _) in parents {
        let of_parent = parent.descriptor.child(id, range.clone());
        let of_parent = of_parent.map_err(|error| invalid(error.to_string()))?;
        let known = described.get_or_insert_with(|| of_parent.clone());
        if known.to_wire() != of_parent.to_wire() {
            let text = "the merged regions differ in table, schema or options";
            return Err(invalid(text.to_owned()));
        }
        if known.previous() != of_parent.previous() {
            *known = known.only_current();
        }
    }
    described.ok_or_else(|| invalid("a merge names no regions".to_owned()))
}

/// Returns the state in which the child begins.
fn child(
    parents: &[(RegionState, ManifestVersion)],
    descriptor: Arc<Descriptor>,
    eviction: Eviction,
    partly_known: PartlyKnown,
) -> Result<RegionState, EntryOutcome> {
    let states = || parents.iter().map(|(parent, _)| parent);
    let producers: Vec<(RegionId, &Producers)> =
        states().map(|parent| (parent.descriptor.region_id, &parent.producers)).collect();
    let Some(first) = states().next() else {
        return Err(EntryOutcome::refused(Reason::InvalidArgument, "a merge names no regions"));
    };
    let contents = states().skip(1).fold(first.contents, |contents, parent| {
        crc32c::crc32c_append(contents, &parent.contents.to_le_bytes())
    });
    Ok(RegionState {
        descriptor,
        base: states().map(|parent| parent.base).max().unwrap_or_default(),
        manifest_version: ManifestVersion(0),
        flushed: states().map(|parent| parent.flushed).max().unwrap_or_default(),
        owner: OwnerEpoch::default(),
        last_sequence: states().map(|parent| parent.last_sequence).max().unwrap_or_default(),
        contents,
        producers: Producers::merged(&producers, eviction, partly_known),
        held: false,
        fenced: false,
        since: states().map(|parent| parent.since).max().unwrap_or_default(),
        parents: parents.iter().map(|(parent, sealed_at)| begun(parent, *sealed_at)).collect(),
        ..first.clone()
    })
}

fn begun(parent: &RegionState, sealed_at: ManifestVersion) -> Parent {
    let dir = parent.descriptor.dir();
    // It was flushed after its fence: it has no later rows.
    Parent { dir, sealed_at, last_sequence: parent.flushed_rows() }
}
