//! `hold acquire NAME TABLE...`

use std::path::Path;

use clap::Args;
use tidewater_client::{AcquireHold, Client};
use tidewater_common::file::read_text;
use tidewater_common::ids::Epoch;

use super::epoch::{epoch_of, tables_of};
use super::held_line::HeldLine;
use super::lease::lease;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::moment::Moment;
use crate::text::time_span::TimeSpan;

/// File with the name of the machine.
const HOST_FILE: &str = "/proc/sys/kernel/hostname";
/// Largest content of the file, in bytes.
const MAX_HOST_BYTES: u64 = 1_024;

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

/// Returns the holder for the user and the machine of this process.
fn this_holder() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    let host = match std::env::var("HOSTNAME") {
        Ok(host) => Some(host),
        Err(_) => read_text(Path::new(HOST_FILE), MAX_HOST_BYTES).ok(),
    };
    holder(user.as_deref(), host.as_deref())
}

/// Returns `user@host`; empty if one of them is unknown.
fn holder(user: Option<&str>, host: Option<&str>) -> String {
    let known = |text: Option<&str>| {
        text.map(str::trim).filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    match (known(user), known(host)) {
        (Some(user), Some(host)) => format!("{user}@{host}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_needs_user_and_host() {
        assert_eq!(holder(Some("ops"), Some("db-1\n")), "ops@db-1");
        for (user, host) in [
            (None, Some("db-1")),
            (Some("ops"), None),
            (Some(""), Some("db-1")),
            (Some("ops"), Some("\n")),
        ] {
            assert_eq!(holder(user, host), "", "{user:?} {host:?}");
        }
    }
}
