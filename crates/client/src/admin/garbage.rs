//! Call that runs a garbage collection pass.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1;
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Maximum time between two progress reports. A node reports the progress of a pass every few seconds.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Deletes the unreferenced objects of one table or of all tables; with `dry_run` it only lists them. Calls
    /// `on_object` for each object as it is reported. The pass continues on the node when this future is
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, or while another pass runs;
    /// [`ClientError::OutcomeUnknown`] when the final report was not received: run it again.
    pub async fn collect_garbage(
        &self,
        table: Option<&str>,
        dry_run: bool,
        mut on_object: impl FnMut(v1::GarbageObject) + Send,
    ) -> Result<v1::GarbageReport, ClientError> {
        let router = &self.core.router;
        let what = "garbage collection";
        let request = v1::CollectGarbageRequest { table: table.map(str::to_owned), dry_run };
        let started = Instant::now();
        let mut events = self
            .core
            .call(GroupId::META, what, Repeat::Read, PROGRESS_TIMEOUT, |channel, _| {
                let mut client = router.admin(channel);
                let request = request.clone();
                // The whole pass has no timeout: its duration depends on the number of objects.
                async move { client.collect_garbage(Request::new(request)).await }
            })
            .await?;
        let broken = |status: Status| {
            let what = what.to_owned();
            let cause = Box::new(Refusal::from_status(&status));
            match cause.effect() {
                Effect::None => ClientError::Refused { what, refusal: cause },
                _ => {
                    let elapsed = started.elapsed();
                    ClientError::OutcomeUnknown { what, attempts: 1, elapsed, cause }
                }
            }
        };
        loop {
            let next = tokio::time::timeout(PROGRESS_TIMEOUT, events.message())
                .await
                .unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!(
                        "no progress was reported for {PROGRESS_TIMEOUT:?}"
                    )))
                });
            match next {
                Ok(Some(event)) => {
                    event.objects.into_iter().for_each(&mut on_object);
                    if let Some(report) = event.report {
                        return Ok(report);
                    }
                }
                Ok(None) => {
                    return Err(broken(Status::deadline_exceeded(
                        "the stream ended without a report",
                    )));
                }
                Err(status) => return Err(broken(status)),
            }
        }
    }
}
