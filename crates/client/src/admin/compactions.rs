//! Compactions: which there are, wherever they run, and how to end one.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1 as remote;
use tidewater_proto::v1::{self, CallHeader, NodeRole, Reason};

use crate::client::Client;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;
use crate::pool::attempt;
use crate::router::timed;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Compactions as the nodes show them.
#[derive(Debug, Clone, Default)]
pub struct Compactions {
    /// Those of the owners, and what runs on compactors for owners that are gone; by job id.
    pub jobs: Vec<v1::CompactionInfo>,
    /// Nodes that did not answer, with the reason.
    pub silent: Vec<(NodeId, String)>,
}

impl Client {
    /// Asks every data node for the compactions of its regions, and every compactor for what it runs.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn list_compactions(&self) -> Result<Compactions, ClientError> {
        let catalog = self.core.refresh_catalog().await?;
        let router = &self.core.router;
        let owners =
            catalog.addresses(NodeRole::Data).into_iter().map(|(node, address)| async move {
                let answer = async {
                    let mut client = router.region_admin(router.pool.channel(&address)?);
                    let request = timed(v1::ListCompactionsRequest {}, TIMEOUT);
                    Ok(attempt(TIMEOUT, client.list_compactions(request)).await?.compactions)
                };
                (node, answer.await)
            });
        let compactors =
            self.compactors(&catalog).into_iter().map(|(node, address, header)| async move {
                let answer = async {
                    let mut client = router.compaction(router.pool.channel(&address)?);
                    let request = timed(remote::ListCompactionsRequest { header }, TIMEOUT);
                    Ok(attempt(TIMEOUT, client.list_compactions(request)).await?.jobs)
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
                let left = jobs.into_iter().filter(|job| !owned.contains(&job.job_id));
                found.jobs.extend(left.map(|job| left_over(node, job)));
            });
        }
        found.jobs.sort_by(|a, b| (&a.job_id, a.node_id).cmp(&(&b.job_id, b.node_id)));
        Ok(found)
    }

    /// Ends a compaction, wherever it runs; one that is quarantined is forgotten, so that its files may
    /// be chosen again. Its owner is asked first, so that it is not tried again at once.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `JobNotFound`; with another reason when a node that may have it
    /// did not answer.
    pub async fn cancel_compaction(&self, job_id: &str) -> Result<(), ClientError> {
        let catalog = self.core.refresh_catalog().await?;
        let router = &self.core.router;
        let mut unheard = None;
        for (_, address) in catalog.addresses(NodeRole::Data) {
            let request = v1::CancelCompactionRequest { job_id: job_id.to_owned() };
            let answer = async {
                let mut client = router.region_admin(router.pool.channel(&address)?);
                attempt(TIMEOUT, client.cancel_compaction(timed(request, TIMEOUT))).await
            };
            if settled(answer.await, &mut unheard)? {
                return Ok(());
            }
        }
        for (_, address, header) in self.compactors(&catalog) {
            let job_id = job_id.to_owned();
            let request = remote::CancelCompactionRequest { header, job_id };
            let answer = async {
                let mut client = router.compaction(router.pool.channel(&address)?);
                attempt(TIMEOUT, client.cancel_compaction(timed(request, TIMEOUT))).await
            };
            if settled(answer.await, &mut unheard)? {
                return Ok(());
            }
        }
        let nowhere =
            || Refusal::new(Reason::JobNotFound, format!("no node has a compaction {job_id}"));
        Err(refused(unheard.unwrap_or_else(nowhere)))
    }

    fn compactors(
        &self,
        catalog: &crate::catalog::Catalog,
    ) -> Vec<(NodeId, String, Option<CallHeader>)> {
        let header = |node: NodeId| CallHeader {
            cluster_id: catalog.cluster_id().to_string(),
            source_node: 0,
            target_node: node.get(),
        };
        let compactors = catalog.addresses(NodeRole::Compactor).into_iter();
        compactors.map(|(node, address)| (node, address, Some(header(node)))).collect()
    }
}

impl Compactions {
    fn take<T>(
        &mut self,
        node: NodeId,
        answer: Result<T, FailedAttempt>,
        add: impl FnOnce(&mut Self, T),
    ) {
        match answer {
            Ok(jobs) => add(self, jobs),
            Err(miss) => self.silent.push((node, miss.refusal.message)),
        }
    }
}

/// A job that runs on a compactor for an owner that knows of it no more.
fn left_over(node: NodeId, job: remote::RunningCompaction) -> v1::CompactionInfo {
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

/// Whether a node had the job. Of those that did not answer, the first is noted.
fn settled<T>(
    answer: Result<T, FailedAttempt>,
    unheard: &mut Option<Refusal>,
) -> Result<bool, ClientError> {
    match answer {
        Ok(_) => Ok(true),
        Err(miss) if miss.refusal.reason == Reason::JobNotFound => Ok(false),
        Err(miss) if miss.refusal.reason == Reason::InvalidArgument => Err(refused(miss.refusal)),
        Err(miss) => {
            unheard.get_or_insert(miss.refusal);
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

    fn miss(reason: Reason) -> Result<(), FailedAttempt> {
        let refusal = Refusal::new(reason, "x");
        Err(FailedAttempt { refusal, effect: Effect::None, silent: false })
    }

    #[test]
    fn a_node_that_does_not_answer_may_have_the_job() {
        let mut unheard = None;
        assert!(settled(Ok(()), &mut unheard).unwrap());
        assert!(!settled(miss(Reason::JobNotFound), &mut unheard).unwrap());
        assert_eq!(unheard, None);
        assert!(settled(miss(Reason::InvalidArgument), &mut unheard).is_err());
        assert!(!settled(miss(Reason::Unavailable), &mut unheard).unwrap());
        assert_eq!(unheard.unwrap().reason, Reason::Unavailable);
    }
}
