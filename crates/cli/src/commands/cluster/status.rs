//! `cluster status`

mod levels;
mod watch;

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1;

use self::levels::{LevelStatus, StatusNodeLine};
use super::problem::{ProblemLine, check_healthy, problem_lines};
use crate::commands::client::ClientArgs;
use crate::commands::group;
use crate::exit::Failure;
use crate::output::{Listed, fact, table};
use crate::text::time_span::TimeSpan;

/// Options of `cluster status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater cluster status --output json\n  tidewater cluster status \
                  --watch 5s\n\nOn a terminal, --watch redraws the status; otherwise it appends each \
                  status below a line with the time. It continues while no node can be reached, until \
                  Ctrl-C.\n\nThe exit status is 0 if there is no problem, otherwise 5; with --watch, that \
                  of the last status."
)]
pub(crate) struct Options {
    /// Repeat with this interval until Ctrl-C [default interval: 2s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s")]
    watch: Option<TimeSpan>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Status of the cluster. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    cluster_id: String,
    catalog_version: u64,
    leader: u64,
    pub(super) healthy: bool,
    pub(super) problems: Vec<String>,
    problem_details: Vec<ProblemLine>,
    revision: u64,
    term: u64,
    tables: u32,
    regions: u32,
    #[serde(flatten)]
    levels: LevelStatus,
    nodes: Vec<StatusNodeLine>,
    groups: Vec<group::GroupLine>,
}

impl From<v1::ClusterStatusResponse> for Status {
    fn from(status: v1::ClusterStatusResponse) -> Self {
        Self {
            problem_details: problem_lines(&status),
            levels: LevelStatus::from(&status),
            nodes: levels::node_lines(&status),
            cluster_id: status.cluster_id,
            catalog_version: status.catalog_version,
            leader: status.leader,
            healthy: status.healthy,
            problems: status.problems,
            revision: status.revision,
            term: status.term,
            tables: status.tables,
            regions: status.regions,
            groups: status.groups.iter().map(group::GroupLine::from).collect(),
        }
    }
}

impl Status {
    fn check_healthy(&self) -> Result<(), Failure> {
        check_healthy(self.healthy, self.problems.len())
    }
}

/// Prints the status of the cluster, once or repeatedly.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    if let Some(interval) = options.watch {
        return watch::run(&options.client, interval).await;
    }
    let status = options.client.connect().await?.cluster_status().await?;
    let status = Status::from(status);
    fact(options.client.output, &status, text)?;
    status.check_healthy()
}

fn text(status: &Status) -> String {
    let mut lines = vec![
        format!("cluster  {}", status.cluster_id),
        format!(
            "meta     leader {} in term {}, catalog version {}",
            status.leader, status.term, status.catalog_version
        ),
        format!("holds    {} tables, {} regions", status.tables, status.regions),
    ];
    lines.extend(status.levels.lines());
    if status.healthy && status.problems.is_empty() {
        lines.push("health   healthy".to_owned());
    } else {
        lines.push(format!("health   NOT HEALTHY: {} problems", status.problems.len()));
        lines.extend(status.problem_details.iter().flat_map(ProblemLine::lines));
    }
    lines.push(String::new());
    lines.push(table(StatusNodeLine::HEADINGS, status.nodes.iter().map(StatusNodeLine::cells)));
    if !status.groups.is_empty() {
        lines.push(String::new());
        let rows = status.groups.iter().map(group::GroupLine::cells);
        lines.push(table(group::GroupLine::HEADINGS, rows));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_status_has_stable_json_fields() {
        let status = Status::from(v1::ClusterStatusResponse {
            cluster_id: "c".into(),
            problems: vec!["p".into()],
            ..Default::default()
        });
        let json = serde_json::to_value(&status).unwrap();
        for field in
            ["cluster_id", "catalog_version", "leader", "healthy", "problems", "feature_level"]
        {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert!(text(&status).contains("- p"), "{}", text(&status));
    }
}
