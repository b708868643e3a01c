//! Calls that no node of the cluster sends, to a cluster of real processes: each is refused with a
//! typed reason and counted, and changes nothing, also after a restart of all nodes.

mod calls;
mod control;
mod exports;
mod meta;
mod raft;
mod refreshes;
mod target;

use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tonic::Status;

fn violated(problem: &impl ToString) -> HarnessError {
    HarnessError::violated(problem.to_string())
}

/// Checks that a forged call was refused for one of these reasons.
fn refused<T: std::fmt::Debug>(
    call: &str,
    answer: Result<T, Status>,
    reasons: &[Reason],
) -> Result<()> {
    match answer {
        Ok(answer) => {
            Err(HarnessError::violated(format!("the forged {call} was accepted: {answer:?}")))
        }
        Err(status) => {
            let reason = Refusal::from(status.clone()).reason;
            if reasons.contains(&reason) {
                return Ok(());
            }
            Err(HarnessError::violated(format!("the forged {call} ended with {status}")))
        }
    }
}
