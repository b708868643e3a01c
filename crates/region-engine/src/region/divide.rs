//! Division of a region's memtable: the children of a split or merge begin with the runs of their parents.
//!
//! At one index of the log, the children replace their parents. The rows in memory change hands without
//! being copied: a child holds the parts of the parents' runs that are in its range ([`Run`]). Files are
//! the manifest's affair: a child serves reads once it has loaded them.
//!
//! [`Run`]: crate::memtable::Run

mod error;

use std::sync::Arc;

use parking_lot::MutexGuard;
use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::keys::KeyRange;

pub use self::error::DivideError;
use super::{Contents, Region, RegionSpec};
use crate::EngineError;
use crate::memtable::HeldRun;
use crate::version::Version;

/// Parent of a split or merge.
#[derive(Debug, Clone)]
pub struct SealedParent {
    /// The region.
    pub region: Arc<Region>,
    /// Every row at or below it is in a file of the manifest version at which the region was sealed. This
    /// replica may have read an earlier version.
    pub flushed: Sequence,
}

/// Contents with which a child begins.
struct ChildBegin {
    runs: Vec<HeldRun>,
    /// Every row at or below it is in the files of the parents.
    flushed: Sequence,
    /// Greatest sequence that the parents have applied.
    last_sequence: Sequence,
    /// Arrival time of the oldest run of the parents that the child has a part of, milliseconds since the
    /// Unix epoch.
    unflushed_since_ms: Option<u64>,
    /// Oldest epoch of which no parent lacks versions.
    since: Epoch,
}

/// A parent, locked.
struct LockedParent<'a> {
    region: &'a Region,
    contents: MutexGuard<'a, Contents>,
    /// Every row at or below it is in a file.
    flushed: Sequence,
}

impl Region {
    /// Replaces this region by its children, at least two, and returns them in the order of their specs, in
    /// phase `Loading`. They begin with the region's rows in memory and with its base, and the region accepts
    /// neither writes nor reads from then on. Copies no rows and never waits: the time is in proportion to
    /// the number of runs. `flushed`: see [`SealedParent`].
    ///
    /// # Errors
    /// [`DivideError`]; the region is unchanged.
    pub fn divide(
        self: &Arc<Self>,
        flushed: Sequence,
        children: Vec<RegionSpec>,
    ) -> Result<Vec<Arc<Self>>, DivideError> {
        check_ranges(&self.spec, &children.iter().collect::<Vec<_>>())?;
        let children = children.into_iter().map(|spec| self.create_child(spec));
        let children = children.collect::<Result<Vec<_>, _>>()?;
        hand_over(&[SealedParent { region: self.clone(), flushed }], &children)?;
        Ok(children)
    }

    /// Replaces at least two parents, which adjoin each other, by one child, as [`Region::divide`] does. The
    /// child has the greatest base of its parents. The owner has flushed the parents before: otherwise one replica
    /// may refuse what another one permits, since run merges drop overwritten rows on each by itself.
    ///
    /// # Errors
    /// [`DivideError`]; the parents are unchanged.
    pub fn merge(parents: &[SealedParent], child: RegionSpec) -> Result<Arc<Self>, DivideError> {
        let specs: Vec<&RegionSpec> = parents.iter().map(|parent| &parent.region.spec).collect();
        check_ranges(&child, &specs)?;
        let Some(highest) = parents.iter().max_by_key(|parent| parent.region.base) else {
            return Err(DivideError::Ranges { region: child.region_id });
        };
        let child = highest.region.create_child(child)?;
        hand_over(parents, std::slice::from_ref(&child))?;
        Ok(child)
    }

    fn create_child(&self, spec: RegionSpec) -> Result<Arc<Self>, EngineError> {
        Self::new(self.env.clone(), spec, self.base, Sequence(0))
    }
}

/// Hands the runs of the parents over to the children, which no other task has yet.
fn hand_over(parents: &[SealedParent], children: &[Arc<Region>]) -> Result<(), DivideError> {
    // Locked in key order, so that two calls never wait for each other. The parents are distinct, since
    // their ranges are disjoint.
    let mut sorted: Vec<&SealedParent> = parents.iter().collect();
    sorted.sort_by(|a, b| a.region.spec.range.start.cmp(&b.region.spec.range.start));
    let mut parents: Vec<LockedParent<'_>> = sorted.into_iter().map(LockedParent::new).collect();
    let flushed = parents.iter().map(|parent| parent.flushed).max().unwrap_or_default();
    for parent in &parents {
        parent.check(flushed)?;
    }
    let begins = children.iter().map(|child| ChildBegin::new(child, &parents, flushed));
    let begins = begins.collect::<Result<Vec<_>, _>>()?;
    // Nothing fails from here on.
    for (child, begin) in children.iter().zip(begins) {
        child.contents.lock().begin(begin);
    }
    for parent in &mut parents {
        parent.contents.divided = true;
        parent.contents.runs.clear();
        parent.contents.unflushed_since_ms = None;
    }
    Ok(())
}

impl<'a> LockedParent<'a> {
    fn new(parent: &'a SealedParent) -> Self {
        let region = parent.region.as_ref();
        let contents = region.contents.lock();
        let flushed = parent.flushed.max(contents.version.flushed);
        Self { region, contents, flushed }
    }

    /// Checks that nothing of the region is lost with it. `through`: sequence up to which all rows of a
    /// child count as flushed.
    fn check(&self, through: Sequence) -> Result<(), DivideError> {
        let region = self.region.id();
        self.contents.check_open(region)?;
        if let Some(pending) = self.contents.obligations.first() {
            let sequence = pending.cause.sequence;
            return Err(DivideError::ObligationPending { region, sequence });
        }
        // Rows between these sequences are in memory only, and would not be read from there.
        let mut runs = self.contents.runs.iter();
        if runs.any(|run| run.has_rows_between(self.flushed, through)) {
            return Err(DivideError::Unflushed { region, through });
        }
        Ok(())
    }

    /// Checks that rows of this parent can be rows of the child.
    fn check_child(&self, child: &Region) -> Result<(), DivideError> {
        let child_shape = child.shape();
        let shape = &self.contents.shape;
        let same = child.spec.table_id == self.region.spec.table_id
            && child_shape.schema.primary_key() == shape.schema.primary_key()
            && child_shape.options.hash == shape.options.hash
            && child_shape.mode() == shape.mode();
        if !same {
            return Err(DivideError::OtherTable { child: child.id(), parent: self.region.id() });
        }
        Ok(())
    }
}

impl ChildBegin {
    fn new(
        child: &Region,
        parents: &[LockedParent<'_>],
        flushed: Sequence,
    ) -> Result<Self, DivideError> {
        let mut begin = Self {
            runs: Vec::new(),
            flushed,
            last_sequence: Sequence(0),
            unflushed_since_ms: None,
            since: Epoch(0),
        };
        for parent in parents {
            parent.check_child(child)?;
            begin.add(parent, &child.spec.range)?;
        }
        Ok(begin)
    }

    /// Adds the parts of a parent's runs that are in the range of the child.
    fn add(
        &mut self,
        parent: &LockedParent<'_>,
        child_range: &KeyRange,
    ) -> Result<(), EngineError> {
        let range = child_range.intersection(&parent.region.spec.range);
        let before = self.runs.len();
        for run in &parent.contents.runs {
            let part = run.within(&range, &parent.contents.shape)?;
            self.runs.extend(part.filter(|part| part.max_sequence() > self.flushed.get()));
        }
        if self.runs.len() > before {
            let since_ms = parent.contents.unflushed_since_ms;
            let oldest = self.unflushed_since_ms.into_iter().chain(since_ms).min();
            self.unflushed_since_ms = oldest;
        }
        self.last_sequence = self.last_sequence.max(parent.contents.last_sequence);
        self.since = self.since.max(parent.contents.readable_since());
        Ok(())
    }
}

impl Contents {
    fn begin(&mut self, begin: ChildBegin) {
        self.runs = begin.runs;
        self.last_sequence = self.last_sequence.max(begin.last_sequence).max(begin.flushed);
        self.unflushed_since_ms = begin.unflushed_since_ms;
        self.since = begin.since;
        self.version = Arc::new(Version::unread(begin.flushed));
    }
}

/// Checks that at least two regions have the range of `whole` between them.
fn check_ranges(whole: &RegionSpec, parts: &[&RegionSpec]) -> Result<(), DivideError> {
    let ranges: Vec<&KeyRange> = parts.iter().map(|part| &part.range).collect();
    if ranges.len() < 2 || joined(&ranges).as_ref() != Some(&whole.range) {
        return Err(DivideError::Ranges { region: whole.region_id });
    }
    Ok(())
}

/// Returns the range that these ranges make up; `None` if one is empty, or if they overlap or leave a gap.
fn joined(ranges: &[&KeyRange]) -> Option<KeyRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by(|a, b| a.start.cmp(&b.start));
    let mut all: Option<KeyRange> = None;
    for range in sorted {
        let adjoins = all.as_ref().is_none_or(|all| all.end.as_ref() == Some(&range.start));
        if range.is_empty() || !adjoins {
            return None;
        }
        let start = all.map_or_else(|| range.start.clone(), |all| all.start);
        all = Some(KeyRange { start, end: range.end.clone() });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_only_without_gap_or_overlap() {
        let range = |start: &str, end: &str| {
            let end = (end != "-").then(|| end.as_bytes().to_vec());
            KeyRange::new(start.as_bytes(), end)
        };
        type Case = (&'static [(&'static str, &'static str)], Option<(&'static str, &'static str)>);
        let cases: &[Case] = &[
            (&[], None),
            (&[("b", "c"), ("", "b")], Some(("", "c"))),
            (&[("", "b"), ("b", "c"), ("c", "-")], Some(("", "-"))),
            // A gap, an overlap, the same range twice.
            (&[("", "b"), ("c", "-")], None),
            (&[("", "c"), ("b", "-")], None),
            (&[("a", "b"), ("a", "b")], None),
            // Beyond the end of the key space.
            (&[("", "-"), ("b", "-")], None),
            // An empty range.
            (&[("a", "b"), ("b", "b"), ("b", "c")], None),
        ];
        for (ranges, expected) in cases {
            let ranges: Vec<KeyRange> = ranges.iter().map(|(a, b)| range(a, b)).collect();
            let ranges: Vec<&KeyRange> = ranges.iter().collect();
            assert_eq!(joined(&ranges), expected.map(|(a, b)| range(a, b)), "{ranges:?}");
        }
    }
}
