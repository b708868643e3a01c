//! Counting: all regions at once, each counted by its owner.

use futures::{StreamExt, TryStreamExt, stream};
use tidewater_common::keys::KeyRange;

use super::driver::{Scan, first_share};
use super::region::Ask;
use super::spec::ScanSpec;
use crate::client::{Client, projection};
use crate::error::ClientError;

/// Regions that are counted at once.
const AT_ONCE: usize = 8;

impl Client {
    /// The number of rows that [`Client::scan`] would yield.
    ///
    /// # Errors
    /// As for a scan, but never cut off half-way: a region is counted again.
    /// [`ClientError::TimedOut`] when the whole takes longer than [`ClientOptions::deadline`].
    ///
    /// [`ClientOptions::deadline`]: crate::ClientOptions::deadline
    pub async fn count(&self, spec: ScanSpec) -> Result<u64, ClientError> {
        let (deadline, table) = (self.options().deadline, spec.table.clone());
        // A region says nothing before it has counted all, so only the whole can have a limit.
        tokio::time::timeout(deadline, self.count_all(spec)).await.unwrap_or_else(|_| {
            let what = format!("count of table {table:?}");
            Err(ClientError::TimedOut { what, limit: deadline })
        })
    }

    async fn count_all(&self, spec: ScanSpec) -> Result<u64, ClientError> {
        let table = self.table(&spec.table).await?;
        let (_, schema) = projection(&table, Some(&[]))?;
        let ask = Ask {
            table,
            projection: Vec::new(),
            schema,
            predicates: spec.predicates,
            limit: None,
            count_only: true,
        };
        // The shares tile the range by the catalog of now; each finds its own way from there.
        let catalog = self.catalog();
        let mut shares = Vec::new();
        let mut rest = Some(spec.range);
        while let Some(range) = rest.take() {
            match first_share(&catalog, &ask, &range) {
                Some(share) => {
                    rest = share
                        .range
                        .end
                        .clone()
                        .map(|end| KeyRange::new(end, range.end.clone()))
                        .filter(|after| !after.is_empty());
                    shares.push(share.range);
                }
                None => shares.push(range),
            }
        }
        let counted: u64 = stream::iter(shares)
            .map(|range| {
                let mut scan = Scan::new(self.core.clone(), ask.clone());
                async move { scan.run(range, None).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_fold(0, |sum: u64, rows| async move { Ok(sum + rows) })
            .await?;
        Ok(spec.limit.map_or(counted, |limit| counted.min(limit)))
    }
}
