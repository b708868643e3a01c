//! Rows of both sides of a comparison, as scans return them.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::ChangeError;
use super::comparison_memory::ComparisonMemory;
use crate::EngineError;
use crate::file_meta::{FileMeta, Stamp};
use crate::manifest::AreaId;
use crate::read::filter::Filter;
use crate::read::life::ReadDeadline;
use crate::read::need::ScanNeed;
use crate::read::ranges::KeyRanges;
use crate::read::scan::{Scan, ScanSource};
use crate::read::shape::{Carried, TableShape};
use crate::read::source::Source;
use crate::read::{RowStream, ScanMeter, ScanOptions};
use crate::region::Region;
use crate::region::read::{PlannedScan, source_options};
use crate::region::staging_area::files_of;
use crate::sst::source::{FileAccess, FileSource};

/// Rows of a batch: fewer than those of a scan, which leaves more memory for reading ahead.
const BATCH_ROWS: usize = 2_048;

/// Rows to compare.
pub(super) struct ComparedSides {
    pub(super) region: Arc<Region>,
    pub(super) shape: Arc<TableShape>,
    files: Vec<Arc<FileMeta>>,
    range: KeyRange,
}

/// Scans of both sides that have opened no source yet.
pub(super) struct ComparedScans {
    region: PlannedScan,
    staged: PlannedScan,
    options: ScanOptions,
}

impl ComparedSides {
    /// Creates the sides of a comparison of a range of row keys. `files`: all staged files.
    pub(super) fn new(
        region: Arc<Region>,
        shape: Arc<TableShape>,
        files: Vec<FileMeta>,
        range: KeyRange,
    ) -> Self {
        let stamped = |mut file: FileMeta| {
            // The stored sequences have no meaning, and need not be read.
            file.stamp = Some(Stamp { sequence: Sequence(0), epoch: Epoch(0) });
            Arc::new(file)
        };
        Self { region, shape, files: files.into_iter().map(stamped).collect(), range }
    }

    /// Plans to read the rows after a key; empty: all rows. Both sides have all columns of the schema in its order.
    /// Pins the region's newest rows.
    pub(super) fn plan(&self, reached: &[u8]) -> Result<ComparedScans, EngineError> {
        let range = match reached {
            [] => self.range.clone(),
            _ => self.range.intersection(&KeyRange::new(key_after(reached), None)),
        };
        let columns = self.shape.schema.columns().iter().map(|column| column.id).collect();
        let options = ScanOptions {
            range,
            batch_rows: BATCH_ROWS,
            shape: Some(self.shape.clone()),
            ..ScanOptions::all(columns)
        };
        let region = self.region.plan_scan(&options, &ScanMeter::default())?;
        let staged = self.plan_staged(&options)?;
        Ok(ComparedScans { region, staged, options })
    }

    /// Plans to read the rows of the staged files by key. Rows with equal keys are all returned.
    fn plan_staged(&self, options: &ScanOptions) -> Result<PlannedScan, EngineError> {
        let Region { env, spec, .. } = &*self.region;
        let shape = &self.shape;
        let ranges = KeyRanges::one(&options.range, &spec.range);
        let access = FileAccess::new(env, self.files.iter().map(|file| file.size).sum());
        let carried = Carried::all(&shape.schema)?;
        let candidate = |file: &Arc<FileMeta>| {
            let (low, high) = file.shown_keys()?;
            let bounds = ranges.clamp(low, high)?;
            let unique = file.one_version_per_key;
            let source = FileSource::new(
                access.clone(),
                file.clone(),
                shape.clone(),
                carried.clone(),
                &ranges,
            );
            Some(ScanSource { source: Source::File(Box::new(source)), bounds, times: None, unique })
        };
        let candidates = self.files.iter().filter_map(candidate).collect();
        let deadline =
            ReadDeadline::start(env.clock.clone(), spec.region_id, env.options.scan_lifetime);
        let scan = Scan::new(shape.clone(), candidates, source_options(options), deadline);
        Ok(PlannedScan {
            scan: scan.with_all_versions(),
            filter: Filter::default(),
            schema: shape.schema.arrow(),
        })
    }
}

impl ComparedScans {
    /// Returns the memory that the region's and the staged rows need. `limit`: bytes that each may have.
    pub(super) fn needs(&mut self, limit: u64) -> [ScanNeed; 2] {
        [self.region.scan.need(limit), self.staged.scan.need(limit)]
    }

    /// Returns the region's and the staged rows.
    pub(super) fn into_streams(self, memory: &ComparisonMemory) -> (RowStream, RowStream) {
        let Self { mut region, mut staged, options } = self;
        region.scan.set_account(memory.region.clone());
        staged.scan.set_account(memory.staged.clone());
        (region.into_stream(&options), staged.into_stream(&options))
    }
}

impl Region {
    /// Returns the files of an open area.
    pub(super) fn staged_file_metas(&self, area: AreaId) -> Result<Vec<FileMeta>, ChangeError> {
        self.contents.lock().phase.check_owner(self.id())?;
        let state = self.manifest.state();
        let open = state.areas.get(&area).ok_or(ChangeError::AreaNotOpen { area })?;
        Ok(files_of(open).cloned().collect())
    }
}

/// Checks that rows can be compared: an append-only table has no newest version of a key, and files of other regions
/// have several versions.
pub(super) fn check_comparable(shape: &TableShape, files: &[FileMeta]) -> Result<(), EngineError> {
    let bad = |detail: &str| Err(EngineError::BadRows { detail: detail.to_owned() });
    if shape.mode() != WriteMode::Upsert {
        return bad("an append-only table cannot be refreshed: its rows cannot be replaced");
    }
    if files.iter().any(|file| file.deletes > 0) {
        return bad("the staging area has files of another region, which contain deletes");
    }
    Ok(())
}

/// Returns the first key after a key.
fn key_after(key: &[u8]) -> Vec<u8> {
    let mut after = key.to_vec();
    after.push(0);
    after
}
