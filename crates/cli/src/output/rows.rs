//! Writer of table rows as table, CSV, JSON or Parquet.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::csv::Writer as CsvWriter;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{LineDelimited, Writer as JsonWriter, WriterBuilder as JsonOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::file::AtomicFile;
use super::grid::Grid;
use super::terminal::PrintableWriter;
use crate::exit::Failure;
use tidewater_readers::value::instants::{displayed, displayed_schema};

/// Format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowFormat {
    /// Columns of text.
    Table,
    /// With a header; nulls are empty.
    Csv,
    /// One object per line.
    Json,
    /// One Parquet file.
    Parquet,
}

type Target = Box<dyn Write + Send>;

/// Writer of batches of one schema.
pub(crate) struct RowWriter {
    /// Name of the output in messages.
    target_name: String,
    inner: Inner,
    file: Option<AtomicFile>,
}

enum Inner {
    Table(Grid<Target>),
    Csv(Box<CsvWriter<Target>>),
    Json(Box<JsonWriter<Target, LineDelimited>>),
    Parquet(Box<ArrowWriter<Target>>),
}

impl RowWriter {
    /// Creates a writer to `path`, or to stdout.
    pub(crate) fn create(
        format: RowFormat,
        path: Option<&Path>,
        schema: &SchemaRef,
    ) -> Result<Self, Failure> {
        let mut atomic_file = None;
        let (target_name, out): (String, Target) = match path {
            Some(path) => {
                let name = path.display().to_string();
                let (pending, file) =
                    AtomicFile::create(path).map_err(|error| Failure::writing(&name, &error))?;
                atomic_file = Some(pending);
                (name, Box::new(BufWriter::with_capacity(256 << 10, file)))
            }
            None if format == RowFormat::Parquet && io::stdout().is_terminal() => {
                return Err(Failure::usage(
                    "Parquet cannot be printed on a terminal: name a file with --out FILE",
                ));
            }
            None => (
                "the output".to_owned(),
                if io::stdout().is_terminal() {
                    let out = PrintableWriter::new(io::stdout());
                    Box::new(BufWriter::with_capacity(64 << 10, out))
                } else {
                    Box::new(BufWriter::with_capacity(64 << 10, io::stdout()))
                },
            ),
        };
        Ok(Self { file: atomic_file, ..Self::new(format, target_name, out, schema)? })
    }

    fn new(
        format: RowFormat,
        target_name: String,
        out: Target,
        schema: &SchemaRef,
    ) -> Result<Self, Failure> {
        let text_schema = displayed_schema(schema);
        let inner = match format {
            RowFormat::Table => Inner::Table(Grid::new(out, text_schema)),
            RowFormat::Csv => {
                let mut writer = CsvWriter::new(out);
                // An empty batch writes the header even when there are no rows.
                writer
                    .write(&RecordBatch::new_empty(text_schema))
                    .map_err(|error| failure(&target_name, &error.into()))?;
                Inner::Csv(Box::new(writer))
            }
            RowFormat::Json => {
                let options = JsonOptions::new().with_explicit_nulls(true);
                Inner::Json(Box::new(options.build::<_, LineDelimited>(out)))
            }
            RowFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties))
                    .map_err(|error| failure(&target_name, &error))?;
                Inner::Parquet(Box::new(writer))
            }
        };
        Ok(Self { target_name, inner, file: None })
    }

    /// Writes the rows of a batch.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let text = || displayed(batch);
        match &mut self.inner {
            Inner::Table(writer) => text().and_then(|rows| writer.write(&rows)).map_err(Into::into),
            Inner::Csv(writer) => text().and_then(|rows| writer.write(&rows)).map_err(Into::into),
            Inner::Json(writer) => text().and_then(|rows| writer.write(&rows)).map_err(Into::into),
            Inner::Parquet(writer) => writer.write(batch),
        }
        .map_err(|error| failure(&self.target_name, &error))
    }

    /// Flushes buffered rows and completes the file.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { target_name, inner, file } = self;
        match inner {
            Inner::Table(writer) => writer.finish().map_err(Into::into),
            Inner::Csv(writer) => writer.into_inner().flush().map_err(Into::into),
            Inner::Json(mut writer) => {
                writer.finish().and_then(|()| Ok(writer.into_inner().flush()?)).map_err(Into::into)
            }
            Inner::Parquet(writer) => {
                writer.into_inner().and_then(|mut out| out.flush().map_err(Into::into))
            }
        }
        .map_err(|error| failure(&target_name, &error))?;
        match file {
            Some(file) => file.commit().map_err(|error| Failure::writing(&target_name, &error)),
            None => Ok(()),
        }
    }
}

/// Returns the failure of a write. Finds the closed pipe of `tidewater scan ... | head` in the causes
/// of an Arrow error.
fn failure(target_name: &str, error: &parquet::errors::ParquetError) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<io::Error>() {
            return Failure::writing(target_name, io);
        }
        if let Some(arrow::error::ArrowError::IoError(_, io)) = found.downcast_ref() {
            return Failure::writing(target_name, io);
        }
        if let Some(csv) = found.downcast_ref::<arrow::error::ArrowError>()
            && csv.to_string().contains("Broken pipe")
        {
            return Failure::writing(target_name, &io::ErrorKind::BrokenPipe.into());
        }
        cause = found.source();
    }
    if error.to_string().contains("Broken pipe") {
        return Failure::writing(target_name, &io::ErrorKind::BrokenPipe.into());
    }
    Failure::other(format!("cannot write {target_name}: {error}"))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
