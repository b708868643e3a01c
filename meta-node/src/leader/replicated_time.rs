//! Replicated time: the ticks of a leader term, from the clocks on which the cluster agrees.

use std::sync::Arc;
use std::time::Duration;

use tidewater_proto::v1::{self, meta_command::Kind};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::clocks::{is_jump, next_tick};
use super::leader_term::LeaderTerm;
use crate::catalog::TICK_INTERVAL_MS;

impl LeaderTerm {
    /// Bootstraps the cluster, if it is not bootstrapped yet, and advances replicated time.
    pub(super) async fn advance_time(self: Arc<Self>) {
        let mut ticks = interval(Duration::from_millis(TICK_INTERVAL_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let replicated_ms = {
                let state = self.group.view.read();
                state.header().cluster_id.map(|_| state.header().time_ms)
            };
            let agreed_ms = replicated_ms.and_then(|_| self.agree_on_time(now));
            let kind = match replicated_ms {
                Some(replicated_ms) => {
                    let tick = next_tick(replicated_ms, now.duration_since(last), agreed_ms);
                    if is_jump(replicated_ms, agreed_ms) {
                        // First: no round may expire loads between.
                        self.observations.record_jump(now);
                    }
                    Kind::AdvanceTime(tick)
                }
                // No other clock is known yet, and this one may be ahead: time counts from 0 until the
                // first data node has sent its clock.
                None => {
                    let cluster_id = self.group.cluster_id.to_string();
                    Kind::Bootstrap(v1::BootstrapCluster { cluster_id, now_ms: 0 })
                }
            };
            match self.command(kind).await {
                Ok(()) => {
                    last = now;
                    if agreed_ms.is_some() {
                        self.observations.record_agreement();
                    }
                }
                Err(error) => tracing::debug!(%error, "failed to advance replicated time"),
            }
        }
    }

    /// Compares the known clocks; records the difference of this node's own clock.
    fn agree_on_time(&self, now: Instant) -> Option<u64> {
        let own_ms = self.group.clock.now_ms();
        let agreed_ms = self.group.agreed_ms(&self.observations.clocks(now))?;
        self.observations.record_own_clock(own_ms, agreed_ms, self.group.max_clock_difference);
        Some(agreed_ms)
    }
}
