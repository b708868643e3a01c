//! Chains of sources: a merge has one source of each open.

use std::collections::VecDeque;

use super::need::SourceRow;
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
