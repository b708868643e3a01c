//! Creation of exports, with and without a token, and their end.

use super::*;
use crate::catalog::{CatalogError, Export};
use crate::commands::collections::testing::{
    create_export, create_export_by, drop_export, export_request, learned, with_export,
};

fn export<'a>(state: &'a MetaState, name: &str) -> &'a Export {
    state.exports().get(name).unwrap()
}

#[test]
fn export_holds_the_last_epoch_that_has_begun() {
    let mut state = with_tables();
    run(&mut state, change(20, create_export(20, "x", "t", 0))).unwrap();
    let created = Export {
        id: id(20),
        name: "x".to_owned(),
        table: TableId(1),
        target: r#"{"url":"s3://exports/x"}"#.to_owned(),
        interval_ms: 10_000,
        as_of: Epoch(20),
        created_ms: state.header().time_ms,
        steps: 0,
        frontier: None,
        advanced_ms: 0,
        step_as_of: None,
        files: 0,
        rows: 0,
        bytes: 0,
    };
    assert_eq!(*export(&state, "x"), created);
    assert_eq!(*hold(&state, "export:x"), created.hold());
    assert_eq!((since_of(&state, 1, 30), since_of(&state, 1, 90)), (20, 20));
    assert_eq!(state.exports().for_table(TableId(1)).count(), 1);
    // The hold of the first export keeps an earlier epoch readable.
    run(&mut state, change(40, create_export(21, "y", "t", 35))).unwrap();
    run(&mut state, change(40, create_export(22, "z", "t", 0))).unwrap();
    assert_eq!((export(&state, "y").as_of, export(&state, "z").as_of), (Epoch(35), Epoch(40)));
}

#[test]
fn repeated_creation_changes_nothing() {
    let mut state = with_tables();
    run(&mut state, change(20, create_export(20, "x", "t", 0))).unwrap();
    let before = state.clone();
    let first = export_request(20, "x", "t", 0);
    for same in [
        first.clone(),
        v1::CreateExportRequest { epoch: 20, ..first.clone() },
        v1::CreateExportRequest { interval_ms: 10_000, ..first.clone() },
    ] {
        run(&mut state, change(30, Change::CreateExport(same))).unwrap();
        assert_eq!(state, before);
    }
    for other in [
        v1::CreateExportRequest { name: "y".to_owned(), ..first.clone() },
        v1::CreateExportRequest { table: "u".to_owned(), ..first.clone() },
        v1::CreateExportRequest { target: "{}".to_owned(), ..first.clone() },
        v1::CreateExportRequest { interval_ms: 10_001, ..first.clone() },
        v1::CreateExportRequest { epoch: 21, ..first },
    ] {
        let error = run(&mut state, change(30, Change::CreateExport(other.clone()))).unwrap_err();
        assert_eq!(error, CommandError::RequestIdReused(id(20)), "{other:?}");
    }
}

#[test]
fn names_and_prefixes_of_exports_are_unique() {
    let mut state = with_tables();
    run(&mut state, change(20, create_export(20, "x", "t", 0))).unwrap();
    let text = "export \"x\" already exists: drop it, or use another name";
    let exists = refusal(&mut state, change(20, create_export(21, "x", "u", 0)));
    assert_eq!(exists, (Reason::ExportExists, text.to_owned()));
    let to = |target: &str| {
        let target = target.to_owned();
        let request = v1::CreateExportRequest { target, ..export_request(21, "y", "t", 0) };
        change(20, Change::CreateExport(request))
    };
    for (target, url) in [
        (r#"{"url":"s3://exports/x/"}"#, "s3://exports/x"),
        (r#"{"url":"s3://exports/x/daily"}"#, "s3://exports/x/daily"),
        (r#"{"region":"eu","url":"s3://exports"}"#, "s3://exports"),
        (r#"{"url":"s3a://exports/./y/../x"}"#, "s3a://exports/./y/../x"),
    ] {
        let text =
            format!("prefix \"{url}\" overlaps with that of export \"x\": use another prefix");
        let refused = refusal(&mut state, to(target));
        assert_eq!(refused, (Reason::ExportPrefixInUse, text));
    }
    for target in
        [r#"{"url":"s3://exports/xy"}"#, r#"{"url":"s3://exports/x","endpoint":"https://h:9"}"#]
    {
        run(&mut state.clone(), to(target)).unwrap();
    }
}

#[test]
fn invalid_exports_are_refused() {
    let mut state = with_tables();
    let text = "epoch 19 of table \"t\" can no longer be read: it is below since 20 (upper is 20)";
    let ahead = "epoch 21 has not begun: the last one is 20";
    let object = v1::CreateExportRequest { target: "7".into(), ..export_request(20, "x", "t", 0) };
    for (of, reason, text) in [
        (create_export(20, "x", "t", 19), Reason::EpochBelowSince, text),
        (create_export(20, "x", "t", 21), Reason::InvalidArgument, ahead),
        (create_export(20, "x", "v", 0), Reason::TableNotFound, "table \"v\" does not exist"),
        (
            Change::CreateExport(object),
            Reason::InvalidArgument,
            "the target of an export must be a JSON object",
        ),
    ] {
        assert_eq!(refusal(&mut state, change(20, of)), (reason, text.to_owned()));
    }
    let text = "the command is malformed: a change of collections has no epoch";
    let without_epoch = refusal(&mut state, change(0, create_export(20, "x", "t", 0)));
    assert_eq!(without_epoch, (Reason::InvalidArgument, text.to_owned()));
    // Before the alteration that makes the oldest readable epoch of the table its own.
    let mut state = crate::commands::procedures::testing::with_tables();
    let busy = refused(&mut state, change(20, create_export(20, "x", "t", 0)));
    assert_eq!(busy, Reason::TableBusy);
}

#[test]
fn token_keeps_the_epoch_of_an_export() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "export-token:a", &["t"], 0))).unwrap();
    run(&mut state, change(40, create_export_by("export-token:a", 20, "x", "t"))).unwrap();
    assert_eq!((export(&state, "x").as_of, since_of(&state, 1, 50)), (Epoch(20), 20));
    assert!(state.holds().get("export-token:a").is_none(), "the token was used");
    let before = state.clone();
    run(&mut state, change(50, create_export_by("export-token:a", 20, "x", "t"))).unwrap();
    assert_eq!(state, before);
    let used = refusal(&mut state, change(50, create_export_by("export-token:a", 21, "y", "t")));
    let text = "token \"export-token:a\" is not valid: it was cancelled or used, or its lease has expired; \
                prepare the export again";
    assert_eq!(used, (Reason::ExportTokenExpired, text.to_owned()));
    // As of a later epoch than that of the token.
    run(&mut state, change(50, drop_export("x"))).unwrap();
    run(&mut state, change(60, acquire(2, "export-token:b", &["t"], 0))).unwrap();
    let by = v1::CreateExportRequest {
        token: "export-token:b".to_owned(),
        ..export_request(22, "z", "t", 65)
    };
    run(&mut state, change(70, Change::CreateExport(by))).unwrap();
    assert_eq!((export(&state, "z").as_of, since_of(&state, 1, 80)), (Epoch(65), 65));
}

#[test]
fn expired_token_creates_no_export() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "export-token:a", &["t"], 0))).unwrap();
    pass(&mut state, 60);
    let names = vec!["export-token:a".to_owned()];
    let expire = Change::Expire(v1::ReleaseReadHoldsRequest { names });
    run(&mut state, change(20, expire)).unwrap();
    let before = state.clone();
    let by = create_export_by("export-token:a", 20, "x", "t");
    assert_eq!(refused(&mut state, change(80, by)), Reason::ExportTokenExpired);
    assert_eq!(state, before);
}

#[test]
fn tokens_for_other_tables_and_epochs_are_refused() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "export-token:u", &["u"], 0))).unwrap();
    run(&mut state, change(20, acquire(2, "export-token:both", &["t", "u"], 0))).unwrap();
    run(&mut state, change(30, acquire(3, "export-token:t", &["t"], 30))).unwrap();
    let by = |token: &str, epoch| {
        let request = export_request(20, "x", "t", epoch);
        let token = format!("export-token:{token}");
        change(40, Change::CreateExport(v1::CreateExportRequest { token, ..request }))
    };
    for (token, epoch, text) in [
        ("u", 0, "token \"export-token:u\" is not of table \"t\""),
        ("both", 0, "token \"export-token:both\" is not of table \"t\""),
        ("t", 29, "token \"export-token:t\" is at epoch 30, after epoch 29"),
        ("t", 41, "epoch 41 has not begun: the last one is 40"),
    ] {
        let refused = refusal(&mut state, by(token, epoch));
        assert_eq!(refused, (Reason::InvalidArgument, text.to_owned()));
    }
    assert_eq!(state.holds().count(), 3);
}

#[test]
fn token_at_epoch_zero_exports_as_of_epoch_one() {
    let mut state = with_tables();
    let acquired = acquire(1, "export-token:a", &["t"], 0);
    run(&mut state, learned(20, (0, 2), acquired)).unwrap();
    assert_eq!(hold(&state, "export-token:a").epoch, Epoch(0));
    run(&mut state, change(20, create_export_by("export-token:a", 20, "x", "t"))).unwrap();
    assert_eq!(export(&state, "x").as_of, Epoch(1));
}

#[test]
fn exported_table_is_neither_truncated_nor_dropped() {
    let mut state = with_export();
    for (kind, operation) in [
        (truncate(10, "t"), "truncated"),
        (drop_named(10, "t"), "dropped"),
        (drop_table(10, "t"), "dropped"),
    ] {
        let text = format!(
            "table \"t\" is exported by \"x\" and cannot be {operation}: `tidewater export drop` \
             ends the export"
        );
        assert_eq!(refusal(&mut state, kind), (Reason::Held, text));
    }
}

#[test]
fn dropped_export_releases_its_hold_and_name() {
    let mut state = with_export();
    assert_eq!(since_of(&state, 1, 50), 20);
    run(&mut state, change(0, drop_export("x"))).unwrap();
    assert_eq!((state.exports().count(), state.holds().count()), (0, 0));
    assert_eq!(since_of(&state, 1, 50), 50);
    let gone = refusal(&mut state, change(0, drop_export("x")));
    assert_eq!(gone, (Reason::ExportNotFound, "export \"x\" does not exist".to_owned()));
    run(&mut state, change(50, create_export(21, "x", "t", 0))).unwrap();
    run(&mut state, change(0, drop_export("x"))).unwrap();
    run(&mut state, truncate(10, "t")).unwrap();
}

#[test]
fn rows_of_exports_without_their_holds_fail_to_load() {
    let state = with_export();
    let rows = state.rows().unwrap();
    assert_eq!(MetaState::from_rows(rows.clone()).unwrap(), state);
    let mut unheld = rows.clone();
    unheld.retain(|(key, _)| !key.starts_with(b"meta/hold/"));
    let mut renamed = rows;
    for (key, _) in &mut renamed {
        if key.starts_with(b"meta/export/") {
            key.push(b'y');
        }
    }
    let error = MetaState::from_rows(unheld).unwrap_err();
    assert!(matches!(error, CatalogError::InvalidRecord { kind: "export", .. }), "{error}");
    assert!(matches!(MetaState::from_rows(renamed), Err(CatalogError::UnknownKey(_))));
}
