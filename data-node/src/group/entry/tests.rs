use std::collections::BTreeSet;

use super::*;
use crate::group::testing::{region, write};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect::<Vec<_>>()
        .into()
}

/// Frozen: logs contain these bytes.
fn golden() -> Vec<(&'static str, EncodedEntry, &'static str)> {
    let advance = ManifestAdvance {
        region_id: RegionId(7),
        version: ManifestVersion(9),
        flushed: Sequence(131_073),
        owner: OwnerEpoch { move_epoch: 2, term: Term(4) },
        done: Sequence(0),
    };
    let rows = Bytes::from_static(b"ab");
    let with_rows = WriteRequest { row_count: 3, rows, opening: 65_536, ..write(0x11, 2, &[]) };
    let recorded = ManifestAdvance { done: Sequence(65_536), ..advance };
    let step = Some(v1::ProcedureStep { number: 3, step: 1 });
    let area_id = Bytes::from_static(&[0x11; 16]);
    vec![
        (
            "write",
            writes(vec![with_rows]),
            "1a2c0a28080510071801200 12a101111111111111111111111111111111130023807480352026162588080041001",
        ),
        ("dropped", dropped(RegionId(7)), "12020807"),
        ("manifest advanced", manifest_advanced(&advance), "220c0807100918818008200228 04"),
        (
            "manifest has recorded",
            manifest_advanced(&recorded),
            "22100807100918818008200228 0430808004",
        ),
        (
            "truncated",
            truncated(v1::RegionTruncated { region_id: 7, step }),
            "3a0808071204080310 01",
        ),
        (
            "altered",
            altered(v1::RegionAltered { region_id: 7, step, ..Default::default() }),
            "32080807220408031001",
        ),
        (
            "area opened",
            area_opened(v1::AreaOpened {
                region_id: 7,
                area_id: area_id.clone(),
                deadline_ms: 300,
                step,
            }),
            "421d080712101111111111111111111111111111111118ac02220408031001",
        ),
        (
            "area published",
            area_published(v1::AreaPublished {
                region_id: 7,
                area_id: area_id.clone(),
                content: v1::AreaContent::Staged.into(),
                schema_version: 2,
                start: Bytes::from_static(b"a"),
                end: Some(Bytes::from_static(b"b")),
                step,
                only_if_unwritten: false,
                epoch: 0,
            }),
            "4a240807121011111111111111111111111111111111180320022a01613201623a0408031001",
        ),
        (
            "copies published",
            area_published(v1::AreaPublished {
                region_id: 7,
                area_id: area_id.clone(),
                content: v1::AreaContent::Copies.into(),
                schema_version: 2,
                start: Bytes::new(),
                end: None,
                step,
                only_if_unwritten: true,
                epoch: 0,
            }),
            "4a200807121011111111111111111111111111111111180220023a04080310014001",
        ),
        (
            "area abandoned",
            area_abandoned(v1::AreaAbandoned {
                region_id: 7,
                area_id: area_id.clone(),
                step,
                ..Default::default()
            }),
            "521a08071210111111111111111111111111111111111a0408031001",
        ),
        (
            "opening write",
            writes(vec![write(0x11, 1, &[])]),
            "1a220a1e08051007180120012a1011111111111111111111111111111111300138071001",
        ),
        (
            "barrier",
            barrier(v1::GroupBarrier { previous: 9, epoch: 300, since: 5, tables: Vec::new() }),
            "7a07 0809 10ac02 1805",
        ),
        (
            "barrier with tables",
            barrier(v1::GroupBarrier {
                previous: 9,
                epoch: 300,
                since: 5,
                tables: vec![v1::TableSince { table_id: 3, since: 2 }],
            }),
            "7a0d 0809 10ac02 1805 2204 08031002",
        ),
        ("level raised", level_raised(FeatureLevel::new(2)), "9201020802"),
    ]
    .into_iter()
    .chain(changes_of_routes(step))
    .chain(moves_of_regions(step))
    .chain(refreshes(step))
    .collect()
}

/// Entries of refreshes.
fn refreshes(step: Option<v1::ProcedureStep>) -> [(&'static str, EncodedEntry, &'static str); 3] {
    let area_id = Bytes::from_static(&[0x11; 16]);
    let begun = v1::RegionMergeBegun {
        region_id: 7,
        area_id: area_id.clone(),
        split_keys: vec![Bytes::from_static(b"k")],
    };
    let rows = v1::RegionChunk {
        region_id: 7,
        area_id: area_id.clone(),
        part: 1,
        after: Bytes::from_static(b"a"),
        reached: Bytes::from_static(b"b"),
        is_last: true,
        schema_version: 2,
        puts: Bytes::from_static(b"p"),
        deletes: Bytes::from_static(b"d"),
        counts: Some(v1::MergeCounts { inserted: 1, ..Default::default() }),
    };
    let published = v1::AreaAbandoned {
        region_id: 7,
        area_id,
        step,
        published_epoch: 300,
        previous_until: 301,
    };
    [
        (
            "merge begun",
            merge_begun(begun),
            "ca0117 0807 121011111111111111111111111111111111 1a016b",
        ),
        (
            "chunk",
            chunk(rows),
            "d2012a 0807 121011111111111111111111111111111111 1801 220161 2a0162 3001 3802 420170 4a0164 52020801",
        ),
        (
            "area published and abandoned",
            area_abandoned(published),
            "5220 0807 121011111111111111111111111111111111 1a0408031001 20ac02 28ad02",
        ),
    ]
}

/// Entries of moves.
fn moves_of_regions(
    step: Option<v1::ProcedureStep>,
) -> [(&'static str, EncodedEntry, &'static str); 6] {
    let region_id = 7;
    let state = v1::GroupSnapshotRegion { base: 5, ..Default::default() };
    let departing = v1::RegionHeld {
        region_id,
        held: true,
        step,
        fenced: true,
        target_group_id: 6,
        move_epoch: 0,
    };
    let kept = v1::RegionHeld { region_id, step, move_epoch: 3, ..Default::default() };
    [
        ("departing", held(departing), "9a010e 0807 1001 1a0408031001 2001 2806"),
        ("kept", held(kept), "9a010a 0807 1a0408031001 3003"),
        ("prepared", prepared(v1::RegionPrepared { region_id, step }), "aa0108 0807 120408031001"),
        (
            "received",
            received(v1::RegionReceived { region: Some(state), fence_version: 9, step, level: 4 }),
            "b2010e 0a021005 1009 1a0408031001 2004",
        ),
        (
            "released",
            released(v1::RegionReleased { region_id, group_id: 6, step }),
            "ba010a 0807 1006 1a0408031001",
        ),
        (
            "activated",
            activated(v1::RegionActivated { region_id, step }),
            "c20108 0807 120408031001",
        ),
    ]
}

/// Entries of splits and merges.
fn changes_of_routes(
    step: Option<v1::ProcedureStep>,
) -> [(&'static str, EncodedEntry, &'static str); 4] {
    let key = || Bytes::from_static(b"k");
    let child = |region_id, start, end| v1::SplitChild { region_id, start, end };
    let sealed = |region_id, sealed_version| v1::SealedRegion { region_id, sealed_version };
    [
        (
            "held",
            held(v1::RegionHeld {
                region_id: 7,
                held: true,
                step,
                fenced: true,
                ..Default::default()
            }),
            "9a010c 0807 1001 1a0408031001 2001",
        ),
        (
            "split",
            split(v1::RegionSplit {
                region_id: 7,
                sealed_version: 9,
                children: vec![child(8, Bytes::new(), Some(key())), child(9, key(), None)],
                step,
            }),
            "6a18 0807 1009 1a0508081a016b 1a05080912016b 220408031001",
        ),
        (
            "merged",
            merged(v1::RegionsMerged {
                parents: vec![sealed(7, 9), sealed(8, 10)],
                child: Some(child(9, Bytes::new(), None)),
                step,
                eviction: 1,
            }),
            "a20118 0a0408071009 0a040808100a 12020809 1a0408031001 2001",
        ),
        ("closed", closed(v1::RegionClosed { region_id: 7, step }), "820108 0807 120408031001"),
    ]
}

/// Field number of an entry's kind.
fn kind(entry: &Bytes) -> u32 {
    decode_key(&mut entry.clone()).unwrap().0
}

#[test]
fn writes_of_earlier_releases_evict_the_least_recently_used() {
    let bytes = "1a200a1e08051007180120012a101111111111111111111111111111111130013807";
    let decoded = decode(&unhex(bytes)).unwrap();
    let group_entry::Entry::Writes(entry) = decoded else { panic!("not writes") };
    assert_eq!(Eviction::from_wire(entry.eviction), Some(Eviction::LeastRecent));
    let later = unhex(&format!("{}1002", bytes.replacen("1a20", "1a22", 1)));
    assert!(matches!(decode(&later), Err(EntryError::UnknownKind)));
}

#[test]
fn entries_match_their_frozen_bytes() {
    for (name, bytes, expected) in golden() {
        let expected = expected.replace(' ', "");
        assert_eq!(hex(&bytes), expected, "{name}");
        decode(&unhex(&expected)).unwrap();
    }
    let Ok(group_entry::Entry::Opened(entry)) =
        decode(&opened(region(7, Some(1), None), Sequence(65_536)))
    else {
        panic!("not opened")
    };
    assert_eq!((entry.base, entry.region.unwrap()), (65_536, region(7, Some(1), None)));
}

#[test]
fn replies_with_refusals_survive_encoding() {
    let outcomes = vec![
        EntryOutcome::Done { sequence: Sequence(65_537), rows: 3, repeated: true },
        EntryOutcome::refused(Reason::ProducerForgotten, "forgotten"),
        EntryOutcome::DONE,
    ];
    let bytes = encode_reply(outcomes.clone());
    assert_eq!(
        hex(&bytes),
        format!("0a08188180042003280 10a0d0822 1209{}0a00", hex(b"forgotten")).replace(' ', "")
    );
    assert_eq!(decode_reply(&bytes).unwrap(), outcomes);
    let refusal = outcomes[1].clone().into_result().unwrap_err();
    assert_eq!(refusal.reason, Reason::ProducerForgotten);
}

#[test]
fn entry_of_a_newer_release_is_an_unknown_kind() {
    // Field 27 is unknown to this release.
    assert!(matches!(decode(&unhex("da0100")), Err(EntryError::UnknownKind)));
}

#[test]
fn small_writes_do_not_keep_the_entry_alive() {
    let many: Vec<i64> = (0..2_000).collect();
    let large = write(1, 2, &many);
    let small = write(2, 2, &[1]);
    // A write can be at any address in the entry.
    for shift in 0..8 {
        let odd = WriteRequest { producer_id: vec![0; 16 + shift].into(), ..small.clone() };
        let bytes = writes(vec![odd.clone(), large.clone(), odd]);
        let range = bytes.as_ptr_range();
        let mut entry = decode(&bytes).unwrap();
        let before = entry.clone();
        detach(&mut entry, bytes.len());
        assert_eq!(entry, before);
        let group_entry::Entry::Writes(entry) = entry else { panic!("not writes") };
        let held: Vec<bool> =
            entry.writes.iter().map(|write| range.contains(&write.rows.as_ptr())).collect();
        let group_entry::Entry::Writes(before) = before else { panic!("not writes") };
        let aligned = before.writes[1].rows.as_ptr().addr().is_multiple_of(8);
        // The large write makes up most of the entry: it is not copied if its address is aligned.
        assert_eq!(held, [false, aligned, false], "shift {shift}");
        drop(before);
        let rows: Vec<Bytes> = entry.writes.into_iter().map(|write| write.rows).collect();
        assert_eq!(bytes.is_unique(), !aligned, "shift {shift}");
        drop(rows);
    }
}

#[test]
fn damaged_entries_do_not_panic_the_decoder() {
    let whole = writes(vec![write(1, 2, &[1, 2, 3]), write(1, 3, &[4])]);
    for cut in 0..whole.len() {
        let _ = decode(&whole.slice(..cut));
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = decode(&flipped.into());
    }
}

#[test]
fn later_kinds_differ_from_malformed_entries() {
    for (name, bytes, _) in golden() {
        assert!(check_kind(&bytes).is_ok(), "{name}");
    }
    // Field 31 with an empty message.
    let later = Bytes::from_static(&[0xfa, 0x01, 0x00]);
    assert!(matches!(check_kind(&later), Err(EntryError::UnknownKind)));
    assert!(matches!(decode(&later), Err(EntryError::UnknownKind)));
    for garbage in [&b""[..], b"\xff\xff", b"\x1a\x7f", b"\x1a\x02\xff\xff"] {
        let garbage = Bytes::from_static(garbage);
        assert!(check_kind(&garbage).is_ok(), "{garbage:?}");
        let error = decode(&garbage).unwrap_err();
        assert!(!matches!(error, EntryError::UnknownKind), "{garbage:?}: {error}");
    }
}

#[test]
fn raised_level_is_within_the_release() {
    let highest = FeatureLevel::HIGHEST;
    assert!(decode(&level_raised(highest)).is_ok());
    let beyond = decode(&level_raised(highest.next()));
    assert!(matches!(beyond, Err(EntryError::LevelAboveRelease(level)) if level == highest.next()));
    // A release with the level decodes it: peers send it.
    assert!(check_kind(&level_raised(highest.next())).is_ok());
}

#[test]
fn every_kind_of_entry_has_a_level() {
    for (name, entry, _) in golden() {
        assert!(entry.level() <= FeatureLevel::HIGHEST, "{name}");
        assert_eq!(entry.level(), entry_level(&decode(&entry).unwrap()), "{name}");
    }
    // Each has frozen bytes.
    let opened = opened(region(7, None, None), Sequence(0));
    let kinds: BTreeSet<u32> =
        golden().iter().map(|(_, entry, _)| kind(entry)).chain([kind(&opened)]).collect();
    assert_eq!(kinds, BTreeSet::from(KINDS));
    // A raise needs the level before it.
    assert_eq!(level_raised(FeatureLevel::new(5)).level(), FeatureLevel::new(4));
}

#[test]
fn barrier_that_names_tables_needs_their_level() {
    let named = |tables| barrier(v1::GroupBarrier { tables, ..v1::GroupBarrier::default() });
    assert_eq!(named(Vec::new()).level(), FeatureLevel::new(5));
    assert_eq!(named(vec![v1::TableSince::default()]).level(), FeatureLevel::COLLECTIONS);
}

#[test]
fn table_options_need_their_level() {
    let window =
        v1::TableOptions { compaction_window_ms: Some(60_000), ..v1::TableOptions::default() };
    let events = v1::TableOptions { holds_events: true, ..v1::TableOptions::default() };
    let held = v1::TableOptions { explicit_since: true, ..events.clone() };
    let dropped = v1::TableOptions { dropped: true, ..held.clone() };
    let mirror = v1::TableOptions { refreshable: true, ..held.clone() };
    for (options, expected) in [
        (v1::TableOptions::default(), FeatureLevel::FIRST),
        (window, FeatureLevel::EVENT_TABLES),
        (events, FeatureLevel::EVENT_TABLES),
        (held, FeatureLevel::COLLECTIONS),
        (dropped, FeatureLevel::HELD_DROPS),
        (mirror, FeatureLevel::HELD_REFRESHES),
    ] {
        let region =
            v1::RegionDescriptor { options: Some(options.clone()), ..region(7, None, None) };
        assert_eq!(opened(region, Sequence(0)).level(), expected);
        let change = v1::RegionAltered { options: Some(options), ..v1::RegionAltered::default() };
        assert_eq!(altered(change).level(), expected);
    }
}
