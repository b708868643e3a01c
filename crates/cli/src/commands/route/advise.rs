//! `route advise`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1::{self, RouteAdviceKind};

use crate::commands::balance::mode;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `route advise`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater route advise\n  tidewater route advise --output json\n\nThe load of the last minute counts. \
                  `tidewater balance set --hotspots on` lets the meta leader carry the operations out, one after the other."
)]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// Advice on routes. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Advised {
    hotspots: &'static str,
    /// Groups whose load is not known: their leaders have not reported enough windows.
    groups_without_load: Vec<u64>,
    /// Score of the busiest node per minute, and of all nodes on average.
    busiest_node_score: u64,
    mean_node_score: u64,
    advice: Vec<AdviceLine>,
}

/// An operation. Fields that do not apply are 0 or empty.
#[derive(Debug, Serialize)]
struct AdviceLine {
    kind: String,
    route_id: u64,
    table: String,
    neighbour_id: u64,
    target_group_id: u64,
    /// Hexadecimal.
    split_key: String,
    score: u64,
    reason: String,
}

impl From<v1::RouteAdvice> for AdviceLine {
    fn from(advice: v1::RouteAdvice) -> Self {
        let kind = advice.kind().as_str_name().trim_start_matches("ROUTE_ADVICE_KIND_");
        Self {
            kind: kind.to_lowercase(),
            route_id: advice.route_id,
            neighbour_id: advice.neighbour_id,
            target_group_id: advice.target_group_id,
            split_key: advice.split_key.iter().map(|byte| format!("{byte:02x}")).collect(),
            score: advice.score,
            table: advice.table,
            reason: advice.reason,
        }
    }
}

impl AdviceLine {
    /// The operation as a command, or the reason against one, and why.
    fn text(&self) -> String {
        let Self { route_id, table, neighbour_id, target_group_id, split_key, reason, .. } = self;
        let is = |kind: RouteAdviceKind| {
            kind.as_str_name().to_lowercase().ends_with(&format!("kind_{}", self.kind))
        };
        let operation = if is(RouteAdviceKind::Split) {
            format!("tidewater route split {route_id} --at {split_key}")
        } else if is(RouteAdviceKind::Merge) {
            format!("tidewater route merge {route_id} {neighbour_id}")
        } else if is(RouteAdviceKind::Move) {
            format!("tidewater route move {route_id} --to {target_group_id}")
        } else {
            format!("route {route_id}: {}", self.kind)
        };
        format!("{operation}  # table {table}: {reason}")
    }
}

impl Advised {
    fn text(&self) -> String {
        let Self { hotspots, busiest_node_score, mean_node_score, .. } = self;
        let nodes =
            format!("score per minute: busiest node {busiest_node_score}, mean {mean_node_score}");
        let mut lines = vec![format!("hotspots: {hotspots}"), nodes];
        if !self.groups_without_load.is_empty() {
            let groups: Vec<String> =
                self.groups_without_load.iter().map(ToString::to_string).collect();
            lines.push(format!("groups whose load is not known yet: {}", groups.join(", ")));
        }
        if self.advice.is_empty() {
            lines.push("no operation on routes is advised".to_owned());
        }
        lines.extend(self.advice.iter().map(AdviceLine::text));
        lines.join("\n")
    }
}

/// Shows the advice.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let response = options.client.connect().await?.advise_routes().await?;
    let advised = Advised {
        hotspots: mode(response.hotspots()),
        groups_without_load: response.unknown_group_ids,
        busiest_node_score: response.busiest_node_score,
        mean_node_score: response.mean_node_score,
        advice: response.advice.into_iter().map(Into::into).collect(),
    };
    fact(options.client.output, &advised, Advised::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_shown_as_a_command_with_its_reason() {
        let advice = v1::RouteAdvice {
            kind: RouteAdviceKind::Split.into(),
            route_id: 7,
            table: "flights".to_owned(),
            split_key: vec![0x80, 1].into(),
            score: 9,
            reason: "it is hot".to_owned(),
            ..v1::RouteAdvice::default()
        };
        let line = AdviceLine::from(advice);
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"kind":"split","route_id":7,"table":"flights","neighbour_id":0,"target_group_id":0,"split_key":"8001","score":9,"reason":"it is hot"}"#
        );
        assert_eq!(line.text(), "tidewater route split 7 --at 8001  # table flights: it is hot");
        let none = AdviceLine { kind: "no_split_key".to_owned(), ..line };
        assert_eq!(none.text(), "route 7: no_split_key  # table flights: it is hot");
        let idle = Advised {
            hotspots: "advise",
            groups_without_load: vec![3],
            busiest_node_score: 8,
            mean_node_score: 5,
            advice: Vec::new(),
        };
        assert_eq!(
            idle.text(),
            "hotspots: advise\nscore per minute: busiest node 8, mean 5\ngroups whose load is not known yet: 3\nno operation on routes is advised"
        );
    }
}
