//! Recorder of the hook calls of a compaction, in a form in which local and remote runs can be compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use parquet::file::metadata::ParquetMetaData;
use tidewater_common::ids::{FileId, ManifestVersion, RegionId};
use uuid::Uuid;

use crate::RegionSpec;
use crate::file_meta::{FileMeta, FileRef, IndexMeta, TimeRange};
use crate::hooks::{
    HookError, ManifestKind, RegionHook, RegionMetaActionList, SstFileInfo, SstInfo,
};
use crate::manifest::{Action, ActionKind, Author, Edit};

#[derive(Debug, Clone)]
enum RecordedCall {
    Written {
        region: RegionId,
        metadata: Box<RegionSpec>,
        files: Vec<SstFileInfo>,
    },
    Updated {
        region: RegionId,
        actions: RegionMetaActionList,
        version: ManifestVersion,
        manifest: ManifestKind,
    },
}

/// Hook that records all calls of a compaction.
#[derive(Debug, Default)]
pub(super) struct CallRecorder(Mutex<Vec<RecordedCall>>);

#[async_trait]
impl RegionHook for CallRecorder {
    fn name(&self) -> &str {
        "listener"
    }

    async fn on_sst_files_written(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        let metadata = Box::new(metadata.clone());
        let files = files.to_vec();
        self.0.lock().push(RecordedCall::Written { region, metadata, files });
        Ok(())
    }

    async fn on_manifest_updated(
        &self,
        region: RegionId,
        actions: &RegionMetaActionList,
        version: ManifestVersion,
        manifest: ManifestKind,
    ) -> Result<(), HookError> {
        let actions = actions.clone();
        self.0.lock().push(RecordedCall::Updated { region, actions, version, manifest });
        Ok(())
    }
}

/// Reported values of one file. A new field of [`SstInfo`] must be added here as well.
#[derive(Debug, PartialEq)]
pub(super) struct File {
    pub(super) id: usize,
    pub(super) time: Option<TimeRange>,
    pub(super) size: u64,
    pub(super) rows: u64,
    pub(super) row_groups: u32,
    pub(super) footer: Arc<ParquetMetaData>,
    pub(super) indexes: Vec<IndexMeta>,
    pub(super) meta: FileMeta,
}

/// Values that must be equal in both runs. File ids are replaced by ordinals; the job id is omitted.
#[derive(Debug, PartialEq)]
pub(super) struct CommonCalls {
    pub(super) region: RegionId,
    pub(super) metadata: RegionSpec,
    pub(super) files: Vec<File>,
    pub(super) updated: RegionId,
    pub(super) actions: Vec<Action>,
    pub(super) by_reference: Vec<RegionId>,
    pub(super) version: ManifestVersion,
    /// Version in the action list.
    pub(super) of_version: ManifestVersion,
    pub(super) manifest: ManifestKind,
}

/// Values that differ between the runs, apart from the file ids.
#[derive(Debug, PartialEq)]
pub(super) struct JobSpecific {
    pub(super) author: Author,
    pub(super) time_ms: u64,
}

/// Ordinal of each file: inputs ordered by content, outputs ordered by key.
struct FileOrdinals(BTreeMap<FileId, usize>);

impl FileOrdinals {
    fn new(mut inputs: Vec<FileMeta>, outputs: &[SstFileInfo]) -> Self {
        inputs.sort_by_key(|file| (file.min_sequence(), file.max_sequence(), file.min_key.clone()));
        let all = inputs.iter().map(|file| file.file_id);
        let all = all.chain(outputs.iter().map(|file| file.meta.file_id));
        Self(all.zip(0..).collect())
    }

    fn id(&self, file: FileId) -> FileId {
        FileId(Uuid::from_u128(self.0[&file] as u128))
    }

    fn meta(&self, meta: &FileMeta) -> FileMeta {
        FileMeta { file_id: self.id(meta.file_id), ..meta.clone() }
    }

    fn file(&self, file: &SstFileInfo) -> File {
        let SstFileInfo { sst, meta } = file.clone();
        let SstInfo { file_id, time, size, rows, row_groups, footer, indexes } = sst;
        assert_eq!(file_id, meta.file_id);
        let id = self.0[&file_id];
        let meta = self.meta(&meta);
        File { id, time, size, rows, row_groups, footer, indexes, meta }
    }

    /// Normalizes an edit. The removed files of a job are a set, so they are sorted.
    fn action(&self, action: &Action) -> Action {
        let ActionKind::Edit(edit) = &action.kind else { panic!("{action:?}") };
        let add = edit.add.iter().map(|file| self.meta(file)).collect();
        let named = |file: &FileRef| FileRef { file_id: self.id(file.file_id), ..file.clone() };
        let mut remove: Vec<FileRef> = edit.remove.iter().map(named).collect();
        remove.sort();
        let kind = ActionKind::Edit(Edit { add, remove, ..edit.clone() });
        Action { kind, ..action.clone() }
    }
}

impl CallRecorder {
    /// Returns true if no call was recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Returns the two calls of a compaction of a region that had these files.
    pub(super) fn take(&self, inputs: Vec<FileMeta>) -> (CommonCalls, JobSpecific) {
        let calls = std::mem::take(&mut *self.0.lock());
        let [
            RecordedCall::Written { region, metadata, files },
            RecordedCall::Updated { region: updated, actions: list, version, manifest },
        ] = calls.as_slice()
        else {
            panic!("{calls:#?}");
        };
        let ordinals = FileOrdinals::new(inputs, files);
        let common = CommonCalls {
            region: *region,
            metadata: *metadata.clone(),
            files: files.iter().map(|file| ordinals.file(file)).collect(),
            updated: *updated,
            actions: list.actions().iter().map(|action| ordinals.action(action)).collect(),
            by_reference: list.by_reference().to_vec(),
            version: *version,
            of_version: list.version(),
            manifest: *manifest,
        };
        (common, JobSpecific { author: list.author(), time_ms: list.time_ms() })
    }
}
