//! `data`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tidewater_common::clock::SystemClock;
use tidewater_data_node::node::DataNode;
use tidewater_data_node::options::DataOptions;
use tidewater_hook_kinds::EventTables;
use tidewater_raft_store::RaftService;

use crate::exit::Failure;
use crate::server::compaction::CompactionArgs;
use crate::server::events::EventArgs;
use crate::server::hook_limits::{HookArgs, directory_grants};
use crate::server::join::{Join, RowMemory};
use crate::server::listen::Listen;
use crate::server::logs::LogOptions;
use crate::server::node::RunningNode;
use crate::server::process::Process;
use crate::server::source_args::SourceArgs;
use crate::server::start_errors;
use crate::text::size::Size;
use crate::text::time_span::TimeSpan;

/// Options of `data`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater data --listen 127.0.0.1:7411 --data-dir d1 --meta \
                        127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403 --object-store \
                        file:///var/lib/tidewater/objects\n  tidewater data --listen \
                        127.0.0.1:7411 --data-dir d1 --meta 127.0.0.1:7401 --object-store \
                        s3://bucket/prefix\n\nCredentials of the object store come from the \
                        environment (AWS_*).")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) listen: Listen,

    /// Directory of the Raft logs
    #[arg(long, env = "TIDEWATER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,

    #[command(flatten)]
    pub(crate) join: Join,

    #[command(flatten)]
    pub(crate) memory: RowMemory,

    /// Space to keep free on the disk of the data directory; writes are rejected below it
    #[arg(long, env = "TIDEWATER_DISK_RESERVE", value_name = "SIZE", default_value = "128MiB")]
    pub(crate) disk_reserve: Size,

    /// Free space on the disk of the data directory, and of a local object store, below which `cluster
    /// status` reports a problem; 0: never
    #[arg(long, env = "TIDEWATER_DISK_LOW", value_name = "SIZE", default_value = "1GiB")]
    pub(crate) disk_low: Size,

    /// Interval between checks for missing files of the regions
    #[arg(long, env = "TIDEWATER_CHECK_FILES_EVERY", value_name = "TIME", default_value = "10m")]
    pub(crate) check_files_every: TimeSpan,

    /// Time to keep the log of a replica that was removed from this node
    #[arg(long, env = "TIDEWATER_KEEP_REMOVED_LOGS", value_name = "TIME", default_value = "24h")]
    pub(crate) keep_removed_logs: TimeSpan,

    #[command(flatten)]
    pub(crate) compaction: CompactionArgs,

    #[command(flatten)]
    pub(crate) hooks: HookArgs,

    #[command(flatten)]
    pub(crate) sources: SourceArgs,

    #[command(flatten)]
    pub(crate) events: EventArgs,

    /// Duration from which a write, get, scan, flush or compaction is recorded as an event; 0s: never
    #[arg(long, env = "TIDEWATER_SLOW_OPERATION", value_name = "TIME", default_value = "1s")]
    pub(crate) slow_operation: TimeSpan,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs a data node until a signal stops it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let data_dir = Some(&*options.data_dir);
    let event_dir = options.events.directory(data_dir)?;
    let mut grants = directory_grants(data_dir, event_dir, &options.join.object_store);
    let hooks = options.hooks.access(&mut grants)?;
    let (source_kinds, export_targets) = options.sources.kinds_and_targets(
        &options.data_dir,
        options.disk_reserve.0,
        &mut grants,
    )?;
    let mut process = Process::start(&options.listen, &options.logs).await?;
    let events = process.record_events(&options.events, data_dir, &options.join.meta).await?;
    let event_tables = EventTables::default();
    let hooks = hooks.with_events(events.clone(), event_tables.clone());
    let settings = DataOptions {
        disk_reserve: options.disk_reserve.0,
        disk_low: options.disk_low.0,
        hook_limits: options.hooks.limits(),
        hook_kinds: tidewater_hook_kinds::builtin(hooks),
        source_kinds,
        export_targets,
        events,
        event_tables,
        slow_operation: options.slow_operation.duration(),
        problems: process.problems(),
        max_clock_difference: options.join.clock.max_clock_difference.duration(),
        ..DataOptions::new(
            process.advertised(),
            &options.data_dir,
            options.join.meta,
            &options.join.object_store,
        )
    }
    .memory_limit(options.memory.memory_limit.0)
    .object_cache(options.memory.object_cache.map(|size| size.0))
    .scan_memory(options.memory.scan_memory.map(|size| size.0));
    let mut settings = options.compaction.apply(settings);
    settings.groups.keep_removed_logs = options.keep_removed_logs.duration();
    settings.groups.check_files_every = options.check_files_every.duration();
    let raft = process.raft();
    process.add(Box::pin(start_data(settings, raft))).await?;
    process.run("data").await
}

/// Starts a data node, alone in its process or with other nodes.
pub(crate) async fn start_data(
    options: DataOptions,
    raft: RaftService,
) -> Result<RunningNode, Failure> {
    DataNode::start(options, raft, Arc::new(SystemClock))
        .await
        .map(|node| RunningNode::Data(Box::new(node)))
        .map_err(start_errors::data_failure)
}
