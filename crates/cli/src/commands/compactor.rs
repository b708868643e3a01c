//! `compactor`

use clap::Args;
use tidewater_compactor_node::{CompactorNode, CompactorOptions};

use crate::exit::Failure;
use crate::server::join::Join;
use crate::server::listen::Listen;
use crate::server::logs::LogOptions;
use crate::server::node::RunningNode;
use crate::server::process::Process;
use crate::server::start_errors;
use crate::text::size::Size;

/// Options of `compactor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater compactor --listen 127.0.0.1:7421 --meta 127.0.0.1:7401 \
                        --object-store file:///var/lib/tidewater/objects"
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) listen: Listen,

    #[command(flatten)]
    pub(crate) join: Join,

    /// Jobs at the same time
    #[arg(long, env = "TIDEWATER_SLOTS", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) slots: u32,

    /// Memory for merging
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "512MiB")]
    pub(crate) memory_limit: Size,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs a compactor node until it is told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut process = Process::start(&options.listen, &options.logs).await?;
    let settings = CompactorOptions::new(process.advertised(), options.join.meta);
    process.add(start_compactor(settings)).await?;
    process.run("compactor").await
}

/// Starts a compactor node, in a process of its own or beside others.
pub(crate) async fn start_compactor(options: CompactorOptions) -> Result<RunningNode, Failure> {
    CompactorNode::start(options)
        .await
        .map(RunningNode::Compactor)
        .map_err(start_errors::of_compactor)
}
