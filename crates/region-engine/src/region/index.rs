//! Background build of the indexes of a region's files.

use std::sync::Arc;

use tidewater_common::ids::JobId;
use tidewater_common::keys::KeyRange;
use uuid::Uuid;

use super::Region;
use crate::EngineError;
use crate::file_meta::{FileMeta, IndexMeta};
use crate::index::IndexKind;
use crate::manifest::{ActionKind, Author, Change, Edit};
use crate::read::ranges::KeyRanges;
use crate::read::shape::Carried;
use crate::sst::source::{FileAccess, FileSource};
use crate::workers::on_worker;

/// Result of an index build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexReport {
    /// Indexes that were built and added to the manifest.
    pub built: usize,
    /// Indexes that the manifest rejected: the file was removed, or the schema changed.
    pub discarded: usize,
    /// Total size of the added indexes in bytes.
    pub bytes: u64,
}

impl Region {
    /// Number of files that lack an index of this kind.
    pub fn files_without_index(&self, kind: &dyn IndexKind) -> usize {
        self.list_without_index(kind).len()
    }

    /// Builds an index of this kind for every live file in the region's own directory that lacks one,
    /// sequentially, and adds each to the manifest as soon as it is written. Does not require ownership.
    /// Idempotent.
    ///
    /// # Errors
    /// Errors of reading, of the store and of a commit. Indexes that were already added stay.
    pub async fn build_indexes(&self, kind: &dyn IndexKind) -> Result<IndexReport, EngineError> {
        let mut report = IndexReport::default();
        for file in self.list_without_index(kind) {
            let index = self.build_index(kind, &file).await?;
            let bytes = index.size;
            let edit = Edit { add_indexes: vec![(file.reference(), index)], ..Edit::default() };
            let job = Author::Job(JobId(self.env.ids.random()));
            let change = Change::new(job, vec![ActionKind::Edit(edit)]);
            self.manifest.refresh().await?;
            match self.manifest.update_manifest(change).await {
                Ok(_) => {
                    report.built += 1;
                    report.bytes += bytes;
                }
                // The index object is unreferenced now; garbage collection deletes it.
                Err(EngineError::Refused { reason, .. }) => {
                    report.discarded += 1;
                    tracing::info!(
                        region = %self.spec.region_id, file = %file.file_id, %reason,
                        "manifest rejected an index; discarding it"
                    );
                }
                Err(error) => return Err(error),
            }
            self.install_version();
        }
        Ok(report)
    }

    /// Lists the files that lack an index of this kind. Files in other regions' directories are left to
    /// those regions: this region's GC floor does not protect an object there from collection before it
    /// is in the manifest.
    fn list_without_index(&self, kind: &dyn IndexKind) -> Vec<Arc<FileMeta>> {
        let version = self.contents.lock().version.clone();
        let lacks_index = |file: &&Arc<FileMeta>| {
            file.origin == self.dir && file.indexes.iter().all(|index| index.kind != kind.name())
        };
        version.files.iter().filter(lacks_index).cloned().collect()
    }

    pub(super) async fn build_index(
        &self,
        kind: &dyn IndexKind,
        file: &FileMeta,
    ) -> Result<IndexMeta, EngineError> {
        let state = self.manifest.state();
        let shape = self.shape();
        let schema_version =
            state.table.as_ref().map_or(shape.schema.version(), |table| table.schema.version());
        // The whole file, regardless of the clip: another reference to it may show more keys.
        let whole = Arc::new(FileMeta { clip: KeyRange::whole(), ..file.clone() });
        let mut source = FileSource::new(
            FileAccess::new(&self.env, u64::MAX),
            whole,
            shape.clone(),
            Carried::new(&shape.schema, &[])?,
            &KeyRanges::one(&KeyRange::whole(), &KeyRange::whole()),
        );
        let mut builder = kind.build(file);
        while let Some(piece) = source.next().await? {
            let shape = shape.clone();
            builder = on_worker(&self.env.workers, move |_| {
                for key in shape.codec.row_keys(&piece.keys)? {
                    builder.add(&key);
                }
                Ok(builder)
            })
            .await?;
        }
        let bytes = builder.finish();
        let index_id: Uuid = self.env.ids.at(self.env.clock.now_ms().max(state.gc_floor_ms));
        let index = IndexMeta {
            index_id,
            kind: kind.name().to_owned(),
            schema_version,
            size: bytes.len() as u64,
            checksum: crc32c::crc32c(&bytes),
        };
        self.env.storage.put(&file.origin.index(index_id, kind.name()), bytes).await?;
        Ok(index)
    }
}
