//! `split`: children replace a held region. From this entry on they take its writes, and begin with its rows,
//! its producers and its files as of the seal.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidewater_common::ids::{LogIndex, ManifestVersion, OwnerEpoch, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::region::Parent;

use super::{Applied, ApplyEffect, admitted};
use crate::group::admits::Operation;
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::state::{GroupState, RegionState};

/// Children of a split, at least.
const MIN_CHILDREN: usize = 2;

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionSplit,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let step = entry.step.as_ref();
    let parent = state.regions.get(&id).ok_or_else(|| state.not_served(id))?;
    parent.check_step(step, Operation::Split)?;
    let children = check(state, parent, entry)?;
    let parent = admitted(state, id, step, Operation::Split)?;
    parent.take_step(index, step)?;
    let begins: Vec<(RegionId, RegionState)> = children
        .into_iter()
        .map(|descriptor| (descriptor.region_id, child(parent, descriptor, entry.sealed_version)))
        .collect();
    parent.children = begins.iter().map(|(child, _)| *child).collect();
    // Writes that name it are recorded in its children.
    parent.producers.clear();
    let divided = ApplyEffect::Divide { parent: id, children: parent.children.clone() };
    state.regions.extend(begins);
    Ok(Applied::with_effect(divided))
}

/// Returns the descriptions of the children.
fn check(
    state: &GroupState,
    parent: &RegionState,
    entry: &v1::RegionSplit,
) -> Result<Vec<Arc<Descriptor>>, EntryOutcome> {
    let id = parent.descriptor.region_id;
    let invalid = |text: String| EntryOutcome::refused(Reason::InvalidArgument, text);
    // None has been decided since it was held, and the seal has recorded all.
    if !parent.obligations.is_empty() || !parent.areas.is_empty() {
        let text = format!("the manifest of region {id} has yet to record a decision");
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    if entry.sealed_version == 0 || entry.children.len() < MIN_CHILDREN {
        return Err(invalid(format!("a split of region {id} needs a seal and two children")));
    }
    let mut children = Vec::with_capacity(entry.children.len());
    let mut start = parent.descriptor.range.start.clone();
    let mut last = id;
    for (number, child) in (1..).zip(&entry.children) {
        let of = RegionId(child.region_id);
        let end = child.end.as_ref().map(|end| end.to_vec());
        let is_next = child.start[..] == start[..];
        let is_end = number == entry.children.len();
        if !is_next || (is_end && end != parent.descriptor.range.end) || (!is_end && end.is_none())
        {
            return Err(invalid(format!("the children of region {id} do not divide its range")));
        }
        // Files are referred to from higher ids only.
        if of <= last || state.regions.contains_key(&of) || state.dropped.contains(&of) {
            return Err(invalid(format!("region {of} cannot be a child of region {id}")));
        }
        let range = KeyRange { start, end: end.clone() };
        let description = parent.descriptor.child(of, range);
        children.push(description.map_err(|error| invalid(error.to_string()))?);
        last = of;
        start = end.unwrap_or_default();
    }
    Ok(children)
}

/// Returns the state in which a child begins.
fn child(parent: &RegionState, descriptor: Arc<Descriptor>, sealed_version: u64) -> RegionState {
    let dir = parent.descriptor.dir();
    let sealed_at = ManifestVersion(sealed_version);
    let begun = Parent { dir, sealed_at, last_sequence: parent.last_sequence };
    RegionState {
        producers: parent.producers.within(&descriptor.range),
        descriptor,
        manifest_version: ManifestVersion(0),
        owner: OwnerEpoch::default(),
        held: false,
        parents: vec![begun],
        ..parent.clone()
    }
}
