//! `group list`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{self, Listed};

/// Options of `group list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater group list --output json")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// One group. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(crate) struct GroupLine {
    group_id: u64,
    /// 0: unknown.
    leader: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    state: &'static str,
    term: u64,
}

impl From<&v1::Group> for GroupLine {
    fn from(group: &v1::Group) -> Self {
        Self {
            group_id: group.group_id,
            leader: group.leader,
            // Before the first report of its leader, the voters of a group are its first members.
            voters: if group.voters.is_empty() { &group.first_members } else { &group.voters }
                .clone(),
            learners: group.learners.clone(),
            state: match group.state() {
                v1::GroupState::Unspecified => "unknown",
                v1::GroupState::Creating => "creating",
                v1::GroupState::Active if group.retiring => "retiring",
                v1::GroupState::Active => "active",
                v1::GroupState::Abandoned => "abandoned",
                v1::GroupState::Retired => "retired",
            },
            term: group.leader_term,
        }
    }
}

impl GroupLine {
    /// Describes the meta group, whose members are not in the catalog.
    fn for_meta_group(members: &[v1::MetaMember], term: u64) -> Self {
        let ids = |voter: bool| {
            let matching = members.iter().filter(|member| member.voter == voter);
            matching.map(|member| member.node_id).collect()
        };
        Self {
            group_id: 0,
            leader: members.iter().find(|member| member.leader).map_or(0, |leader| leader.node_id),
            voters: ids(true),
            learners: ids(false),
            state: "active",
            term,
        }
    }
}

impl Listed for GroupLine {
    const HEADINGS: &'static [&'static str] =
        &["GROUP", "STATE", "LEADER", "TERM", "VOTERS", "LEARNERS"];

    fn cells(&self) -> Vec<String> {
        let joined = |ids: &[u64]| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        vec![
            self.group_id.to_string(),
            self.state.to_owned(),
            if self.leader == 0 { "-".to_owned() } else { self.leader.to_string() },
            self.term.to_string(),
            joined(&self.voters),
            joined(&self.learners),
        ]
    }
}

/// Lists the groups.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let members = client.meta_members().await?;
    let status = client.cluster_status().await?;
    let groups = status.groups.iter().filter(|group| group.group_id != 0).map(GroupLine::from);
    let mut lines = vec![GroupLine::for_meta_group(&members.members, status.term)];
    lines.extend(groups);
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_has_stable_json_fields() {
        let member = |node_id, voter, leader| v1::MetaMember {
            node_id,
            address: "a:1".into(),
            voter,
            leader,
            matched_index: None,
        };
        let members = [member(1, true, false), member(2, true, true), member(3, false, false)];
        assert_eq!(
            serde_json::to_string(&GroupLine::for_meta_group(&members, 5)).unwrap(),
            r#"{"group_id":0,"leader":2,"voters":[1,2],"learners":[3],"state":"active","term":5}"#
        );
    }
}
