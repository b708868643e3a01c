//! `meta`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Failure;
use crate::server::listen::Listen;
use crate::server::logs::LogOptions;

/// Options of `meta`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater meta --node-id 1 --listen 127.0.0.1:7401 --data-dir m1 \
                        --peers 1=127.0.0.1:7401,2=127.0.0.1:7402,3=127.0.0.1:7403 \
                        --bootstrap\n\nAll meta nodes of a new cluster are started with the same \
                        --peers, exactly one of them also with --bootstrap, once.")]
pub(crate) struct Options {
    /// Id of this node among the peers, from 1 on
    #[arg(long, env = "TIDEWATER_NODE_ID", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) node_id: u64,

    #[command(flatten)]
    pub(crate) listen: Listen,

    /// Directory for the log and the catalog
    #[arg(long, env = "TIDEWATER_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,

    /// All meta nodes: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(long, env = "TIDEWATER_PEERS", value_name = "ID=ADDR", value_delimiter = ',',
          required = true)]
    pub(crate) peers: Vec<crate::text::peer::Peer>,

    /// Make a new cluster of these peers
    #[arg(long, env = "TIDEWATER_BOOTSTRAP")]
    pub(crate) bootstrap: bool,

    #[command(flatten)]
    pub(crate) logs: LogOptions,
}

/// Runs a meta node until it is told to stop.
pub(crate) async fn run(_options: Options) -> Result<(), Failure> {
    Err(Failure::other("not yet"))
}
