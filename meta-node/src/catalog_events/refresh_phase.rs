//! Phases of a refresh. Pure.

use tidewater_proto::v1::ProcedureState;

use crate::catalog::Procedure;
use crate::commands::procedures::refresh::steps;

/// Returns the phase of a refresh that runs, for people.
pub(crate) fn refresh_phase(procedure: &Procedure) -> &'static str {
    if procedure.state == ProcedureState::Abandoning {
        return "cancelling";
    }
    match procedure.step {
        steps::OPEN | steps::LOAD => "refreshing",
        steps::MERGE => "merging",
        steps::PUBLISH => "publishing",
        _ => "cleanup",
    }
}
