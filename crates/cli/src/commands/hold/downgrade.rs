//! `hold downgrade NAME`

use clap::Args;
use tidewater_client::Client;
use tidewater_common::ids::Epoch;

use super::held_line::HeldLine;
use super::named::tables_of;
use crate::commands::client::ClientArgs;
use crate::commands::held_epoch::epoch_of;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::moment::Moment;

/// Options of `hold downgrade`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold downgrade nightly --as-of 10m\n  tidewater hold downgrade nightly --epoch \
                  5962137600000000\n\nThe epochs before the new one are no longer held. A hold cannot move to an earlier epoch."
)]
pub(crate) struct Options {
    /// Name of the hold
    name: String,

    /// Move the hold to this epoch
    #[arg(long, value_name = "EPOCH", required_unless_present = "as_of", conflicts_with = "as_of")]
    epoch: Option<u64>,

    /// Move the hold to the epoch of a time: a duration before now (by the time of the cluster, e.g. 5m), or a time
    #[arg(long, value_name = "TIME")]
    as_of: Option<Moment>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Moves a hold to a later epoch.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let epoch = options.epoch(&client).await?;
    let moved = client.downgrade_read_hold(&options.name, epoch).await?;
    let moved = HeldLine::returned(&client, moved);
    fact(options.client.output, &moved, |hold| {
        format!("hold {} is at epoch {}", hold.name, hold.epoch)
    })
}

impl Options {
    async fn epoch(&self, client: &Client) -> Result<Epoch, Failure> {
        match (self.epoch, self.as_of) {
            (Some(epoch), _) => Ok(Epoch(epoch)),
            (None, Some(moment)) => {
                let tables = tables_of(client, &self.name).await?;
                epoch_of(client, moment, &tables).await
            }
            (None, None) => Err(Failure::usage("name the new epoch with --epoch or --as-of")),
        }
    }
}
