//! Chunks of a merge in any order, repeated and of several leaders.

use proptest::collection::vec;
use proptest::prelude::*;
use tidewater_proto::v1::RegionChunk;
use uuid::Uuid;

use super::*;

const PARTS: u32 = 3;
/// Rows of each part, numbered from 1.
const ROWS: u64 = 12;

fn key(part: u32, row: u64) -> Bytes {
    // A part that has merged no row is at no key.
    if row == 0 { Bytes::new() } else { format!("{part}/{row:02}").into_bytes().into() }
}

/// The chunk that compares the rows after one row up to another one.
fn chunk(part: u32, after: u64, reached: u64) -> RegionChunk {
    RegionChunk {
        part,
        after: key(part, after),
        reached: key(part, reached),
        is_last: reached == ROWS,
        counts: Some(MergeCounts { unchanged: reached - after, ..MergeCounts::default() }),
        ..RegionChunk::default()
    }
}

fn apply(merge: &mut MergeState, chunk: &RegionChunk) -> bool {
    match merge.continued(chunk) {
        Ok(part) => {
            part.record(chunk);
            true
        }
        Err(_) => false,
    }
}

proptest! {
    #[test]
    fn chunks_in_any_order_merge_each_row_once(
        chunks in vec((0..=PARTS, 0..ROWS, 1..=ROWS), 0..200),
    ) {
        let range = KeyRange { start: b"0".to_vec(), end: Some(b"9".to_vec()) };
        let starts = [Bytes::from_static(b"1"), Bytes::from_static(b"2")];
        let mut merge = MergeState::begin(AreaId(Uuid::nil()), &range, &starts).unwrap();
        let mut reached = [0; PARTS as usize];
        for (part, after, length) in chunks {
            let chunk = chunk(part, after, (after + length).min(ROWS));
            let before = merge.clone();
            let is_next = reached.get(part as usize) == Some(&after);
            prop_assert_eq!(apply(&mut merge, &chunk), is_next);
            if is_next {
                reached[part as usize] = (after + length).min(ROWS);
            } else {
                prop_assert_eq!(&merge, &before);
            }
            for (part, reached) in merge.parts.iter().zip(reached) {
                prop_assert_eq!(part.counts.unchanged, reached);
                prop_assert_eq!(part.is_complete, reached == ROWS);
            }
        }
        // The next leader goes on where each part is.
        for (part, reached) in (0..).zip(reached) {
            prop_assert_eq!(apply(&mut merge, &chunk(part, reached, ROWS)), reached < ROWS);
        }
        prop_assert!(merge.is_complete());
    }
}
