//! Numbers of row versions that a region keeps for reads as of older epochs.

use tidewater_common::ids::Epoch;

use super::Region;
use crate::EngineError;
use crate::read::RowOrder;
use crate::read::context::ReadContext;
use crate::read::memory::ScanAccount;
use crate::read::ranges::KeyRanges;
use crate::read::scan::SourceOptions;
use crate::read::shape::Carried;

/// Rows between two checks of a count.
const BATCH_ROWS: usize = 8_192;

impl Region {
    /// Counts, for each of these epochs, the row versions that reads as of it or of later epochs may return: those that the
    /// region has to keep while it is the oldest readable one. Deletes that no version remains for are not counted. All counts
    /// are of the same rows. Reads the keys and the epochs of all files with several versions of a key, once for each epoch.
    ///
    /// # Errors
    /// Those of [`Region::count`].
    pub async fn kept_versions(
        &self,
        sinces: &[Epoch],
        account: &ScanAccount,
    ) -> Result<Vec<u64>, EngineError> {
        let pinned = self.pin(None, None)?;
        let carried = Carried::new(&pinned.shape.schema, &[])?;
        let ranges = KeyRanges::one(&self.spec.range, &self.spec.range);
        let context = ReadContext { yields_epochs: true, ..ReadContext::default() };
        let mut counts = Vec::with_capacity(sinces.len());
        for since in sinces {
            let options = SourceOptions {
                batch_rows: BATCH_ROWS,
                order: RowOrder::Any,
                account: account.clone(),
            };
            let scan = self.open_scan(pinned.clone(), &carried, &ranges, options, &context)?;
            counts.push(scan.with_versions_since(*since).count().await?);
            // Rows in memory are counted without a wait.
            tokio::task::yield_now().await;
        }
        Ok(counts)
    }
}
