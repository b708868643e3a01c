//! Progress by the reports of a cluster.

use super::*;
use crate::testing::{batch, number, text};

const UPPER_MS: u64 = 1_800_000_000_000;

/// An export that is 4 s behind, in its third step.
fn export() -> v1::ListedExport {
    let export = v1::Export {
        name: "lake".to_owned(),
        table_id: 3,
        steps: 2,
        frontier: Epoch::at_ms(UPPER_MS - 4_000).get(),
        step_as_of: Epoch::at_ms(UPPER_MS - 1_000).get(),
        rows: 10,
        bytes: 200,
        ..v1::Export::default()
    };
    v1::ListedExport {
        export: Some(export),
        table: "t".to_owned(),
        upper: Epoch::at_ms(UPPER_MS).get(),
        step_rows: 6,
        ..v1::ListedExport::default()
    }
}

fn export_with(change: impl FnOnce(&mut v1::Export)) -> v1::ListedExport {
    let mut listed = export();
    change(listed.export.as_mut().unwrap());
    listed
}

/// A table whose last refresh has failed, and was published before.
fn refresh() -> v1::RefreshInfo {
    let failed = v1::RefreshRun { error: "no such file".to_owned(), ..v1::RefreshRun::default() };
    let record = v1::RefreshRecord {
        table_id: 5,
        generation: 7,
        history: vec![failed, v1::RefreshRun::default()],
        published_rows: 90,
        ..v1::RefreshRecord::default()
    };
    v1::RefreshInfo {
        table: "mirror".to_owned(),
        record: Some(record),
        published_epoch: 40,
        state: "idle".to_owned(),
        ..v1::RefreshInfo::default()
    }
}

fn refresh_with(state: &str, current: v1::RefreshRun) -> v1::RefreshInfo {
    let mut info = refresh();
    info.state = state.to_owned();
    info.record.as_mut().unwrap().current = Some(current);
    info
}

#[test]
fn export_shows_its_frontier_and_its_step() {
    let exports = [export()];
    let expected = CollectionProgress {
        kind: ProgressKind::Export,
        name: "lake",
        table: TableId(3),
        table_name: "t",
        frontier: Some(Epoch::at_ms(UPPER_MS - 4_000)),
        lag_ms: Some(4_000),
        step: Some(3),
        rows: Some(10),
        bytes: Some(200),
        rows_done: Some(6),
        ..CollectionProgress::default()
    };
    assert_eq!(progress(&exports, &[]), [expected]);
}

#[test]
fn export_between_two_steps_has_none_in_progress() {
    // The meta leader has the rows of the last step until the next one begins.
    let exports = [export_with(|export| export.step_as_of = 0)];
    let found = progress(&exports, &[]);
    assert_eq!((found[0].step, found[0].rows_done), (None, None));
}

#[test]
fn export_without_completed_step_has_no_frontier() {
    let begun = export_with(|export| {
        export.steps = 0;
        export.frontier = 0;
    });
    let exports = [v1::ListedExport { failure: "disk full".to_owned(), ..begun }];
    let found = progress(&exports, &[]);
    assert_eq!((found[0].frontier, found[0].lag_ms, found[0].step), (None, None, Some(1)));
    assert_eq!(found[0].error, Some("disk full"));
}

#[test]
fn times_of_other_changes_are_left_out() {
    let recorded = export_with(|export| export.advanced_ms = UPPER_MS);
    let mut scheduled = refresh();
    scheduled.record.as_mut().unwrap().next_ms = UPPER_MS;
    let exports = [export(), recorded];
    let refreshes = [refresh(), scheduled];
    let found = progress(&exports, &refreshes);
    assert_eq!((&found[0], &found[2]), (&found[1], &found[3]));
}

#[test]
fn table_between_refreshes_shows_the_last_failure() {
    let refreshes = [refresh()];
    let expected = CollectionProgress {
        kind: ProgressKind::Refresh,
        name: "mirror",
        table: TableId(5),
        table_name: "mirror",
        state: Some("idle"),
        frontier: Some(Epoch(40)),
        generation: Some(7),
        error: Some("no such file"),
        ..CollectionProgress::default()
    };
    assert_eq!(progress(&[], &refreshes), [expected]);
}

#[test]
fn refresh_shows_the_rows_of_its_source() {
    let load = v1::LoadProgress { rows: 60, ..v1::LoadProgress::default() };
    let loading = v1::RefreshInfo {
        load: Some(load),
        ..refresh_with("refreshing", v1::RefreshRun::default())
    };
    let read = v1::RefreshRun { source_rows: 100, ..v1::RefreshRun::default() };
    let merging = refresh_with("merging", read.clone());
    let counts = v1::MergeCounts { inserted: 20, updated: 10, deleted: 9, unchanged: 70 };
    let merged = v1::RefreshRun { counts: Some(counts), ..read };
    let refreshes = [loading, merging, refresh_with("cleanup", merged)];
    let found = progress(&[], &refreshes);
    let rows: Vec<_> = found.iter().map(|of| (of.rows_done, of.rows_expected)).collect();
    assert_eq!(rows, [(Some(60), None), (None, Some(100)), (Some(100), Some(100))]);
}

#[test]
fn failure_in_progress_precedes_the_last_one() {
    let failure =
        v1::ProcedureFailure { message: "denied".to_owned(), ..v1::ProcedureFailure::default() };
    let failing = v1::RefreshInfo {
        failure: Some(failure),
        ..refresh_with("refreshing", v1::RefreshRun::default())
    };
    let mut published = refresh();
    published.record.as_mut().unwrap().history.remove(0);
    let refreshes = [failing, published];
    let found = progress(&[], &refreshes);
    assert_eq!((found[0].error, found[1].error), (Some("denied"), None));
}

#[test]
fn refreshes_of_a_dropped_table_are_left_out() {
    let dropped = v1::RefreshInfo { table: String::new(), ..refresh() };
    assert!(progress(&[], &[dropped]).is_empty());
}

#[test]
fn rows_have_the_columns_of_the_definition() {
    let exports = [export()];
    let refreshes = [refresh()];
    let rows = batch(&definition(), columns(&progress(&exports, &refreshes)));
    assert_eq!(definition().primary_key, ["kind", "name"]);
    let keys = [0, 1].map(|row| (text(&rows, "kind", row), text(&rows, "name", row)));
    assert_eq!(keys, [(Some("export"), Some("lake")), (Some("refresh"), Some("mirror"))]);
    let of_export = ["table_id", "lag_ms", "step", "generation", "rows", "bytes", "rows_done"]
        .map(|name| number(&rows, name, 0));
    let expected = [Some(3), Some(4_000), Some(3), None, Some(10), Some(200), Some(6)];
    assert_eq!(of_export, expected);
    let of_refresh = ["table_id", "frontier", "step", "generation", "rows", "rows_expected"]
        .map(|name| number(&rows, name, 1));
    assert_eq!(of_refresh, [Some(5), Some(40), None, Some(7), None, None]);
    let texts = ["table", "state", "error"].map(|name| text(&rows, name, 1));
    assert_eq!(texts, [Some("mirror"), Some("idle"), Some("no such file")]);
    assert_eq!(text(&rows, "state", 0), None);
    assert_eq!(batch(&definition(), columns(&[])).num_rows(), 0);
}
