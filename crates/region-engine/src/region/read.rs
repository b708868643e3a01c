//! Scans and counts of a region.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;

use super::Region;
use crate::EngineError;
use crate::expiry::Expiry;
use crate::file_meta::{FileMeta, TimeRange};
use crate::memtable::Run;
use crate::read::context::{EpochBounds, ReadContext};
use crate::read::filter::Filter;
use crate::read::independent::KeySharing;
use crate::read::key_terms::key_range;
use crate::read::life::ReadDeadline;
use crate::read::projection::{carried_columns, projected_schema};
use crate::read::pushdown::{Pushdown, pushed_terms};
use crate::read::ranges::KeyRanges;
use crate::read::run_source::RunSource;
use crate::read::scan::{Scan, ScanSource, SourceOptions};
use crate::read::shape::{Carried, TableShape};
use crate::read::source::Source;
use crate::read::stream::stream;
use crate::read::{AsOf, Predicate, RowOrder, RowStream, ScanMeter, ScanOptions};
use crate::sst::source::{FileAccess, FileSource};
use crate::sst::statistics::file_admits;
use crate::sst::writer::time_bounds;
use crate::version::Version;

impl Region {
    /// Reads rows in key order. The scan pins a snapshot of the region when it is called and opens
    /// files as it reaches them.
    ///
    /// # Errors
    /// [`EngineError::Loading`], [`EngineError::Removed`], [`EngineError::Closed`], and
    /// [`EngineError::BadRows`] for columns or values that do not match the schema.
    pub fn scan(&self, options: &ScanOptions) -> Result<RowStream, EngineError> {
        self.scan_metered(options, &ScanMeter::default())
    }

    /// Like [`Region::scan`], and counts in `meter` how much is read and how much is pruned.
    ///
    /// # Errors
    /// As [`Region::scan`].
    pub fn scan_metered(
        &self,
        options: &ScanOptions,
        meter: &ScanMeter,
    ) -> Result<RowStream, EngineError> {
        Ok(self.plan_scan(options, meter)?.into_stream(options))
    }

    /// Pins the rows of a scan, and opens no source.
    pub(super) fn plan_scan(
        &self,
        options: &ScanOptions,
        meter: &ScanMeter,
    ) -> Result<PlannedScan, EngineError> {
        let pinned = self.pin(options.as_of, options.shape.clone())?;
        let shape = &pinned.shape;
        let filter = self.filter(&pinned, &options.predicates)?;
        let schema = projected_schema(shape, &options.projection)?;
        let carried = carried_columns(shape, &options.projection, &filter)?;
        let range = options.range.intersection(&key_range(shape, &filter)?);
        let ranges = KeyRanges::one(&range, &self.spec.range);
        let context = ReadContext {
            filter: Arc::new(filter.clone()),
            epochs: EpochBounds::as_of(options.as_of.map(|as_of| as_of.epoch)),
            counters: meter.0.clone(),
            ..ReadContext::default()
        };
        let scan = self.open_scan(pinned, &carried, &ranges, source_options(options), &context)?;
        Ok(PlannedScan { scan, filter, schema })
    }

    /// Counts the rows that a scan would yield; decodes only the columns that the count needs.
    ///
    /// # Errors
    /// As [`Region::scan`], and errors of reading.
    pub async fn count(&self, options: &ScanOptions) -> Result<u64, EngineError> {
        let options =
            ScanOptions { projection: Vec::new(), order: RowOrder::Any, ..options.clone() };
        let pinned = self.pin(options.as_of, options.shape.clone())?;
        let filter = self.filter(&pinned, &options.predicates)?;
        if !filter.is_empty() || options.limit.is_some() {
            let mut rows = self.scan(&options)?;
            let mut total = 0;
            while let Some(batch) = rows.try_next().await? {
                total += batch.num_rows() as u64;
            }
            return Ok(total);
        }
        let carried = Carried::new(&pinned.shape.schema, &[])?;
        let ranges = KeyRanges::one(&options.range, &self.spec.range);
        let epochs = EpochBounds::as_of(options.as_of.map(|as_of| as_of.epoch));
        let context = ReadContext { epochs, ..ReadContext::default() };
        let options = source_options(&options);
        self.open_scan(pinned, &carried, &ranges, options, &context)?.count().await
    }

    /// Opens a scan of all runs and files that may contain a key of the ranges.
    pub(super) fn open_scan(
        &self,
        pinned: Pinned,
        carried: &Carried,
        ranges: &KeyRanges,
        options: SourceOptions,
        context: &ReadContext,
    ) -> Result<Scan, EngineError> {
        let files = pinned.version.files.iter();
        let files = files.map(|file| (file.clone(), ranges.within(&file.clip))).collect();
        self.assemble(pinned, files, carried, ranges, options, context)
    }

    /// Pins the current rows: later writes, flushes and compactions do not change them. `shape`: that of the
    /// read; `None`: the current one.
    ///
    /// # Errors
    /// Those of [`AsOf::check`] and of the phase.
    pub(super) fn pin(
        &self,
        as_of: Option<AsOf>,
        shape: Option<Arc<TableShape>>,
    ) -> Result<Pinned, EngineError> {
        let life =
            ReadDeadline::start(self.env.clock.clone(), self.id(), self.env.options.scan_lifetime);
        let contents = self.contents.lock();
        contents.check_not_divided(self.id())?;
        contents.phase.check_read(self.id())?;
        // Under the lock: versions may be dropped as soon as `since` has advanced.
        if let Some(as_of) = as_of {
            as_of.check(self.id(), contents.readable_since())?;
        }
        Ok(Pinned {
            shape: shape.unwrap_or_else(|| contents.shape.clone()),
            version: contents.version.clone(),
            runs: contents.runs.iter().map(|held| held.run().clone()).collect(),
            life,
        })
    }

    /// Creates sources for the runs, and for the files that may show a key of their ranges.
    pub(super) fn assemble(
        &self,
        pinned: Pinned,
        files: Vec<(Arc<FileMeta>, KeyRanges)>,
        carried: &Carried,
        ranges: &KeyRanges,
        options: SourceOptions,
        context: &ReadContext,
    ) -> Result<Scan, EngineError> {
        let flushed = pinned.version.flushed.get();
        let shape = pinned.shape;
        // Computed from all rows of a run, so only where it saves merging files.
        let with_times = options.order == RowOrder::Any
            && KeySharing::of(&shape.schema, &shape.options) == KeySharing::KeysAndTimes;
        let mut candidates = Vec::new();
        for run in pinned.runs {
            let (low, high) = run.key_bounds(&shape.schema, &shape.codec)?;
            let Some(bounds) = ranges.clamp(low, high) else { continue };
            let unique = run.unique();
            let times = if with_times { run_times(&run, &shape)? } else { None };
            let source = RunSource::new(run, shape.clone(), carried.clone(), ranges, flushed)?;
            let source = Source::Run(source.with_epochs(context.epochs));
            candidates.push(ScanSource { source, bounds, times, unique });
        }
        let mut shown = Vec::new();
        for (file, ranges) in files {
            match may_show(&shape, &ranges, &file, context) {
                Some(bounds) => shown.push((file, ranges, bounds)),
                None => {
                    context.counters.files_pruned.add(1);
                    context.counters.bytes_pruned.add(file.size);
                }
            }
        }
        let access = FileAccess::new(&self.env, shown.iter().map(|(file, ..)| file.size).sum());
        for (file, ranges, bounds) in shown {
            let times = file.time;
            let unique = file.one_version_per_key;
            let source =
                FileSource::new(access.clone(), file, shape.clone(), carried.clone(), &ranges);
            let source = Source::File(Box::new(source.with_context(context.clone())));
            candidates.push(ScanSource { source, bounds, times, unique });
        }
        Ok(Scan::new(shape, candidates, options, pinned.life))
    }

    /// Returns the filter for the predicates and for rows that have expired by now.
    pub(super) fn filter(
        &self,
        pinned: &Pinned,
        predicates: &[Predicate],
    ) -> Result<Filter, EngineError> {
        let shape = &pinned.shape;
        let now_ms = self.env.clock.expiry_ms().unwrap_or(0);
        let expiry = Expiry::new(&shape.schema, &shape.options, now_ms, &pinned.version.expired);
        Ok(Filter::bind(&shape.schema, predicates)?.with_expiry(expiry))
    }
}

pub(super) fn source_options(options: &ScanOptions) -> SourceOptions {
    SourceOptions {
        batch_rows: options.batch_rows,
        order: options.order,
        account: options.account.clone(),
    }
}

/// Returns the least and the greatest time of a run.
fn run_times(run: &Run, shape: &TableShape) -> Result<Option<TimeRange>, EngineError> {
    let mut times: Option<TimeRange> = None;
    for batch in run.batches() {
        // Every row has a time, or the rule that uses times does not apply.
        let Some(of_batch) = time_bounds(&batch, &shape.schema)? else { return Ok(None) };
        times = Some(of_batch.and(times));
    }
    Ok(times)
}

/// Returns the first and the last key of these ranges that a file may show; `None` if it shows none.
/// Terms on key columns apply already here: a file that they rule out does not overlap others either.
fn may_show(
    shape: &TableShape,
    ranges: &KeyRanges,
    file: &FileMeta,
    context: &ReadContext,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let schema = &shape.schema;
    let terms = pushed_terms(&context.filter, Pushdown::Keys, schema.primary_key());
    let bounds = ranges.clamp(&file.min_key, &file.max_key)?;
    if context.epochs.after.is_some_and(|after| file.max_epoch() <= after) {
        return None;
    }
    file_admits(schema, file, terms).then_some(bounds)
}

/// Scan that has not opened a source yet.
pub(super) struct PlannedScan {
    pub(super) scan: Scan,
    pub(super) filter: Filter,
    /// Columns of the result.
    pub(super) schema: SchemaRef,
}

impl PlannedScan {
    pub(super) fn into_stream(self, options: &ScanOptions) -> RowStream {
        stream(self.scan, self.filter, self.schema, options)
    }
}

/// Snapshot of a region, unchanged for the duration of a read.
#[derive(Clone)]
pub(super) struct Pinned {
    pub(super) shape: Arc<TableShape>,
    pub(super) version: Arc<Version>,
    pub(super) runs: Vec<Arc<Run>>,
    life: ReadDeadline,
}
