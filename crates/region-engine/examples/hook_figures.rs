//! Measures ingest into one region with and without a faulty hook, for `scripts/bench hooks`.
//!
//! ```text
//! hook_figures DIR SECONDS ROUNDS [RATE]
//! ```
//!
//! Each run writes the same rows for SECONDS, at full speed or at most RATE rows a second. Separate
//! tasks flush, merge runs and compact as a data node does; at the end the run flushes the
//! remaining rows. Every run also has a hook that counts its calls, which is called after the
//! faulty one.

mod figures;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, TimestampMillisecondArray};
use async_trait::async_trait;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{Epoch, GroupId, ManifestVersion, OwnerEpoch, RegionId, Sequence};
use tidewater_region_engine::compaction::{Attempt, CompactionOptions, Scope};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::hooks::{
    HookError, ManifestKind, Plugins, RegionHook, RegionHookRef, RegionMetaActionList, SstFileInfo,
};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{EngineError, MemoryBudget, Region, RegionSpec, RowOp, RowsWrite};
use tokio_util::sync::CancellationToken;

use self::figures::{FIRST_MS, rows, spec};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Memory of a data node with 1 GiB.
const MEMORY: u64 = 1 << 30;
const FLUSH_BYTES: u64 = MEMORY / 16;
const HOSTS: usize = 400;
const SECONDS_PER_WRITE: usize = 20;
const WRITE_ROWS: usize = HOSTS * SECONDS_PER_WRITE;
/// Number of writes after which the same keys are written again, so that disks do not fill up.
const WRITES_PER_CYCLE: u64 = 500;
/// Minimum time without a write that counts as a stall. Writers at the memory limit wait for a
/// flush, which takes a fraction of a second.
const STALL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HookFault {
    None,
    Panics,
    Sleeps,
    Fails,
}

const HOOK_FAULTS: [HookFault; 4] =
    [HookFault::None, HookFault::Panics, HookFault::Sleeps, HookFault::Fails];

impl HookFault {
    fn description(self) -> &'static str {
        match self {
            Self::None => "no faulty hook",
            Self::Panics => "hook that panics",
            Self::Sleeps => "hook that sleeps 60 s",
            Self::Fails => "hook that fails",
        }
    }

    async fn act(self) -> std::result::Result<(), HookError> {
        match self {
            Self::None => Ok(()),
            #[expect(clippy::panic, reason = "the injected fault")]
            Self::Panics => panic!("injected panic"),
            Self::Sleeps => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            }
            Self::Fails => Err(HookError::new("injected failure")),
        }
    }
}

#[derive(Debug)]
struct FaultyHook(HookFault);

#[async_trait]
impl RegionHook for FaultyHook {
    fn name(&self) -> &str {
        // Hooks are called in order of name: before the counting hook.
        "bad"
    }

    async fn on_sst_files_written(
        &self,
        _: RegionId,
        _: &RegionSpec,
        _: &[SstFileInfo],
    ) -> std::result::Result<(), HookError> {
        self.0.act().await
    }

    async fn on_manifest_updated(
        &self,
        _: RegionId,
        _: &RegionMetaActionList,
        _: ManifestVersion,
        _: ManifestKind,
    ) -> std::result::Result<(), HookError> {
        self.0.act().await
    }
}

/// Hook that counts its calls.
#[derive(Debug, Default)]
struct CountingHook {
    written: AtomicU64,
    updated: AtomicU64,
}

#[async_trait]
impl RegionHook for CountingHook {
    fn name(&self) -> &str {
        "counting"
    }

    async fn on_sst_files_written(
        &self,
        _: RegionId,
        _: &RegionSpec,
        _: &[SstFileInfo],
    ) -> std::result::Result<(), HookError> {
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn on_manifest_updated(
        &self,
        _: RegionId,
        _: &RegionMetaActionList,
        _: ManifestVersion,
        _: ManifestKind,
    ) -> std::result::Result<(), HookError> {
        self.updated.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Result of one run.
#[derive(Debug, Clone, Copy, Default)]
struct RunResult {
    rows_per_second: f64,
    /// CPU time of all threads per row. Other load on the machine affects it less than the rate.
    cpu_micros_per_row: f64,
    /// Sum of the times of [`STALL`] and more without an accepted write, in seconds.
    stalled_seconds: f64,
    /// Expected calls of each hook: for new files, and for changes of the manifest.
    written: u64,
    updated: u64,
    /// Calls of the counting hook.
    counted_written: u64,
    counted_updated: u64,
    /// Calls of the faulty hook, and calls skipped while it was suspended.
    faulty_calls: u64,
    faulty_skipped: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, seconds, rounds, rate) = match arguments.as_slice() {
        [dir, seconds, rounds] => (dir, seconds, rounds, None),
        [dir, seconds, rounds, rate] => (dir, seconds, rounds, Some(rate.parse::<u32>()?)),
        _ => return Err("usage: hook_figures DIR SECONDS ROUNDS [RATE]".into()),
    };
    // Minimum time between two writes.
    let pause =
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs(WRITE_ROWS as u64) / rate.max(1));
    let length = Duration::from_secs(seconds.parse()?);
    let rounds = rounds.parse::<usize>()?;
    // Panics of the faulty hook are intended.
    std::panic::set_hook(Box::new(|_| {}));
    let mut runs = vec![Vec::new(); HOOK_FAULTS.len()];
    for round in 0..rounds {
        for (fault, runs) in HOOK_FAULTS.iter().zip(&mut runs) {
            let dir = Path::new(dir).join(format!("{round}-{fault:?}"));
            std::fs::create_dir_all(&dir)?;
            runs.push(run(&dir, *fault, length, pause).await?);
            std::fs::remove_dir_all(&dir)?;
        }
    }
    println!(
        "medians of {rounds} rounds of {seconds} s, in turn{}; a hook that hangs delays its caller by 5 s, twice, \
         before it is suspended: the cost does not depend on the length of a run",
        rate.map_or_else(String::new, |rate| format!(", {rate} rows/s offered"))
    );
    println!(
        "{:<22} {:>12} {:>8} {:>12} {:>14} {:>18} {:>20}",
        "", "rows/s", "ratio", "CPU us/row", "stalled s", "other hook calls", "faulty hook calls"
    );
    let base = median(runs[0].iter().map(|run| run.rows_per_second));
    let mut missed = false;
    for (fault, runs) in HOOK_FAULTS.iter().zip(&runs) {
        let rate = median(runs.iter().map(|run| run.rows_per_second));
        let sum = |of: fn(&RunResult) -> u64| runs.iter().map(of).sum::<u64>();
        let counted = sum(|run| run.counted_written + run.counted_updated);
        let due = sum(|run| run.written + run.updated);
        missed |= runs
            .iter()
            .any(|run| (run.counted_written, run.counted_updated) != (run.written, run.updated));
        let faulty = match fault {
            HookFault::None => "-".to_owned(),
            _ => format!(
                "{}, {} skipped",
                sum(|run| run.faulty_calls),
                sum(|run| run.faulty_skipped)
            ),
        };
        let calls = format!("{counted} of {due}");
        let cpu = median(runs.iter().map(|run| run.cpu_micros_per_row));
        let stalled = median(runs.iter().map(|run| run.stalled_seconds));
        println!(
            "{:<22} {rate:>12.0} {:>8.3} {cpu:>12.2} {stalled:>14.1} {calls:>18} {faulty:>20}",
            fault.description(),
            rate / base
        );
    }
    if missed { Err("the counting hook missed some calls".into()) } else { Ok(()) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn run(dir: &Path, fault: HookFault, length: Duration, pause: Duration) -> Result<RunResult> {
    let plugins = Plugins::default();
    let counting = Arc::new(CountingHook::default());
    if fault != HookFault::None {
        plugins.insert(Arc::new(FaultyHook(fault)) as RegionHookRef)?;
    }
    plugins.insert(counting.clone() as RegionHookRef)?;
    let (region, memory) = region(dir, &plugins).await?;
    let stop = CancellationToken::new();
    let started = Instant::now();
    let cpu_before = cpu_seconds();
    let flushes = tokio::spawn(flushes(region.clone(), memory.clone(), stop.clone()));
    let merges = tokio::spawn(merges(region.clone(), stop.clone()));
    let compactions = tokio::spawn(compactions(region.clone(), dir.to_owned(), stop.clone()));
    let (rows, stalled) = write(&region, &memory, length, pause).await?;
    stop.cancel();
    let mut flushed = flushes.await??;
    flushed += u64::from(region.flush().await?.files > 0);
    let elapsed = started.elapsed();
    merges.await??;
    let compacted = compactions.await??;
    let faulty = plugins.status().into_iter().find(|hook| hook.name == "bad");
    Ok(RunResult {
        rows_per_second: rows as f64 / elapsed.as_secs_f64(),
        cpu_micros_per_row: (cpu_seconds() - cpu_before) * 1e6 / rows as f64,
        stalled_seconds: stalled.as_secs_f64(),
        written: flushed + compacted,
        // Includes the region's first version.
        updated: flushed + compacted + 1,
        counted_written: counting.written.load(Ordering::Relaxed),
        counted_updated: counting.updated.load(Ordering::Relaxed),
        faulty_calls: faulty.as_ref().map_or(0, |hook| hook.calls),
        faulty_skipped: faulty.as_ref().map_or(0, |hook| hook.skipped),
    })
}

/// Writes until the time is over; returns the number of rows and the time of stalls.
async fn write(
    region: &Region,
    memory: &Arc<MemoryBudget>,
    length: Duration,
    pause: Duration,
) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let template = first(region.spec())?;
    let bytes = template.get_array_memory_size() as u64;
    let mut write = 0;
    let mut stalled = Duration::ZERO;
    let mut last = started;
    while started.elapsed() < length {
        // A rejected writer retries, as clients do.
        let Ok(_admitted) = memory.admit(bytes, Duration::from_secs(1)).await else { continue };
        let waited = last.elapsed();
        if waited >= STALL {
            stalled += waited;
        }
        let sequence = Sequence((write + 1) * Sequence::PER_ENTRY);
        let batch = at(&template, write % WRITES_PER_CYCLE)?;
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch })?;
        write += 1;
        last = Instant::now();
        match started.checked_add(pause.saturating_mul(u32::try_from(write)?)) {
            // Late writes catch up at full speed.
            Some(due) if due > Instant::now() => {
                tokio::time::sleep_until(due.into()).await;
                last = Instant::now();
            }
            _ => tokio::task::yield_now().await,
        }
    }
    Ok((write * WRITE_ROWS as u64, stalled))
}

/// CPU time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process, which may contain anything, ends with the last parenthesis. User and
    // system time are the 12th and 13th field after it, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) / 100.0
}

/// Flushes as a node would, one at a time; returns the number of flushes with rows.
async fn flushes(
    region: Arc<Region>,
    memory: Arc<MemoryBudget>,
    stop: CancellationToken,
) -> Result<u64> {
    let mut flushed = 0;
    while !stop.is_cancelled() {
        let bytes = region.stats().memtable_bytes;
        let short = memory.used() >= memory.limit() && bytes >= FLUSH_BYTES / 16;
        if bytes >= FLUSH_BYTES || short {
            flushed += u64::from(region.flush().await?.files > 0);
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(flushed)
}

async fn merges(region: Arc<Region>, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        if region.is_merge_due() {
            region.merge_runs().await?;
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// Compacts while files are due; returns the number of compactions. Deletes replaced files
/// immediately, because there are no readers.
async fn compactions(region: Arc<Region>, dir: PathBuf, stop: CancellationToken) -> Result<u64> {
    let mut compacted = 0;
    while !stop.is_cancelled() {
        if region.compactions_due().is_empty() {
            tokio::time::sleep(TICK).await;
            continue;
        }
        let before = region.files();
        match region.compact(Scope::Due, Epoch(0), &Attempt::default()).await {
            Ok(report) => compacted += u64::from(report.is_some()),
            Err(EngineError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let after = region.files();
        let replaced = |file: &&_| !after.contains(file);
        for file in before.iter().filter(replaced) {
            delete(&dir, &format!("{}.parquet", file.file_id))?;
        }
    }
    Ok(compacted)
}

fn delete(dir: &Path, name: &str) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            delete(&path, name)?;
        } else if path.ends_with(name) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

async fn region(dir: &Path, plugins: &Plugins) -> Result<(Arc<Region>, Arc<MemoryBudget>)> {
    let memory = MemoryBudget::new(MEMORY / 3);
    let compaction = CompactionOptions { memory_bytes: MEMORY / 6, ..CompactionOptions::default() };
    let env = RegionEnv::new(
        Storage::open(&format!("file://{}", std::fs::canonicalize(dir)?.display())).await?,
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        memory.clone(),
        EngineOptions { compaction, ..EngineOptions::default() },
    );
    let region = Region::new(env.with_plugins(plugins.clone()), spec()?, Sequence(0), Sequence(0))?;
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await?;
    Ok((region, memory))
}

/// The first write: a few seconds of every host, in key order.
fn first(spec: &RegionSpec) -> Result<RecordBatch> {
    Ok(rows(spec, (0, WRITE_ROWS, 1), SECONDS_PER_WRITE)?)
}

/// Returns the write `write` writes after the first: the same rows with later times.
fn at(template: &RecordBatch, write: u64) -> Result<RecordBatch> {
    let later = write as i64 * SECONDS_PER_WRITE as i64 * 1_000;
    let times =
        (0..WRITE_ROWS).map(|row| FIRST_MS + later + (row % SECONDS_PER_WRITE * 1_000) as i64);
    let mut arrays = template.columns().to_vec();
    arrays[2] = Arc::new(TimestampMillisecondArray::from_iter_values(times));
    Ok(RecordBatch::try_new(template.schema(), arrays)?)
}
