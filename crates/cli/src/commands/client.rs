//! Options that all client commands share, and connecting.

use clap::Args;
use tidewater_client::{Client, ClientOptions};

use crate::exit::Failure;
use crate::output::Output;
use crate::text::span::Span;

/// Options of every client command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// Addresses of meta nodes; one that answers is enough
    #[arg(
        long,
        env = "TIDEWATER_META",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    pub(crate) meta: Vec<String>,

    /// How results are printed; JSON is stable and meant for scripts
    #[arg(long, env = "TIDEWATER_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Output,

    /// How long one operation may take, repeats included
    #[arg(long, env = "TIDEWATER_TIMEOUT", value_name = "TIME", default_value = "60s")]
    pub(crate) timeout: Span,
}

impl ClientArgs {
    /// The client's options as these arguments give them.
    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions {
            meta: self.meta.iter().map(|address| address.trim().to_owned()).collect(),
            deadline: self.timeout.duration(),
            ..ClientOptions::default()
        }
    }

    /// Connects to the cluster.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.options()).await?)
    }
}
