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

/// The opening that [`open`] recorded at this index.
fn opening(index: u64) -> Option<Sequence> {
    Some(Sequence(index * 100))
}

fn open(table: &mut Producers, key: ProducerKey, index: u64) {
    let outcome = FirstOutcome { sequence: Sequence(index * 100), rows: 0 };
    table.record(key, OPENING, outcome, vec![], at(index), Eviction::OpenedFirst);
}

fn at(index: u64) -> LogPosition {
    (LogIndex(index), 0)
}

#[test]
fn verdict_depends_on_the_last_serial() {
    let mut table = Producers::new(8);
    assert_eq!(table.judge(&key(1), None, Serial(1)), WriteDecision::Apply);
    assert_eq!(table.judge(&key(1), None, Serial(2)), WriteDecision::Forgotten);
    open(&mut table, key(1), 1);
    table.record(key(1), Serial(2), outcome(9), range(b"a", b"c"), at(2), Eviction::OpenedFirst);
    let cases = [
        (0, WriteDecision::OutOfOrder { last: Serial(2) }),
        (1, WriteDecision::OutOfOrder { last: Serial(2) }),
        (2, WriteDecision::Repeat { outcome: outcome(9), covered: range(b"a", b"c") }),
        (3, WriteDecision::Apply),
        (4, WriteDecision::OutOfOrder { last: Serial(2) }),
        (u64::MAX, WriteDecision::OutOfOrder { last: Serial(2) }),
    ];
    for (serial, verdict) in cases {
        let named = if serial == 1 { None } else { opening(1) };
        assert_eq!(table.judge(&key(1), named, Serial(serial)), verdict, "serial {serial}");
        // A write without an opening, as in the log of an older release.
        assert_eq!(table.judge(&key(1), None, Serial(serial)), verdict, "serial {serial}");
        if serial != 1 {
            assert_eq!(table.judge(&key(1), opening(2), Serial(serial)), WriteDecision::Forgotten);
        }
    }
    assert_eq!(table.judge(&key(2), opening(1), Serial(3)), WriteDecision::Forgotten);
}

/// A table whose producer 1 was opened at `opened`, and whose write `serial` covered a range.
fn written(opened: u64, serial: u64, covered: Vec<KeyRange>, index: u64) -> Producers {
    let mut table = Producers::new(8);
    open(&mut table, key(1), opened);
    for serial in 2..=serial {
        let (covered, at) = (covered.clone(), at(index));
        table.record(key(1), Serial(serial), outcome(index), covered, at, Eviction::OpenedFirst);
    }
    table
}

/// Merges the tables of regions 21 and 22, children of region 7.
fn merged(tables: [&Producers; 2]) -> Producers {
    let tables = [(RegionId(21), tables[0]), (RegionId(22), tables[1])];
    Producers::merged(&tables, Eviction::CURRENT, PartlyKnown::Forgotten)
}

// R5: of a write that both children have taken, and one has forgotten.
#[test]
fn partly_known_stream_is_forgotten_from_level_seven() {
    let known = written(1, 3, range(b"m", b"n"), 9);
    let tables = [(RegionId(21), &Producers::new(8)), (RegionId(22), &known)];
    let judge = |level, tables: &[(RegionId, &Producers)]| {
        let rule = PartlyKnown::at(FeatureLevel::new(level));
        let merged = Producers::merged(tables, Eviction::CURRENT, rule);
        merged.judge(&key(1), opening(1), Serial(4))
    };
    assert_eq!(judge(6, &tables), WriteDecision::Apply);
    assert_eq!(judge(7, &tables), WriteDecision::Forgotten);
    // The stream began in the region that knows it.
    let tables = [(RegionId(21), &Producers::new(8)), (RegionId(7), &known)];
    assert_eq!(judge(7, &tables), WriteDecision::Apply);
}

#[test]
fn last_write_of_a_stream_counts_in_merged_tables() {
    let [low, high] = [range(b"a", b"c"), range(b"m", b"n")];
    let repeat = |index, covered| WriteDecision::Repeat { outcome: outcome(index), covered };
    let cases = [
        // Each has taken its part.
        (written(1, 3, low.clone(), 8), 3, repeat(9, [low.clone(), high.clone()].concat())),
        // Only the other one has.
        (written(1, 2, low.clone(), 8), 3, repeat(9, high.clone())),
        (written(1, 4, low.clone(), 8), 4, repeat(8, low.clone())),
        (written(1, 4, low.clone(), 8), 3, WriteDecision::OutOfOrder { last: Serial(4) }),
        // Opened again, after it was forgotten.
        (written(2, 4, low.clone(), 8), 3, WriteDecision::Forgotten),
        // It may have taken the write, and forgotten the stream.
        (Producers::new(8), 3, WriteDecision::Forgotten),
    ];
    let other = written(1, 3, high.clone(), 9);
    for (table, serial, expected) in cases {
        let merged = merged([&table, &other]);
        assert_eq!(merged.judge(&key(1), opening(1), Serial(serial)), expected, "{table:?}");
        let reversed = self::merged([&other, &table]);
        assert_eq!(merged, reversed);
        let stored = Producers::from_records(8, merged.to_records()).unwrap();
        assert_eq!(stored, merged);
    }
}

#[test]
fn merged_table_forgets_its_oldest_producers() {
    let mut tables = [Producers::new(2), Producers::new(2)];
    // Each began in the region that knows it.
    let key = |producer: u64| ProducerKey {
        origin: RegionId(if producer > 2 { 22 } else { 21 }),
        ..key(producer.into())
    };
    for producer in 1..=4_u64 {
        let half = usize::from(producer > 2);
        open(&mut tables[half], key(producer), producer);
    }
    let merged = merged([&tables[0], &tables[1]]);
    let known: Vec<bool> = (1..=4)
        .map(|producer| {
            merged.judge(&key(producer), opening(producer), Serial(2)) == WriteDecision::Apply
        })
        .collect();
    assert_eq!(known, [false, false, true, true]);
}

#[test]
fn write_of_another_opening_is_judged_forgotten() {
    let mut table = Producers::new(1);
    open(&mut table, key(1), 1);
    table.record(key(1), Serial(2), outcome(9), range(b"a", b"c"), at(2), Eviction::OpenedFirst);
    open(&mut table, key(2), 3);
    // The first producer was evicted; its opening write arrives a second time.
    open(&mut table, key(1), 4);
    assert_eq!(table.judge(&key(1), opening(1), Serial(2)), WriteDecision::Forgotten);
    assert_eq!(table.judge(&key(1), opening(4), Serial(2)), WriteDecision::Apply);
    // Writes after the opening do not change it, also after the table was stored and read back.
    table.record(key(1), Serial(2), outcome(11), vec![], at(5), Eviction::OpenedFirst);
    let back = Producers::from_records(1, table.to_records()).unwrap();
    assert_eq!(back.judge(&key(1), opening(1), Serial(3)), WriteDecision::Forgotten);
    assert_eq!(back.judge(&key(1), opening(4), Serial(3)), WriteDecision::Apply);
}

#[test]
fn streams_of_one_producer_are_separate_by_origin() {
    let mut table = Producers::new(8);
    open(&mut table, key(1), 1);
    let other = ProducerKey { origin: RegionId(8), ..key(1) };
    assert_eq!(table.judge(&other, opening(1), Serial(2)), WriteDecision::Forgotten);
}

#[test]
fn strangers_do_not_evict_established_producers() {
    let mut table = Producers::new(Producers::CAPACITY);
    let live = 3_000;
    for producer in 0..live {
        open(&mut table, key(producer), 2 * producer as u64);
        let index = 2 * producer as u64 + 1;
        table.record(
            key(producer),
            Serial(2),
            outcome(9),
            vec![],
            at(index),
            Eviction::OpenedFirst,
        );
    }
    let mut restarted = table.clone();
    for stranger in 0..5_000_u64 {
        let key = key(u128::from(stranger) + (1 << 100));
        open(&mut table, key, 10_000 + stranger);
        // A replica that continues from a snapshot evicts the same ones.
        if stranger % 500 == 0 {
            let records = restarted.to_records();
            restarted = Producers::from_records(Producers::CAPACITY, records).unwrap();
        }
        open(&mut restarted, key, 10_000 + stranger);
    }
    assert_eq!((table.len(), &table), (Producers::CAPACITY, &restarted));
    for producer in 0..live {
        let opening = Some(Sequence(200 * producer as u64));
        assert_eq!(
            table.judge(&key(producer), opening, Serial(3)),
            WriteDecision::Apply,
            "{producer}"
        );
    }
}

#[test]
fn new_producers_find_room_among_established_ones() {
    let mut table = Producers::new(8);
    for producer in 0..20_u64 {
        open(&mut table, key(producer.into()), 2 * producer);
        assert_eq!(
            table.judge(&key(producer.into()), opening(2 * producer), Serial(2)),
            WriteDecision::Apply
        );
        table.record(
            key(producer.into()),
            Serial(2),
            outcome(9),
            vec![],
            at(2 * producer + 1),
            Eviction::OpenedFirst,
        );
    }
    assert_eq!(table.judge(&key(19), opening(38), Serial(3)), WriteDecision::Apply);
    assert_eq!(table.judge(&key(11), opening(22), Serial(3)), WriteDecision::Forgotten);
}

#[test]
fn entries_of_earlier_releases_evict_the_least_recently_used() {
    let mut table = Producers::new(2);
    let record = |table: &mut Producers, producer, serial, index| {
        let outcome = FirstOutcome { sequence: Sequence(index * 100), rows: 0 };
        let eviction = Eviction::from_wire(0).unwrap();
        table.record(key(producer), Serial(serial), outcome, vec![], at(index), eviction);
    };
    record(&mut table, 1, 1, 1);
    record(&mut table, 1, 2, 2);
    record(&mut table, 2, 1, 3);
    record(&mut table, 3, 1, 4);
    assert_eq!(table.judge(&key(1), opening(1), Serial(3)), WriteDecision::Forgotten);
    assert_eq!(table.judge(&key(2), opening(3), Serial(2)), WriteDecision::Apply);
    for eviction in [Eviction::LeastRecent, Eviction::OpenedFirst] {
        assert_eq!(Eviction::from_wire(eviction.to_wire()), Some(eviction));
    }
    assert_eq!(Eviction::from_wire(2), None);
}

#[test]
fn least_recently_used_opened_producer_is_evicted() {
    let mut table = Producers::new(2);
    open(&mut table, key(1), 1);
    open(&mut table, key(2), 2);
    table.touch(&key(1), at(3));
    open(&mut table, key(3), 4);
    assert_eq!(table.len(), 2);
    assert_eq!(table.judge(&key(2), opening(2), Serial(2)), WriteDecision::Forgotten);
    assert_eq!(table.judge(&key(1), opening(1), Serial(2)), WriteDecision::Apply);
}

#[test]
fn producers_survive_their_stored_form() {
    let mut table = Producers::new(8);
    table.record(key(1), Serial(4), outcome(9), range(b"a", b"c"), at(5), Eviction::OpenedFirst);
    table.record(
        key(2),
        Serial(1),
        FirstOutcome::default(),
        vec![KeyRange { start: vec![], end: None }],
        at(3),
        Eviction::OpenedFirst,
    );
    let back = Producers::from_records(8, table.to_records()).unwrap();
    assert_eq!(back, table);
    assert_eq!(back.to_records(), table.to_records());
    let mut damaged = table.to_records();
    damaged[0].producer_id = Bytes::from_static(b"short");
    assert!(Producers::from_records(8, damaged).is_none());
}

/// A client with one producer; each of its writes may be delivered again at any time.
#[derive(Default)]
struct Client {
    opening: Option<Sequence>,
    /// The last serial sent after the opening, from 2.
    sent: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    // R5: for any number and order of deliveries of the clients' writes, opening writes included,
    // and for any evictions between them: every write takes effect at most once, and in order.
    #[test]
    fn writes_take_effect_once_under_repeats_and_reorderings(
        // (client, action): 0 opens, 1 sends the next write, others deliver an old one again.
        deliveries in proptest::collection::vec((0u128..4, 0u64..6), 0..200),
        capacity in 1usize..5,
    ) {
        let mut table = Producers::new(capacity);
        let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
        let mut effects: BTreeSet<(u128, u64)> = BTreeSet::new();
        for (index, (producer, action)) in (1..).zip(deliveries) {
            let client = &mut clients[usize::try_from(producer).unwrap()];
            if action == 0 {
                match table.judge(&key(producer), None, OPENING) {
                    WriteDecision::Apply => {
                        open(&mut table, key(producer), index);
                        client.opening = client.opening.or(opening(index));
                    }
                    WriteDecision::Repeat { outcome, .. } => {
                        table.touch(&key(producer), at(index));
                        client.opening = client.opening.or(Some(outcome.sequence));
                    }
                    WriteDecision::Forgotten | WriteDecision::OutOfOrder { .. } => {}
                }
                continue;
            }
            let Some(named) = client.opening else { continue };
            // A client sends the next write after the one before has taken effect.
            let last = effects.iter().filter(|(p, _)| *p == producer).count() as u64 + 1;
            client.sent = if action == 1 { client.sent.max(last + 1) } else { client.sent };
            let serial = if action == 1 { last + 1 } else { action };
            if serial < 2 || serial > client.sent {
                continue;
            }
            match table.judge(&key(producer), Some(named), Serial(serial)) {
                WriteDecision::Apply => {
                    prop_assert!(effects.insert((producer, serial)), "twice");
                    prop_assert_eq!(serial, last + 1, "gap");
                    let covered = range(b"a", b"b");
                    table.record(key(producer), Serial(serial), outcome(index), covered, at(index), Eviction::OpenedFirst);
                }
                WriteDecision::Repeat { .. } => {
                    prop_assert!(effects.contains(&(producer, serial)));
                    table.touch(&key(producer), at(index));
                }
                WriteDecision::Forgotten | WriteDecision::OutOfOrder { .. } => {}
            }
            prop_assert!(table.len() <= capacity);
        }
    }
}

// An opening of one region only does not end the writes of the other ones.
#[test]
fn stream_of_two_openings_is_forgotten_in_merged_tables() {
    let [low, high] = [range(b"a", b"c"), range(b"m", b"n")];
    let tables = [written(2, 2, low, 8), written(1, 3, high, 9)];
    let merged = merged([&tables[0], &tables[1]]);
    assert_eq!(merged.judge(&key(1), opening(2), Serial(3)), WriteDecision::Forgotten);
    assert_eq!(merged.judge(&key(1), opening(1), Serial(4)), WriteDecision::Forgotten);
    assert_eq!(merged, self::merged([&tables[1], &tables[0]]));
    assert_eq!(merged.len(), 0);
}
