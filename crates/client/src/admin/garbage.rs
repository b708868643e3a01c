//! Garbage collection.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1;
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::client::Client;
use crate::core::RetryMode;
use crate::error::ClientError;

/// Timeout between two events; the node reports progress every few seconds.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Deletes unreferenced objects of one table or of all tables; with `dry_run` only lists them.
    /// `seen` is called with each object. The pass continues when this future is dropped.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, or while another pass runs;
    /// [`ClientError::OutcomeUnknown`] when the end was not received: call again.
    pub async fn collect_garbage(
        &self,
        table: Option<&str>,
        dry_run: bool,
        mut seen: impl FnMut(v1::GarbageObject) + Send,
    ) -> Result<v1::GarbageReport, ClientError> {
        let router = &self.core.router;
        let what = "garbage collection";
        let request = v1::CollectGarbageRequest { table: table.map(str::to_owned), dry_run };
        let started = Instant::now();
        let mut events = self
            .core
            .call(GroupId::META, what, RetryMode::Read, EVENT_TIMEOUT, |channel, _| {
                let mut client = router.admin(channel);
                let request = request.clone();
                // Without an overall timeout: a pass may take any time while it makes progress.
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
            let next =
                tokio::time::timeout(EVENT_TIMEOUT, events.message()).await.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded("no progress was reported for 60 s"))
                });
            match next {
                Ok(Some(event)) => {
                    event.objects.into_iter().for_each(&mut seen);
                    if let Some(report) = event.report {
                        return Ok(report);
                    }
                }
                Ok(None) => {
                    return Err(broken(Status::deadline_exceeded(
                        "the response stream ended early",
                    )));
                }
                Err(status) => return Err(broken(status)),
            }
        }
    }
}
