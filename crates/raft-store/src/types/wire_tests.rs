use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn membership() -> Membership {
    let sets = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
    let nodes: BTreeMap<u64, Member> =
        (1..=4).map(|id| (id, Member::new(format!("n{id}:7400")))).collect();
    Membership::new(sets, nodes).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stored records must stay readable: these bytes never change.
#[test]
fn stored_records_are_frozen() {
    let command = Entry {
        log_id: log_id(3, 300),
        payload: EntryPayload::Normal(Command(Bytes::from_static(b"abc"))),
    };
    let blank = Entry { log_id: log_id(1, 0), payload: EntryPayload::Blank };
    let members = Entry { log_id: log_id(2, 1), payload: EntryPayload::Membership(membership()) };
    let cases = [
        (command, "0a05080310ac021203616263"),
        (blank, "0a0208012001"),
        (
            members,
            "0a04080210011a400a040a0201020a040a020203120b080112076e313a37343030120b080212076e323a\
             37343030120b080312076e333a37343030120b080412076e343a37343030",
        ),
    ];
    for (entry, expected) in cases {
        let bytes = entry_to_wire(&entry).encode_to_vec();
        assert_eq!(hex(&bytes), expected);
        let decoded = v1::RaftEntry::decode(Bytes::from(bytes)).unwrap();
        assert_eq!(entry_from_wire(decoded).unwrap(), entry);
    }
    assert_eq!(hex(&vote_to_wire(&Vote::new_committed(5, 9)).encode_to_vec()), "080510091801");
    assert_eq!(hex(&log_id_to_wire(&log_id(5, 9)).encode_to_vec()), "08051009");
}

#[test]
fn commands_are_shared_and_not_copied() {
    let bytes = Bytes::from(vec![7; 1_000]);
    let entry =
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Normal(Command(bytes.clone())) };
    let encoded = Bytes::from(entry_to_wire(&entry).encode_to_vec());
    let decoded = entry_from_wire(v1::RaftEntry::decode(encoded.clone()).unwrap()).unwrap();
    let EntryPayload::Normal(Command(command)) = decoded.payload else { panic!() };
    assert_eq!(command, bytes);
    assert!(encoded.as_ptr_range().contains(&command.as_ptr()));
}

#[test]
fn messages_without_required_fields_are_refused() {
    let nothing = v1::RaftEntry::default();
    assert_eq!(entry_from_wire(nothing), Err(WireError::Missing("an entry's log id")));
    let no_payload = v1::RaftEntry { log_id: Some(v1::RaftLogId::default()), payload: None };
    assert_eq!(entry_from_wire(no_payload), Err(WireError::Missing("an entry's payload")));
    assert_eq!(required_vote(None), Err(WireError::Missing("a vote")));
    assert!(append_from_wire(v1::AppendEntriesRequest::default()).is_err());
    assert!(append_result_from_wire(v1::AppendEntriesResponse::default(), 0).is_err());
    // A voter that is no member.
    let broken = v1::RaftMembership {
        configs: vec![v1::RaftNodeSet { node_ids: vec![1] }],
        members: vec![],
    };
    assert!(matches!(membership_from_wire(broken), Err(WireError::Membership(_))));
}

#[test]
fn responses_with_a_jumping_term_are_errors() {
    let higher = |term| {
        let result = Err(StreamAppendError::HigherVote(Vote::new_committed(term, 2)));
        append_result_from_wire(append_result_to_wire(&result), 5).is_ok()
    };
    let refused = |term| {
        let vote = Vote::new(term, 2);
        let response = VoteResponse { vote, vote_granted: false, last_log_id: None };
        vote_response_from_wire(&vote_response_to_wire(&response), 5).is_ok()
    };
    for (term, ok) in [(6, true), (5 + MAX_TERM_JUMP, true), (6 + MAX_TERM_JUMP, false)] {
        assert_eq!((higher(term), refused(term)), (ok, ok), "{term}");
    }
    assert!(!higher(u64::MAX) && !refused(u64::MAX));
}

#[test]
fn the_empty_membership_survives() {
    let stored = StoredMembership::default();
    let there = stored_membership_to_wire(&stored);
    assert_eq!(stored_membership_from_wire(there).unwrap(), stored);
}

proptest! {
    #[test]
    fn messages_survive_the_wire(
        term in any::<u64>(), node in any::<u64>(), index in any::<u64>(),
        committed in any::<bool>(), last in any::<bool>(), transfer in any::<bool>(),
        command in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
        let id = last.then(|| log_id(term, index));
        prop_assert_eq!(vote_from_wire(&vote_to_wire(&vote)), vote);

        let request = VoteRequest { vote, last_log_id: id, leadership_transfer: transfer };
        let there = vote_request_to_wire(v1::RaftHeader::default(), &request);
        prop_assert_eq!(vote_request_from_wire(&there).unwrap(), request);

        let response = VoteResponse { vote, vote_granted: transfer, last_log_id: id };
        prop_assert_eq!(
            vote_response_from_wire(&vote_response_to_wire(&response), term).unwrap(), response
        );

        for result in [
            Ok(id),
            Err(StreamAppendError::Conflict(log_id(term, index))),
            Err(StreamAppendError::HigherVote(vote)),
        ] {
            prop_assert_eq!(
                append_result_from_wire(append_result_to_wire(&result), term).unwrap(), result
            );
        }

        // Log ids of an append are checked, see `append_check`.
        let id = id.map(|_| log_id(term >> 2, index >> 2));
        let next = id.map_or_else(|| log_id(term >> 2, 0), |id| log_id(term >> 2, id.index + 1));
        let entry = Entry {
            log_id: next,
            payload: EntryPayload::Normal(Command(command.into())),
        };
        let request = AppendEntriesRequest {
            vote, prev_log_id: id, entries: vec![entry], leader_commit: id,
        };
        let back = append_from_wire(append_to_wire(&request)).unwrap();
        prop_assert_eq!(format!("{back:?}"), format!("{request:?}"));
        prop_assert_eq!(back.entries, request.entries);

        let meta = SnapshotMeta {
            last_log_id: id,
            last_membership: StoredMembership::new(id, membership()),
        };
        prop_assert_eq!(snapshot_meta_from_wire(snapshot_meta_to_wire(&meta)).unwrap(), meta);
    }

    #[test]
    fn damaged_records_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(entry) = v1::RaftEntry::decode(Bytes::from(bytes)) {
            let _ = entry_from_wire(entry);
        }
    }
}
