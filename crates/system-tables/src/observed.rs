//! Statistics of the collections of a cluster, as it reports them.

use tidewater_client::Client;

use crate::differential::{DifferentialTable, SystemTableError, Written};
use crate::statistics::{Reports, definition, rows, statistics};

/// Greatest number of tables whose statistics are written: all of them are read and compared in each round.
const MAX_TABLES: usize = 10_000;

/// The table with the statistics of the collections of a cluster.
#[derive(Debug)]
pub struct StatisticsTable {
    client: Client,
    table: DifferentialTable,
}

impl StatisticsTable {
    /// Creates a handle.
    pub fn new(client: Client) -> Self {
        Self { table: DifferentialTable::new(client.clone(), definition()), client }
    }

    /// Reads the reports of the cluster, and writes the statistics that have changed; rows of tables that do not exist any more are deleted.
    /// `None`: the cluster has more than 10,000 tables, and nothing is written.
    ///
    /// # Errors
    /// Those of [`DifferentialTable::set`], and of the calls to the cluster.
    pub async fn update(&self) -> Result<Option<Written>, SystemTableError> {
        if self.client.catalog().tables().count() > MAX_TABLES {
            return Ok(None);
        }
        let table = self.table.table().await?;
        let reports = Reports {
            frontiers: self.client.collection_frontiers(&[]).await?,
            sizes: self.client.table_sizes().await?.0,
            refreshes: self.client.refreshes(None, false).await?,
        };
        let catalog = self.client.catalog();
        let tables = catalog.tables().map(AsRef::as_ref);
        let desired = rows(table.schema.arrow(), &statistics(tables, &reports))?;
        self.table.set(&desired).await.map(Some)
    }
}
