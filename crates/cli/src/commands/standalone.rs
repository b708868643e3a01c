//! `standalone`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit::Failure;
use crate::server::listen::{Exposure, Listen};
use crate::server::logs::LogOptions;
use crate::text::size::Size;

/// Options of `standalone`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater standalone --data-dir ./tidewater-data\n\nThe object \
                        store is the folder `objects` in the data directory.")]
pub(crate) struct Options {
    /// Directory for everything that is kept
    #[arg(long, env = "TIDEWATER_DATA_DIR", value_name = "DIR", default_value = "./tidewater-data")]
    pub(crate) data_dir: PathBuf,

    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "TIDEWATER_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7400")]
    pub(crate) listen: SocketAddr,

    /// Memory for rows that are not flushed; writers stall above it
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "512MiB")]
    pub(crate) memory_limit: Size,

    #[command(flatten)]
    pub(crate) exposure: Exposure,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs all roles in this process until it is told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let _ = options;
    Err(Failure::other("not yet"))
}
