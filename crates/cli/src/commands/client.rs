//! Shared options of client commands, and the connection to the cluster.

use clap::Args;
use tidewater_client::{Client, ClientOptions};
use tidewater_common::address::parse_address;

use crate::exit::Failure;
use crate::output::Output;
use crate::text::time_span::TimeSpan;

/// Options of every client command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// Addresses of meta nodes; one reachable node is enough
    #[arg(
        long,
        env = "TIDEWATER_META",
        value_name = "ADDR",
        value_delimiter = ',',
        value_parser = parse_address,
        default_value = "127.0.0.1:7400"
    )]
    pub(crate) meta: Vec<String>,

    /// Output format; JSON is stable and meant for scripts
    #[arg(long, env = "TIDEWATER_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Output,

    /// Deadline of one operation, including retries
    #[arg(long, env = "TIDEWATER_TIMEOUT", value_name = "TIME", default_value = "60s")]
    pub(crate) timeout: TimeSpan,
}

impl ClientArgs {
    /// Returns the client options for these arguments.
    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions {
            meta: self.meta.clone(),
            deadline: self.timeout.duration(),
            ..ClientOptions::default()
        }
    }

    /// Connects to the cluster.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.options()).await?)
    }
}
