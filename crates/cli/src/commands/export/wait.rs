//! Wait until the contents of an export are exported, with their progress.

use std::time::{Duration, Instant};

use tidewater_client::Client;
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Export, ListedExport, Reason};
use tokio::time::sleep;

use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::terminal::note;
use crate::text::time_span::TimeSpan;

/// Interval of the calls for the progress.
const POLL: Duration = Duration::from_millis(250);

/// Waits until the first step of an export is complete, at most for the time `longest`, and shows the progress. The export
/// continues after a failure.
pub(super) async fn wait(
    client: &Client,
    created: &Export,
    longest: TimeSpan,
) -> Result<ListedExport, Failure> {
    let begun = Instant::now();
    let activity = format!("export {}: contents as of epoch {}", created.name, created.as_of);
    note(&activity);
    let mut progress = Progress::start(activity);
    let mut last_failure = String::new();
    loop {
        let found = client.export(&created.name).await?;
        let listed = found.filter(|listed| is_same(listed, created));
        let listed = listed.ok_or_else(|| dropped(&created.name))?;
        if is_complete(&listed) {
            progress.finish();
            return Ok(listed);
        }
        if !listed.failure.is_empty() && listed.failure != last_failure {
            note(&format!("export {}: {}; the step is repeated", created.name, listed.failure));
            last_failure.clone_from(&listed.failure);
        }
        if begun.elapsed() >= longest.duration() {
            progress.finish();
            return Err(overdue(&listed, &last_failure, longest));
        }
        progress.set_note(step_text(&listed));
        let share = (u64::from(listed.regions_done), u64::from(listed.regions));
        progress.update(listed.step_rows, share);
        sleep(POLL).await;
    }
}

/// Returns whether an export of a list is the one that was created, and not a later one with its name.
fn is_same(listed: &ListedExport, created: &Export) -> bool {
    listed.export.as_ref().is_some_and(|export| export.id == created.id)
}

fn is_complete(listed: &ListedExport) -> bool {
    listed.export.as_ref().is_some_and(|export| export.frontier > 0)
}

/// Returns the progress of the first step. The meta leader knows the regions after it has begun, or continued, the step.
fn step_text(listed: &ListedExport) -> String {
    match (listed.regions_done, listed.regions) {
        (_, 0) => "its step has not begun yet".to_owned(),
        (done, 1) => format!("{done} of 1 region written"),
        (done, regions) => format!("{done} of {regions} regions written"),
    }
}

fn dropped(name: &str) -> Failure {
    let text = format!("export {} was dropped before its contents were exported", quoted(name));
    Refusal::new(Reason::ExportNotFound, text).into()
}

/// Returns the failure of a wait for a longer time. `last_failure`: that of the step; empty: none.
fn overdue(listed: &ListedExport, last_failure: &str, longest: TimeSpan) -> Failure {
    let name = listed.export.as_ref().map_or("", |export| export.name.as_str());
    let mut text = format!(
        "the contents of export {} are not exported after {longest}: {}",
        quoted(name),
        step_text(listed)
    );
    if !last_failure.is_empty() {
        text.push_str(&format!("; the last failure: {last_failure}"));
    }
    let remedy = "the export continues: `tidewater export list` shows its progress";
    Failure::new(Exit::Unavailable, text).with_note(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: u8, frontier: u64) -> ListedExport {
        let export =
            Export { id: vec![id; 16].into(), name: "e".to_owned(), frontier, ..Export::default() };
        ListedExport {
            export: Some(export),
            regions_done: 3,
            regions: 8,
            ..ListedExport::default()
        }
    }

    #[test]
    fn first_completed_step_ends_the_wait() {
        assert!(!is_complete(&listed(1, 0)));
        assert!(is_complete(&listed(1, 7)));
    }

    #[test]
    fn another_export_with_the_name_does_not_count() {
        let created = listed(1, 0).export.unwrap();
        assert!(is_same(&listed(1, 7), &created));
        assert!(!is_same(&listed(2, 7), &created));
        let failure = dropped("e");
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.message.contains("export \"e\" was dropped"), "{failure}");
    }

    #[test]
    fn progress_names_regions_once_they_are_known() {
        for (done, regions, text) in [
            (0, 0, "its step has not begun yet"),
            (0, 1, "0 of 1 region written"),
            (3, 8, "3 of 8 regions written"),
        ] {
            let listed = ListedExport { regions_done: done, regions, ..listed(1, 0) };
            assert_eq!(step_text(&listed), text);
        }
    }

    #[test]
    fn overdue_wait_names_progress_and_last_failure() {
        let failure = overdue(&listed(1, 0), "the disk is full", TimeSpan(60_000));
        assert_eq!(failure.exit, Exit::Unavailable);
        for part in ["export \"e\"", "after 1m", "3 of 8 regions", "the last failure: the disk is"]
        {
            assert!(failure.message.contains(part), "{part}: {failure}");
        }
        let failure = overdue(&listed(1, 0), "", TimeSpan(60_000));
        assert!(!failure.message.contains("failure"), "{failure}");
    }
}
