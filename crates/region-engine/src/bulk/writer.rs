//! Bulk writer: writes files of a region for a later publication.

use std::future::pending;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::ids::{Epoch, FileId, Sequence};
use tidewater_common::rows::check_storable;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use crate::EngineError;
use crate::env::RegionEnv;
use crate::flush::PARTS_IN_FLIGHT;
use crate::flush::series::FileSeries;
use crate::flush::upload::upload;
use crate::layout::RegionDir;
use crate::read::shape::TableShape;
use crate::region::RegionSpec;
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::sst::writer::FilePlan;
use crate::workers::on_worker;

/// Writes files into a region's directory from sorted rows; no manifest refers to them until the
/// region's owner adopts them. Needs the store and the region's spec, not the region itself.
#[derive(Debug, Clone)]
pub struct BulkWriter {
    env: RegionEnv,
    dir: RegionDir,
    shape: Arc<TableShape>,
}

impl BulkWriter {
    /// Creates a writer for the region of `spec`.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when the options do not fit the schema.
    pub fn new(env: RegionEnv, spec: &RegionSpec) -> Result<Self, EngineError> {
        let dir = RegionDir {
            table_id: spec.table_id,
            region_id: spec.region_id,
            incarnation: spec.incarnation,
        };
        let shape = Arc::new(TableShape::new(spec.schema.clone(), spec.options.clone())?);
        Ok(Self { env, dir, shape })
    }

    /// Writes rows as files of about the size of a flush. Each batch has all columns of the schema
    /// in its order, rows in ascending key order, and follows the previous one. The order is
    /// verified when the files are adopted. `batches` is iterated on a blocking thread.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] for batches with other columns or values that Parquet cannot hold,
    /// and errors of the store. Files written so far are garbage then.
    pub async fn write<I>(&self, batches: I) -> Result<Vec<FileId>, EngineError>
    where
        I: IntoIterator<Item = RecordBatch> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let plan = FilePlan {
            shape: self.shape.clone(),
            dir: self.dir,
            hashed: self.shape.options.hash.is_some(),
            with_deletes: false,
            unique: self.shape.mode() == WriteMode::Upsert,
        };
        let shape = self.shape.clone();
        let target_bytes = self.env.options.target_file_bytes;
        let encoder = on_worker(&self.env.workers, move |slot| {
            let mut files = FileSeries::new(plan, target_bytes, sender, slot);
            for batch in batches {
                files.push(&rows(&shape, &batch)?, false)?;
            }
            files.finish()
        });
        let (encoded, uploaded) =
            tokio::join!(encoder, upload(&self.env, self.dir, 0, receiver, pending()));
        // When the upload failed, the encoder's error is only that the receiver has ended.
        let files = uploaded?;
        encoded?;
        Ok(files.into_iter().map(|file| file.meta.file_id).collect())
    }
}

/// Converts a batch to the rows of a file; their sequence and epoch are assigned by the
/// publication.
fn rows(shape: &TableShape, batch: &RecordBatch) -> Result<RowVersions, EngineError> {
    let columns = shape.schema.arrow();
    let same = columns.fields().len() == batch.num_columns()
        && columns
            .fields()
            .iter()
            .zip(batch.columns())
            .all(|(field, array)| field.data_type() == array.data_type());
    if !same {
        let detail = "the columns of a batch are not the table's columns in their order".to_owned();
        return Err(EngineError::BadRows { detail });
    }
    check_storable(&columns, batch.columns())?;
    let ids = shape.schema.columns().iter().map(|column| column.id).collect();
    let stamps = Stamps {
        sequences: Numbers::All(Sequence(0).get()),
        epochs: Numbers::All(Epoch(0).get()),
        ops: Ops::All(RowOp::Put),
    };
    Ok(RowVersions::new(ids, batch.columns().to_vec(), batch.num_rows(), stamps))
}
