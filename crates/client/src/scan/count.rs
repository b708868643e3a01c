//! Counts: all regions in parallel, each counted by its owner.

use futures::{StreamExt, TryStreamExt, stream};
use tidewater_common::keys::KeyRange;

use super::driver::{ScanDriver, first_region_range};
use super::region::RegionScanSpec;
use super::spec::ScanSpec;
use crate::client::{Client, projection};
use crate::error::ClientError;

/// Number of regions that are counted in parallel.
const PARALLEL_REGIONS: usize = 8;

impl Client {
    /// Returns the number of rows that [`Client::scan`] would yield.
    ///
    /// # Errors
    /// As for a scan, but never [`ClientError::ScanInterrupted`]: a region is counted again.
    /// [`ClientError::TimedOut`] when the count takes longer than [`ClientOptions::deadline`].
    ///
    /// [`ClientOptions::deadline`]: crate::ClientOptions::deadline
    pub async fn count(&self, spec: ScanSpec) -> Result<u64, ClientError> {
        let deadline = self.options().deadline;
        let table = spec.table.clone();
        // A region responds only after it has counted all rows, so only the whole can have a timeout.
        tokio::time::timeout(deadline, self.count_all(spec)).await.unwrap_or_else(|_| {
            let what = format!("count of table {table:?}");
            Err(ClientError::TimedOut { what, limit: deadline })
        })
    }

    async fn count_all(&self, spec: ScanSpec) -> Result<u64, ClientError> {
        let table = self.table(&spec.table).await?;
        let (_, schema) = projection(&table, Some(&[]))?;
        let region_spec = RegionScanSpec {
            table,
            projection: Vec::new(),
            schema,
            predicates: spec.predicates,
            limit: None,
            count_only: true,
        };
        // The region ranges tile the whole range by the current catalog. Each follows later route
        // changes itself.
        let catalog = self.catalog();
        let mut region_ranges = Vec::new();
        let mut rest = Some(spec.range);
        while let Some(range) = rest.take() {
            match first_region_range(&catalog, &region_spec, &range) {
                Some(region_range) => {
                    rest = region_range
                        .range
                        .end
                        .clone()
                        .map(|end| KeyRange::new(end, range.end.clone()))
                        .filter(|after| !after.is_empty());
                    region_ranges.push(region_range.range);
                }
                None => region_ranges.push(range),
            }
        }
        let counted: u64 = stream::iter(region_ranges)
            .map(|range| {
                let mut scan = ScanDriver::new(self.core.clone(), region_spec.clone());
                async move { scan.run(range, None).await }
            })
            .buffer_unordered(PARALLEL_REGIONS)
            .try_fold(0, |sum: u64, rows| async move { Ok(sum + rows) })
            .await?;
        Ok(spec.limit.map_or(counted, |limit| counted.min(limit)))
    }
}
