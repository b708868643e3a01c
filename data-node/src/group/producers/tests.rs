use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn key(producer: u128) -> ProducerKey {
    ProducerKey { producer: ProducerId(Uuid::from_u128(producer)), origin: RegionId(7) }
}

fn range(start: &[u8], end: &[u8]) -> Vec<KeyRange> {
    vec![KeyRange { start: start.to_vec(), end: Some(end.to_vec()) }]
}

fn outcome(sequence: u64) -> FirstOutcome {
    FirstOutcome { sequence: Sequence(sequence), rows: 3 }
}

fn at(index: u64) -> Position {
    (LogIndex(index), 0)
}

#[test]
fn verdicts_follow_the_last_serial() {
    let mut table = Producers::new(8);
    assert_eq!(table.judge(&key(1), Serial(1)), Verdict::Apply);
    assert_eq!(table.judge(&key(1), Serial(2)), Verdict::Forgotten);
    table.record(key(1), Serial(1), FirstOutcome::default(), vec![], at(1));
    table.record(key(1), Serial(2), outcome(9), range(b"a", b"c"), at(2));
    let cases = [
        (0, Verdict::OutOfOrder { last: Serial(2) }),
        (1, Verdict::OutOfOrder { last: Serial(2) }),
        (2, Verdict::Repeat { outcome: outcome(9), covered: range(b"a", b"c") }),
        (3, Verdict::Apply),
        (4, Verdict::OutOfOrder { last: Serial(2) }),
        (u64::MAX, Verdict::OutOfOrder { last: Serial(2) }),
    ];
    for (serial, verdict) in cases {
        assert_eq!(table.judge(&key(1), Serial(serial)), verdict, "serial {serial}");
    }
    assert_eq!(table.judge(&key(2), Serial(3)), Verdict::Forgotten);
}

#[test]
fn streams_of_one_producer_differ_by_origin() {
    let mut table = Producers::new(8);
    table.record(key(1), Serial(1), FirstOutcome::default(), vec![], at(1));
    let other = ProducerKey { origin: RegionId(8), ..key(1) };
    assert_eq!(table.judge(&other, Serial(2)), Verdict::Forgotten);
}

#[test]
fn the_least_recently_used_makes_room() {
    let mut table = Producers::new(2);
    table.record(key(1), Serial(1), FirstOutcome::default(), vec![], at(1));
    table.record(key(2), Serial(1), FirstOutcome::default(), vec![], at(2));
    table.touch(&key(1), at(3));
    table.record(key(3), Serial(1), FirstOutcome::default(), vec![], at(4));
    assert_eq!(table.len(), 2);
    assert_eq!(table.judge(&key(2), Serial(2)), Verdict::Forgotten);
    assert_eq!(table.judge(&key(1), Serial(2)), Verdict::Apply);
}

#[test]
fn the_table_survives_its_stored_form() {
    let mut table = Producers::new(8);
    table.record(key(1), Serial(4), outcome(9), range(b"a", b"c"), at(5));
    table.record(
        key(2),
        Serial(1),
        FirstOutcome::default(),
        vec![KeyRange { start: vec![], end: None }],
        at(3),
    );
    let back = Producers::from_records(8, table.to_records()).unwrap();
    assert_eq!(back, table);
    assert_eq!(back.to_records(), table.to_records());
    let mut damaged = table.to_records();
    damaged[0].producer_id = Bytes::from_static(b"short");
    assert!(Producers::from_records(8, damaged).is_none());
}

proptest! {
    // However often and in whatever order the network delivers the attempts of each producer's
    // writes, every serial takes effect at most once, and in order.
    #[test]
    fn any_repeats_and_reorderings_take_effect_once(
        deliveries in proptest::collection::vec((0u128..4, 1u64..8), 0..200),
        capacity in 1usize..5,
    ) {
        let mut table = Producers::new(capacity);
        let mut effects: BTreeSet<(u128, u64)> = BTreeSet::new();
        let mut index = 0;
        for (producer, serial) in deliveries {
            index += 1;
            match table.judge(&key(producer), Serial(serial)) {
                Verdict::Apply => {
                    // Serial 1 is empty, so doing it again after being forgotten is harmless; a
                    // producer that was forgotten starts anew under another id.
                    if serial == 1 {
                        effects.retain(|(p, _)| *p != producer);
                    }
                    prop_assert!(effects.insert((producer, serial)), "twice");
                    prop_assert!(serial == 1 || effects.contains(&(producer, serial - 1)), "gap");
                    table.record(
                        key(producer),
                        Serial(serial),
                        outcome(index),
                        range(b"a", b"b"),
                        at(index),
                    );
                }
                Verdict::Repeat { .. } => {
                    prop_assert!(effects.contains(&(producer, serial)));
                    table.touch(&key(producer), at(index));
                }
                Verdict::Forgotten | Verdict::OutOfOrder { .. } => {}
            }
            prop_assert!(table.len() <= capacity);
        }
    }
}
