//! Ingest into one region with a bad hook and without, for `scripts/bench hooks`.
//!
//! ```text
//! hook_figures DIR SECONDS ROUNDS [RATE]
//! ```
//!
//! Each run writes the same rows for so long, as fast as they are taken or at most RATE rows a second,
//! while tasks of their own flush, merge runs and compact as a data node does; then it flushes what is
//! left. A hook that counts its
//! calls is there in every run, and comes after the bad one.

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

/// As of a data node with 1 GiB.
const MEMORY: u64 = 1 << 30;
const FLUSH_BYTES: u64 = MEMORY / 16;
const HOSTS: usize = 400;
const SECONDS_A_WRITE: usize = 20;
const WRITE_ROWS: usize = HOSTS * SECONDS_A_WRITE;
/// After so many writes the same keys come again, so that disks do not fill up.
const WRITES_A_CYCLE: u64 = 500;
/// Writers at the limit of memory wait for a flush, which takes a part of a second.
const STANDSTILL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vice {
    None,
    Panics,
    Sleeps,
    Fails,
}

const VICES: [Vice; 4] = [Vice::None, Vice::Panics, Vice::Sleeps, Vice::Fails];

impl Vice {
    fn text(self) -> &'static str {
        match self {
            Self::None => "no bad hook",
            Self::Panics => "one that panics",
            Self::Sleeps => "one that sleeps 60 s",
            Self::Fails => "one that fails",
        }
    }

    async fn act(self) -> std::result::Result<(), HookError> {
        match self {
            Self::None => Ok(()),
            #[expect(clippy::panic, reason = "what it is there for")]
            Self::Panics => panic!("as it always does"),
            Self::Sleeps => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            }
            Self::Fails => Err(HookError::new("as it always does")),
        }
    }
}

#[derive(Debug)]
struct Bad(Vice);

#[async_trait]
impl RegionHook for Bad {
    fn name(&self) -> &str {
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

/// Counts its calls.
#[derive(Debug, Default)]
struct Counting {
    written: AtomicU64,
    updated: AtomicU64,
}

#[async_trait]
impl RegionHook for Counting {
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

/// What one run has done.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    rows_per_second: f64,
    /// Of all threads: a machine that others use, too, shows in it less than in the rate.
    cpu_micros_a_row: f64,
    /// Sum of the times of [`STANDSTILL`] and more in which no write was taken.
    seconds_stood_still: f64,
    /// Changes that hooks are told of: with new files, and of the manifest.
    written: u64,
    updated: u64,
    /// What the counting hook was told.
    told_written: u64,
    told_updated: u64,
    /// Calls of the bad hook, and those that it was spared.
    bad_calls: u64,
    bad_skipped: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, seconds, rounds, rate) = match arguments.as_slice() {
        [dir, seconds, rounds] => (dir, seconds, rounds, None),
        [dir, seconds, rounds, rate] => (dir, seconds, rounds, Some(rate.parse::<u32>()?)),
        _ => return Err("usage: hook_figures DIR SECONDS ROUNDS [RATE]".into()),
    };
    // Between two writes at least.
    let pause =
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs(WRITE_ROWS as u64) / rate.max(1));
    let (length, rounds) = (Duration::from_secs(seconds.parse()?), rounds.parse::<usize>()?);
    // Its panics are meant.
    std::panic::set_hook(Box::new(|_| {}));
    let mut runs = vec![Vec::new(); VICES.len()];
    for round in 0..rounds {
        for (vice, runs) in VICES.iter().zip(&mut runs) {
            let dir = Path::new(dir).join(format!("{round}-{vice:?}"));
            std::fs::create_dir_all(&dir)?;
            runs.push(run(&dir, *vice, length, pause).await?);
            std::fs::remove_dir_all(&dir)?;
        }
    }
    println!(
        "medians of {rounds} rounds of {seconds} s, in turn{}; a hook that hangs is waited for 5 s, twice, and \
         then left out: that costs a short run as much as a long one",
        rate.map_or_else(String::new, |rate| format!(", {rate} rows/s offered"))
    );
    println!(
        "{:<22} {:>12} {:>8} {:>12} {:>14} {:>18} {:>20}",
        "", "rows/s", "ratio", "CPU us/row", "stood still s", "calls of others", "of the bad hook"
    );
    let base = median(runs[0].iter().map(|run| run.rows_per_second));
    let mut missed = false;
    for (vice, runs) in VICES.iter().zip(&runs) {
        let rate = median(runs.iter().map(|run| run.rows_per_second));
        let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
        let told = sum(|run| run.told_written + run.told_updated);
        let due = sum(|run| run.written + run.updated);
        missed |= runs
            .iter()
            .any(|run| (run.told_written, run.told_updated) != (run.written, run.updated));
        let bad = match vice {
            Vice::None => "-".to_owned(),
            _ => format!("{}, {} spared", sum(|run| run.bad_calls), sum(|run| run.bad_skipped)),
        };
        let calls = format!("{told} of {due}");
        let cpu = median(runs.iter().map(|run| run.cpu_micros_a_row));
        let still = median(runs.iter().map(|run| run.seconds_stood_still));
        println!(
            "{:<22} {rate:>12.0} {:>8.3} {cpu:>12.2} {still:>14.1} {calls:>18} {bad:>20}",
            vice.text(),
            rate / base
        );
    }
    if missed { Err("a hook that is well was not told of something".into()) } else { Ok(()) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn run(dir: &Path, vice: Vice, length: Duration, pause: Duration) -> Result<Run> {
    let plugins = Plugins::default();
    let counting = Arc::new(Counting::default());
    if vice != Vice::None {
        plugins.insert(Arc::new(Bad(vice)) as RegionHookRef)?;
    }
    plugins.insert(counting.clone() as RegionHookRef)?;
    let (region, memory) = region(dir, &plugins).await?;
    let stop = CancellationToken::new();
    let (begun, cpu_before) = (Instant::now(), cpu_seconds());
    let flushes = tokio::spawn(flushes(region.clone(), memory.clone(), stop.clone()));
    let merges = tokio::spawn(merges(region.clone(), stop.clone()));
    let compactions = tokio::spawn(compactions(region.clone(), dir.to_owned(), stop.clone()));
    let (rows, stood_still) = write(&region, &memory, length, pause).await?;
    stop.cancel();
    let mut flushed = flushes.await??;
    flushed += u64::from(region.flush().await?.files > 0);
    let elapsed = begun.elapsed();
    merges.await??;
    let compacted = compactions.await??;
    let bad = plugins.status().into_iter().find(|hook| hook.name == "bad");
    Ok(Run {
        rows_per_second: rows as f64 / elapsed.as_secs_f64(),
        cpu_micros_a_row: (cpu_seconds() - cpu_before) * 1e6 / rows as f64,
        seconds_stood_still: stood_still.as_secs_f64(),
        written: flushed + compacted,
        // The region's first version, too.
        updated: flushed + compacted + 1,
        told_written: counting.written.load(Ordering::Relaxed),
        told_updated: counting.updated.load(Ordering::Relaxed),
        bad_calls: bad.as_ref().map_or(0, |hook| hook.calls),
        bad_skipped: bad.as_ref().map_or(0, |hook| hook.skipped),
    })
}

/// Writes until the time is over; the number of rows, and how long writes stood still.
async fn write(
    region: &Region,
    memory: &Arc<MemoryBudget>,
    length: Duration,
    pause: Duration,
) -> Result<(u64, Duration)> {
    let begun = Instant::now();
    let template = first(region.spec())?;
    let bytes = template.get_array_memory_size() as u64;
    let (mut write, mut stood_still, mut last) = (0, Duration::ZERO, begun);
    while begun.elapsed() < length {
        // Who is refused asks again, as clients do.
        let Ok(_admitted) = memory.admit(bytes, Duration::from_secs(1)).await else { continue };
        let waited = last.elapsed();
        if waited >= STANDSTILL {
            stood_still += waited;
        }
        let sequence = Sequence((write + 1) * Sequence::PER_ENTRY);
        let batch = at(&template, write % WRITES_A_CYCLE)?;
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch })?;
        write += 1;
        last = Instant::now();
        match begun.checked_add(pause.saturating_mul(u32::try_from(write)?)) {
            // What came too late is made up for, as fast as it is taken.
            Some(due) if due > Instant::now() => {
                tokio::time::sleep_until(due.into()).await;
                last = Instant::now();
            }
            _ => tokio::task::yield_now().await,
        }
    }
    Ok((write * WRITE_ROWS as u64, stood_still))
}

/// Of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Its name, which may hold anything, ends with the last parenthesis; user and system time are the
    // 12th and 13th field after it, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) / 100.0
}

/// Flushes as a node would, one at a time; how often there was something.
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

/// Compacts while something is due; how often. What is replaced is deleted at once: nobody reads it.
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
        let gone = |file: &&_| !after.contains(file);
        for file in before.iter().filter(gone) {
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

/// The first write: a few seconds of every host, in the order of keys.
fn first(spec: &RegionSpec) -> Result<RecordBatch> {
    Ok(rows(spec, (0, WRITE_ROWS, 1), SECONDS_A_WRITE)?)
}

/// The same, so many writes later.
fn at(template: &RecordBatch, write: u64) -> Result<RecordBatch> {
    let later = write as i64 * SECONDS_A_WRITE as i64 * 1_000;
    let times =
        (0..WRITE_ROWS).map(|row| FIRST_MS + later + (row % SECONDS_A_WRITE * 1_000) as i64);
    let mut arrays = template.columns().to_vec();
    arrays[2] = Arc::new(TimestampMillisecondArray::from_iter_values(times));
    Ok(RecordBatch::try_new(template.schema(), arrays)?)
}
