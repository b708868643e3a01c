use std::collections::BTreeMap;

use super::MessageKind::{Append, LeaderTransfer, Snapshot, Vote as VoteRequest};
use super::*;
use crate::types::{Member, Membership, log_id};

const RECEIVER: u64 = 2;

fn stored(index: u64, voters: &[u64], learners: &[u64]) -> Arc<StoredMembership> {
    let nodes: BTreeMap<u64, Member> =
        voters.iter().chain(learners).map(|id| (*id, Member::new("n:1"))).collect();
    let voters = BTreeSet::from_iter(voters.iter().copied());
    let membership = Membership::new(vec![voters], nodes).unwrap();
    Arc::new(StoredMembership::new(Some(log_id(1, index)), membership))
}

/// A follower of node 1 in term 5. Node 4 is a learner; node 5 was removed by a change that is not
/// committed.
fn replica() -> ReplicaView {
    ReplicaView {
        vote: Vote::new_committed(5, 1),
        effective: stored(9, &[1, 2, 3], &[4]),
        committed: stored(7, &[1, 2, 3, 5], &[4]),
    }
}

fn leader(term: u64, node: u64) -> Vote {
    Vote::new_committed(term, node)
}

#[test]
fn messages_that_no_member_sends_are_refused() {
    let differs = |header, vote| Some(PeerViolation::SourceDiffers { header, vote });
    let jump = |term| Some(PeerViolation::TermJump { term, own: 5 });
    let stranger = Some(PeerViolation::NotMember(9));
    let candidate = Vote::new;
    let far = 5 + MAX_TERM_JUMP;
    let cases = [
        // Members.
        (Append, 1, leader(5, 1), None),
        (Append, 3, leader(6, 3), None),
        (Snapshot, 3, leader(6, 3), None),
        (LeaderTransfer, 1, leader(5, 1), None),
        (VoteRequest, 3, candidate(6, 3), None),
        (VoteRequest, 4, candidate(6, 4), None),
        (VoteRequest, 5, candidate(6, 5), None),
        (Append, 3, leader(4, 3), None),
        // Strangers.
        (VoteRequest, 9, candidate(6, 9), stranger),
        (Append, 9, leader(6, 9), stranger),
        (Snapshot, 9, leader(6, 9), stranger),
        (LeaderTransfer, 9, leader(6, 9), stranger),
        // One node in the name of another.
        (VoteRequest, 1, candidate(6, 3), differs(1, 3)),
        (Append, 9, leader(5, 1), differs(9, 1)),
        // In the name of the receiver.
        (Append, RECEIVER, leader(6, RECEIVER), Some(PeerViolation::NamesReceiver)),
        (Snapshot, RECEIVER, leader(6, RECEIVER), Some(PeerViolation::NamesReceiver)),
        (LeaderTransfer, RECEIVER, leader(6, RECEIVER), Some(PeerViolation::NamesReceiver)),
        (VoteRequest, RECEIVER, candidate(6, RECEIVER), Some(PeerViolation::NamesReceiver)),
        (Append, 1, leader(6, RECEIVER), differs(1, RECEIVER)),
        // Terms.
        (VoteRequest, 3, candidate(far, 3), None),
        (VoteRequest, 3, candidate(far + 1, 3), jump(far + 1)),
        (VoteRequest, 3, candidate(u64::MAX, 3), jump(u64::MAX)),
        (Append, 3, leader(u64::MAX, 3), jump(u64::MAX)),
        (Snapshot, 3, leader(u64::MAX - 2, 3), jump(u64::MAX - 2)),
        (LeaderTransfer, 3, leader(far + 1, 3), jump(far + 1)),
    ];
    for (kind, source, vote, expected) in cases {
        let message = PeerMessage { kind, source, vote };
        let checked = check_peer(&message, RECEIVER, &replica(), &BTreeSet::new());
        assert_eq!(checked.err(), expected, "{message:?}");
    }
    let check = |kind, source, vote| {
        check_peer(&PeerMessage { kind, source, vote }, RECEIVER, &replica(), &BTreeSet::new())
    };
    for kind in [Append, Snapshot, LeaderTransfer] {
        let refused = check(kind, 3, candidate(6, 3));
        assert!(matches!(refused, Err(PeerViolation::VoteKind(_))), "{kind:?}");
    }
    assert!(matches!(check(VoteRequest, 3, leader(6, 3)), Err(PeerViolation::VoteKind(_))));
}

#[test]
fn new_replica_accepts_every_sender_but_no_term() {
    let new = ReplicaView::default();
    let check = |term| {
        let message = PeerMessage { kind: Append, source: 9, vote: leader(term, 9) };
        check_peer(&message, RECEIVER, &new, &BTreeSet::new()).is_ok()
    };
    assert!(check(7));
    assert!(!check(u64::MAX));
}

#[test]
fn replica_without_itself_as_member_accepts_entries_only() {
    let view = |effective, committed| ReplicaView { vote: leader(5, 1), effective, committed };
    let before = || stored(9, &[1, 3], &[4]);
    let check = |kind, vote, view: &ReplicaView| {
        let message = PeerMessage { kind, source: 9, vote };
        check_peer(&message, RECEIVER, view, &BTreeSet::new()).is_ok()
    };
    let learner = view(before(), before());
    assert!(check(Append, leader(6, 9), &learner));
    assert!(check(Snapshot, leader(6, 9), &learner));
    assert!(!check(LeaderTransfer, leader(6, 9), &learner));
    assert!(!check(VoteRequest, Vote::new(6, 9), &learner));
    // Its removal is not committed: it has a vote.
    let voter = view(before(), stored(7, &[1, RECEIVER, 3], &[]));
    assert!(!check(Append, leader(6, 9), &voter));
}

#[test]
fn node_that_a_member_has_confirmed_is_accepted() {
    let message = PeerMessage { kind: Append, source: 9, vote: leader(6, 9) };
    let check = |confirmed: &[u64]| {
        let confirmed = confirmed.iter().copied().collect();
        check_peer(&message, RECEIVER, &replica(), &confirmed).is_ok()
    };
    assert!(check(&[8, 9]));
    assert!(!check(&[8]));
}

#[test]
fn removed_leader_is_accepted_in_its_term() {
    let view = ReplicaView {
        vote: leader(5, 1),
        effective: stored(9, &[2, 3], &[]),
        committed: stored(9, &[2, 3], &[]),
    };
    let check = |kind, vote| {
        let message = PeerMessage { kind, source: 1, vote };
        check_peer(&message, RECEIVER, &view, &BTreeSet::new()).is_ok()
    };
    assert!(check(LeaderTransfer, leader(5, 1)));
    assert!(check(Append, leader(5, 1)));
    assert!(!check(Append, leader(6, 1)));
    assert!(!check(VoteRequest, Vote::new(6, 1)));
}

#[test]
fn messages_of_a_superseded_start_are_refused() {
    // (start of the sender, newest known start, refused)
    let cases = [
        (5, 6, true),
        (6, 6, false),
        // The registration has yet to arrive here.
        (7, 6, false),
        // An older release, and a node of which nothing is known.
        (0, 6, false),
        (5, 0, false),
    ];
    for (boot, newest, refused) in cases {
        let (boot, newest) = (BootNumber(boot), BootNumber(newest));
        let expected =
            if refused { Err(PeerViolation::Superseded { boot, newest }) } else { Ok(()) };
        assert_eq!(check_start(boot, newest), expected);
    }
}
