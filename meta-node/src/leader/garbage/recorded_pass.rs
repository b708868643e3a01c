//! Garbage collection passes as events.

use futures::StreamExt;
use tidewater_cluster_events::types::GarbagePass;
use tidewater_common::quote::cut_at;
use tidewater_common::refusal::Refusal;
use tidewater_events::EventRecorderRef;
use tidewater_proto::v1::{self, GarbageEvent};
use tokio::time::Instant;
use tonic::Status;

use super::GarbageEvents;
use crate::commands::procedures::MAX_MESSAGE;

/// A pass in progress. Without an end, its outcome is unknown: objects may have been deleted.
#[must_use]
pub(super) struct RecordedPass {
    recorder: EventRecorderRef,
    begun: Instant,
    /// Reason of a pass without an end.
    unknown: &'static str,
    is_open: bool,
}

impl RecordedPass {
    /// Begins a pass that ends with the term of the leader.
    pub(super) fn in_term(recorder: EventRecorderRef) -> Self {
        Self::begin(recorder, "the term of the leader ended before the pass")
    }

    fn begin(recorder: EventRecorderRef, unknown: &'static str) -> Self {
        Self { recorder, begun: Instant::now(), unknown, is_open: true }
    }

    /// Records the end of the pass.
    pub(super) fn end(mut self, outcome: Result<&v1::GarbageReport, &Refusal>) {
        self.is_open = false;
        match outcome {
            Ok(report) => {
                let kept = report.kept.iter().map(|kept| kept.objects);
                let touched = report.deleted.saturating_add(report.failed);
                let listed = kept.fold(touched, u64::saturating_add);
                self.record(GarbagePass {
                    listed,
                    deleted: report.deleted,
                    ..ended("completed", None)
                });
            }
            Err(error) => self.record(ended("failed", Some(&error.message))),
        }
    }

    fn record(&self, pass: GarbagePass) {
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).ok();
        drop(self.recorder.record(&GarbagePass { duration_ms, ..pass }));
    }
}

impl Drop for RecordedPass {
    fn drop(&mut self) {
        if self.is_open {
            self.record(ended("unknown", Some(self.unknown)));
        }
    }
}

/// Returns the event of a pass without a report.
fn ended(outcome: &str, cause: Option<&str>) -> GarbagePass {
    GarbagePass {
        listed: 0,
        deleted: 0,
        outcome: outcome.to_owned(),
        cause: cause.map(|cause| cut_at(cause, MAX_MESSAGE).into_owned()),
        duration_ms: None,
    }
}

/// Records the event of a pass that an operator has requested, when it ends.
pub(crate) fn with_event(events: GarbageEvents, recorder: EventRecorderRef) -> GarbageEvents {
    let mut open = Some(RecordedPass::begin(recorder, "the call ended before the pass"));
    let record = move |event: &Result<GarbageEvent, Status>| match event {
        Ok(GarbageEvent { report: Some(report), .. }) => {
            if let Some(pass) = open.take() {
                pass.end(Ok(report));
            }
        }
        Ok(_) => {}
        Err(status) => {
            if let Some(pass) = open.take() {
                pass.end(Err(&Refusal::from_status(status)));
            }
        }
    };
    Box::pin(events.inspect(record))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream;
    use tidewater_events::Value;
    use tidewater_events::testing::CollectingRecorder;
    use tidewater_proto::v1::Reason;
    use tokio::task::JoinSet;

    use super::*;
    use crate::catalog_events::testing::{text, value};

    /// Outcome, listed and deleted objects and cause of the recorded passes.
    fn passes(recorder: &CollectingRecorder) -> Vec<(String, u64, u64, String)> {
        let recorded = recorder.events();
        let shown = recorded.iter().map(|event| {
            let number = |column| match value(event, column) {
                Value::UInt64(number) => number,
                other => panic!("{other:?}"),
            };
            (text(event, "outcome"), number("listed"), number("deleted"), text(event, "cause"))
        });
        shown.collect()
    }

    fn report() -> v1::GarbageReport {
        v1::GarbageReport {
            deleted: 3,
            failed: 1,
            kept: [5, 7].map(|objects| v1::KeptObjects { why: String::new(), objects }).to_vec(),
            ..v1::GarbageReport::default()
        }
    }

    #[tokio::test]
    async fn pass_is_recorded_once_when_it_ends() {
        let ended = GarbageEvent { report: Some(report()), ..GarbageEvent::default() };
        let failed = Status::from(Refusal::new(Reason::Unavailable, "the node has stopped"));
        for (last, (outcome, listed, deleted, cause)) in [
            (Ok(ended), ("completed", 16, 3, "")),
            (Err(failed), ("failed", 0, 0, "the node has stopped")),
            (Ok(GarbageEvent::default()), ("unknown", 0, 0, "the call ended before the pass")),
        ] {
            let recorder = Arc::new(CollectingRecorder::default());
            let events = stream::iter([Ok(GarbageEvent::default()), last]);
            let passed = with_event(Box::pin(events), Arc::clone(&recorder) as EventRecorderRef);
            assert_eq!(passed.count().await, 2);
            let expected = (outcome.to_owned(), listed, deleted, cause.to_owned());
            assert_eq!(passes(&recorder), [expected]);
        }
    }

    #[tokio::test]
    async fn pass_of_an_ended_term_is_unknown() {
        let recorder = Arc::new(CollectingRecorder::default());
        let shared = Arc::clone(&recorder) as EventRecorderRef;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            RecordedPass::in_term(Arc::clone(&shared)).end(Ok(&report()));
            let pass = RecordedPass::in_term(shared);
            std::future::pending::<()>().await;
            pass.end(Ok(&report()));
        });
        tokio::task::yield_now().await;
        assert_eq!(passes(&recorder).len(), 1);
        tasks.shutdown().await;
        let cause = "the term of the leader ended before the pass";
        let expected = [
            ("completed".to_owned(), 16, 3, String::new()),
            ("unknown".to_owned(), 0, 0, cause.to_owned()),
        ];
        assert_eq!(passes(&recorder), expected);
    }
}
