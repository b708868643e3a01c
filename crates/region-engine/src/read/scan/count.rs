//! Counts of the rows of a scan, which are not built.

use tidewater_common::ids::Epoch;

use super::{Group, Scan, run_merge};
use crate::EngineError;
use crate::read::merge::{KeptCounts, KeptSinces};
use crate::read::need::GroupUse;

/// Rows of a merge that are counted between two checks of the deadline.
const COUNTED_ROWS: usize = 8_192;

impl Scan {
    /// Returns the number of remaining rows without building them.
    pub(crate) async fn count(&mut self) -> Result<u64, EngineError> {
        // Reads as of the last epoch return the newest versions.
        let last = Epoch(u64::MAX);
        Ok(self.count_kept(&[last]).await?.of(last))
    }

    /// Returns the numbers of remaining row versions that reads as of each of these epochs or later return, without
    /// building them. The sources must yield epochs, unless there is only the last one. Reads each source once, and not
    /// at all if its rows are known to be the only versions of their keys.
    pub(crate) async fn count_kept(&mut self, sinces: &[Epoch]) -> Result<KeptCounts, EngineError> {
        let mut counts = KeptCounts::new(sinces);
        while self.open_group(GroupUse::Count, Some(&counts)).await? {
            self.deadline.check()?;
            let has_more = match &mut self.open {
                None => return Ok(counts),
                Some(Group::Single(source)) => match source.rows_left() {
                    Some(rows) => {
                        counts.add(KeptSinces::All, rows);
                        false
                    }
                    None => match source.next().await? {
                        Some(piece) => {
                            counts.add_only_versions(&piece.rows);
                            true
                        }
                        None => false,
                    },
                },
                Some(Group::Merged { merge, chains }) => {
                    run_merge(&self.shape, merge, chains, COUNTED_ROWS).await?;
                    merge.take_counts(&mut counts) > 0
                }
            };
            if has_more {
                // Rows in memory are counted without a wait.
                tokio::task::yield_now().await;
            } else {
                self.open = None;
            }
        }
        Ok(counts)
    }
}
