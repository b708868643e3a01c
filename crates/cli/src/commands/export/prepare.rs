//! `export prepare TABLE`

use arrow::datatypes::{DataType, TimeUnit};
use clap::Args;
use serde::Serialize;
use tidewater_proto::v1::ReadHold;
use tidewater_readers::value::instants::time_text;

use crate::commands::client::ClientArgs;
use crate::commands::held_epoch::named_epoch;
use crate::commands::holder::this_holder;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::as_of::AsOf;
use crate::text::lease::lease;
use crate::text::time_span::TimeSpan;

/// Options of `export prepare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater export prepare flights --lease 10m\n  tidewater export prepare flights --as-of \
                  5m\n\nPrints a token, its epoch, and the end of its lease by the time of the cluster. Until then, `tidewater export \
                  create --token` can export the table as of this epoch or a later one. Without --as-of, the token is at the earliest \
                  epoch that can be read. The token is the name of a hold: `tidewater hold renew` extends its lease."
)]
pub(crate) struct Options {
    /// Table to hold
    table: String,

    /// Hold an epoch: its number, or that of a time: a duration before now (by the time of the cluster, e.g. 5m), or a time
    #[arg(long, value_name = "EPOCH|TIME", value_parser = AsOf::held)]
    as_of: Option<AsOf>,

    /// Time until the token expires, from each renewal; 10s to 30d
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = lease)]
    lease: TimeSpan,

    /// Text about the holder, for people [default: user@host]
    #[arg(long, value_name = "TEXT")]
    holder: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Token of an export. The JSON field names are stable; times are in milliseconds.
#[derive(Debug, Serialize)]
struct Prepared {
    token: String,
    table: String,
    epoch: u64,
    lease_ms: u64,
    /// Time of the cluster at which the token expires unless it is renewed, since the Unix epoch.
    lease_end_ms: u64,
}

impl Prepared {
    fn new(table: String, hold: ReadHold) -> Self {
        Self {
            token: hold.name,
            table,
            epoch: hold.epoch,
            lease_ms: hold.lease_ms,
            lease_end_ms: hold.lease_end_ms,
        }
    }

    fn text(&self) -> String {
        let Self { token, table, epoch, lease_end_ms, .. } = self;
        let end = time_of(*lease_end_ms);
        format!("token {token} holds table {table} at epoch {epoch} until {end}")
    }
}

/// Returns the text of a time in milliseconds since the Unix epoch.
fn time_of(ms: u64) -> String {
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let text = i64::try_from(ms).ok().and_then(|ms| time_text(&utc, ms).ok());
    text.unwrap_or_else(|| format!("{ms} ms"))
}

/// Holds a table for an export.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let table = options.table;
    let epoch = named_epoch(&client, options.as_of, &table).await?;
    let holder = options.holder.unwrap_or_else(this_holder);
    let lease = options.lease.duration();
    let held = client.prepare_export(&table, epoch, lease, &holder).await?;
    fact(options.client.output, &Prepared::new(table, held), Prepared::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_has_stable_json_fields() {
        let hold = ReadHold {
            name: "k".to_owned(),
            epoch: 7,
            lease_ms: 60_000,
            lease_end_ms: 1_800_000_000_000,
            ..ReadHold::default()
        };
        let prepared = Prepared::new("t".to_owned(), hold);
        assert_eq!(
            serde_json::to_string(&prepared).unwrap(),
            r#"{"token":"k","table":"t","epoch":7,"lease_ms":60000,"lease_end_ms":1800000000000}"#
        );
        let text = "token k holds table t at epoch 7 until 2027-01-15T08:00:00Z";
        assert_eq!(prepared.text(), text);
    }
}
