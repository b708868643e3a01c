//! Problems of the cluster as `cluster status` and `cluster health` show them, and the exit status that
//! follows from them.

use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use serde::Serialize;
use tidewater_common::problem_kind;
use tidewater_proto::v1::{self, ProblemKind};

use crate::exit::{Exit, Failure};
use crate::output::amount::duration_text;
use tidewater_readers::value::instants::time_text;

/// A problem. The JSON field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ProblemLine {
    kind: String,
    node_id: Option<u64>,
    group_id: Option<u64>,
    region_id: Option<u64>,
    table: Option<String>,
    hook: Option<String>,
    /// UTC.
    since: Option<String>,
    /// Milliseconds since the Unix epoch.
    since_ms: Option<u64>,
    detail: String,
    remedy: String,
    /// Time between the begin of the problem and the status.
    #[serde(skip)]
    age: Option<Duration>,
}

impl ProblemLine {
    fn new(problem: &v1::Problem, time_ms: u64) -> Self {
        let subject = problem.subject.clone().unwrap_or_default();
        let text = |text: String| (!text.is_empty()).then_some(text);
        let since_ms = (problem.since_ms != 0).then_some(problem.since_ms);
        let remedy = match problem.kind() {
            ProblemKind::Unspecified => {
                problem_kind::facts(ProblemKind::Unspecified).remedy.to_owned()
            }
            _ => problem.remedy.clone(),
        };
        Self {
            kind: problem_kind::name(problem.kind()),
            node_id: (subject.node_id != 0).then_some(subject.node_id),
            group_id: subject.group_id,
            region_id: (subject.region_id != 0).then_some(subject.region_id),
            table: text(subject.table),
            hook: text(subject.hook),
            since: since_ms.map(utc_text),
            since_ms,
            detail: problem.detail.clone(),
            remedy,
            age: since_ms.map(|since| Duration::from_millis(time_ms.saturating_sub(since))),
        }
    }

    /// Returns the two lines for people.
    pub(super) fn lines(&self) -> [String; 2] {
        let since = match (&self.since, self.age) {
            (Some(since), Some(age)) => format!(" for {} (since {since})", duration_text(age)),
            _ => String::new(),
        };
        [format!("  - {}", self.detail), format!("    {}{since}: {}", self.kind, self.remedy)]
    }
}

/// Returns the problems of a status. A server of an older release has sentences only.
pub(super) fn problem_lines(status: &v1::ClusterStatusResponse) -> Vec<ProblemLine> {
    if status.problem_details.is_empty() {
        let facts = problem_kind::facts(ProblemKind::Reported);
        let of_text = |detail: &String| v1::Problem {
            kind: ProblemKind::Reported.into(),
            detail: detail.clone(),
            remedy: facts.remedy.to_owned(),
            ..v1::Problem::default()
        };
        let problems = status.problems.iter().map(of_text);
        return problems.map(|problem| ProblemLine::new(&problem, status.time_ms)).collect();
    }
    let problems = status.problem_details.iter();
    problems.map(|problem| ProblemLine::new(problem, status.time_ms)).collect()
}

/// Decides the exit status of all commands that show the health of the cluster: success only if the
/// cluster reports no problem.
pub(super) fn check_healthy(healthy: bool, problems: usize) -> Result<(), Failure> {
    let count = match problems {
        0 if healthy => return Ok(()),
        0 => "the cluster is not healthy".to_owned(),
        1 => "the cluster has 1 problem".to_owned(),
        count => format!("the cluster has {count} problems"),
    };
    Err(Failure::new(Exit::Unavailable, format!("{count}: `tidewater cluster status` shows them")))
}

/// Returns the text of a time, given in milliseconds since the Unix epoch, to the second.
pub(super) fn utc_text(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let utc = DataType::Timestamp(TimeUnit::Second, Some("+00:00".into()));
    time_text(&utc, seconds).unwrap_or_else(|_| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> v1::ClusterStatusResponse {
        let subject = v1::ProblemSubject {
            node_id: 102,
            group_id: Some(0),
            region_id: 7,
            table: "t".into(),
            hook: String::new(),
        };
        v1::ClusterStatusResponse {
            problem_details: vec![v1::Problem {
                kind: ProblemKind::FlushFailing.into(),
                subject: Some(subject),
                since_ms: 1_357_034_400_900,
                detail: "flushes fail".into(),
                remedy: "resolve the error".into(),
            }],
            problems: vec!["flushes fail".into()],
            time_ms: 1_357_034_520_900,
            ..Default::default()
        }
    }

    #[test]
    fn problem_has_kind_subject_time_and_remedy() {
        let lines = problem_lines(&status());
        let json = serde_json::to_string(&lines).unwrap();
        assert_eq!(
            json,
            r#"[{"kind":"flush_failing","node_id":102,"group_id":0,"region_id":7,"table":"t","hook":null,"since":"2013-01-01T10:00:00Z","since_ms":1357034400900,"detail":"flushes fail","remedy":"resolve the error"}]"#
        );
        let shown = lines[0].lines();
        assert_eq!(shown[0], "  - flushes fail");
        assert_eq!(
            shown[1],
            "    flush_failing for 2m 0s (since 2013-01-01T10:00:00Z): resolve the error"
        );
    }

    #[test]
    fn problems_of_other_releases_are_shown() {
        let older = v1::ClusterStatusResponse { problem_details: vec![], ..status() };
        let lines = problem_lines(&older);
        assert_eq!((lines.len(), lines[0].kind.as_str()), (1, "reported"));
        assert!(!lines[0].lines()[1].contains("since"), "{lines:?}");
        let mut newer = status();
        newer.problem_details[0].kind = 9_999;
        let lines = problem_lines(&newer);
        assert!(lines[0].kind == "unspecified" && lines[0].remedy.contains("upgrade"), "{lines:?}");
    }

    #[test]
    fn only_a_cluster_without_problems_is_a_success() {
        let exit =
            |healthy, problems| check_healthy(healthy, problems).err().map(|error| error.exit);
        assert_eq!(exit(true, 0), None);
        for (healthy, problems) in [(true, 1), (false, 0), (false, 1), (false, 2)] {
            assert_eq!(exit(healthy, problems), Some(Exit::Unavailable), "{healthy} {problems}");
        }
    }

    #[test]
    fn time_is_shown_in_utc() {
        assert_eq!(utc_text(1_357_034_400_900), "2013-01-01T10:00:00Z");
    }
}
