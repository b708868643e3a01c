//! Feature level of the cluster, releases of its nodes, and the nodes that hold back the next level.

use serde::Serialize;
use tidewater_common::feature_level::Release;
use tidewater_proto::v1;

use crate::commands::node::NodeLine;
use crate::output::Listed;

/// Level of the cluster. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct LevelStatus {
    /// `None`: the meta leader runs a release without levels.
    feature_level: Option<u32>,
    /// Level to which the meta leader raises the cluster next; `None`: it supports no higher one.
    next_feature_level: Option<u32>,
    level_held_back_by: Vec<HolderLine>,
}

/// A node that holds back the next level.
#[derive(Debug, Serialize)]
struct HolderLine {
    node_id: u64,
    reason: String,
}

impl From<&v1::ClusterStatusResponse> for LevelStatus {
    fn from(status: &v1::ClusterStatusResponse) -> Self {
        let level = |number: u32| (number != 0).then_some(number);
        let holders = status.releases.iter().filter(|release| !release.holds_back.is_empty());
        let line = |release: &v1::NodeRelease| HolderLine {
            node_id: release.node_id,
            reason: release.holds_back.clone(),
        };
        Self {
            feature_level: level(status.feature_level),
            next_feature_level: level(status.next_feature_level),
            level_held_back_by: holders.map(line).collect(),
        }
    }
}

impl LevelStatus {
    /// Returns the lines of the text output.
    pub(super) fn lines(&self) -> Vec<String> {
        let Some(level) = self.feature_level else { return Vec::new() };
        let Some(next) = self.next_feature_level else { return vec![format!("level    {level}")] };
        if self.level_held_back_by.is_empty() {
            return vec![format!("level    {level}; level {next} follows")];
        }
        let holders = self.level_held_back_by.iter();
        let mut lines = vec![format!("level    {level}; level {next} is held back:")];
        lines.extend(
            holders.map(|held| format!("         - node {}: {}", held.node_id, held.reason)),
        );
        lines
    }
}

/// One node with its release. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct StatusNodeLine {
    #[serde(flatten)]
    node: NodeLine,
    /// `None`: not reported, or a release without levels.
    release: Option<String>,
    /// Highest level that the release supports; `None`: not reported.
    highest_level: Option<u32>,
}

impl Listed for StatusNodeLine {
    const HEADINGS: &'static [&'static str] =
        &["NODE", "ROLE", "ADDRESS", "STATE", "RELEASE", "HIGHEST LEVEL"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.node.cells();
        cells.push(self.release.clone().unwrap_or_else(|| "-".to_owned()));
        cells.push(self.highest_level.map_or_else(|| "-".to_owned(), |level| level.to_string()));
        cells
    }
}

/// Returns the nodes with their releases.
pub(super) fn node_lines(status: &v1::ClusterStatusResponse) -> Vec<StatusNodeLine> {
    let line = |node: &v1::Node| {
        let known = status.releases.iter().find(|release| release.node_id == node.node_id);
        let release =
            known.and_then(|known| known.release.clone()).map(|wire| Release::from(Some(wire)));
        StatusNodeLine {
            node: NodeLine::from(node),
            highest_level: release.as_ref().map(|release| release.highest.get()),
            release: release.and_then(|release| release.version).filter(|text| !text.is_empty()),
        }
    };
    status.nodes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> v1::ClusterStatusResponse {
        let release = |release: &str, highest_level| {
            Some(v1::ReleaseInfo { release: release.into(), lowest_level: 1, highest_level })
        };
        let known = |node_id, release, holds_back: &str| v1::NodeRelease {
            node_id,
            release,
            holds_back: holds_back.into(),
        };
        let nodes = [1, 101, 102].map(|node_id| v1::Node { node_id, ..v1::Node::default() });
        v1::ClusterStatusResponse {
            feature_level: 1,
            next_feature_level: 2,
            nodes: nodes.to_vec(),
            releases: vec![
                known(1, release("0.2.0", 2), ""),
                known(101, release("", 1), "it runs an earlier release"),
                known(102, None, "the meta leader has no recent report of its release"),
            ],
            ..v1::ClusterStatusResponse::default()
        }
    }

    #[test]
    fn status_shows_the_nodes_that_hold_back_the_level() {
        let levels = LevelStatus::from(&status());
        let expected = [
            "level    1; level 2 is held back:",
            "         - node 101: it runs an earlier release",
            "         - node 102: the meta leader has no recent report of its release",
        ];
        assert_eq!(levels.lines(), expected);
        let json = serde_json::to_value(&levels).unwrap();
        assert_eq!(json["feature_level"], 1);
        assert_eq!(json["next_feature_level"], 2);
        assert_eq!(json["level_held_back_by"][1]["node_id"], 102);
    }

    #[test]
    fn level_without_a_next_one_is_one_line() {
        let held = status();
        let raised = v1::ClusterStatusResponse {
            feature_level: 2,
            next_feature_level: 0,
            releases: Vec::new(),
            ..held.clone()
        };
        assert_eq!(LevelStatus::from(&raised).lines(), ["level    2"]);
        let ready = v1::ClusterStatusResponse { releases: Vec::new(), ..held };
        assert_eq!(LevelStatus::from(&ready).lines(), ["level    1; level 2 follows"]);
        let earlier = v1::ClusterStatusResponse::default();
        assert!(LevelStatus::from(&earlier).lines().is_empty());
    }

    #[test]
    fn each_node_has_its_release_and_highest_level() {
        let lines = node_lines(&status());
        let shown: Vec<_> = lines.iter().map(|line| line.cells()[4..].join(" ")).collect();
        assert_eq!(shown, ["0.2.0 2", "- 1", "- -"]);
        let json = serde_json::to_value(&lines[0]).unwrap();
        assert_eq!((&json["node_id"], &json["highest_level"]), (&1.into(), &2.into()));
        assert_eq!(json["release"], "0.2.0");
    }
}
