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
use crate::read::ranges::KeyRanges;
use crate::read::scan::{Scan, ScanSource};
use crate::read::shape::{Carried, TableShape};
use crate::read::source::Source;
use crate::read::stream::stream;
use crate::read::{RowStream, ScanOptions};
use crate::region::Region;
use crate::region::read::source_options;
use crate::region::staging_area::files_of;
use crate::sst::source::{FileAccess, FileSource};

impl Region {
    /// Returns the files of an open area.
    pub(super) fn staged_file_metas(&self, area: AreaId) -> Result<Vec<FileMeta>, ChangeError> {
        self.contents.lock().phase.check_owner(self.id())?;
        let state = self.manifest.state();
        let open = state.areas.get(&area).ok_or(ChangeError::AreaNotOpen { area })?;
        Ok(files_of(open).cloned().collect())
    }

    /// Returns the newest rows of a range of the region and the staged rows of these files, with all columns of
    /// the schema in its order. Pins the region's rows.
    pub(super) fn compared_rows(
        &self,
        shape: &Arc<TableShape>,
        files: Vec<FileMeta>,
        range: &KeyRange,
        memory: &ComparisonMemory,
    ) -> Result<(RowStream, RowStream), EngineError> {
        let columns = shape.schema.columns().iter().map(|column| column.id).collect();
        let options = ScanOptions {
            range: range.clone(),
            shape: Some(shape.clone()),
            account: memory.region.clone(),
            ..ScanOptions::all(columns)
        };
        let region = self.scan(&options)?;
        let options = ScanOptions { account: memory.staged.clone(), ..options };
        Ok((region, self.scan_staged(shape, files, &options)?))
    }

    /// Reads the rows of staged files by key. Rows with equal keys are all returned.
    fn scan_staged(
        &self,
        shape: &Arc<TableShape>,
        files: Vec<FileMeta>,
        options: &ScanOptions,
    ) -> Result<RowStream, EngineError> {
        let ranges = KeyRanges::one(&options.range, &self.spec.range);
        let access = FileAccess::new(&self.env, files.iter().map(|file| file.size).sum());
        let carried = Carried::all(&shape.schema)?;
        let candidate = |mut file: FileMeta| {
            let (low, high) = file.shown_keys()?;
            let bounds = ranges.clamp(low, high)?;
            // The stored sequences have no meaning, and need not be read.
            file.stamp = Some(Stamp { sequence: Sequence(0), epoch: Epoch(0) });
            let unique = file.one_version_per_key;
            let source = FileSource::new(
                access.clone(),
                Arc::new(file),
                shape.clone(),
                carried.clone(),
                &ranges,
            );
            Some(ScanSource { source: Source::File(Box::new(source)), bounds, times: None, unique })
        };
        let candidates = files.into_iter().filter_map(candidate).collect();
        let deadline =
            ReadDeadline::start(self.env.clock.clone(), self.id(), self.env.options.scan_lifetime);
        let scan = Scan::new(shape.clone(), candidates, source_options(options), deadline);
        Ok(stream(scan.with_all_versions(), Filter::default(), shape.schema.arrow(), options))
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
