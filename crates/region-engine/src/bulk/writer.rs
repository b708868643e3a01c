//! Writes files for a region that others will publish.

use std::future::pending;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::ids::{Epoch, FileId, Sequence};
use tidewater_common::rows::check_storable;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use crate::EngineError;
use crate::env::RegionEnv;
use crate::flush::series::FileSeries;
use crate::flush::upload::upload;
use crate::flush::{PARTS_UNDER_WAY, on_worker};
use crate::layout::RegionDir;
use crate::read::shape::TableShape;
use crate::region::RegionSpec;
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::sst::writer::FilePlan;

/// Writes files into a region's directory from sorted rows; no manifest names them until the
/// region's owner adopts them. Needs the store and what the region is, not the region.
#[derive(Debug, Clone)]
pub struct BulkWriter {
    env: RegionEnv,
    dir: RegionDir,
    shape: Arc<TableShape>,
}

impl BulkWriter {
    /// For a region that is what `spec` says.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when schema and options do not fit each other.
    pub fn new(env: RegionEnv, spec: &RegionSpec) -> Result<Self, EngineError> {
        let dir = RegionDir {
            table_id: spec.table_id,
            region_id: spec.region_id,
            incarnation: spec.incarnation,
        };
        let shape = Arc::new(TableShape::new(spec.schema.clone(), spec.options.clone())?);
        Ok(Self { env, dir, shape })
    }

    /// Writes rows as files of about the size that a flush makes. Each batch has all columns of the
    /// schema in its order, rows in ascending key order, and follows the one before it; whether it
    /// does is checked when the files are adopted. `batches` is asked on a blocking thread.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] for batches with other columns or values that no file can hold, and
    /// those of the store. What was written is garbage then.
    pub async fn write<I>(&self, batches: I) -> Result<Vec<FileId>, EngineError>
    where
        I: IntoIterator<Item = RecordBatch> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(PARTS_UNDER_WAY);
        let plan = FilePlan {
            shape: self.shape.clone(),
            dir: self.dir,
            hashed: self.shape.options.hash.is_some(),
            with_deletes: false,
            unique: self.shape.mode() == WriteMode::Upsert,
        };
        let shape = self.shape.clone();
        let target_bytes = self.env.options.target_file_bytes;
        let encoder = on_worker(&self.env.workers, move || {
            let mut files = FileSeries::new(plan, target_bytes, sender);
            for batch in batches {
                files.push(&rows(&shape, &batch)?)?;
            }
            files.finish()
        });
        let (encoded, uploaded) =
            tokio::join!(encoder, upload(&self.env, self.dir, 0, receiver, pending()));
        // When the upload failed, all the encoder can say is that nobody took its parts.
        let files = uploaded?;
        encoded?;
        Ok(files.into_iter().map(|file| file.meta.file_id).collect())
    }
}

/// The rows of a batch as files hold them: their sequence and epoch come with their publication.
fn rows(shape: &TableShape, batch: &RecordBatch) -> Result<RowVersions, EngineError> {
    let columns = shape.schema.arrow();
    let same = columns.fields().len() == batch.num_columns()
        && columns
            .fields()
            .iter()
            .zip(batch.columns())
            .all(|(field, array)| field.data_type() == array.data_type());
    if !same {
        let detail = "a batch does not have the table's columns in their order".to_owned();
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
