//! Counts: the owner of each region counts its rows; regions are counted concurrently.

use futures::{StreamExt, TryStreamExt, stream};
use tidewater_common::keys::KeyRange;

use super::driver::{TableScan, first_region_range};
use super::region::ScanPlan;
use super::spec::ScanSpec;
use crate::client::{Client, projection};
use crate::error::ClientError;

/// Maximum number of regions counted concurrently.
const MAX_CONCURRENT_REGIONS: usize = 8;

impl Client {
    /// Returns the number of rows that [`Client::scan`] would yield.
    ///
    /// # Errors
    /// The errors of a scan except [`ClientError::ScanInterrupted`], because a region is counted again.
    /// [`ClientError::TimedOut`] when the whole takes longer than [`ClientOptions::deadline`].
    ///
    /// [`ClientOptions::deadline`]: crate::ClientOptions::deadline
    pub async fn count(&self, spec: ScanSpec) -> Result<u64, ClientError> {
        let deadline = self.options().deadline;
        let table = spec.table.clone();
        // A region sends nothing before its count is complete, so only the whole count has a timeout.
        tokio::time::timeout(deadline, self.count_all(spec)).await.unwrap_or_else(|_| {
            let what = format!("count of table {table:?}");
            Err(ClientError::TimedOut { what, limit: deadline })
        })
    }

    async fn count_all(&self, spec: ScanSpec) -> Result<u64, ClientError> {
        let (table, as_of) = self.core.table_as_of(&spec.table, spec.as_of).await?;
        let (_, schema) = projection(&table, Some(&[]))?;
        let plan = ScanPlan {
            table,
            projection: Vec::new(),
            schema,
            predicates: spec.predicates,
            limit: None,
            count_only: true,
            unordered: true,
            as_of,
        };
        // The ranges follow the current catalog. Each is counted by a scan of its own, which follows later
        // changes of routes.
        let catalog = self.catalog();
        let mut ranges = Vec::new();
        let mut rest = Some(spec.range);
        while let Some(range) = rest.take() {
            match first_region_range(&catalog, &plan, &range) {
                Some(first) => {
                    rest = first
                        .range
                        .end
                        .clone()
                        .map(|end| KeyRange::new(end, range.end.clone()))
                        .filter(|after| !after.is_empty());
                    ranges.push(first.range);
                }
                None => ranges.push(range),
            }
        }
        let counted: u64 = stream::iter(ranges)
            .map(|range| {
                let mut scan = TableScan::new(self.core.clone(), plan.clone());
                async move { scan.run(range, None).await }
            })
            .buffer_unordered(MAX_CONCURRENT_REGIONS)
            .try_fold(0, |sum: u64, rows| async move { Ok(sum + rows) })
            .await?;
        Ok(spec.limit.map_or(counted, |limit| counted.min(limit)))
    }
}
