//! `compactor`

use clap::Args;
use tidewater_compactor_node::{CompactorNode, CompactorOptions};
use tidewater_hook_kinds::EventTables;

use crate::exit::Failure;
use crate::server::events::EventArgs;
use crate::server::hook_limits::{HookArgs, directory_grants};
use crate::server::join::{Join, MemoryLimitError, checked_limit};
use crate::server::listen::Listen;
use crate::server::logs::LogOptions;
use crate::server::node::RunningNode;
use crate::server::process::Process;
use crate::server::start_errors;
use crate::text::size::Size;
use crate::text::time_span::TimeSpan;

/// Options of `compactor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater compactor --listen 127.0.0.1:7421 --meta 127.0.0.1:7401 \
                        --object-store file:///var/lib/tidewater/objects \
                        --event-dir /var/lib/tidewater/compactor-events"
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) listen: Listen,

    #[command(flatten)]
    pub(crate) join: Join,

    /// Concurrent jobs, each using about one core [default: number of cores]
    #[arg(long, env = "TIDEWATER_SLOTS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) slots: Option<u32>,

    /// Memory limit of the process; a lower limit runs fewer jobs concurrently
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "512MiB",
          value_parser = memory_limit)]
    pub(crate) memory_limit: Size,

    /// Space to keep free on the disk of an object store that is a local directory
    #[arg(long, env = "TIDEWATER_DISK_RESERVE", value_name = "SIZE", default_value = "256MiB")]
    pub(crate) disk_reserve: Size,

    /// Time for running jobs to complete when the node stops; data nodes retry the others
    #[arg(long, env = "TIDEWATER_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub(crate) drain_timeout: TimeSpan,

    #[command(flatten)]
    pub(crate) hooks: HookArgs,

    #[command(flatten)]
    pub(crate) events: EventArgs,

    /// Duration from which a compaction is recorded as an event; 0s: never
    #[arg(long, env = "TIDEWATER_SLOW_OPERATION", value_name = "TIME", default_value = "1m")]
    pub(crate) slow_operation: TimeSpan,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs a compactor node until a signal stops it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let event_dir = options.events.directory(None)?;
    let mut grants = directory_grants(None, event_dir, &options.join.object_store);
    let hooks = options.hooks.access(&mut grants)?;
    let mut process = Process::start(&options.listen, &options.logs).await?;
    let events = process.record_events(&options.events, None, &options.join.meta).await?;
    let event_tables = EventTables::default();
    let hooks = hooks.with_events(events.clone(), event_tables.clone());
    let mut settings = CompactorOptions {
        memory_limit: options.memory_limit.0,
        disk_reserve: options.disk_reserve.0,
        drain: options.drain_timeout.duration(),
        hook_limits: options.hooks.limits(),
        hook_kinds: tidewater_hook_kinds::builtin(hooks),
        events,
        event_tables,
        slow_operation: options.slow_operation.limit(),
        problems: process.problems(),
        max_clock_difference: options.join.clock.max_clock_difference.duration(),
        ..CompactorOptions::new(process.advertised(), options.join.meta, &options.join.object_store)
    };
    if let Some(slots) = options.slots {
        settings.slots = usize::try_from(slots).unwrap_or(usize::MAX);
    }
    process.add(start_compactor(settings)).await?;
    process.run("compactor").await
}

/// Parses a memory limit that is sufficient for a compactor.
fn memory_limit(text: &str) -> Result<Size, MemoryLimitError> {
    checked_limit(text, "compactor", CompactorOptions::MIN_MEMORY_LIMIT)
}

/// Starts a compactor node, alone in its process or with other nodes.
pub(crate) async fn start_compactor(options: CompactorOptions) -> Result<RunningNode, Failure> {
    CompactorNode::start(options)
        .await
        .map(|node| RunningNode::Compactor(Box::new(node)))
        .map_err(start_errors::compactor_failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compactor_rejects_too_small_memory_limit() {
        assert_eq!(memory_limit("256MiB"), Ok(Size(256 << 20)));
        assert_eq!(
            memory_limit("255MiB").unwrap_err().to_string(),
            "255MiB is too small for a compactor node (minimum 256MiB)"
        );
    }
}
