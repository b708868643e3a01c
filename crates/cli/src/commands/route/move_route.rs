//! `route move ROUTE --to GROUP`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::{GroupId, RegionId};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `route move`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater route move 8 --to 2")]
pub(crate) struct Options {
    /// Id of a route, as `route list` prints it
    #[arg(value_name = "ROUTE")]
    route: u64,

    /// Id of the group that is to serve it, as `group list` prints it
    #[arg(long, value_name = "GROUP")]
    to: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// Route that was moved. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Moved {
    route_id: u64,
    group_id: u64,
}

/// Moves a route, and waits until the group serves it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    client.move_route(RegionId(options.route), GroupId(options.to)).await?;
    let moved = Moved { route_id: options.route, group_id: options.to };
    fact(options.client.output, &moved, |moved| {
        format!("route {} moved to group {}", moved.route_id, moved.group_id)
    })
}
