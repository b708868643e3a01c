//! Comparison in progress, as a stream of chunks.
//!
//! - **Turn**: time during which the comparison has memory and open sources. It ends when the memory of the node is
//!   needed by others: after a number of keys, or while the caller writes a chunk. The next turn begins after the last
//!   key of that chunk.

use std::fmt;

use futures::TryStreamExt;

use super::comparison::{ChunkLimits, CompareStep, Comparison};
use super::comparison_memory::ComparisonMemory;
use super::side::SideName;
use super::sources::{ComparedScans, ComparedSides};
use super::{ChangeChunk, ChangeError};
use crate::EngineError;
use crate::read::RowStream;
use crate::read::memory::ComparisonBudget;
use crate::read::memory::comparisons::IdlePlace;

/// Keys that a comparison compares in a turn while others wait. Each turn opens the sources again and decodes a few
/// pages twice. Small in tests, so that they have several turns.
const TURN_KEYS: u64 = if cfg!(test) { 20 } else { 250_000 };

/// Comparison in progress.
pub struct ChangeStream {
    sides: ComparedSides,
    limits: ChunkLimits,
    /// Greatest row key of the chunks that were returned.
    reached: Vec<u8>,
    /// Sources of the first turn.
    planned: Option<ComparedScans>,
    /// Turn that is interrupted, because the caller has a chunk.
    idle: IdlePlace<Box<Turn>>,
    is_ended: bool,
}

struct Turn {
    comparison: Comparison,
    region: RowStream,
    staged: RowStream,
    /// Keys that were compared in this turn.
    compared: u64,
    memory: ComparisonMemory,
}

impl ChangeStream {
    /// Creates the comparison of the rows after a key; empty: of all rows. Pins the region's rows.
    pub(super) fn new(
        sides: ComparedSides,
        limits: ChunkLimits,
        reached: Vec<u8>,
    ) -> Result<Self, EngineError> {
        let planned = Some(sides.plan(&reached)?);
        Ok(Self { sides, limits, reached, planned, idle: IdlePlace::default(), is_ended: false })
    }

    /// Returns the next chunk; `None` after the last one, and after an error. Waits while other comparisons of the
    /// process use the memory for them, without a limit of time. Cancel safe: the next call repeats the comparison
    /// since the last chunk.
    ///
    /// # Errors
    /// [`ChangeError::DuplicateKey`], errors of reading, and [`EngineError::ScanTooLarge`] for rows that are far too
    /// wide.
    pub async fn next(&mut self) -> Result<Option<ChangeChunk>, ChangeError> {
        if self.is_ended {
            return Ok(None);
        }
        let next = self.next_chunk().await;
        self.is_ended = !matches!(&next, Ok(Some(chunk)) if !chunk.is_last);
        next
    }

    async fn next_chunk(&mut self) -> Result<Option<ChangeChunk>, ChangeError> {
        loop {
            let mut turn = match self.idle.take() {
                Some(turn) => turn,
                None => self.begin_turn().await?,
            };
            let next = turn.next_chunk().await;
            match next {
                Ok(Some(chunk)) => {
                    self.reached.clone_from(&chunk.reached);
                    self.interrupt(turn, &chunk);
                    return Ok(Some(chunk));
                }
                // Another comparison has rows that are larger than estimated, and has its turn first. Or the turn lasts
                // longer than a read may: the next one pins newer files.
                Err(ChangeError::Engine(
                    EngineError::ScanMemory { .. } | EngineError::VersionExpired { .. },
                )) => {}
                ended => return ended,
            }
        }
    }

    /// Waits for memory and opens the sources of the rows that are left.
    async fn begin_turn(&mut self) -> Result<Box<Turn>, ChangeError> {
        let mut scans = match self.planned.take() {
            Some(scans) => scans,
            None => self.sides.plan(&self.reached)?,
        };
        let needs = scans.needs(ComparisonMemory::limit_of_side(self.budget()));
        let memory = ComparisonMemory::lease(self.budget(), needs).await?;
        let (region, staged) = scans.into_streams(&memory);
        let shape = self.sides.shape.clone();
        let comparison = Comparison::new(shape, self.limits, self.reached.clone());
        Ok(Box::new(Turn { comparison, region, staged, compared: 0, memory }))
    }

    /// Interrupts a turn while the caller has a chunk, or ends it.
    fn interrupt(&self, mut turn: Box<Turn>, chunk: &ChangeChunk) {
        turn.compared += chunk.counts.compared();
        let is_over = turn.compared >= TURN_KEYS && self.budget().is_contended();
        // A comparison that waits for the excess is not in the queue for memory.
        if !chunk.is_last && !is_over && !turn.memory.has_excess() {
            self.budget().keep_idle(&self.idle, turn);
        }
    }

    fn budget(&self) -> &ComparisonBudget {
        self.sides.region.env.scan_memory.comparisons()
    }
}

impl Turn {
    async fn next_chunk(&mut self) -> Result<Option<ChangeChunk>, ChangeError> {
        loop {
            match self.comparison.advance()? {
                CompareStep::Chunk(chunk) => return Ok(Some(*chunk)),
                CompareStep::Done => return Ok(None),
                CompareStep::Feed(side) => {
                    let rows = match side {
                        SideName::Region => self.region.try_next().await?,
                        SideName::Staged => self.staged.try_next().await?,
                    };
                    self.comparison.feed(side, rows.as_ref())?;
                }
            }
        }
    }
}

impl fmt::Debug for ChangeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeStream").finish_non_exhaustive()
    }
}
