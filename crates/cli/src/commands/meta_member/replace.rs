//! `meta-member replace OLD --with NEW --address ADDR`

use clap::Args;
use tidewater_client::admin::MetaChange;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;

/// Options of `meta-member replace`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater meta-member replace 2 --with 4 --address \
                        127.0.0.1:7404\n\nSafe to retry after an error: completed steps are skipped.")]
pub(crate) struct Options {
    /// Id of the member to remove
    old: u64,

    /// Id of the node to add
    #[arg(long, value_name = "NODE")]
    with: u64,

    /// Address of the new node, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    address: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Returns the next step of a replacement; `None` when it is complete.
fn next_step(members: &[v1::MetaMember], old: u64, new: u64, address: &str) -> Option<MetaChange> {
    let found = |id: u64| members.iter().find(|member| member.node_id == id);
    // The old member is removed last, so that the group never has fewer votes than before.
    match (found(new), found(old)) {
        (None, _) => {
            Some(MetaChange::AddLearner { node_id: NodeId(new), address: address.to_owned() })
        }
        (Some(member), _) if !member.voter => Some(MetaChange::Promote(NodeId(new))),
        (Some(_), Some(_)) => Some(MetaChange::Remove(NodeId(old))),
        (Some(_), None) => None,
    }
}

/// Replaces a member, one step at a time.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    if options.old == options.with {
        return Err(Failure::usage("--with: a member cannot replace itself: choose a new id"));
    }
    let client = options.client.connect().await?;
    let mut members = client.meta_members().await?.members;
    if !members.iter().any(|member| [options.old, options.with].contains(&member.node_id)) {
        return Err(Failure::not_found(format!(
            "node {} is not a member of the meta group: `tidewater meta-member list` shows the members",
            options.old
        )));
    }
    while let Some(step) = next_step(&members, options.old, options.with, &options.address) {
        members = client.change_meta_member(step).await?;
    }
    super::show(options.client.output, &members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacement_removes_the_old_member_last() {
        let member = |node_id, voter| v1::MetaMember { node_id, voter, ..Default::default() };
        let step = |members: &[v1::MetaMember]| {
            next_step(members, 2, 4, "a:1").map(|step| format!("{step:?}"))
        };
        let before = [member(1, true), member(2, true)];
        assert!(step(&before).unwrap().starts_with("AddLearner"));
        let added = [member(1, true), member(2, true), member(4, false)];
        assert!(step(&added).unwrap().starts_with("Promote"));
        let promoted = [member(1, true), member(2, true), member(4, true)];
        assert!(step(&promoted).unwrap().starts_with("Remove"));
        assert_eq!(step(&[member(1, true), member(4, true)]), None);
    }
}
