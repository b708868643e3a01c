//! Numbers of row versions that a region keeps for reads as of older epochs.

use tidewater_common::ids::Epoch;

use super::Region;
use super::read::source_options;
use crate::EngineError;
use crate::read::context::ReadContext;
use crate::read::memory::ScanAccount;
use crate::read::ranges::KeyRanges;
use crate::read::shape::Carried;
use crate::read::{RowOrder, ScanOptions};

impl Region {
    /// Counts, for each of these epochs, the row versions that reads as of it or of later epochs may return: those
    /// that the region has to keep while it is the oldest readable one. Deletes of the epoch or of earlier ones are
    /// not counted: they hide no version that is kept. Rows that have expired are counted until a compaction drops
    /// them. `sinces`: in any order, duplicates permitted; the counts are in the same order, and of the same rows.
    /// Reads the keys and the epochs once for all epochs, and of those files only that have several versions of a
    /// key, deletes, or keys that other sources may have.
    ///
    /// # Errors
    /// Those of [`Region::count`].
    pub async fn kept_versions(
        &self,
        sinces: &[Epoch],
        account: &ScanAccount,
    ) -> Result<Vec<u64>, EngineError> {
        let pinned = self.pin(None, None)?;
        if sinces.is_empty() {
            return Ok(Vec::new());
        }
        let carried = Carried::new(&pinned.shape.schema, &[])?;
        let ranges = KeyRanges::one(&self.spec.range, &self.spec.range);
        let context = ReadContext { yields_epochs: true, ..ReadContext::default() };
        let options = ScanOptions {
            order: RowOrder::Any,
            account: account.clone(),
            ..ScanOptions::all(Vec::new())
        };
        let options = source_options(&options);
        let mut scan = self.open_scan(pinned, &carried, &ranges, options, &context)?;
        let counts = scan.count_kept(sinces).await?;
        Ok(sinces.iter().map(|since| counts.of(*since)).collect())
    }
}
