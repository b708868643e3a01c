//! `procedure`

mod cancel;
mod describe;
mod list;

use clap::Subcommand;
use serde::Serialize;
use tidewater_proto::v1::{AbandonCause, ProcedureInfo, ProcedureState};

use crate::exit::Failure;

/// Subcommands of `procedure`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidewater procedure list\n  tidewater procedure describe \
                  0197a1b2-0000-7000-8000-000000000001")]
pub(crate) enum Procedure {
    /// List operations in progress, and those that have ended last
    List(list::Options),
    /// Show the progress of an operation
    Describe(describe::Options),
    /// Abandon an operation before its point of no return
    Cancel(cancel::Options),
}

impl Procedure {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(options).await,
            Self::Describe(options) => describe::run(options).await,
            Self::Cancel(options) => cancel::run(options).await,
        }
    }
}

/// One procedure. The JSON field names are stable; times are in milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
struct ProcedureLine {
    procedure_id: String,
    kind: String,
    state: &'static str,
    /// Cause of its abandonment.
    cause: Option<&'static str>,
    step: u32,
    /// Last failure of the step, which is repeated.
    error: Option<String>,
    table: String,
    table_id: u32,
    number: u64,
    regions_done: u32,
    regions: u32,
    begun_ms: u64,
    step_begun_ms: u64,
    deadline_ms: Option<u64>,
    ended_ms: Option<u64>,
    abandonable: bool,
}

impl From<ProcedureInfo> for ProcedureLine {
    fn from(info: ProcedureInfo) -> Self {
        let some = |time_ms: u64| (time_ms != 0).then_some(time_ms);
        let state = state_text(info.state());
        let cause = cause_text(info.cause());
        let kind = match info.kind.as_str() {
            "" => format!("kind {} (unknown to the meta leader's release)", info.kind_number),
            known => known.to_owned(),
        };
        Self {
            procedure_id: info.procedure_id,
            kind,
            state,
            cause,
            step: info.step,
            error: info.failure.map(|failure| failure.message),
            table: info.table,
            table_id: info.table_id,
            number: info.number,
            regions_done: info.regions_done,
            regions: info.regions,
            begun_ms: info.begun_ms,
            step_begun_ms: info.step_begun_ms,
            deadline_ms: some(info.deadline_ms),
            ended_ms: some(info.ended_ms),
            abandonable: info.abandonable,
        }
    }
}

fn state_text(state: ProcedureState) -> &'static str {
    match state {
        ProcedureState::Unspecified => "unknown",
        ProcedureState::Running => "running",
        ProcedureState::Abandoning => "abandoning",
        ProcedureState::Completed => "completed",
        ProcedureState::Abandoned => "abandoned",
        ProcedureState::Superseded => "superseded",
    }
}

/// Cause of an abandonment; `None`: it is not abandoned.
fn cause_text(cause: AbandonCause) -> Option<&'static str> {
    match cause {
        AbandonCause::Unspecified => None,
        AbandonCause::Operator => Some("cancelled"),
        AbandonCause::Deadline => Some("deadline"),
        AbandonCause::Superseded => Some("superseded"),
        AbandonCause::Drop => Some("dropped"),
        AbandonCause::Failed => Some("failed"),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;

    use super::*;

    #[test]
    fn procedure_has_stable_json_fields() {
        let failure = v1::ProcedureFailure { reason: 20, message: "no leader".into(), since_ms: 5 };
        let info = ProcedureInfo {
            procedure_id: "id".into(),
            kind: "truncate".into(),
            kind_number: 1,
            state: ProcedureState::Running.into(),
            step: 1,
            table: "t".into(),
            table_id: 3,
            number: 4,
            regions: 8,
            regions_done: 5,
            failure: Some(failure),
            begun_ms: 1_000,
            step_begun_ms: 1_500,
            deadline_ms: 0,
            ended_ms: 0,
            abandonable: false,
            cause: 0,
        };
        assert_eq!(
            serde_json::to_string(&ProcedureLine::from(info)).unwrap(),
            r#"{"procedure_id":"id","kind":"truncate","state":"running","cause":null,"step":1,"error":"no leader","table":"t","table_id":3,"number":4,"regions_done":5,"regions":8,"begun_ms":1000,"step_begun_ms":1500,"deadline_ms":null,"ended_ms":null,"abandonable":false}"#
        );
        let unknown =
            ProcedureLine::from(ProcedureInfo { kind_number: 9, ..ProcedureInfo::default() });
        assert_eq!(unknown.kind, "kind 9 (unknown to the meta leader's release)");
    }
}
