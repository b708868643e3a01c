//! `meta-member replace OLD --with NEW --address ADDR`

use std::time::Duration;

use clap::Args;
use tidewater_client::Client;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1;
use tokio::time::Instant;

use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::text::time_span::TimeSpan;

/// Interval between polls of the members.
const POLL: Duration = Duration::from_millis(500);

/// Options of `meta-member replace`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater meta-member replace 2 --with 4 --address 127.0.0.1:7404\n\nThe old member may be \
                  down. The new node must have been started with an empty --data-dir. An interrupted command does not end the \
                  replacement: run it again to follow it, or cancel it with --cancel."
)]
pub(crate) struct Options {
    /// Id of the member to remove
    old: u64,

    /// Id of the node to add
    #[arg(long, value_name = "NODE", required_unless_present = "cancel")]
    with: Option<u64>,

    /// Address of the new node, HOST:PORT
    #[arg(long, value_name = "ADDR", required_unless_present = "cancel")]
    address: Option<String>,

    /// Cancel the replacement: remove the new node again
    #[arg(long, conflicts_with_all = ["with", "address"])]
    cancel: bool,

    /// Longest time to wait until the replacement has ended; 0s: return at once
    #[arg(long, value_name = "TIME", default_value = "10m")]
    within: TimeSpan,

    #[command(flatten)]
    client: ClientArgs,
}

/// Returns the progress of a replacement.
fn progress(replacement: &v1::MemberReplacement, members: &[v1::MetaMember]) -> String {
    let (old, new) = (replacement.old_node_id, replacement.new_node_id);
    let added = members.iter().find(|member| member.node_id == new);
    match added {
        _ if replacement.cancelled => format!("cancelling the replacement by node {new}"),
        None => format!("adding node {new}"),
        Some(member) if member.voter => format!("node {new} is a voter; removing node {old}"),
        Some(member) => {
            let behind = members.iter().filter_map(|member| member.matched_index).max();
            let behind = behind.zip(member.matched_index).map(|(last, has)| last - has);
            match behind {
                Some(behind) => {
                    format!("node {new} is a learner; it lacks {behind} entries of the log")
                }
                None => format!("node {new} is a learner"),
            }
        }
    }
}

/// Prints the progress until the replacement of a member has ended, or the deadline has passed; returns the members.
async fn follow(
    client: &Client,
    old: u64,
    until: Instant,
) -> Result<v1::ListMetaMembersResponse, Failure> {
    let mut shown = String::new();
    loop {
        let listed = client.meta_members().await?;
        let replacement = listed.replacement.as_ref().filter(|known| known.old_node_id == old);
        let Some(replacement) = replacement else { return Ok(listed) };
        let now = progress(replacement, &listed.members);
        if now != shown {
            eprintln!("{now}");
            shown = now;
        }
        if Instant::now() >= until {
            return Ok(listed);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Replaces a member, or cancels its replacement, and waits until that has ended.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let old = NodeId(options.old);
    match (options.with, &options.address) {
        (Some(with), Some(address)) => {
            client.replace_meta_member(old, NodeId(with), address).await?;
        }
        _ => client.cancel_meta_replacement(old).await?,
    }
    let within = options.within.duration();
    let listed = follow(&client, options.old, Instant::now() + within).await?;
    super::show(options.client.output, &listed.members)?;
    if listed.replacement.is_some_and(|known| known.old_node_id == options.old) {
        return if within.is_zero() { Ok(()) } else { Err(late()) };
    }
    ended(&listed.members, options.old, options.with)
}

/// Checks that the replacement, or its cancellation (`with` is absent), has ended as requested.
fn ended(members: &[v1::MetaMember], old: u64, with: Option<u64>) -> Result<(), Failure> {
    let votes = |id| members.iter().any(|member| member.node_id == id && member.voter);
    match with {
        Some(new) if !votes(new) || votes(old) => {
            let text = format!("another command has cancelled the replacement of meta node {old}");
            Err(Failure::new(Exit::Conflict, text))
        }
        None if !votes(old) => {
            let text = format!("meta node {old} was removed before its replacement was cancelled");
            Err(Failure::new(Exit::Conflict, text))
        }
        _ => Ok(()),
    }
}

fn late() -> Failure {
    let text = "the replacement continues: `tidewater cluster status` shows why it waits";
    Failure::new(Exit::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: u64, voter: bool, matched: u64) -> v1::MetaMember {
        v1::MetaMember { node_id, voter, matched_index: Some(matched), ..Default::default() }
    }

    #[test]
    fn progress_names_the_step() {
        let mut replacement =
            v1::MemberReplacement { old_node_id: 2, new_node_id: 4, ..Default::default() };
        let before = [member(1, true, 90), member(2, true, 90)];
        assert_eq!(progress(&replacement, &before), "adding node 4");
        let [one, two] = before;
        let learner = [one.clone(), two.clone(), member(4, false, 20)];
        let expected = "node 4 is a learner; it lacks 70 entries of the log";
        assert_eq!(progress(&replacement, &learner), expected);
        let voter = [one, two, member(4, true, 90)];
        assert_eq!(progress(&replacement, &voter), "node 4 is a voter; removing node 2");
        replacement.cancelled = true;
        assert_eq!(progress(&replacement, &voter), "cancelling the replacement by node 4");
    }

    #[test]
    fn end_is_compared_with_the_request() {
        let replaced = [member(1, true, 9), member(4, true, 9)];
        let kept = [member(1, true, 9), member(2, true, 9)];
        assert!(ended(&replaced, 2, Some(4)).is_ok() && ended(&kept, 2, None).is_ok());
        assert_eq!(ended(&kept, 2, Some(4)).unwrap_err().exit, Exit::Conflict);
        assert_eq!(ended(&replaced, 2, None).unwrap_err().exit, Exit::Conflict);
    }
}
