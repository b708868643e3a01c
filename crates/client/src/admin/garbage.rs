//! Garbage collection.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1;
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// The node says every few seconds that a pass goes on; after so long it is given up.
const SILENCE: Duration = Duration::from_secs(60);

impl Client {
    /// Deletes the objects that no manifest names any more, of one table or of all; with `dry_run`
    /// only says which. `seen` is called with each as it comes. A pass goes on when this future is
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, or while another pass runs;
    /// [`ClientError::OutcomeUnknown`] when the end was not heard of: ask again.
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
            .call(GroupId::META, what, Repeat::Read, SILENCE, |channel, _| {
                let (mut client, request) = (router.admin(channel), request.clone());
                // Without a limit on the whole: it takes as long as there is to do.
                async move { client.collect_garbage(Request::new(request)).await }
            })
            .await?;
        let broken = |status: Status| {
            let (what, cause) = (what.to_owned(), Box::new(Refusal::from_status(&status)));
            match cause.effect() {
                Effect::None => ClientError::Refused { what, refusal: cause },
                _ => {
                    let elapsed = started.elapsed();
                    ClientError::OutcomeUnknown { what, attempts: 1, elapsed, cause }
                }
            }
        };
        loop {
            let next = tokio::time::timeout(SILENCE, events.message()).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded("nothing was heard for a minute"))
            });
            match next {
                Ok(Some(event)) => {
                    event.objects.into_iter().for_each(&mut seen);
                    if let Some(report) = event.report {
                        return Ok(report);
                    }
                }
                Ok(None) => {
                    return Err(broken(Status::deadline_exceeded("the answer ended too early")));
                }
                Err(status) => return Err(broken(status)),
            }
        }
    }
}
