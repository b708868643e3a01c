//! The system tables of a cluster, each of which is read and written on its own.

use arrow::array::{ArrayRef, RecordBatch};
use tidewater_client::admin::NewTable;
use tidewater_client::{Catalog, Client, ClientError};

use crate::differential::{DifferentialTable, SystemTableError, Written};
use crate::progress::{self, PROGRESS};
use crate::statistics::{self, Reports, STATISTICS};

/// Greatest number of tables that a system table describes: all of its rows are read and compared in each round. The meta
/// group limits exports to 1,000.
const MAX_TABLES: usize = 10_000;

/// Table that the cluster writes about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SystemTable {
    /// Statistics of collections.
    Statistics,
    /// Progress of exports and refreshes.
    Progress,
}

impl SystemTable {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Statistics, Self::Progress];

    /// Returns the name of the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Statistics => STATISTICS,
            Self::Progress => PROGRESS,
        }
    }

    /// Returns the greatest number of tables that it describes, for people.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Statistics => "10,000 tables",
            Self::Progress => "10,000 refreshable tables",
        }
    }

    fn definition(self) -> NewTable {
        match self {
            Self::Statistics => statistics::definition(),
            Self::Progress => progress::definition(),
        }
    }

    /// Returns the number of tables of a cluster that it describes.
    fn described(self, catalog: &Catalog) -> usize {
        let tables = catalog.tables();
        match self {
            Self::Statistics => tables.count(),
            Self::Progress => tables.filter(|table| table.options.refreshable).count(),
        }
    }
}

/// The system tables of a cluster.
#[derive(Debug)]
pub struct SystemTables {
    client: Client,
}

impl SystemTables {
    /// Creates a handle.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads the reports of the cluster, and writes the rows of one table that have changed; rows of what does not exist any
    /// more are deleted. `None`: the cluster has more tables than the [limit](SystemTable::limit), and nothing is written.
    ///
    /// # Errors
    /// Those of [`DifferentialTable::set`], and of the calls to the cluster.
    pub async fn update(&self, table: SystemTable) -> Result<Option<Written>, SystemTableError> {
        if table.described(&self.client.catalog()) > MAX_TABLES {
            return Ok(None);
        }
        let differential = DifferentialTable::new(self.client.clone(), table.definition());
        let stored = differential.table().await?;
        let columns = match table {
            SystemTable::Statistics => self.statistics().await?,
            SystemTable::Progress => self.progress().await?,
        };
        let desired = RecordBatch::try_new(stored.schema.arrow(), columns)?;
        differential.set(&desired).await.map(Some)
    }

    async fn statistics(&self) -> Result<Vec<ArrayRef>, ClientError> {
        let reports = Reports {
            frontiers: self.client.collection_frontiers(&[]).await?,
            sizes: self.client.table_sizes().await?.0,
            refreshes: self.client.refreshes(None, false).await?,
        };
        let catalog = self.client.catalog();
        let tables = catalog.tables().map(AsRef::as_ref);
        Ok(statistics::columns(&statistics::statistics(tables, &reports)))
    }

    async fn progress(&self) -> Result<Vec<ArrayRef>, ClientError> {
        let exports = self.client.exports().await?;
        // Without the progress of merges: one data node that does not answer would fail the call for all tables.
        let refreshes = self.client.refreshes(None, false).await?;
        Ok(progress::columns(&progress::progress(&exports, &refreshes)))
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;

    use super::*;
    use crate::testing::{catalog, table};

    #[test]
    fn limits_count_the_tables_that_are_described() {
        let mut mirror = table(3, "mirror");
        let options = mirror.options.take().unwrap_or_default();
        mirror.options = Some(v1::TableOptions { refreshable: true, ..options });
        let catalog = catalog(vec![table(1, "t"), table(2, "u"), mirror]);
        let counts = SystemTable::ALL.map(|table| table.described(&catalog));
        assert_eq!(counts, [3, 1]);
    }

    #[test]
    fn tables_have_the_names_of_their_definitions() {
        for table in SystemTable::ALL {
            let definition = table.definition();
            assert_eq!((definition.name.as_str(), definition.regions), (table.name(), 1));
        }
    }
}
