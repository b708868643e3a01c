//! What hooks are told of a compaction, in a form in which two places can be compared.

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
enum Told {
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

/// Keeps all that it is told of a compaction.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Vec<Told>>);

#[async_trait]
impl RegionHook for Listener {
    fn name(&self) -> &str {
        "listener"
    }

    async fn on_sst_files_written(
        &self,
        region: RegionId,
        metadata: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        let (metadata, files) = (metadata.clone(), files.to_vec());
        self.0.lock().push(Told::Written { region, metadata: Box::new(metadata), files });
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
        self.0.lock().push(Told::Updated { region, actions, version, manifest });
        Ok(())
    }
}

/// What is told of one file. Whoever adds a field there adds it here.
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

/// What both places must be told alike: ids of files are what they stand for, and the job's is left
/// out.
#[derive(Debug, PartialEq)]
pub(super) struct Same {
    pub(super) region: RegionId,
    pub(super) metadata: RegionSpec,
    pub(super) files: Vec<File>,
    pub(super) updated: RegionId,
    pub(super) actions: Vec<Action>,
    pub(super) by_reference: Option<RegionId>,
    pub(super) version: ManifestVersion,
    /// As the list says it.
    pub(super) of_version: ManifestVersion,
    pub(super) manifest: ManifestKind,
}

/// What differs, beside the ids of files.
#[derive(Debug, PartialEq)]
pub(super) struct Apart {
    pub(super) author: Author,
    pub(super) time_ms: u64,
}

/// What each file stands for: inputs by what they hold, outputs in order of their keys.
struct Names(BTreeMap<FileId, usize>);

impl Names {
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
        let (id, meta) = (self.0[&file_id], self.meta(&meta));
        File { id, time, size, rows, row_groups, footer, indexes, meta }
    }

    /// Which files a job removes is a set.
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

impl Listener {
    /// Whether nothing was told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// The two calls of a compaction of a region that had these files.
    pub(super) fn take(&self, inputs: Vec<FileMeta>) -> (Same, Apart) {
        let told = std::mem::take(&mut *self.0.lock());
        let [
            Told::Written { region, metadata, files },
            Told::Updated { region: updated, actions: list, version, manifest },
        ] = told.as_slice()
        else {
            panic!("{told:#?}");
        };
        let names = Names::new(inputs, files);
        let same = Same {
            region: *region,
            metadata: *metadata.clone(),
            files: files.iter().map(|file| names.file(file)).collect(),
            updated: *updated,
            actions: list.actions().iter().map(|action| names.action(action)).collect(),
            by_reference: list.by_reference(),
            version: *version,
            of_version: list.version(),
            manifest: *manifest,
        };
        (same, Apart { author: list.author(), time_ms: list.time_ms() })
    }
}
