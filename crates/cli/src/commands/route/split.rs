//! `route split ROUTE --at KEY`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::RegionId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{fact, unhex};

/// Options of `route split`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater route split 7 --at 8000000000000400")]
pub(crate) struct Options {
    /// Id of the route, as `route list` prints it
    #[arg(value_name = "ROUTE")]
    route: u64,

    /// First row key of the second half, in hexadecimal, as `route list` prints keys
    #[arg(long, value_name = "KEY", value_parser = unhex)]
    at: bytes::Bytes,

    #[command(flatten)]
    client: ClientArgs,
}

/// A route that was split. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Split {
    route_id: u64,
    child_ids: Vec<u64>,
}

/// Splits a route, and waits until its children serve it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let children = client.split_route(RegionId(options.route), options.at).await?;
    let split =
        Split { route_id: options.route, child_ids: children.iter().map(|id| id.get()).collect() };
    fact(options.client.output, &split, |split| {
        let children: Vec<String> = split.child_ids.iter().map(u64::to_string).collect();
        format!("route {} split into {}", split.route_id, children.join(" and "))
    })
}
