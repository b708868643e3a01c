//! Procedures of durable hooks: the leader proposes one step after the other.

use std::sync::Arc;
use std::time::Duration;

use tidewater_proto::v1::{self, meta_command::Kind};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::leader_term::LeaderTerm;
use crate::catalog::MetaState;

/// Regions of one step: its application takes a few milliseconds.
const REGIONS: u32 = 1_000;
/// Interval of the checks for procedures, apart from changes of the catalog.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a step that has failed.
const RETRY: Duration = Duration::from_millis(500);

impl LeaderTerm {
    /// Continues the procedures of hooks, until the term ends.
    pub(super) async fn continue_hook_procedures(self: Arc<Self>) {
        let mut revisions = self.group.view.subscribe();
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = revisions.changed() => {}
            }
            loop {
                let step = next_step(&self.group.view.read());
                let Some(step) = step else { break };
                if let Err(error) = self.command(Kind::StepHook(step)).await {
                    tracing::debug!(%error, "failed to continue the procedure of a hook");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// Returns the next step of the first procedure.
fn next_step(state: &MetaState) -> Option<v1::StepHook> {
    let procedure = state.hook_procedures().next()?;
    Some(v1::StepHook {
        hook: procedure.hook.clone(),
        generation: procedure.generation.get(),
        from_region_id: procedure.next_region.get(),
        regions: REGIONS,
    })
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::NodeId;

    use super::*;
    use crate::commands::testing::{
        command, durable_hook, raise, run, run_command, table, with_groups,
    };

    #[test]
    fn steps_lead_to_the_end_of_all_procedures() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        raise(&mut state, 2, &[(NodeId(101), 0)]);
        assert_eq!(next_step(&state), None);
        for (request, name) in [(10, "a"), (11, "b")] {
            let add = Kind::AddHook(durable_hook(request, name));
            let add = v1::MetaCommand { rules: 2, ..command(add) };
            run_command(&mut state, add).unwrap();
        }
        for _ in 0..2 {
            let step = next_step(&state).unwrap();
            run(&mut state, Kind::StepHook(step)).unwrap();
        }
        assert_eq!(next_step(&state), None);
        assert_eq!(state.cursors().count("a") + state.cursors().count("b"), 2);
    }
}
