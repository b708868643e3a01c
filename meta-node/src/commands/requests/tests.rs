use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Term;
use tidewater_proto::v1::{self, meta_command::Kind};

use super::*;
use crate::catalog::Header;
use crate::commands::testing::{
    command, directory, drop_table, run, run_command, table, with_groups,
};
use crate::commands::{CommandReply, apply, apply_change};

fn current(kind: Kind) -> v1::MetaCommand {
    v1::MetaCommand { rules: Rules::at(FeatureLevel::HIGHEST).0, ..command(kind) }
}

/// A state with the active table "t", made by request 1.
fn with_table() -> MetaState {
    let mut state = with_groups(1, 1);
    run_command(&mut state, current(Kind::CreateTable(table(1, "t")))).unwrap();
    run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
    state
}

fn add_hook(config: &str) -> Kind {
    Kind::AddHook(v1::AddHookRequest {
        request_id: directory(2),
        name: "h".into(),
        kind: "jsonl".into(),
        config: config.into(),
        ..v1::AddHookRequest::default()
    })
}

fn alter(ttl_ms: u64) -> Kind {
    Kind::BeginAlterTable(v1::AlterTableRequest {
        request_id: directory(3),
        name: "t".into(),
        columns: Vec::new(),
        ttl_ms: Some(ttl_ms),
        compaction_window_ms: None,
        by_node: false,
        explicit_since: false,
    })
}

fn clone_of(name: &str) -> Kind {
    Kind::CloneTable(v1::CloneTableRequest {
        request_id: directory(4),
        name: name.into(),
        new_name: "copy".into(),
    })
}

fn create(regions: u32) -> Kind {
    Kind::CreateTable(v1::CreateTableRequest { regions, ..table(5, "u") })
}

#[test]
fn request_id_belongs_to_its_arguments() {
    let timed = v1::CreateTableRequest { time_column: Some("t".into()), ..table(1, "t") };
    let cases: [(&str, Kind, Kind); 4] = [
        ("create", create(1), create(2)),
        ("hook", add_hook("{}"), add_hook(r#"{"path":"x"}"#)),
        ("alter", alter(1_000), alter(2_000)),
        ("clone", clone_of("t"), clone_of("other")),
    ];
    for (case, first, other) in cases {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(timed.clone())).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        let reply = run_command(&mut state, current(first.clone())).unwrap();
        // After a restart, too.
        let mut state = MetaState::from_rows(state.rows().unwrap()).unwrap();
        assert_eq!(run_command(&mut state, current(first)), Ok(reply), "{case}");
        let refused = run_command(&mut state, current(other.clone()));
        assert!(matches!(refused, Err(CommandError::RequestIdReused(_))), "{case}: {refused:?}");
        // The log of an older release.
        assert_eq!(run(&mut state, other), Ok(reply), "{case}");
    }
}

#[test]
fn outcome_of_an_older_release_has_no_arguments() {
    let mut state = with_groups(1, 1);
    run(&mut state, create(1)).unwrap();
    let repeated = run_command(&mut state, current(create(2)));
    assert_eq!(repeated, Ok(CommandReply::Table(TableId(1))));
}

#[test]
fn repeated_load_may_name_another_timeout() {
    let mut state = with_table();
    let begin = |timeout_ms| {
        let name = "t".to_owned();
        let request_id = directory(6);
        current(Kind::BeginLoad(v1::BeginLoadRequest { request_id, name, timeout_ms }))
    };
    run_command(&mut state, begin(1_000)).unwrap();
    run_command(&mut state, begin(5_000)).unwrap();
    let Some(TableChange::Load(load)) = &state.table(TableId(1)).unwrap().change else { panic!() };
    assert_eq!(load.deadline_ms, state.header().time_ms + 5_000);
}

/// Adds outcomes like that of request 1, recorded at the same time, up to the maximum.
fn filled(state: &MetaState) -> MetaState {
    let mut rows = state.rows().unwrap();
    let key = |id: Uuid| [b"meta/outcome/".as_slice(), id.as_bytes()].concat();
    let first = key(Uuid::from_u128(1));
    let outcome = rows.iter().find(|row| row.0 == first).unwrap().1.clone();
    for number in 0..(MAX_OUTCOMES - state.outcome_count()) as u128 {
        rows.push((key(Uuid::from_u128(1_000 + number)), outcome.clone()));
    }
    MetaState::from_rows(rows).unwrap()
}

fn pass(state: &mut MetaState, milliseconds: u64) {
    let time_ms = state.header().time_ms + milliseconds;
    let header = Header { time_ms, ..state.header().clone() };
    let change = CatalogChange { header: Some(header), ..CatalogChange::default() };
    apply_change(state, change).unwrap();
}

#[test]
fn oldest_requests_make_room_after_the_retry_window() {
    let mut state = with_table();
    let name = "t".to_owned();
    let load = v1::BeginLoadRequest { request_id: directory(6), name, timeout_ms: 86_400_000 };
    run(&mut state, Kind::BeginLoad(load)).unwrap();
    let mut state = filled(&state);
    // Verifying the whole state after each command would take minutes.
    let create = |state: &mut MetaState, rules, number| {
        let kind = Kind::CreateTable(table(number, &format!("t{number}")));
        let command = v1::MetaCommand { rules, ..command(kind) };
        apply(state, Term(1), command).map(|(reply, _)| reply)
    };
    let full = Err(CommandError::OutcomesFull(MAX_OUTCOMES));
    let current = Rules::at(FeatureLevel::HIGHEST).0;
    pass(&mut state, RETRY_WINDOW_MS);
    assert_eq!(create(&mut state, current, 10), full, "a client may still ask for each of them");
    pass(&mut state, 1);
    assert_eq!(create(&mut state, 0, 10), full, "the log of an older release");
    let known = |state: &MetaState, id| state.outcome(Uuid::from_u128(id)).is_some();
    assert_eq!(create(&mut state, current, 10), Ok(CommandReply::Table(TableId(2))));
    assert!(!known(&state, 1) && known(&state, 10));
    // The next one in order is of a load in progress.
    assert_eq!(create(&mut state, current, 11), Ok(CommandReply::Table(TableId(3))));
    assert!(known(&state, 6) && !known(&state, 1_000) && known(&state, 1_001));
    assert_eq!(state.outcome_count(), MAX_OUTCOMES);
    // Ending the load replaces its outcome, which needs no room.
    let end = v1::EndLoadRequest { request_id: directory(6), name: "t".into(), publish: false };
    apply(&mut state, Term(1), self::current(Kind::EndLoad(end))).unwrap();
    assert_eq!(state.outcome_count(), MAX_OUTCOMES);
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
    // A drop is no longer refused either, which was the only way to free the name.
    apply(&mut state, Term(1), self::current(drop_table(12, "t10"))).unwrap();
}
