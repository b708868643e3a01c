//! An export, for output.

use std::time::Duration;

use serde::Serialize;
use tidewater_common::ids::Epoch;
use tidewater_proto::v1::ListedExport;
use uuid::Uuid;

use super::target::url_of;
use crate::output::Listed;
use crate::output::amount::{bytes_text, duration_text, grouped};

/// State of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ExportState {
    /// The first step, which has the contents, is not complete.
    Contents,
    /// The contents are exported, and changes follow.
    Following,
    /// The step in progress has failed, and is repeated.
    Failing,
}

/// An export. The JSON field names and the states are stable; times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct ExportLine {
    name: String,
    /// UUID, which the objects have, too.
    export_id: Option<Uuid>,
    table: String,
    url: Option<String>,
    /// JSON text with the URL and the way to reach it.
    target: String,
    state: ExportState,
    /// Failure of the step in progress, until the part that has failed is completed.
    failure: Option<String>,
    interval_ms: u64,
    /// Time of the creation, since the Unix epoch.
    created_ms: u64,
    /// Epoch of the contents.
    as_of: u64,
    /// Epoch of the last completed step; null: none.
    frontier: Option<u64>,
    /// Epoch of the last barrier; null: it is not known.
    upper: Option<u64>,
    /// Time between them; null if one is not known.
    lag_ms: Option<u64>,
    /// Completed steps, and their files, rows and bytes.
    steps: u64,
    files: u64,
    rows: u64,
    bytes: u64,
    /// Epoch of the step in progress; null: none.
    step_as_of: Option<u64>,
    /// Regions of the step in progress that are written, of all, and rows.
    regions_done: u32,
    regions: u32,
    step_rows: u64,
}

impl From<ListedExport> for ExportLine {
    fn from(listed: ListedExport) -> Self {
        let export = listed.export.unwrap_or_default();
        let some = |number: u64| (number != 0).then_some(number);
        let state = if !listed.failure.is_empty() {
            ExportState::Failing
        } else if export.frontier == 0 {
            ExportState::Contents
        } else {
            ExportState::Following
        };
        let begins = Epoch(export.frontier).ms().zip(Epoch(listed.upper).ms());
        Self {
            name: export.name,
            export_id: Uuid::from_slice(&export.id).ok(),
            table: listed.table,
            url: url_of(&export.target),
            target: export.target,
            state,
            failure: Some(listed.failure).filter(|failure| !failure.is_empty()),
            interval_ms: export.interval_ms,
            created_ms: export.created_ms,
            as_of: export.as_of,
            frontier: some(export.frontier),
            upper: some(listed.upper),
            lag_ms: begins.map(|(frontier_ms, upper_ms)| upper_ms.saturating_sub(frontier_ms)),
            steps: export.steps,
            files: export.files,
            rows: export.rows,
            bytes: export.bytes,
            step_as_of: some(export.step_as_of),
            regions_done: listed.regions_done,
            regions: listed.regions,
            step_rows: listed.step_rows,
        }
    }
}

impl ExportLine {
    /// Returns the text of a creation.
    pub(super) fn creation_text(&self) -> String {
        let Self { name, table, as_of, .. } = self;
        format!("export {name} of table {table} created: contents as of epoch {as_of}")
    }

    /// Returns the text of an export whose contents are exported.
    pub(super) fn contents_text(&self) -> String {
        let Self { name, table, .. } = self;
        let frontier = self.frontier.unwrap_or(self.as_of);
        let (files, rows) = (grouped(self.files), grouped(self.rows));
        let size = bytes_text(self.bytes);
        format!(
            "export {name} of table {table} is at epoch {frontier} (files: {files}, rows: {rows}, size: {size})"
        )
    }

    /// Returns the state with its progress, for people.
    fn state_text(&self) -> String {
        let step = self.step_text();
        match (self.state, self.frontier) {
            (ExportState::Failing, _) => {
                format!("failing: {}", self.failure.as_deref().unwrap_or_default())
            }
            (ExportState::Following, Some(frontier)) => {
                let lag = self.lag().map(|lag| format!(", {lag} behind")).unwrap_or_default();
                let step = step.map(|step| format!(", step {step}")).unwrap_or_default();
                format!("at epoch {frontier}{lag}{step}")
            }
            (ExportState::Contents | ExportState::Following, _) => {
                step.map_or_else(|| "contents".to_owned(), |step| format!("contents {step}"))
            }
        }
    }

    /// Returns the progress of the step in progress; `None`: there is no step, or its regions are not known yet.
    fn step_text(&self) -> Option<String> {
        let is_known = self.step_as_of.is_some() && self.regions > 0;
        is_known.then(|| format!("{}/{} regions", self.regions_done, self.regions))
    }

    fn lag(&self) -> Option<String> {
        self.lag_ms.map(|ms| duration_text(Duration::from_millis(ms)))
    }
}

impl Listed for ExportLine {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "TABLE", "URL", "STATE", "FILES", "ROWS", "SIZE", "LAG"];

    fn cells(&self) -> Vec<String> {
        let dash = || "-".to_owned();
        vec![
            self.name.clone(),
            self.table.clone(),
            self.url.clone().unwrap_or_else(dash),
            self.state_text(),
            grouped(self.files),
            grouped(self.rows),
            bytes_text(self.bytes),
            self.lag().unwrap_or_else(dash),
        ]
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::Export;

    use super::*;

    const UPPER_MS: u64 = 1_800_000_000_000;

    fn listed(frontier: Epoch) -> ListedExport {
        let export = Export {
            id: Uuid::from_u128(3).as_bytes().to_vec().into(),
            name: "lake".to_owned(),
            target: r#"{"url":"s3://lake/t"}"#.to_owned(),
            interval_ms: 10_000,
            as_of: 5,
            created_ms: UPPER_MS - 60_000,
            steps: 2,
            frontier: frontier.get(),
            files: 3,
            rows: 5_027,
            bytes: 2_048,
            step_as_of: 9,
            ..Export::default()
        };
        ListedExport {
            export: Some(export),
            table: "t".to_owned(),
            upper: Epoch::at_ms(UPPER_MS).get(),
            regions_done: 3,
            regions: 8,
            step_rows: 7,
            ..ListedExport::default()
        }
    }

    #[test]
    fn export_has_stable_json_fields() {
        let of = listed(Epoch::at_ms(UPPER_MS - 4_000));
        let (frontier, upper) = (of.export.as_ref().unwrap().frontier, of.upper);
        let line = ExportLine::from(of);
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            format!(
                r#"{{"name":"lake","export_id":"00000000-0000-0000-0000-000000000003","table":"t","url":"s3://lake/t","target":"{{\"url\":\"s3://lake/t\"}}","state":"following","failure":null,"interval_ms":10000,"created_ms":1799999940000,"as_of":5,"frontier":{frontier},"upper":{upper},"lag_ms":4000,"steps":2,"files":3,"rows":5027,"bytes":2048,"step_as_of":9,"regions_done":3,"regions":8,"step_rows":7}}"#
            )
        );
        let state = format!("at epoch {frontier}, 4.0 s behind, step 3/8 regions");
        let cells = ["lake", "t", "s3://lake/t", &state, "3", "5,027", "2.0 KiB", "4.0 s"];
        assert_eq!(line.cells(), cells);
    }

    #[test]
    fn export_of_contents_shows_its_regions() {
        let line = ExportLine::from(listed(Epoch(0)));
        assert_eq!((line.frontier, line.lag_ms), (None, None));
        let cells = line.cells();
        assert_eq!((cells[3].as_str(), cells[7].as_str()), ("contents 3/8 regions", "-"));
        let line = ExportLine::from(ListedExport { regions: 0, ..listed(Epoch(0)) });
        assert_eq!(line.cells()[3], "contents");
    }

    #[test]
    fn export_between_two_steps_shows_no_regions() {
        let mut of = listed(Epoch::at_ms(UPPER_MS));
        of.export.as_mut().unwrap().step_as_of = 0;
        let line = ExportLine::from(of);
        assert_eq!(line.step_as_of, None);
        assert!(line.cells()[3].ends_with(", 0 ms behind"), "{:?}", line.cells());
    }

    #[test]
    fn failing_export_shows_its_failure() {
        for frontier in [Epoch(0), Epoch::at_ms(UPPER_MS)] {
            let failing = ListedExport { failure: "disk full".to_owned(), ..listed(frontier) };
            let line = ExportLine::from(failing);
            assert_eq!(line.state, ExportState::Failing);
            assert_eq!(line.cells()[3], "failing: disk full");
        }
    }

    #[test]
    fn export_of_a_new_leader_has_no_lag() {
        let line = ExportLine::from(ListedExport { upper: 0, ..listed(Epoch(9)) });
        assert_eq!((line.upper, line.lag_ms), (None, None));
        let cells = line.cells();
        assert_eq!((cells[3].as_str(), cells[7].as_str()), ("at epoch 9, step 3/8 regions", "-"));
    }

    #[test]
    fn texts_of_a_creation_name_the_epochs() {
        let line = ExportLine::from(listed(Epoch(9)));
        assert_eq!(line.creation_text(), "export lake of table t created: contents as of epoch 5");
        assert_eq!(
            line.contents_text(),
            "export lake of table t is at epoch 9 (files: 3, rows: 5,027, size: 2.0 KiB)"
        );
    }
}
