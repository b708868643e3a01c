//! Reads the rows of an object's file.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use tidewater_readers::ReadOptions;
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::delimiter::Delimiter;
use tidewater_readers::error::LoadError;
use tidewater_readers::input::Input;
use tidewater_readers::pipeline;
use tidewater_readers::value::cell_error::NULL_HINT;

use super::format::{ObjectFormat, compression};
use crate::{RowSender, SourceError, SourceTable, Split};

/// Maximum rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// Reader of the rows of a source.
#[derive(Debug, Clone)]
pub(super) struct RowReader {
    /// Format of the objects.
    pub(super) format: ObjectFormat,
    /// The table that the rows are for.
    pub(super) table: SourceTable,
    /// Delimiter of CSV cells.
    pub(super) delimiter: Delimiter,
    /// Texts of CSV that represent a missing value.
    pub(super) nulls: Arc<[String]>,
}

impl RowReader {
    /// Sends the rows of a split, whose content is in `file`. A bad row ends the read. Blocking.
    ///
    /// # Errors
    /// [`SourceError::Mismatch`], [`SourceError::Unreadable`].
    pub(super) fn read(
        &self,
        file: &File,
        split: &Split,
        rows: &RowSender,
    ) -> Result<(), SourceError> {
        let input = Input {
            // Opens the same file, also if it has no name, with an offset of its own.
            path: PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            name: split.name.clone(),
            format: self.format.rows(),
            compression: compression(&split.name),
            size: split.bytes,
        };
        let options = ReadOptions {
            table: Arc::clone(&self.table.schema),
            codec: self.table.codec.clone(),
            nulls: Arc::clone(&self.nulls),
            batch_rows: BATCH_ROWS,
            delimiter: self.delimiter,
        };
        let mut source = match pipeline::open(input, options, &Arc::default()) {
            // Writers of many objects leave some without rows. Without a header, a CSV file is damaged.
            Err(LoadError::Empty { .. }) if self.format != ObjectFormat::Csv => return Ok(()),
            opened => opened.map_err(|error| self.source_error(error))?,
        };
        let mut bad = BadRows::new(0);
        while let Some(batch) =
            source.next_batch(&mut bad).map_err(|error| self.source_error(error))?
        {
            if rows.blocking_send(batch).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the error of a source: remedies name the configuration instead of options of a command.
    fn source_error(&self, error: LoadError) -> SourceError {
        match error {
            LoadError::Read { .. } | LoadError::ReaderStopped => {
                SourceError::Unreadable(error.to_string())
            }
            LoadError::Empty { file } => SourceError::Mismatch(format!(
                "{file}: no header: the first line must name the columns"
            )),
            LoadError::Dialect { file, header, suggested } => SourceError::Mismatch(format!(
                "{file}: the header is one column, `{header}`, which contains `{suggested}`: set \
                 `delimiter` of the source to it"
            )),
            error => {
                let hint = match self.format {
                    ObjectFormat::Csv => {
                        "; if it represents a missing value, add it to `nulls` of the source"
                    }
                    ObjectFormat::Parquet | ObjectFormat::Ndjson => "",
                };
                SourceError::Mismatch(error.to_string().replace(NULL_HINT, hint))
            }
        }
    }
}
