//! Read holds whose leases have ended are released.
//!
//! A lease ends in replicated time. While the meta group has no leader, or the clocks do not agree, no holder can renew: a new
//! leader gives each hold its whole lease from the first agreement of the clocks in its term, and so does a leader after a jump of
//! replicated time.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, change_collections::Change};
use tokio::time::{MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use crate::catalog::MetaState;
use crate::commands::collections::MAX_NAMES;

/// Time between two looks at the leases.
const INTERVAL: Duration = Duration::from_secs(1);
/// Advance of replicated time between two looks that counts as a jump, in milliseconds.
const JUMP_MS: u64 = 5_000;

/// Returns the names of holds that have expired. `agreed_ms`: replicated time of the first agreement of the clocks in the
/// leader's term.
fn expired(state: &MetaState, agreed_ms: u64) -> Vec<String> {
    let time_ms = state.header().time_ms;
    let ended = state.holds().ended_at(time_ms);
    let ended = ended.filter(|hold| agreed_ms.saturating_add(hold.lease_ms) <= time_ms);
    ended.take(MAX_NAMES).map(|hold| hold.name.clone()).collect()
}

/// Returns whether replicated time has advanced by more than its ticks can between two looks: the process was suspended, and so
/// were renewals.
fn is_jump(last_ms: u64, time_ms: u64) -> bool {
    time_ms.saturating_sub(last_ms) > JUMP_MS
}

impl LeaderTerm {
    /// Releases expired holds until the term ends.
    pub(super) async fn expire_holds(self: Arc<Self>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut agreed_ms = None;
        let mut last_ms = 0;
        loop {
            ticks.tick().await;
            let state = self.group.view.read();
            if state.header().feature_level < FeatureLevel::COLLECTIONS {
                continue;
            }
            let time_ms = state.header().time_ms;
            let is_first = agreed_ms.is_none() && self.observations.has_agreed();
            if is_first || is_jump(last_ms, time_ms) {
                agreed_ms = Some(time_ms);
            }
            last_ms = time_ms;
            let Some(agreed_ms) = agreed_ms else { continue };
            let names = expired(&state, agreed_ms);
            if names.is_empty() {
                continue;
            }
            let expire = Change::Expire(v1::ReleaseReadHoldsRequest { names: names.clone() });
            let command =
                v1::ChangeCollections { change: Some(expire), ..v1::ChangeCollections::default() };
            match self.command(Kind::ChangeCollections(command)).await {
                Ok(()) => {
                    let state = self.group.view.read();
                    // Those with a later renewal stay.
                    let ended = names.iter().filter(|name| state.holds().get(name).is_none());
                    for hold in ended {
                        tracing::info!(hold, "read hold expired: it was not renewed in time");
                    }
                }
                Err(problem) => tracing::debug!(%problem, "expired holds were not released"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::collections::testing::{acquire, change, with_tables};
    use crate::commands::testing::{pass, run};

    #[test]
    fn advance_beyond_the_ticks_is_a_jump() {
        assert!(!is_jump(10_000, 15_000));
        assert!(is_jump(10_000, 15_001));
        assert!(!is_jump(10_000, 9_000));
    }

    #[test]
    fn holds_expire_at_the_end_of_their_leases() {
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "b", &["t"], 0))).unwrap();
        let acquired_ms = state.header().time_ms;
        pass(&mut state, 59);
        assert_eq!(expired(&state, acquired_ms), Vec::<String>::new());
        pass(&mut state, 1);
        assert_eq!(expired(&state, acquired_ms), ["b"]);
        // A leader whose term has begun a moment ago.
        assert_eq!(expired(&state, acquired_ms + 1), Vec::<String>::new());
        pass(&mut state, 1);
        assert_eq!(expired(&state, acquired_ms + 1), ["b"]);
    }
}
