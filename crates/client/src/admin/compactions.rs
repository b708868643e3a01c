//! Calls that list and cancel compactions on data nodes and compactors.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::header::CallSender;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1 as remote;
use tidewater_proto::v1::{self, CallHeader, NodeRole, Reason};
use tidewater_rpc::{attempt, timed};

use crate::client::Client;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;

/// Timeout of the call to one node.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Compactions as reported by the nodes.
#[derive(Debug, Clone, Default)]
pub struct Compactions {
    /// Jobs of the region owners, and jobs on compactors without a current owner, in order of job id.
    pub jobs: Vec<v1::CompactionInfo>,
    /// Nodes that did not respond, with the reason.
    pub silent: Vec<(NodeId, String)>,
}

impl Client {
    /// Lists the compactions of all data nodes and the running jobs of all compactors.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn list_compactions(&self) -> Result<Compactions, ClientError> {
        let catalog = self.core.refresh_catalog().await?;
        let router = &self.core.router;
        let owners =
            catalog.addresses(NodeRole::Data).into_iter().map(|(node, address)| async move {
                let answer = async {
                    let mut client = router.region_admin(router.channel(&address)?);
                    let request = timed(v1::ListCompactionsRequest {}, TIMEOUT);
                    Ok(attempt(&address, TIMEOUT, client.list_compactions(request))
                        .await?
                        .compactions)
                };
                (node, answer.await)
            });
        let compactors =
            self.compactors(&catalog).into_iter().map(|(node, address, header)| async move {
                let answer = async {
                    let mut client = router.compaction(router.channel(&address)?);
                    let request = timed(remote::ListCompactionsRequest { header }, TIMEOUT);
                    Ok(attempt(&address, TIMEOUT, client.list_compactions(request)).await?.jobs)
                };
                (node, answer.await)
            });
        let (owners, compactors) = futures::join!(join_all(owners), join_all(compactors));
        let mut found = Compactions::default();
        for (node, answer) in owners {
            found.take(node, answer, |found, jobs| found.jobs.extend(jobs));
        }
        let owned: BTreeSet<String> = found.jobs.iter().map(|job| job.job_id.clone()).collect();
        for (node, answer) in compactors {
            found.take(node, answer, |found, jobs: Vec<remote::RunningCompaction>| {
                let orphaned = jobs.into_iter().filter(|job| !owned.contains(&job.job_id));
                found.jobs.extend(orphaned.map(|job| orphaned_job(node, job)));
            });
        }
        found.jobs.sort_by(|a, b| (&a.job_id, a.node_id).cmp(&(&b.job_id, b.node_id)));
        Ok(found)
    }

    /// Cancels a compaction on its data node or compactor. A quarantined job is removed, so that its files can
    /// be selected again. Owners are called before compactors, so that the owner does not immediately retry
    /// the job.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `JobNotFound`; with another reason when a node that may have it
    /// did not respond.
    pub async fn cancel_compaction(&self, job_id: &str) -> Result<(), ClientError> {
        let catalog = self.core.refresh_catalog().await?;
        let router = &self.core.router;
        let mut first_error = None;
        for (_, address) in catalog.addresses(NodeRole::Data) {
            let request = v1::CancelCompactionRequest { job_id: job_id.to_owned() };
            let answer = async {
                let mut client = router.region_admin(router.channel(&address)?);
                attempt(&address, TIMEOUT, client.cancel_compaction(timed(request, TIMEOUT))).await
            };
            if record_cancel_response(answer.await, &mut first_error)? {
                return Ok(());
            }
        }
        for (_, address, header) in self.compactors(&catalog) {
            let job_id = job_id.to_owned();
            let request = remote::CancelCompactionRequest { header, job_id };
            let answer = async {
                let mut client = router.compaction(router.channel(&address)?);
                attempt(&address, TIMEOUT, client.cancel_compaction(timed(request, TIMEOUT))).await
            };
            if record_cancel_response(answer.await, &mut first_error)? {
                return Ok(());
            }
        }
        let not_found =
            || Refusal::new(Reason::JobNotFound, format!("no node has compaction job {job_id}"));
        Err(refused(first_error.unwrap_or_else(not_found)))
    }

    /// Ids, addresses and call headers of all compactors.
    fn compactors(
        &self,
        catalog: &crate::catalog::Catalog,
    ) -> Vec<(NodeId, String, Option<CallHeader>)> {
        let sender = CallSender::client(catalog.cluster_id());
        let compactors = catalog.addresses(NodeRole::Compactor).into_iter();
        compactors.map(|(node, address)| (node, address, Some(sender.header(node)))).collect()
    }
}

impl Compactions {
    /// Adds the jobs of a node, or records the node as silent.
    fn take<T>(
        &mut self,
        node: NodeId,
        answer: Result<T, FailedAttempt>,
        add: impl FnOnce(&mut Self, T),
    ) {
        match answer {
            Ok(jobs) => add(self, jobs),
            Err(failure) => self.silent.push((node, failure.refusal.message)),
        }
    }
}

/// Describes a job that runs on a compactor and is unknown to its owner.
fn orphaned_job(node: NodeId, job: remote::RunningCompaction) -> v1::CompactionInfo {
    v1::CompactionInfo {
        job_id: job.job_id,
        region_id: job.dir.map_or(0, |dir| dir.region_id),
        node_id: node.get(),
        state: "running".to_owned(),
        attempts: job.attempt,
        done: job.done,
        files_in: job.files_in,
        bytes_in: job.bytes_in,
        age_ms: job.age_ms,
        ..Default::default()
    }
}

/// Returns whether a node had the job and cancelled it. Records the error of the first node that did not
/// respond.
fn record_cancel_response<T>(
    answer: Result<T, FailedAttempt>,
    first_error: &mut Option<Refusal>,
) -> Result<bool, ClientError> {
    match answer {
        Ok(_) => Ok(true),
        Err(failure) if failure.refusal.reason == Reason::JobNotFound => Ok(false),
        Err(failure) if failure.refusal.reason == Reason::InvalidArgument => {
            Err(refused(failure.refusal))
        }
        Err(failure) => {
            first_error.get_or_insert(failure.refusal);
            Ok(false)
        }
    }
}

fn refused(refusal: Refusal) -> ClientError {
    let what = "cancelling a compaction".to_owned();
    ClientError::Refused { what, refusal: Box::new(refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewater_common::refusal::Effect;

    fn failure(reason: Reason) -> Result<(), FailedAttempt> {
        let refusal = Refusal::new(reason, "x");
        Err(FailedAttempt { refusal, effect: Effect::None, silent: false })
    }

    #[test]
    fn unresponsive_node_may_have_the_cancelled_job() {
        let mut first_error = None;
        assert!(record_cancel_response(Ok(()), &mut first_error).unwrap());
        assert!(!record_cancel_response(failure(Reason::JobNotFound), &mut first_error).unwrap());
        assert_eq!(first_error, None);
        assert!(
            record_cancel_response(failure(Reason::InvalidArgument), &mut first_error).is_err()
        );
        assert!(!record_cancel_response(failure(Reason::Unavailable), &mut first_error).unwrap());
        assert_eq!(first_error.unwrap().reason, Reason::Unavailable);
    }
}
