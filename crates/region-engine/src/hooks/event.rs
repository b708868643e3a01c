//! Events that hooks observe.

use std::sync::Arc;

use tidewater_common::ids::{OwnerEpoch, RegionId};
use tidewater_common::schema::TableSchema;

use super::file_statistics::{ColumnSummary, FileStatisticsReader};
use super::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    SstFileInfo,
};
use crate::file_meta::FileMeta;
use crate::layout::RegionDir;
use crate::region::RegionSpec;

/// Region of an event.
#[derive(Debug, Clone)]
pub struct EventSource {
    /// Table, region and incarnation of the cluster. A restored cluster has another incarnation, and
    /// may repeat ids of regions and manifest versions.
    pub dir: RegionDir,
    /// Name of the table; `None` if this process does not know it: a program without a catalog, or a
    /// table that the catalog no longer has.
    pub table_name: Option<Arc<str>>,
    /// Reader of the statistics of the region's files; `None`: events have no statistics.
    pub statistics: Option<FileStatisticsReader>,
}

/// An event with its region.
#[derive(Debug)]
pub struct RegionEvent {
    /// The region.
    pub source: EventSource,
    /// The event.
    pub event: HookEvent,
}

/// Events that hooks observe; each is an argument list of the method that it is named after.
#[derive(Debug)]
pub enum HookEvent {
    /// [`RegionHook::on_sst_files_written`](super::RegionHook::on_sst_files_written).
    SstFilesWritten {
        /// The region.
        metadata: Arc<RegionSpec>,
        /// The files.
        files: Arc<[SstFileInfo]>,
    },
    /// [`RegionHook::on_manifest_updated`](super::RegionHook::on_manifest_updated).
    ManifestUpdated {
        /// The change.
        actions: RegionMetaActionList,
        /// Its visibility.
        manifest: ManifestKind,
    },
    /// [`RegionHook::on_region_opened`](super::RegionHook::on_region_opened).
    Opened {
        /// The region.
        metadata: Arc<RegionSpec>,
    },
    /// [`RegionHook::on_region_closed`](super::RegionHook::on_region_closed).
    Closed {
        /// The region.
        metadata: Arc<RegionSpec>,
    },
    /// [`RegionHook::on_region_dropped`](super::RegionHook::on_region_dropped).
    Dropped {
        /// The region.
        metadata: Arc<RegionSpec>,
    },
    /// [`RegionHook::on_region_role_changed`](super::RegionHook::on_region_role_changed).
    RoleChanged {
        /// The role until now.
        old: RegionRole,
        /// The role from now on.
        new: RegionRole,
        /// The owner epoch known to the replica.
        epoch: OwnerEpoch,
    },
    /// [`RegionHook::on_files_removed`](super::RegionHook::on_files_removed).
    FilesRemoved(FilesRemoved),
    /// [`RegionHook::on_region_gc`](super::RegionHook::on_region_gc).
    Gc(GcPass),
    /// [`RegionHook::on_bootstrap`](super::RegionHook::on_bootstrap).
    Bootstrap(RegionSnapshot),
}

impl EventSource {
    /// Creates the source of events of a region whose table has no name and whose files have no
    /// statistics.
    pub fn new(dir: RegionDir) -> Self {
        Self { dir, table_name: None, statistics: None }
    }
}

impl RegionEvent {
    /// Returns the id of the region.
    pub fn region(&self) -> RegionId {
        self.source.dir.region_id
    }

    /// Returns the statistics of the columns of [`HookEvent::files`], in their order: those of the first
    /// files, up to 4,096 columns in total, whose footers can be read within 2 s.
    pub async fn column_statistics(&self) -> Vec<Option<Vec<ColumnSummary>>> {
        let files: Vec<&FileMeta> = self.event.files().collect();
        match (&self.source.statistics, self.event.schema()) {
            (Some(reader), Some(schema)) => reader.read(&files, schema).await,
            _ => vec![None; files.len()],
        }
    }
}

impl HookEvent {
    /// Returns the name for operators, metrics and records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SstFilesWritten { .. } => "sst_files_written",
            Self::ManifestUpdated { .. } => "manifest_updated",
            Self::Opened { .. } => "region_opened",
            Self::Closed { .. } => "region_closed",
            Self::Dropped { .. } => "region_dropped",
            Self::RoleChanged { .. } => "region_role_changed",
            Self::FilesRemoved(_) => "files_removed",
            Self::Gc(_) => "region_gc",
            Self::Bootstrap(_) => "bootstrap",
        }
    }

    /// Returns the data files that exist with the event: written, added or staged by a change, or live in a
    /// snapshot. The files of a void change do not exist.
    pub fn files(&self) -> Box<dyn Iterator<Item = &FileMeta> + '_> {
        match self {
            Self::SstFilesWritten { files, .. } => Box::new(files.iter().map(|file| &file.meta)),
            Self::ManifestUpdated { actions, manifest } if *manifest != ManifestKind::Void => {
                Box::new(actions.files_added())
            }
            Self::Bootstrap(snapshot) => Box::new(snapshot.files()),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// Returns the schema of the table as of the event, where the event knows it.
    pub fn schema(&self) -> Option<&TableSchema> {
        match self {
            Self::SstFilesWritten { metadata, .. }
            | Self::Opened { metadata }
            | Self::Closed { metadata }
            | Self::Dropped { metadata } => Some(&metadata.schema),
            Self::ManifestUpdated { actions, .. } => actions.schema(),
            Self::Bootstrap(snapshot) => snapshot.schema(),
            Self::RoleChanged { .. } | Self::FilesRemoved(_) | Self::Gc(_) => None,
        }
    }
}
