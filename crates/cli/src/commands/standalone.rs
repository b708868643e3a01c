//! `standalone`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tidewater_compactor_node::CompactorOptions;
use tidewater_data_node::leadership::compactions::placement::BackgroundCompaction;
use tidewater_data_node::options::DataOptions;
use tidewater_hook_kinds::EventTables;
use tidewater_meta_node::MetaOptions;

use super::compactor::start_compactor;
use super::data::start_data;
use super::meta::start_meta;
use crate::exit::Failure;
use crate::server::events::EventArgs;
use crate::server::hook_limits::{HookArgs, directory_grants};
use crate::server::join::RowMemory;
use crate::server::listen::{Exposure, Listen};
use crate::server::logs::LogOptions;
use crate::server::process::Process;
use crate::server::source_args::SourceArgs;
use crate::text::time_span::TimeSpan;

/// Options of `standalone`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater standalone --data-dir ./tidewater-data\n\nThe object \
                        store is the directory `objects` in the data directory."
)]
pub(crate) struct Options {
    /// Directory of all persistent data
    #[arg(
        long,
        env = "TIDEWATER_DATA_DIR",
        value_name = "DIR",
        default_value = "./tidewater-data"
    )]
    pub(crate) data_dir: PathBuf,

    /// Address to listen on; port 0 selects a free port
    #[arg(long, env = "TIDEWATER_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7400")]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) memory: RowMemory,

    #[command(flatten)]
    pub(crate) exposure: Exposure,

    #[command(flatten)]
    pub(crate) hooks: HookArgs,

    #[command(flatten)]
    pub(crate) sources: SourceArgs,

    #[command(flatten)]
    pub(crate) events: EventArgs,

    /// Duration from which a write, get, scan, flush or compaction is recorded as an event; 0s: never
    #[arg(long, env = "TIDEWATER_SLOW_OPERATION", value_name = "TIME", default_value = "1s")]
    pub(crate) slow_operation: TimeSpan,

    /// Interval in which the tables collection_statistics and collection_progress are written; 0s: never
    #[arg(long, env = "TIDEWATER_STATISTICS_EVERY", value_name = "TIME", default_value = "1m")]
    pub(crate) statistics_every: TimeSpan,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs all roles in this process until a signal stops it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let memory_limit = options.memory.memory_limit.0;
    let listen = Listen { listen: options.listen, exposure: options.exposure };
    let mut process = Process::start(&listen, &options.logs).await?;
    let paths = RolePaths::create(&options.data_dir)?;
    let address = process.advertised().to_owned();
    // Nodes of this process call each other at the bound address, whichever address is advertised.
    let own = vec![process.bound().to_string()];
    let mut data = DataOptions::new(&address, &paths.data, own.clone(), &paths.objects)
        .memory_limit(memory_limit)
        .object_cache(options.memory.object_cache.map(|size| size.0))
        .scan_memory(options.memory.scan_memory.map(|size| size.0));
    let event_dir = options.events.directory(Some(&options.data_dir))?;
    let mut grants = directory_grants(Some(&options.data_dir), event_dir, &paths.objects);
    let hooks = options.hooks.access(&mut grants)?;
    let (source_kinds, export_targets) =
        options.sources.kinds_and_targets(&options.data_dir, data.disk_reserve, &mut grants)?;
    let events = process.record_events(&options.events, Some(&options.data_dir), &own).await?;
    let event_tables = EventTables::default();
    let hooks = hooks.with_events(events.clone(), event_tables.clone());
    let hook_kinds = tidewater_hook_kinds::builtin(hooks);
    let raft = process.raft();

    let meta =
        MetaOptions { events: events.clone(), ..MetaOptions::standalone(&paths.meta, &address) };
    process.add(start_meta(meta, raft.clone())).await?;

    data.problems = process.problems();
    data.hook_kinds = hook_kinds.clone();
    data.source_kinds = source_kinds;
    data.export_targets = export_targets;
    data.hook_limits = options.hooks.limits();
    data.events = events.clone();
    data.event_tables = event_tables.clone();
    data.slow_operation = options.slow_operation.duration();
    // Offloading to the compactor of this process saves nothing. The compactor serves explicit requests
    // only.
    data.groups.compactions.background = BackgroundCompaction::Local;
    process.add(Box::pin(start_data(data, raft))).await?;

    let compactor = CompactorOptions {
        hook_kinds,
        hook_limits: options.hooks.limits(),
        events,
        event_tables,
        slow_operation: options.slow_operation.limit(),
        ..compactor(memory_limit, &address, own.clone(), &paths.objects)
    };
    process.add(start_compactor(compactor)).await?;
    process.keep_system_tables(options.statistics_every.duration(), own);
    process.run("standalone").await
}

/// Returns the options of the compactor of this process: one job at a time, with as much memory as the
/// data node has for its own. The process stops without waiting for a job, because no other node
/// serves while it stops.
fn compactor(
    memory_limit: u64,
    address: &str,
    meta: Vec<String>,
    objects: &str,
) -> CompactorOptions {
    CompactorOptions {
        slots: 1,
        memory_limit: memory_limit / 6,
        process_bytes: 0,
        drain: Duration::from_secs(1),
        ..CompactorOptions::new(address, meta, objects)
    }
}

/// Storage locations of the roles.
struct RolePaths {
    meta: PathBuf,
    data: PathBuf,
    /// URL of the object store.
    objects: String,
}

impl RolePaths {
    fn create(data_dir: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::other(format!(
                "cannot use the data directory {}: {error}\n  choose another --data-dir",
                data_dir.display()
            ))
        };
        let objects = data_dir.join("objects");
        std::fs::create_dir_all(&objects).map_err(failed)?;
        let root = data_dir.canonicalize().map_err(failed)?;
        let objects = url::Url::from_directory_path(root.join("objects")).map_err(|()| {
            Failure::other(format!("{} cannot be written as a URL", root.display()))
        })?;
        Ok(Self { meta: root.join("meta"), data: root.join("data"), objects: objects.to_string() })
    }
}
