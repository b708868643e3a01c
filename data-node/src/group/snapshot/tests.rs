use tidewater_common::ids::RegionId;
use tidewater_raft_store::types::log_id;

use super::*;
use crate::group::testing::{Group, write, writes};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn view() -> SnapshotView {
    let mut group = Group::with_region();
    group.apply(writes(vec![write(1, 1, &[]), write(2, 1, &[])]));
    group.apply(writes(vec![write(1, 2, &[1, 2, 3])]));
    group.state.dropped.insert(RegionId(3));
    SnapshotView {
        group: GroupId(5),
        applied: Some(log_id(2, 9)),
        membership: StoredMembership::default(),
        state: group.state,
        runs: Vec::new(),
    }
}

fn bytes(view: &SnapshotView) -> Vec<u8> {
    let mut bytes = Vec::new();
    view.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let view = view();
    let bytes = bytes(&view);
    let back = SnapshotView::read(&mut bytes.as_slice()).unwrap();
    assert_eq!((back.group, back.applied), (view.group, view.applied));
    assert_eq!(back.state, view.state);
    assert_eq!(back.state.digest(), view.state.digest());
    assert_eq!(read_meta(&mut bytes.as_slice()).unwrap(), view.meta());
}

#[test]
fn a_cut_or_changed_snapshot_is_an_error() {
    let view = view();
    let bytes = bytes(&view);
    for cut in 0..bytes.len() {
        assert!(SnapshotView::read(&mut &bytes[..cut]).is_err(), "cut at {cut}");
    }
    // Flipped bits are found by the file's checksum; here they must only not panic.
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = SnapshotView::read(&mut flipped.as_slice());
    }
}

#[test]
fn a_snapshot_of_a_newer_format_is_refused() {
    let mut file = Vec::new();
    let header = v1::GroupSnapshotHeader { format: FORMAT + 1, ..Default::default() };
    put(&mut file, Record::Header(header)).unwrap();
    let error = SnapshotView::read(&mut file.as_slice()).unwrap_err();
    assert!(error.to_string().contains("format 2"), "{error}");
}

// Frozen: these bytes are in files.
#[test]
fn records_have_their_frozen_bytes() {
    let header = v1::GroupSnapshotHeader {
        format: 1,
        group_id: 5,
        applied: Some(v1::RaftLogId { term: 2, index: 9 }),
        membership: None,
        dropped: vec![7],
    };
    let mut file = Vec::new();
    put(&mut file, Record::Header(header)).unwrap();
    assert_eq!(hex(&file), "0f000000000000000a0d080110051a04080210092a0107");

    let producer = v1::ProducerRecord {
        producer_id: Bytes::from_static(&[0x11; 16]),
        origin_region_id: 7,
        serial: 2,
        sequence: 65_537,
        rows_applied: 3,
        covered: vec![v1::KeySpan {
            start: Bytes::from_static(b"a"),
            end: Some(Bytes::from_static(b"c")),
        }],
        used_index: 5,
        used_ordinal: 1,
    };
    let expected = format!("0a10{}1007180220818004280332060a016112016338054001", "11".repeat(16));
    assert_eq!(hex(&producer.encode_to_vec()), expected);
    assert_eq!(v1::ProducerRecord::decode(producer.encode_to_vec().as_slice()).unwrap(), producer);
}
