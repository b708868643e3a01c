//! Handover of the led groups by a node whose clock differs from the cluster's clocks.
//!
//! The node keeps voting and may be elected: its log may be the only complete one. It then hands the
//! leadership over as soon as another voter has caught up.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::control::transfer;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

/// Time limit for the transfer of one group's leadership.
const TRANSFER_LIMIT: Duration = Duration::from_secs(3);
/// Pause after transfers, so that a group whose voters cannot lead is not disturbed all the time.
const PAUSE: Duration = Duration::from_secs(2);

/// At most one round of transfers.
#[derive(Debug, Default)]
pub(super) struct Handover {
    round: Option<JoinHandle<()>>,
}

impl Handover {
    /// Starts to hand over all led groups, unless a round is in progress. `differing`: nodes whose clocks
    /// differ as well.
    pub(super) fn start(&mut self, groups: &Arc<Groups>, differing: Vec<u64>) {
        if self.round.as_ref().is_some_and(|round| !round.is_finished()) {
            return;
        }
        let led: Vec<Arc<GroupReplica>> =
            groups.all().into_iter().filter(|replica| replica.leadership().is_leader).collect();
        if led.is_empty() {
            return;
        }
        self.round = Some(tokio::spawn(async move {
            let transfers = led.iter().map(|replica| hand_over(replica, &differing));
            futures::future::join_all(transfers).await;
            tokio::time::sleep(PAUSE).await;
        }));
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Some(round) = &self.round {
            round.abort();
        }
    }
}

/// Transfers the leadership of a group to the voter with the longest log and a clock that agrees; the
/// group keeps its leader, which refuses to commit, if there is none.
async fn hand_over(replica: &GroupReplica, differing: &[u64]) {
    let group = replica.group();
    let Some(successor) = replica.successor(differing) else { return };
    match transfer(replica, successor, TRANSFER_LIMIT).await {
        Ok(()) => {
            info!(%group, to = %successor, "leadership handed over: this node's clock differs")
        }
        Err(problem) => warn!(%group, to = %successor, %problem, "leadership handover failed"),
    }
}
