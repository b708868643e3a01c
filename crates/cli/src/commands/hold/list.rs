//! `hold list`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::{HoldCost, TableHoldCosts};
use tidewater_client::{Client, ClientError};
use tidewater_common::ids::Epoch;
use tidewater_proto::v1::{ListedHold, Reason};

use super::held_line::HeldLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{self, Listed};

/// Options of `hold list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold list\n  tidewater hold list --table flights --costs --output json\n\nWith --costs, KEPT VERSIONS and \
                  KEPT SIZE are what would be freed in addition if the hold ended after all earlier ones of its tables: `tidewater table \
                  describe --costs` shows the sums. Holds of a table at the same epoch \
                  show the same cost, which only all of them keep. Sizes are estimated by the average version. The count of a \
                  large region takes longer than the default --timeout."
)]
pub(crate) struct Options {
    /// List only the holds of this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    /// Show what the holds keep; reads the keys of all rows of their tables
    #[arg(long)]
    costs: bool,

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
    if !options.costs {
        return output::list(options.client.output, &lines);
    }
    let costs = costs(&client, &lines).await?;
    let lines: Vec<CostLine> = lines.into_iter().map(|line| CostLine::new(line, &costs)).collect();
    output::list(options.client.output, &lines)
}

/// Returns the costs of the holds of all tables of these holds.
async fn costs(
    client: &Client,
    lines: &[HeldLine],
) -> Result<BTreeMap<String, TableHoldCosts>, Failure> {
    let tables: BTreeSet<&String> = lines.iter().flat_map(|line| &line.tables).collect();
    let mut costs = BTreeMap::new();
    for table in tables {
        costs.insert(table.clone(), costs_of(client, table).await?);
    }
    Ok(costs)
}

/// Returns the costs of the holds of a table; none if it was removed or dropped since it was listed.
pub(crate) async fn costs_of(client: &Client, table: &str) -> Result<TableHoldCosts, ClientError> {
    let found = client.hold_costs(table).await;
    let is_gone = |error: &ClientError| match error.refusal() {
        Some(refusal) => refusal.reason == Reason::TableNotFound,
        None => matches!(error, ClientError::TableNotFound(_)),
    };
    match found {
        Err(error) if is_gone(&error) => Ok(TableHoldCosts::default()),
        found => found,
    }
}

/// A hold and its cost. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct CostLine {
    #[serde(flatten)]
    line: HeldLine,
    /// Row versions that would be dropped, in addition, if the hold ended after all earlier ones of its tables.
    kept_versions: u64,
    /// Their size, estimated by the average version.
    kept_bytes: u64,
}

impl CostLine {
    fn new(line: HeldLine, costs: &BTreeMap<String, TableHoldCosts>) -> Self {
        let of_tables = line.tables.iter().filter_map(|table| costs.get(table));
        let epoch = Epoch(line.epoch);
        let at_epoch = of_tables.filter_map(|of| of.by_epoch.get(&epoch).copied());
        let HoldCost { versions, bytes } = at_epoch.fold(HoldCost::default(), HoldCost::plus);
        Self { line, kept_versions: versions, kept_bytes: bytes }
    }
}

impl Listed for CostLine {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "HOLDER", "TABLES", "EPOCH", "AGE", "LEASE LEFT", "KEPT VERSIONS", "KEPT SIZE"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.line.cells();
        cells.extend([grouped(self.kept_versions), bytes_text(self.kept_bytes)]);
        cells
    }
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
    fn hold_shows_the_sum_of_its_tables() {
        let hold = ReadHold { name: "h".into(), epoch: 7, ..ReadHold::default() };
        let tables = vec!["t".into(), "u".into(), "unknown".into()];
        let listed = ListedHold { hold: Some(hold), tables, left_ms: 0 };
        let of_table = |versions| TableHoldCosts {
            by_epoch: [
                (Epoch(7), HoldCost { versions, bytes: 1_024 }),
                (Epoch(9), HoldCost::default()),
            ]
            .into(),
        };
        let costs = [("t".to_owned(), of_table(1_000)), ("u".to_owned(), of_table(234))].into();
        let line = CostLine::new(HeldLine::listed(listed, NOW_MS), &costs);
        assert_eq!(line.cells()[6..], ["1,234", "2.0 KiB"]);
        assert_eq!(line.cells().len(), CostLine::HEADINGS.len());
        let json = serde_json::to_string(&line).unwrap();
        assert!(json.ends_with(r#""kept_versions":1234,"kept_bytes":2048}"#), "{json}");
    }

    #[test]
    fn leases_show_the_time_of_the_cluster() {
        let holds = [listed(NOW_MS + 30_000, 30_000), listed(NOW_MS - 5, 0)];
        assert_eq!(time_ms(&holds), NOW_MS);
        assert_eq!(time_ms(&[]), 0);
    }
}
