//! `cluster health`

use clap::Args;
use serde::Serialize;

use super::problem::{ProblemLine, check_healthy, problem_lines};
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
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
    problem_details: Vec<ProblemLine>,
}

/// Succeeds if the cluster reports that it is healthy.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let status = options.client.connect().await?.cluster_status().await?;
    let problem_details = problem_lines(&status);
    let health = Health { healthy: status.healthy, problems: status.problems, problem_details };
    fact(options.client.output, &health, |health| {
        let word = if health.healthy { "healthy" } else { "not healthy" };
        [word.to_owned()].into_iter().chain(health.problems.clone()).collect::<Vec<_>>().join("\n")
    })?;
    check_healthy(health.healthy, health.problems.len())
}
