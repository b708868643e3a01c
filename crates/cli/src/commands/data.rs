//! `data`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Failure;
use crate::server::listen::Listen;
use crate::server::logs::LogOptions;
use crate::text::size::Size;

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

    /// Directory for the logs of the groups
    #[arg(long, env = "TIDEWATER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,

    /// Addresses of meta nodes; one that answers is enough
    #[arg(long, env = "TIDEWATER_META", value_name = "ADDR", value_delimiter = ',', required = true)]
    pub(crate) meta: Vec<String>,

    /// Where files come to rest: file:///DIR, s3://BUCKET/PREFIX
    #[arg(long, env = "TIDEWATER_OBJECT_STORE", value_name = "URL")]
    pub(crate) object_store: String,

    /// Memory for rows that are not flushed; writers stall above it
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "512MiB")]
    pub(crate) memory_limit: Size,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs a data node until it is told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let _ = options;
    Err(Failure::other("not yet"))
}
