//! Batches of a Parquet file: of each row group in turn, with as many rows as fit into memory.

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::batch_rows::batch_rows;
use crate::error::LoadError;
use crate::input::Input;

/// The rows of a Parquet file.
pub struct ParquetBatches {
    file: Arc<File>,
    name: String,
    metadata: ArrowReaderMetadata,
    /// Maximum rows of a batch.
    batch_rows: usize,
    next_group: usize,
    reader: Option<ParquetRecordBatchReader>,
}

impl ParquetBatches {
    /// Opens a file. `batch_rows`: the maximum rows of a batch.
    pub fn open(input: &Input, batch_rows: usize) -> Result<Self, LoadError> {
        let name = input.name.clone();
        let file = File::open(&input.path)
            .map_err(|source| LoadError::Read { file: name.clone(), source })?;
        let metadata =
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|error| {
                LoadError::BadParquet { file: name.clone(), reason: error.to_string() }
            })?;
        Ok(Self { file: Arc::new(file), name, metadata, batch_rows, next_group: 0, reader: None })
    }

    /// Schema of the file.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Number of rows of the file.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Returns the next batch; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, LoadError> {
        loop {
            if let Some(batch) = self.reader.as_mut().and_then(Iterator::next) {
                return batch.map(Some).map_err(|error| self.bad(error.to_string()));
            }
            let group = self.next_group;
            let Some(metadata) = self.metadata.metadata().row_groups().get(group) else {
                self.reader = None;
                return Ok(None);
            };
            self.next_group += 1;
            let rows = batch_rows(&self.file, metadata, self.batch_rows)
                .map_err(|error| error.in_file(&self.name))?;
            let file = self
                .file
                .try_clone()
                .map_err(|source| LoadError::Read { file: self.name.clone(), source })?;
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
            let reader = builder.with_row_groups(vec![group]).with_batch_size(rows).build();
            self.reader = Some(reader.map_err(|error| self.bad(error.to_string()))?);
        }
    }

    fn bad(&self, reason: String) -> LoadError {
        LoadError::BadParquet { file: self.name.clone(), reason }
    }
}
