//! Measures reads of one table in a local directory, for `scripts/bench scan`.
//!
//! ```text
//! scan_figures prepare DIR ROWS    writes the table, 13 columns, 10 of them doubles, and every
//!                                  tenth row a second time; compacts it
//! scan_figures rewrite DIR         writes every hundredth row again, to a file of their own
//! scan_figures full DIR            reads the whole table
//! scan_figures filtered DIR        reads the rows of one host in a hundred
//! scan_figures point DIR           reads single rows of a tenth of the table from cached pages
//! ```

mod figures;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use futures::TryStreamExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{ColumnId, Epoch, GroupId, OwnerEpoch, Sequence, Term};
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::index::Bloom;
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{
    CompareOp, MemoryBudget, Predicate, Region, RowOp, RowsWrite, ScanMeter, ScanOptions, ScanStats,
};

use self::figures::{host, rows, spec};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HOSTS: usize = 400;
const WRITE_ROWS: usize = 50_000;
const ROUNDS: usize = 5;
const POINTS: usize = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["prepare", dir, rows] => prepare(dir, rows.parse()?).await,
        ["rewrite", dir] => rewrite(dir).await,
        ["full", dir] => full(dir).await,
        ["filtered", dir] => filtered(dir).await,
        ["point", dir] => point(dir).await,
        _ => {
            Err("usage: scan_figures prepare DIR ROWS | rewrite | full | filtered | point DIR"
                .into())
        }
    }
}

async fn region(dir: &str) -> Result<Arc<Region>> {
    let env = RegionEnv::new(
        Storage::open(&format!("file://{}", std::fs::canonicalize(dir)?.display())).await?,
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(16 << 30),
        EngineOptions::default(),
    );
    let region = Region::new(env, spec()?, Sequence(0), Sequence(0))?;
    region.load().await?;
    Ok(region)
}

/// Writes every `step`-th row and flushes.
async fn put(region: &Region, total: usize, step: usize) -> Result<()> {
    let next = region.last_sequence().get() / Sequence::PER_ENTRY + 1;
    for (from, entry) in (0..total).step_by(WRITE_ROWS * step).zip(next..) {
        let to = total.min(from + WRITE_ROWS * step);
        let batch = rows(region.spec(), (from, to, step), total / HOSTS)?;
        let sequence = Sequence(entry * Sequence::PER_ENTRY);
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch })?;
    }
    region.flush().await?;
    Ok(())
}

async fn prepare(dir: &str, total: usize) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let region = region(dir).await?;
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await?;
    let total = total.div_ceil(HOSTS) * HOSTS;
    put(&region, total, 1).await?;
    put(&region, total, 10).await?;
    let merged = region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await?;
    let merged = merged.ok_or("nothing was compacted")?;
    let live: Vec<String> =
        region.files().iter().map(|file| format!("{}.parquet", file.file_id)).collect();
    // DuckDB reads all files in the directory.
    keep_only(Path::new(dir), &live)?;
    let indexes = region.build_indexes(&Bloom).await?;
    println!(
        r#"{{"rows": {total}, "rows_in": {}, "files": {}, "bytes": {}, "index_bytes": {}}}"#,
        merged.done.rows_read, merged.files_out, merged.done.bytes_written, indexes.bytes
    );
    Ok(())
}

async fn rewrite(dir: &str) -> Result<()> {
    let region = region(dir).await?;
    region.take_ownership(OwnerEpoch { move_epoch: 0, term: Term(1) }, GroupId(1)).await?;
    let total = region.stats().file_rows as usize;
    put(&region, total, 100).await?;
    println!(r#"{{"rows": {}}}"#, total.div_ceil(100));
    Ok(())
}

fn keep_only(dir: &Path, live: &[String]) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            keep_only(&path, live)?;
        } else if path.extension().is_some_and(|kind| kind == "parquet")
            && !live.iter().any(|name| path.ends_with(name))
        {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Peak resident memory in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
        / 1024
}

/// Reads all columns of the matching rows; sums the doubles, so that their values are used.
async fn read(region: &Region, predicates: &[Predicate]) -> Result<(usize, f64, ScanStats)> {
    let ids = region.spec().schema.columns().iter().map(|column| column.id).collect();
    let options = ScanOptions { predicates: predicates.to_vec(), ..ScanOptions::all(ids) };
    let meter = ScanMeter::default();
    let mut batches = region.scan_metered(&options, &meter)?;
    let mut rows = 0;
    let mut sum = 0.0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows();
        for column in batch.columns().iter().skip(3) {
            sum += arrow::compute::sum(column.as_primitive::<Float64Type>()).unwrap_or(0.0);
        }
    }
    Ok((rows, sum, meter.stats()))
}

async fn measure(dir: &str, predicates: &[Predicate]) -> Result<()> {
    let region = region(dir).await?;
    let mut times = Vec::new();
    let mut last = (0, 0.0, ScanStats::default());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        last = read(&region, predicates).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let (rows, sum, stats) = last;
    println!(
        r#"{{"seconds": {:.6}, "rows": {rows}, "sum": {sum:.3}, "peak_mib": {}, "bytes": {}, "bytes_pruned": {}, "pages": {}, "pages_pruned": {}}}"#,
        times[ROUNDS / 2].as_secs_f64(),
        peak_mib(),
        stats.bytes,
        stats.bytes_pruned,
        stats.pages,
        stats.pages_pruned,
    );
    Ok(())
}

async fn full(dir: &str) -> Result<()> {
    measure(dir, &[]).await
}

async fn filtered(dir: &str) -> Result<()> {
    let bound = |op, number| Predicate { column: ColumnId(1), op, values: vec![host(number)] };
    measure(dir, &[bound(CompareOp::Ge, 200), bound(CompareOp::Lt, 204)]).await
}

async fn point(dir: &str) -> Result<()> {
    let region = region(dir).await?;
    let ids: Vec<ColumnId> = region.spec().schema.columns().iter().map(|c| c.id).collect();
    let total = region.stats().file_rows as usize;
    let per_host = total / HOSTS;
    let keys: Vec<RecordBatch> = (0..POINTS)
        .map(|n| {
            // In random order, from a tenth of the table: as much as the cache holds.
            let row = n * 7_919_317 % (total / 10);
            let row = rows(region.spec(), (row, row + 1, 1), per_host)?;
            let key = region.spec().schema.key_arrow();
            Ok(RecordBatch::try_new(key, row.columns()[..3].to_vec())?)
        })
        .collect::<Result<_>>()?;
    let mut times = Vec::new();
    for round in 0..=3 {
        for key in &keys {
            let started = Instant::now();
            let found = region.get(key, &ids).await?;
            if round > 0 {
                times.push(started.elapsed());
            }
            if found.num_rows() != 1 {
                return Err("a row is missing".into());
            }
        }
    }
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        r#"{{"median_us": {:.1}, "p99_us": {:.1}, "peak_mib": {}}}"#,
        micros(times[times.len() / 2]),
        micros(times[times.len() * 99 / 100]),
        peak_mib()
    );
    Ok(())
}
