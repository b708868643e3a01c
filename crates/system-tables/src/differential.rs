//! A table whose contents are set as a whole, and written as differences.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidewater_client::admin::NewTable;
use tidewater_client::catalog::TableInfo;
use tidewater_client::{Client, ClientError, ScanSpec, WriterOptions};
use tidewater_common::quote::quoted;
use tidewater_common::schema::{Column, WriteMode};
use tidewater_proto::v1::Reason;

use crate::differences::{Differences, differences};

/// Error of a system table. Nothing was written, or a part of the differences: the next contents correct it.
#[derive(Debug, thiserror::Error)]
pub enum SystemTableError {
    /// A call of the client has failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The table has another definition.
    #[error(
        "table {name} is not the one that the cluster writes: {problem}; drop it, or keep its rows with `tidewater table clone` \
         before, so that it is created again",
        name = quoted(.name)
    )]
    OtherTable {
        /// Name of the table.
        name: String,
        /// First difference between the definitions.
        problem: String,
    },
    /// The rows do not have the columns of the table.
    #[error("rows do not fit the table: {0}")]
    Rows(#[from] ArrowError),
}

/// Numbers of the differences that were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows that were inserted or replaced.
    pub puts: usize,
    /// Rows that were deleted.
    pub deletes: usize,
}

/// A table that is created when it is missing, and gets contents as a whole. Several writers do no harm: each corrects what
/// differs from its own contents.
#[derive(Debug)]
pub struct DifferentialTable {
    client: Client,
    definition: NewTable,
}

impl DifferentialTable {
    /// Creates a handle. `definition`: an upsert table.
    pub fn new(client: Client, definition: NewTable) -> Self {
        Self { client, definition }
    }

    /// Returns the table, which is created if it is missing.
    ///
    /// # Errors
    /// [`SystemTableError::OtherTable`], and those of the creation.
    pub async fn table(&self) -> Result<Arc<TableInfo>, SystemTableError> {
        let name = &self.definition.name;
        let table = match self.client.table(name).await {
            Err(ClientError::TableNotFound(_)) => {
                match self.client.create_table(self.definition.clone()).await {
                    Ok(_) => {}
                    // Another node has created it.
                    Err(error) if is_existing(&error) => {}
                    Err(error) => return Err(error.into()),
                }
                self.client.table(name).await?
            }
            found => found?,
        };
        match difference(&self.definition, &table) {
            None => Ok(table),
            Some(problem) => Err(SystemTableError::OtherTable { name: name.clone(), problem }),
        }
    }

    /// Makes the rows of the table equal to these, which have its columns: reads the table, and writes what differs.
    ///
    /// # Errors
    /// Those of [`DifferentialTable::table`], of the read and of the writes.
    pub async fn set(&self, desired: &RecordBatch) -> Result<Written, SystemTableError> {
        let table = self.table().await?;
        let stream = self.client.scan(ScanSpec::all(&table.name)).await?;
        let present = stream.collect().await?;
        let schema = table.schema.arrow();
        let key = table.schema.key_indices();
        let Differences { puts, deletes } = differences(&schema, key, &present, desired)?;
        let written = Written { puts: puts.num_rows(), deletes: deletes.num_rows() };
        let options = WriterOptions { lanes: 1, ..WriterOptions::default() };
        let writer = self.client.writer_for(table, options)?;
        if written.puts > 0 {
            writer.put_rows(puts).await?;
        }
        if written.deletes > 0 {
            writer.delete_rows(deletes).await?;
        }
        Ok(written)
    }
}

fn is_existing(error: &ClientError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == Reason::TableExists)
}

/// Returns the first difference between a definition and a table.
fn difference(definition: &NewTable, table: &TableInfo) -> Option<String> {
    let column = |name: &str, data_type: &str, nullable: bool| {
        let null = if nullable { "" } else { " not null" };
        format!("{name} {data_type}{null}")
    };
    let expected: Vec<String> =
        definition.columns.iter().map(|of| column(&of.name, &of.data_type, of.nullable)).collect();
    let stored = |of: &Column| column(&of.name, &of.data_type.to_string(), of.nullable);
    let columns: Vec<String> = table.schema.columns().iter().map(stored).collect();
    if columns != expected {
        return Some(format!("its columns are {}", columns.join(", ")));
    }
    let names = table.schema.key_indices().iter();
    let key: Vec<&str> =
        names.filter_map(|index| Some(table.schema.columns().get(*index)?.name.as_str())).collect();
    if key != definition.primary_key {
        return Some(format!("its primary key is {}", key.join(", ")));
    }
    (table.options.write_mode != WriteMode::Upsert).then(|| "it is append-only".to_owned())
}
