//! `cluster health`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output::fact;

/// Options of `cluster health`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater cluster health && echo healthy")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    problems: Vec<String>,
}

/// Succeeds if the cluster reports that it is healthy.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let status = options.client.connect().await?.cluster_status().await?;
    let health = Health { healthy: status.healthy, problems: status.problems };
    fact(options.client.output, &health, |health| {
        let word = if health.healthy { "healthy" } else { "not healthy" };
        [word.to_owned()].into_iter().chain(health.problems.clone()).collect::<Vec<_>>().join("\n")
    })?;
    if health.healthy {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Unavailable,
        "the cluster is not healthy: `tidewater cluster status` shows its nodes and groups",
    ))
}
