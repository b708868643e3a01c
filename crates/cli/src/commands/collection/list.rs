//! `collection list`

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::{HoldCost, TableSize};
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1::CollectionFrontiers;

use super::policy_text::policy_text;
use crate::commands::client::ClientArgs;
use crate::commands::hold::list::costs_of;
use crate::commands::region::warn_about_silent_nodes;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, duration_text, grouped};
use crate::output::{self, Listed};

/// Options of `collection list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater collection list --output json\n\nROWS and SIZE are those of `table describe`, with all versions that holds and \
                  the policy keep; `-`: a region was not reported, or --costs is not given. With --costs (and a longer --timeout for large regions), HELD SIZE is the size of the versions that only holds keep, estimated by the average \
                  version: `tidewater hold list --costs` shows each hold. LAG is the time between since and upper. POLICY is \
                  `default` (the history of the cluster), `keep-all`, `valid-from EPOCH`, `empty`, or `lag TIME`, with `granularity \
                  TIME` if it is rounded; ` + ` is between the parts of a combined policy, which keeps all that one of them \
                  keeps. A table that has had a hold or a policy shows the default policy as a lag.\n\nUPPER is the epoch of the \
                  last barrier; earlier ones may be incomplete in groups that lag. SINCE is an estimate unless the table \
                  has a record with one: until its first hold or policy, and after a truncation until its regions were \
                  asked. `tidewater table describe` asks the regions. OLDEST HOLD is the hold at the oldest epoch. \
                  CAPABILITIES are set by programs (`tidewater collection capabilities`), and keep epochs, too. A dropped table is listed while holds keep its rows, which can be \
                  read under the listed name; the name that it had is in parentheses. UPPER of a refreshable table is \
                  after its last publication, or after the epoch of a later hold."
)]
pub(crate) struct Options {
    /// Show what the holds of each table keep; reads the keys of all rows of held tables
    #[arg(long)]
    costs: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Readable epochs of a table. The JSON field names and the texts of policies are stable.
#[derive(Debug, Serialize)]
pub(super) struct CollectionLine {
    table_id: u32,
    pub(super) table: String,
    /// Oldest epoch that can be read; an estimate unless the table has a record with one.
    since: u64,
    /// Epoch of the last barrier; earlier ones may be incomplete in groups that lag.
    upper: u64,
    /// Time between them; null if one has no begin.
    lag_ms: Option<u64>,
    pub(super) policy: String,
    /// Number of holds.
    holds: u32,
    /// Hold at the oldest epoch.
    oldest_hold: Option<String>,
    oldest_hold_epoch: Option<u64>,
    /// Number of capabilities.
    pub(super) capabilities: u64,
    /// Name that the table had; null: it is not dropped.
    dropped: Option<String>,
    dropped_ms: Option<u64>,
}

impl From<CollectionFrontiers> for CollectionLine {
    fn from(frontiers: CollectionFrontiers) -> Self {
        Self {
            table_id: frontiers.table_id,
            table: frontiers.table,
            since: frontiers.since,
            upper: frontiers.upper,
            lag_ms: lag_ms(Epoch(frontiers.since), Epoch(frontiers.upper)),
            policy: policy_text(frontiers.policy.as_ref()),
            holds: frontiers.holds,
            oldest_hold_epoch: frontiers.least.as_ref().map(|hold| hold.epoch),
            oldest_hold: frontiers.least.map(|hold| hold.name),
            capabilities: frontiers.capabilities,
            dropped_ms: (frontiers.dropped_ms > 0).then_some(frontiers.dropped_ms),
            dropped: (!frontiers.dropped_name.is_empty()).then_some(frontiers.dropped_name),
        }
    }
}

/// Returns the time between two epochs in milliseconds; `None`: one of them has no begin.
pub(crate) fn lag_ms(since: Epoch, upper: Epoch) -> Option<u64> {
    let (since_ms, upper_ms) = since.ms().zip(upper.ms())?;
    Some(upper_ms.saturating_sub(since_ms))
}

impl CollectionLine {
    /// Returns the text of since and upper, for the commands that change what keeps since back.
    pub(super) fn bounds(&self) -> String {
        format!("since is {}, and upper is {}", self.since, self.upper)
    }

    /// Cells without the size.
    fn cells(&self) -> Vec<String> {
        let dash = || "-".to_owned();
        let span = |ms: u64| duration_text(Duration::from_millis(ms));
        vec![
            match &self.dropped {
                Some(name) => format!("{} (dropped: {name})", self.table),
                None => self.table.clone(),
            },
            self.since.to_string(),
            self.upper.to_string(),
            self.lag_ms.map_or_else(dash, span),
            self.policy.clone(),
            self.holds.to_string(),
            self.oldest_hold.clone().unwrap_or_else(dash),
            self.capabilities.to_string(),
        ]
    }
}

/// A line of the list. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct ListedCollection {
    #[serde(flatten)]
    line: CollectionLine,
    /// Row versions in files and in memory; null unless the owners of all regions have reported.
    rows: Option<u64>,
    /// Size of the files, which includes the versions that holds and the policy keep.
    bytes: Option<u64>,
    /// Versions that only holds keep; null without --costs.
    held_versions: Option<u64>,
    /// Their size, estimated by the average version.
    held_bytes: Option<u64>,
}

impl ListedCollection {
    fn new(line: CollectionLine, size: Option<&TableSize>) -> Self {
        let known = size.filter(|size| size.reported == size.regions);
        Self {
            line,
            rows: known.map(|size| size.rows),
            bytes: known.map(|size| size.bytes),
            held_versions: None,
            held_bytes: None,
        }
    }
}

impl Listed for ListedCollection {
    const HEADINGS: &'static [&'static str] = &[
        "TABLE",
        "ROWS",
        "SIZE",
        "SINCE",
        "UPPER",
        "LAG",
        "POLICY",
        "HOLDS",
        "HELD SIZE",
        "OLDEST HOLD",
        "CAPABILITIES",
    ];

    fn cells(&self) -> Vec<String> {
        let dash = || "-".to_owned();
        let mut cells = self.line.cells();
        let rows = self.rows.map_or_else(dash, grouped);
        cells.splice(1..1, [rows, self.bytes.map_or_else(dash, bytes_text)]);
        cells.insert(8, self.held_bytes.map_or_else(dash, bytes_text));
        cells
    }
}

/// Lists the readable epochs and the sizes of all tables.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let found = client.collection_frontiers(&[]).await?;
    let (sizes, silent) = client.table_sizes().await?;
    warn_about_silent_nodes(&silent);
    let mut lines: Vec<ListedCollection> = found
        .into_iter()
        .map(CollectionLine::from)
        .map(|line| {
            let size = sizes.get(&TableId(line.table_id));
            ListedCollection::new(line, size)
        })
        .collect();
    if options.costs {
        for of in &mut lines {
            let held = match of.line.holds {
                0 => HoldCost::default(),
                _ => costs_of(&client, &of.line.table).await?.total(),
            };
            of.held_versions = Some(held.versions);
            of.held_bytes = Some(held.bytes);
        }
    }
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::ReadHold;

    use super::*;

    fn frontiers() -> CollectionFrontiers {
        let ms = 1_800_000_000_000;
        let least = ReadHold { name: "h".into(), epoch: 7, ..ReadHold::default() };
        CollectionFrontiers {
            table_id: 3,
            table: "t".into(),
            since: Epoch::at_ms(ms).get(),
            upper: Epoch::at_ms(ms + 300_000).get(),
            policy: None,
            holds: 2,
            least: Some(least),
            capabilities: 5,
            ..CollectionFrontiers::default()
        }
    }

    #[test]
    fn collection_has_stable_json_fields() {
        let of = frontiers();
        let (since, upper) = (of.since, of.upper);
        let line = CollectionLine::from(of);
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            format!(
                r#"{{"table_id":3,"table":"t","since":{since},"upper":{upper},"lag_ms":300000,"policy":"default","holds":2,"oldest_hold":"h","oldest_hold_epoch":7,"capabilities":5,"dropped":null,"dropped_ms":null}}"#
            )
        );
        assert_eq!(line.cells()[3..], ["5m 0s", "default", "2", "h", "5"]);
    }

    #[test]
    fn size_is_shown_once_all_regions_have_reported() {
        let size = TableSize { regions: 2, reported: 2, rows: 1_200, bytes: 2_048 };
        let missing = TableSize { reported: 1, ..size };
        let shown = |size| ListedCollection::new(CollectionLine::from(frontiers()), size);
        assert_eq!(shown(Some(&size)).cells()[..3], ["t", "1,200", "2.0 KiB"]);
        let held = ListedCollection { held_bytes: Some(1_024), ..shown(Some(&size)) };
        assert_eq!(held.cells()[7..10], ["2", "1.0 KiB", "h"]);
        let json = serde_json::to_string(&shown(Some(&size))).unwrap();
        assert!(
            json.ends_with(r#""rows":1200,"bytes":2048,"held_versions":null,"held_bytes":null}"#),
            "{json}"
        );
        for unknown in [Some(&missing), None] {
            assert_eq!(shown(unknown).cells()[..3], ["t", "-", "-"]);
        }
        assert_eq!(shown(None).cells().len(), ListedCollection::HEADINGS.len());
    }

    #[test]
    fn dropped_table_shows_the_name_that_it_had() {
        let dropped = CollectionFrontiers {
            table: "_tw_dropped_3".into(),
            dropped_name: "t".into(),
            dropped_ms: 9,
            ..frontiers()
        };
        let line = CollectionLine::from(dropped);
        assert_eq!(line.cells()[0], "_tw_dropped_3 (dropped: t)");
        let json = serde_json::to_string(&line).unwrap();
        assert!(json.ends_with(r#""dropped":"t","dropped_ms":9}"#), "{json}");
    }

    #[test]
    fn collection_of_a_new_leader_has_no_lag() {
        let of = CollectionFrontiers { upper: 0, least: None, ..frontiers() };
        let line = CollectionLine::from(of);
        assert_eq!((line.lag_ms, &line.oldest_hold), (None, &None));
        assert_eq!(line.cells()[3..], ["-", "default", "2", "-", "5"]);
    }
}
