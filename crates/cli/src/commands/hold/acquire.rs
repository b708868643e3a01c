//! `hold acquire NAME TABLE...`

use clap::Args;
use tidewater_client::{AcquireHold, Client};
use tidewater_common::ids::Epoch;

use super::held_line::HeldLine;
use super::named::tables_of;
use crate::commands::client::ClientArgs;
use crate::commands::held_epoch::epoch_of;
use crate::commands::holder::this_holder;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::lease::lease;
use crate::text::moment::Moment;
use crate::text::time_span::TimeSpan;

/// Options of `hold acquire`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold acquire nightly flights airlines --lease 6h\n  tidewater hold acquire audit flights \
                  --as-of 5m\n  tidewater hold acquire copy --like nightly\n\nPrints the epoch of the hold, for `scan --as-of`: \
                  without --epoch and --as-of, it is the earliest one that all tables can be read at, or that of the hold in \
                  --like. A hold at the current epoch can be read a second later. Renew the hold before its lease expires."
)]
pub(crate) struct Options {
    /// Name of the hold
    name: String,

    /// Names of the tables
    #[arg(value_name = "TABLE", required_unless_present = "like", conflicts_with = "like")]
    tables: Vec<String>,

    /// Hold this epoch
    #[arg(long, value_name = "EPOCH", conflicts_with = "as_of")]
    epoch: Option<u64>,

    /// Hold the epoch of a time: a duration before now (by the time of the cluster, e.g. 5m), or a time
    #[arg(long, value_name = "TIME")]
    as_of: Option<Moment>,

    /// Hold the tables of another hold, at its epoch or a later one
    #[arg(long, value_name = "HOLD")]
    like: Option<String>,

    /// Time until the hold expires, from each renewal; 10s to 30d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lease)]
    lease: TimeSpan,

    /// Text about the holder, for people [default: user@host]
    #[arg(long, value_name = "TEXT")]
    holder: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Acquires a hold.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let hold = AcquireHold {
        name: options.name.clone(),
        holder: match &options.holder {
            Some(holder) => holder.clone(),
            None => this_holder(),
        },
        tables: options.tables.clone(),
        epoch: options.epoch(&client).await?,
        lease: options.lease.duration(),
        like: options.like.clone(),
    };
    let acquired = HeldLine::returned(&client, client.acquire_read_hold(hold).await?);
    fact(options.client.output, &acquired, |hold| {
        format!("hold {} acquired at epoch {}", hold.name, hold.epoch)
    })
}

impl Options {
    /// Returns the epoch of the hold; `None`: the cluster chooses it.
    async fn epoch(&self, client: &Client) -> Result<Option<Epoch>, Failure> {
        let Some(moment) = self.as_of else { return Ok(self.epoch.map(Epoch)) };
        let tables = match &self.like {
            Some(like) => tables_of(client, like).await?,
            None => self.tables.clone(),
        };
        epoch_of(client, moment, &tables).await.map(Some)
    }
}
