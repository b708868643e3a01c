use tidewater_common::ids::{
    Epoch, GroupId, JobId, ManifestVersion, OwnerEpoch, RegionId, Sequence, Term,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::TableOptions;
use uuid::Uuid;

use super::*;
use crate::file_meta::{FileMeta, Stamp, TimeRange};
use crate::manifest::replay;
use crate::manifest::samples::*;
use crate::manifest::{
    Action, ActionKind, AreaId, AreaStep, Author, Change, Delta, Edit, ExpiryMark, ProcedureStep,
    RequiredProgress, Truncate,
};

/// One line per record: name, then the object's bytes in hex. Written once: every later release
/// must read an object that this release stored.
const FROZEN: &str = include_str!("frozen.txt");

const AREA: AreaId = AreaId(Uuid::from_u128(4));

fn whole_file() -> FileMeta {
    FileMeta {
        clip: KeyRange::new([1], Some(vec![9])),
        level: 2,
        time: Some(TimeRange { min: -5, max: 5 }),
        stored_min_epoch: Epoch(3),
        stored_max_epoch: Epoch(4),
        deletes: 2,
        indexes: vec![index(1)],
        stamp: Some(Stamp { sequence: Sequence(70), epoch: Epoch(6) }),
        ..file(1)
    }
}

fn deltas() -> Vec<(&'static str, Delta)> {
    let owned = |kind| Change::new(Author::Owner(owner(1)), vec![kind]);
    let area = |step| owned(ActionKind::Area { area: AREA, step });
    let staged =
        Action::staged(AREA, ActionKind::Edit(Edit { add: vec![file(2)], ..Edit::default() }));
    let edit = Edit {
        add: vec![whole_file()],
        remove: vec![file(2).reference()],
        add_indexes: vec![(file(3).reference(), index(2))],
        flushed: Some(Sequence(29)),
        since: Some(Epoch(2)),
        window_ms: Some(3_600_000),
        expired: Vec::new(),
    };
    let mark = |before_ms, through| ExpiryMark { before_ms, through: Sequence(through) };
    let expiring = Edit {
        remove: vec![file(2).reference()],
        expired: vec![mark(1_700_000_000_000, 29), mark(-5, 39)],
        ..Edit::default()
    };
    let files = vec![file(1).reference(), whole_file().reference()];
    let mut everything = create(1);
    everything.cause = Some(Sequence(65_536));
    everything.procedure = Some(ProcedureStep { number: 4, step: 2 });
    everything.by_reference = vec![RegionId(11)];
    let merged = Change { by_reference: vec![RegionId(10), RegionId(11)], ..create(1) };
    let merged = Change { author: Author::System, ..merged };
    let options = TableOptions { ttl_ms: None, ..TableOptions::append_only() };
    let by_target = OwnerEpoch { move_epoch: 5, term: Term(2) };
    let required = RequiredProgress { flushed: Sequence(19), done: Sequence(11) };
    let moved = ActionKind::Fence { owner: by_target, group: GroupId(9), required };
    let moved = Change::new(Author::Owner(by_target), vec![moved]);
    vec![
        ("change", delta(2, create(1))),
        (
            "change_append_only",
            delta(3, owned(ActionKind::Alter { schema: Box::new(schema(2)), options })),
        ),
        ("edit", delta(4, owned(ActionKind::Edit(edit)))),
        ("truncate", delta(5, owned(ActionKind::Truncate(Truncate::UpTo(Sequence(9)))))),
        ("truncate_files", delta(6, owned(ActionKind::Truncate(Truncate::Files(files))))),
        ("remove", delta(7, owned(ActionKind::Remove))),
        ("fence", delta(8, fence(7))),
        (
            "gc_floor",
            delta(9, Change::new(Author::System, vec![ActionKind::GcFloor { floor_ms: 77 }])),
        ),
        ("area_open", delta(10, area(AreaStep::Open { logged: true, deadline_ms: 99 }))),
        ("area_publish", delta(11, area(AreaStep::Publish))),
        ("area_abandon", delta(12, area(AreaStep::Abandon))),
        ("area_merged", delta(13, area(AreaStep::Merged(vec![staged.clone()])))),
        ("staged", delta(14, Change { actions: vec![staged], ..fence(1) })),
        ("by_procedure", delta(15, everything)),
        (
            "by_job",
            delta(16, Change { author: Author::Job(JobId(Uuid::from_u128(6))), ..flush(1, 1) }),
        ),
        ("edit_expiring", delta(17, by_job(expiring))),
        ("first_of_merge", delta(1, merged)),
        ("fence_of_move", delta(18, moved)),
    ]
}

fn checkpoint() -> ManifestState {
    let mut state = ManifestState::empty(DIR);
    let owned = |kind| Change::new(Author::Owner(owner(1)), vec![kind]);
    let open = AreaStep::Open { logged: true, deadline_ms: 99 };
    let staged =
        Action::staged(AREA, ActionKind::Edit(Edit { add: vec![file(9)], ..Edit::default() }));
    let closed = AreaId(Uuid::from_u128(5));
    let mut stepped = flush(1, 3);
    stepped.actions = vec![Action::live(ActionKind::Edit(Edit {
        add: vec![file(3)],
        since: Some(Epoch(2)),
        window_ms: Some(60_000),
        ..Edit::default()
    }))];
    stepped.cause = Some(Sequence(80));
    stepped.procedure = Some(ProcedureStep { number: 4, step: 2 });
    let add_index = Edit { add_indexes: vec![(file(1).reference(), index(1))], ..Edit::default() };
    let changes = [
        fence(1),
        create(1),
        flush(1, 1),
        flush(1, 2),
        by_job(add_index),
        owned(ActionKind::Truncate(Truncate::UpTo(Sequence(19)))),
        Change::new(Author::System, vec![ActionKind::GcFloor { floor_ms: 999_999 }]),
        owned(ActionKind::Area { area: AREA, step: open }),
        Change { actions: vec![staged], ..fence(1) },
        owned(ActionKind::Area {
            area: closed,
            step: AreaStep::Open { logged: false, deadline_ms: 9 },
        }),
        owned(ActionKind::Area { area: closed, step: AreaStep::Abandon }),
        stepped,
    ];
    for (change, version) in changes.into_iter().zip(1..) {
        assert_eq!(
            replay::apply(&mut state, &delta(version, change)),
            replay::ReplayOutcome::Applied
        );
    }
    state
}

/// The state of a region with rows that have expired for good.
fn checkpoint_expired() -> ManifestState {
    let mut state = checkpoint();
    let mark = |before_ms, through| ExpiryMark { before_ms, through: Sequence(through) };
    state.expired.add(mark(1_700_000_000_000, 29));
    state.expired.add(mark(-5, 39));
    state
}

/// The state of a child, sealed to be divided again.
fn checkpoint_sealed() -> ManifestState {
    let mut state = checkpoint();
    state.range = Some(KeyRange::new([1], Some(vec![1])));
    state.sealed_at = Some(ManifestVersion(9));
    state.parents = vec![RegionId(10), RegionId(11)];
    state
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn frozen(name: &str) -> &'static str {
    FROZEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default()
}

#[test]
fn encoded_manifest_objects_keep_their_bytes() {
    let mut fresh = String::new();
    for (name, delta) in deltas() {
        fresh += &format!("{name} {}\n", hex(&encode_delta(&delta)));
    }
    fresh += &format!("checkpoint {}\n", hex(&encode_checkpoint(&checkpoint())));
    fresh += &format!("checkpoint_expired {}\n", hex(&encode_checkpoint(&checkpoint_expired())));
    fresh += &format!("checkpoint_sealed {}\n", hex(&encode_checkpoint(&checkpoint_sealed())));
    assert_eq!(FROZEN, fresh, "\nthe format of stored manifests has changed");
}

#[test]
fn stored_manifest_objects_are_decoded() {
    for (name, delta) in deltas() {
        assert_eq!(decode_delta(&unhex(frozen(name))), Ok(delta), "{name}");
    }
    assert_eq!(decode_checkpoint(&unhex(frozen("checkpoint"))), Ok(checkpoint()));
    let expired = decode_checkpoint(&unhex(frozen("checkpoint_expired")));
    assert_eq!(expired, Ok(checkpoint_expired()));
    let sealed = decode_checkpoint(&unhex(frozen("checkpoint_sealed")));
    assert_eq!(sealed, Ok(checkpoint_sealed()));
}

#[test]
fn damage_to_any_byte_is_an_error() {
    let mut objects: Vec<_> =
        deltas().iter().map(|(name, delta)| (*name, encode_delta(delta))).collect();
    objects.push(("checkpoint", encode_checkpoint(&checkpoint())));
    for (name, whole) in objects {
        let read = |bytes: &[u8]| match name {
            "checkpoint" => decode_checkpoint(bytes).map(drop),
            _ => decode_delta(bytes).map(drop),
        };
        assert_eq!(read(&whole), Ok(()));
        for cut in 0..whole.len() {
            assert!(
                matches!(read(&whole[..cut]), Err(CodecError::Damaged(_))),
                "{name} cut at {cut}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&flipped), Err(CodecError::Damaged(_))), "{name} bit {bit}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(matches!(read(&longer), Err(CodecError::Damaged(_))), "{name} with a byte more");
    }
}

#[test]
fn invalid_payload_with_a_valid_checksum_is_rejected() {
    use tidewater_proto::v1;
    type Wrong = fn(&mut v1::ManifestDelta);
    let wrong = |change: Wrong| {
        let mut message = v1::ManifestDelta::from(&delta(4, flush(1, 1)));
        change(&mut message);
        decode_delta(&frame::wrap(frame::FrameKind::Delta, &message.encode_to_vec()))
    };
    let cases: [(&str, Wrong); 4] = [
        ("author", |message| message.author = None),
        ("writer id", |message| message.writer_id = vec![1; 15].into()),
        ("action kind", |message| message.actions[0].kind = None),
        ("staged area id", |message| message.actions[0].staged_area_id = Some(vec![].into())),
    ];
    for (field, change) in cases {
        assert_eq!(wrong(change), Err(CodecError::missing(field)));
    }
    let garbage = decode_delta(&frame::wrap(frame::FrameKind::Delta, &[0xff; 20]));
    assert!(matches!(garbage, Err(CodecError::Damaged(_))));
}
