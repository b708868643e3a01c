//! Rows of a table as table, CSV, JSON or Parquet.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::csv::Writer as CsvWriter;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{LineDelimited, Writer as JsonWriter, WriterBuilder as JsonOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::file::WholeFile;
use super::grid::Grid;
use crate::exit::Failure;
use crate::value::instants::{shown, shown_schema};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowFormat {
    /// Columns of text.
    Table,
    /// With a header; what is null is empty.
    Csv,
    /// One object per line.
    Json,
    /// One Parquet file.
    Parquet,
}

type Target = Box<dyn Write + Send>;

/// Writes batches of one schema.
pub(crate) struct RowWriter {
    what: String,
    inner: Inner,
    file: Option<WholeFile>,
}

enum Inner {
    Table(Grid<Target>),
    Csv(Box<CsvWriter<Target>>),
    Json(Box<JsonWriter<Target, LineDelimited>>),
    Parquet(Box<ArrowWriter<Target>>),
}

impl RowWriter {
    /// Writes to `path`, or to stdout.
    pub(crate) fn create(
        format: RowFormat,
        path: Option<&Path>,
        schema: &SchemaRef,
    ) -> Result<Self, Failure> {
        let mut whole = None;
        let (what, out): (String, Target) = match path {
            Some(path) => {
                let what = path.display().to_string();
                let (kept, file) =
                    WholeFile::create(path).map_err(|error| Failure::writing(&what, &error))?;
                whole = Some(kept);
                (what, Box::new(BufWriter::with_capacity(256 << 10, file)))
            }
            None if format == RowFormat::Parquet && io::stdout().is_terminal() => {
                return Err(Failure::usage(
                    "Parquet is nothing for a terminal: name a file with --out FILE",
                ));
            }
            None => (
                "the output".to_owned(),
                Box::new(BufWriter::with_capacity(64 << 10, io::stdout())),
            ),
        };
        Ok(Self { file: whole, ..Self::new(format, what, out, schema)? })
    }

    fn new(
        format: RowFormat,
        what: String,
        out: Target,
        schema: &SchemaRef,
    ) -> Result<Self, Failure> {
        let text_schema = shown_schema(schema);
        let inner = match format {
            RowFormat::Table => Inner::Table(Grid::new(out, text_schema)),
            RowFormat::Csv => {
                let mut writer = CsvWriter::new(out);
                // So that the header is there also when no row is.
                writer
                    .write(&RecordBatch::new_empty(text_schema))
                    .map_err(|error| failure(&what, &error.into()))?;
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
                    .map_err(|error| failure(&what, &error))?;
                Inner::Parquet(Box::new(writer))
            }
        };
        Ok(Self { what, inner, file: None })
    }

    /// Writes the rows of a batch.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let text = || shown(batch);
        match &mut self.inner {
            Inner::Table(writer) => text().and_then(|rows| writer.write(&rows)).map_err(Into::into),
            Inner::Csv(writer) => text().and_then(|rows| writer.write(&rows)).map_err(Into::into),
            Inner::Json(writer) => text().and_then(|rows| writer.write(&rows)).map_err(Into::into),
            Inner::Parquet(writer) => writer.write(batch),
        }
        .map_err(|error| failure(&self.what, &error))
    }

    /// Writes what is still to be written.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { what, inner, file } = self;
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
        .map_err(|error| failure(&what, &error))?;
        match file {
            Some(file) => file.keep().map_err(|error| Failure::writing(&what, &error)),
            None => Ok(()),
        }
    }
}

/// The closed pipe of `tidewater scan ... | head` hides within Arrow's errors.
fn failure(what: &str, error: &parquet::errors::ParquetError) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<io::Error>() {
            return Failure::writing(what, io);
        }
        if let Some(arrow::error::ArrowError::IoError(_, io)) = found.downcast_ref() {
            return Failure::writing(what, io);
        }
        if let Some(csv) = found.downcast_ref::<arrow::error::ArrowError>()
            && csv.to_string().contains("Broken pipe")
        {
            return Failure::writing(what, &io::ErrorKind::BrokenPipe.into());
        }
        cause = found.source();
    }
    if error.to_string().contains("Broken pipe") {
        return Failure::writing(what, &io::ErrorKind::BrokenPipe.into());
    }
    Failure::other(format!("{what} cannot be written: {error}"))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
