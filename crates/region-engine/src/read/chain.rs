//! Chains of sources: a merge has one source of each open. A group is read as some chains.

use std::collections::VecDeque;

use super::need::{GroupNeed, GroupUse, SourceRow};
use super::pushdown::{SourceProperties, pushdown};
use super::shape::Piece;
use super::source::Source;
use crate::EngineError;

/// Sources of which each begins after the previous one has ended. They are opened one after the
/// other.
#[derive(Debug)]
pub(super) struct Chain(pub(super) VecDeque<Link>);

/// A source of a chain.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) source: Source,
    /// True if no key occurs twice in it.
    pub(super) unique: bool,
    /// True if no other source holds one of its keys.
    pub(super) alone: bool,
}

impl Chain {
    /// Returns the next rows, and whether no key occurs twice in their source; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Piece, bool)>, EngineError> {
        while let Some(link) = self.0.front_mut() {
            if let Some(piece) = link.source.next().await? {
                return Ok(Some((piece, link.unique)));
            }
            self.0.pop_front();
        }
        Ok(None)
    }

    /// Returns the rows of its sources, of which one is open at a time: their largest sizes.
    pub(super) fn row(&self) -> SourceRow {
        self.0.iter().map(|link| link.source.row()).fold(SourceRow::LEAST, SourceRow::then)
    }
}

/// Passes to the sources of a group how they are read. Returns true if it is one source that needs no merge.
pub(super) fn prepare(chains: &mut [Chain], newest_only: bool) -> bool {
    let single = is_single(chains, newest_only);
    for link in chains.iter_mut().flat_map(|chain| &mut chain.0) {
        let properties = SourceProperties {
            newest_only,
            alone: link.alone,
            unique: link.unique,
            bounded: link.source.is_bounded(),
        };
        link.source.set_merged(!single);
        link.source.set_pushdown(pushdown(properties));
    }
    single
}

/// Returns whether a group is one source that needs no merge.
fn is_single(chains: &[Chain], newest_only: bool) -> bool {
    match chains {
        [chain] if chain.0.len() == 1 => chain.0.iter().all(|link| link.unique || !newest_only),
        _ => false,
    }
}

/// Returns the memory of a group that was prepared. `limit`: see [`GroupNeed::new`].
pub(super) fn group_need(chains: &[Chain], group_use: GroupUse, limit: u64) -> GroupNeed {
    let rows: Vec<SourceRow> = chains.iter().map(Chain::row).collect();
    GroupNeed::new(&rows, group_use, limit)
}

/// Returns the rows of a group of one source, if they are known without reading them.
pub(super) fn rows_left(chains: &[Chain]) -> Option<u64> {
    chains.first()?.0.front()?.source.rows_left()
}
