//! `route merge ROUTE NEIGHBOUR`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::RegionId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `route merge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater route merge 8 9")]
pub(crate) struct Options {
    /// Id of a route, as `route list` prints it
    #[arg(value_name = "ROUTE")]
    route: u64,

    /// Id of the route before or after it, of the same table and group
    #[arg(value_name = "NEIGHBOUR")]
    neighbour: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// Routes that were merged. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Merged {
    route_ids: [u64; 2],
    child_id: u64,
}

/// Merges two routes, and waits until their child serves them.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let route_ids = [options.route, options.neighbour];
    let child = client.merge_routes(RegionId(route_ids[0]), RegionId(route_ids[1])).await?;
    let merged = Merged { route_ids, child_id: child.get() };
    fact(options.client.output, &merged, |merged| {
        let [first, second] = merged.route_ids;
        format!("routes {first} and {second} merged into {}", merged.child_id)
    })
}
