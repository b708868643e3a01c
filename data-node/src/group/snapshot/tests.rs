use tidewater_common::ids::{Epoch, RegionId, Sequence};
use tidewater_raft_store::types::log_id;
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{RowOp, RowsWrite};

use super::*;
use crate::group::testing::{TestGroup, batch, host, shared, write, writes};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn view() -> SnapshotView {
    let mut group = TestGroup::with_region();
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
fn snapshot_survives_writing_and_reading() {
    let view = view();
    let bytes = bytes(&view);
    let back = SnapshotView::read(&mut bytes.as_slice()).unwrap();
    assert_eq!((back.group, back.applied), (view.group, view.applied));
    assert_eq!(back.state, view.state);
    assert_eq!(back.state.digest(), view.state.digest());
    assert_eq!(read_meta(&mut bytes.as_slice()).unwrap(), view.meta());
}

#[test]
fn truncated_snapshot_is_an_error() {
    let view = view();
    let bytes = bytes(&view);
    for cut in 0..bytes.len() {
        assert!(SnapshotView::read(&mut &bytes[..cut]).is_err(), "cut at {cut}");
    }
    // The file's checksum detects flipped bits; the reader must only not panic on them.
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = SnapshotView::read(&mut flipped.as_slice());
    }
}

#[test]
fn snapshot_of_a_newer_format_is_refused() {
    let mut file = Vec::new();
    let header = v1::GroupSnapshotHeader { format: LEVELED_FORMAT + 1, ..Default::default() };
    put(&mut file, Record::Header(header), SIZES.record).unwrap();
    let error = SnapshotView::read(&mut file.as_slice()).unwrap_err();
    assert!(error.to_string().contains("format 3"), "{error}");
}

/// A view with two runs of region 7.
fn view_with_runs() -> SnapshotView {
    let replica = shared(Storage::memory(), 1 << 30);
    let region = host(&replica, 7);
    for (sequence, ids) in [(65_536, 0..1_000), (131_072, 500..600)] {
        let batch = batch(&ids.collect::<Vec<i64>>());
        let sequence = Sequence(sequence);
        let op = RowOp::Put;
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
    }
    let runs = region.unflushed().into_iter().map(|image| (RegionId(7), image)).collect();
    SnapshotView { runs, ..view() }
}

/// The records of a file and their lengths in bytes.
fn records(mut file: &[u8]) -> Vec<(Record, usize)> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let before = file.len();
        let record = get(&mut file).unwrap();
        records.push((record, before - file.len()));
    }
    records
}

#[test]
fn large_run_is_written_in_pieces_and_restored_whole() {
    let view = view_with_runs();
    let encoded = |view: &SnapshotView| -> Vec<Bytes> {
        view.runs.iter().map(|(_, image)| image.encode().unwrap()).collect()
    };
    for (piece, pieces) in [(usize::MAX, 2..3), (8_192, 5..20)] {
        let mut file = Vec::new();
        view.write_sized(&mut file, RecordSizes { piece, ..SIZES }).unwrap();
        let records = records(&file);
        let runs: Vec<usize> = records
            .iter()
            .filter_map(|(record, bytes)| matches!(record, Record::Run(_)).then_some(*bytes))
            .collect();
        assert!(pieces.contains(&runs.len()), "{runs:?}");
        assert!(runs.iter().all(|bytes| *bytes < piece.saturating_add(2_048)), "{runs:?}");
        let back = SnapshotView::read(&mut file.as_slice()).unwrap();
        let shape = |view: &SnapshotView| -> Vec<(RegionId, usize)> {
            view.runs.iter().map(|(region, image)| (*region, image.rows())).collect()
        };
        assert_eq!(shape(&back), shape(&view));
        if piece == usize::MAX {
            assert_eq!(encoded(&back), encoded(&view));
        }
        let restored = shared(Storage::memory(), 1 << 30);
        let region = host(&restored, 7);
        region.restore(back.runs.into_iter().map(|(_, image)| image).collect());
        assert_eq!(region.stats().memtable_rows, 1_100);
        assert_eq!((region.stats().runs, region.last_sequence()), (2, Sequence(131_072)));
    }
}

#[test]
fn piece_without_a_preceding_run_is_damage() {
    let image = view_with_runs().runs[0].1.encode().unwrap();
    let run = |region_id, continues| {
        Record::Run(v1::GroupSnapshotRun { region_id, image: image.clone(), continues })
    };
    let header = || Record::Header(v1::GroupSnapshotHeader { format: 1, ..Default::default() });
    let end = |runs| Record::End(v1::GroupSnapshotEnd { regions: 0, runs });
    let read = |records: Vec<Record>| {
        let mut file = Vec::new();
        for record in records {
            put(&mut file, record, SIZES.record).unwrap();
        }
        SnapshotView::read(&mut file.as_slice()).map(|view| view.runs.len())
    };
    assert_eq!(read(vec![header(), run(7, false), run(7, true), end(2)]).unwrap(), 1);
    assert_eq!(read(vec![header(), run(7, false), run(7, false), end(2)]).unwrap(), 2);
    assert!(read(vec![header(), run(7, true), end(1)]).is_err());
    assert!(read(vec![header(), run(7, false), run(8, true), end(2)]).is_err());
    assert!(read(vec![header(), run(7, false), run(7, true), end(1)]).is_err(), "one too many");
}

#[test]
fn oversized_snapshot_record_is_not_written() {
    let sizes = RecordSizes { record: 1_000, ..SIZES };
    let mut file = Vec::new();
    let error = view_with_runs().write_sized(&mut file, sizes).unwrap_err();
    assert!(error.to_string().contains("too large for a snapshot"), "{error}");
}

// Frozen: files contain these bytes.
#[test]
fn snapshot_records_match_their_frozen_bytes() {
    let header = v1::GroupSnapshotHeader {
        format: 1,
        group_id: 5,
        applied: Some(v1::RaftLogId { term: 2, index: 9 }),
        membership: None,
        dropped: vec![7],
        departed: Vec::new(),
        prepared: Vec::new(),
        epoch: 0,
        since: 0,
        level: 0,
    };
    let mut file = Vec::new();
    put(&mut file, Record::Header(header), SIZES.record).unwrap();
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
        opening: 65_536,
    };
    let run =
        v1::GroupSnapshotRun { region_id: 7, image: Bytes::from_static(b"ab"), continues: true };
    assert_eq!(hex(&run.encode_to_vec()), "0807120261621801");
    let expected =
        format!("0a10{}1007180220818004280332060a01611201633805400148808004", "11".repeat(16));
    assert_eq!(hex(&producer.encode_to_vec()), expected);
    assert_eq!(v1::ProducerRecord::decode(producer.encode_to_vec().as_slice()).unwrap(), producer);
}

#[test]
fn level_of_the_group_survives_a_snapshot() {
    let mut view = view();
    let header = |bytes: &[u8]| match get(&mut &bytes[..]).unwrap() {
        Record::Header(header) => (header.format, header.level),
        other => panic!("{other:?}"),
    };
    // Releases without levels read it.
    assert_eq!(header(&bytes(&view)), (1, 0));
    view.state.level = FeatureLevel::new(2);
    let raised = bytes(&view);
    assert_eq!(header(&raised), (2, 2));
    let back = SnapshotView::read(&mut raised.as_slice()).unwrap();
    assert_eq!(back.state, view.state);
    assert_eq!(back.state.digest(), view.state.digest());
}

#[test]
fn epochs_of_the_group_survive_a_snapshot() {
    let mut view = view();
    view.state.level = FeatureLevel::new(5);
    let before = view.state.digest();
    (view.state.epoch, view.state.since) = (Epoch(300), Epoch(5));
    if let Some(region) = view.state.regions.values_mut().next() {
        (region.since, region.fence_epoch) = (Epoch(7), Some(Epoch(0)));
    }
    let back = SnapshotView::read(&mut bytes(&view).as_slice()).unwrap();
    assert_eq!(back.state, view.state);
    assert_ne!(back.state.digest(), before);
    let header = v1::GroupSnapshotHeader { epoch: 300, since: 5, ..Default::default() };
    assert_eq!(hex(&header.encode_to_vec()), "40ac024805");
    let region = v1::GroupSnapshotRegion { since: 7, fence_epoch: Some(0), ..Default::default() };
    assert_eq!(hex(&region.encode_to_vec()), "a00107a80100");
}

#[test]
fn snapshot_above_the_level_of_the_release_is_refused() {
    let beyond = FeatureLevel::HIGHEST.next().get();
    for (format, level, expected) in
        [(2, beyond, "supports levels"), (1, 2, "does not belong"), (2, 0, "does not belong")]
    {
        let mut file = Vec::new();
        let header = v1::GroupSnapshotHeader { format, level, ..Default::default() };
        put(&mut file, Record::Header(header), SIZES.record).unwrap();
        let error = SnapshotView::read(&mut file.as_slice()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
