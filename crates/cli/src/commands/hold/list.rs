//! `hold list`

use clap::Args;
use tidewater_proto::v1::ListedHold;

use super::held_line::HeldLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output;

/// Options of `hold list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold list\n  tidewater hold list --table flights --output json"
)]
pub(crate) struct Options {
    /// List only the holds of this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Lists the holds.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let holds = client.read_holds(options.table.as_deref()).await?;
    let now_ms = time_ms(&holds);
    let lines: Vec<HeldLine> =
        holds.into_iter().map(|listed| HeldLine::listed(listed, now_ms)).collect();
    output::list(options.client.output, &lines)
}

/// Returns the time of the cluster, which follows from the ends of the leases and the times until then. A lease that has ended
/// shows an earlier time.
fn time_ms(holds: &[ListedHold]) -> u64 {
    let times = holds.iter().filter_map(|listed| {
        let end_ms = listed.hold.as_ref()?.lease_end_ms;
        Some(end_ms.saturating_sub(listed.left_ms))
    });
    times.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::ReadHold;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn listed(lease_end_ms: u64, left_ms: u64) -> ListedHold {
        let hold = ReadHold { lease_end_ms, ..ReadHold::default() };
        ListedHold { hold: Some(hold), left_ms, ..ListedHold::default() }
    }

    #[test]
    fn leases_show_the_time_of_the_cluster() {
        let holds = [listed(NOW_MS + 30_000, 30_000), listed(NOW_MS - 5, 0)];
        assert_eq!(time_ms(&holds), NOW_MS);
        assert_eq!(time_ms(&[]), 0);
    }
}
