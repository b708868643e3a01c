//! `meta-member list`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::Listed;

/// Options of `meta-member list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater meta-member list --output json")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// One member of the meta group. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct MemberLine {
    node_id: u64,
    address: String,
    voter: bool,
    leader: bool,
    matched_index: Option<u64>,
}

impl From<&v1::MetaMember> for MemberLine {
    fn from(member: &v1::MetaMember) -> Self {
        Self {
            node_id: member.node_id,
            address: member.address.clone(),
            voter: member.voter,
            leader: member.leader,
            matched_index: member.matched_index,
        }
    }
}

impl Listed for MemberLine {
    const HEADINGS: &'static [&'static str] = &["NODE", "ADDRESS", "VOTE", "", "LOG UP TO"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.node_id.to_string(),
            self.address.clone(),
            if self.voter { "voter" } else { "learner" }.to_owned(),
            if self.leader { "leader" } else { "" }.to_owned(),
            self.matched_index.map_or_else(|| "-".to_owned(), |index| index.to_string()),
        ]
    }
}

/// Lists the members of the meta group.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let members = options.client.connect().await?.meta_members().await?;
    super::show(options.client.output, &members.members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_member_has_stable_json_fields() {
        let line = MemberLine::from(&v1::MetaMember::default());
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"node_id":0,"address":"","voter":false,"leader":false,"matched_index":null}"#
        );
    }
}
