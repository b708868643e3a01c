//! Replacement of a member of the meta group: begin, cancellation, end. The leader takes its steps
//! (`leader/member_replacement.rs`).

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeRole, NodeState};

use super::nodes::check_address;
use super::{CommandError, NodeCommandError};
use crate::catalog::{
    CatalogChange, FIRST_NODE_ID, MemberReplacement, MetaState, Node, ReplacementChange,
};

/// Begins or cancels a replacement. A repeated request changes nothing, also after the end of the replacement.
pub(super) fn replace(
    state: &MetaState,
    request: &v1::ReplaceMetaMemberRequest,
) -> Result<CatalogChange, CommandError> {
    let old = NodeId(request.old_node_id);
    let known = state.member_replacement();
    if request.cancel {
        let known = known.filter(|known| known.old == old);
        let known = known.ok_or(CommandError::Node(NodeCommandError::NotReplaced(old)))?;
        let replacement = MemberReplacement { cancelled: true, ..known.clone() };
        return Ok(changed(ReplacementChange::Set(replacement)));
    }
    let new = NodeId(request.new_node_id);
    check_address(&request.address)?;
    let asked = MemberReplacement { old, new, address: request.address.clone(), cancelled: false };
    if known == Some(&asked) {
        return Ok(CatalogChange::default());
    }
    if let Some(known) = known {
        return Err(
            NodeCommandError::ReplacementInProgress { old: known.old, new: known.new }.into()
        );
    }
    let invalid = |problem| {
        Err(CommandError::Node(NodeCommandError::MemberReplacement { old, new, problem }))
    };
    if old == new {
        return invalid("it is the same node");
    }
    if !(NodeId(1)..FIRST_NODE_ID).contains(&new) {
        return invalid("meta nodes have ids from 1 to 100");
    }
    let present = member(state, new);
    let was_removed = state.node(old).is_some_and(|node| node.state == NodeState::Removed);
    match (member(state, old), present) {
        // A cancellation would remove a member that the replacement has not added.
        (Some(_), Some(_)) => invalid("it is a member already"),
        (Some(_), None) => Ok(changed(ReplacementChange::Set(asked))),
        // A repeated request after the end.
        (None, Some(node)) if was_removed && node.address == request.address => {
            Ok(CatalogChange::default())
        }
        (None, _) => Err(CommandError::Node(NodeCommandError::NotAMember(old))),
    }
}

/// Ends this replacement, which is complete or cancelled.
pub(super) fn end(state: &MetaState, command: &v1::EndMemberReplacement) -> CatalogChange {
    let ended = (NodeId(command.old_node_id), NodeId(command.new_node_id));
    let known = state.member_replacement().is_some_and(|known| (known.old, known.new) == ended);
    if known { changed(ReplacementChange::End) } else { CatalogChange::default() }
}

fn member(state: &MetaState, id: NodeId) -> Option<&Node> {
    let node = state.node(id)?;
    (node.role == NodeRole::Meta && node.state != NodeState::Removed).then_some(node)
}

fn changed(replacement: ReplacementChange) -> CatalogChange {
    CatalogChange { replacement: Some(replacement), ..CatalogChange::default() }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{bootstrapped, raise_to_highest, run, set_members};

    fn cluster() -> MetaState {
        let mut state = bootstrapped();
        set_members(&mut state, &[1, 2, 3]);
        raise_to_highest(&mut state);
        state
    }

    fn ask(state: &mut MetaState, old: u64, new: u64, cancel: bool) -> Result<(), CommandError> {
        let request = v1::ReplaceMetaMemberRequest {
            old_node_id: old,
            new_node_id: new,
            address: if cancel { String::new() } else { format!("meta-{new}:1") },
            cancel,
        };
        run(state, Kind::ReplaceMetaMember(request)).map(drop)
    }

    fn end_of(state: &mut MetaState, old_node_id: u64, new_node_id: u64) {
        let end = v1::EndMemberReplacement { old_node_id, new_node_id };
        run(state, Kind::EndMemberReplacement(end)).unwrap();
    }

    #[test]
    fn replacement_is_stored_until_it_ends() {
        let mut state = cluster();
        let before = state.rows().unwrap();
        ask(&mut state, 2, 4, false).unwrap();
        let begun = state.clone();
        assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
        ask(&mut state, 2, 4, false).unwrap();
        end_of(&mut state, 2, 5);
        end_of(&mut state, 3, 4);
        assert_eq!(state, begun);
        for (old, new) in [(2, 5), (3, 4)] {
            let busy = CommandError::Node(NodeCommandError::ReplacementInProgress {
                old: NodeId(2),
                new: NodeId(4),
            });
            assert_eq!(ask(&mut state, old, new, false), Err(busy));
        }
        end_of(&mut state, 2, 4);
        assert_eq!(state.rows().unwrap(), before);
        end_of(&mut state, 2, 4);
        assert_eq!(state.rows().unwrap(), before);
    }

    #[test]
    fn repeated_request_after_the_end_changes_nothing() {
        let mut state = cluster();
        set_members(&mut state, &[1, 3, 4]);
        let before = state.clone();
        ask(&mut state, 2, 4, false).unwrap();
        assert_eq!(state, before);
    }

    #[test]
    fn replacement_is_cancelled_once() {
        let mut state = cluster();
        assert_eq!(
            ask(&mut state, 2, 0, true),
            Err(CommandError::Node(NodeCommandError::NotReplaced(NodeId(2))))
        );
        ask(&mut state, 2, 4, false).unwrap();
        assert_eq!(
            ask(&mut state, 3, 0, true),
            Err(CommandError::Node(NodeCommandError::NotReplaced(NodeId(3))))
        );
        ask(&mut state, 2, 0, true).unwrap();
        assert!(state.member_replacement().unwrap().cancelled);
        ask(&mut state, 2, 0, true).unwrap();
        let busy = CommandError::Node(NodeCommandError::ReplacementInProgress {
            old: NodeId(2),
            new: NodeId(4),
        });
        assert_eq!(ask(&mut state, 2, 4, false), Err(busy));
    }

    #[test]
    fn invalid_replacement_is_refused() {
        let mut state = cluster();
        for (old, new, text) in [
            (2, 2, "the same node"),
            (2, 0, "ids from 1 to 100"),
            (2, 101, "ids from 1 to 100"),
            (9, 8, "not a member"),
        ] {
            let refused = ask(&mut state, old, new, false).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
        assert!(ask(&mut state, 2, 3, false).unwrap_err().to_string().contains("a member already"));
        assert_eq!(
            ask(&mut state, 22, 3, false),
            Err(CommandError::Node(NodeCommandError::NotAMember(NodeId(22))))
        );
        let request = |new_node_id, address: &str| {
            Kind::ReplaceMetaMember(v1::ReplaceMetaMemberRequest {
                old_node_id: 2,
                new_node_id,
                address: address.to_owned(),
                cancel: false,
            })
        };
        let refused = run(&mut state, request(4, "no address")).unwrap_err();
        assert_eq!(
            refused,
            CommandError::Node(NodeCommandError::BadAddress("no address".to_owned()))
        );
    }
}
