//! History of problems: since when each one exists, and whether it has lasted long enough to be shown.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidewater_proto::v1::{self, ProblemKind};

use super::{Problem, ProblemSubject};
use crate::problem_kind::facts;

/// A problem that has lasted for the grace of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastingProblem {
    /// The problem.
    pub problem: Problem,
    /// Time for which it lasts, at least.
    pub age: Duration,
    /// Time of its begin by the wall clock of the caller, milliseconds since the Unix epoch; 0: unknown.
    pub since_ms: u64,
}

/// Begin of each current problem. A problem that disappears and returns begins again.
#[derive(Debug, Default)]
pub struct ProblemHistory {
    known: BTreeMap<(ProblemKind, ProblemSubject), KnownProblem>,
}

#[derive(Debug, Clone, Copy)]
struct KnownProblem {
    begun: Instant,
    /// 0 while the wall clock was unknown.
    since_ms: u64,
}

impl ProblemHistory {
    /// Records all current problems; returns those that have lasted for the grace of their kind. Of
    /// several problems with one kind and subject, the first is kept, with the greatest age.
    ///
    /// `wall_ms`: the same time by a wall clock, milliseconds since the Unix epoch; 0: unknown.
    pub fn record(
        &mut self,
        current: Vec<Problem>,
        now: Instant,
        wall_ms: u64,
    ) -> Vec<LastingProblem> {
        let earlier = std::mem::take(&mut self.known);
        let mut lasting: Vec<LastingProblem> = Vec::new();
        for problem in current {
            let key = (problem.kind, problem.subject.clone());
            let is_repeated = self.known.contains_key(&key);
            let known = self.known.get(&key).or_else(|| earlier.get(&key)).copied();
            let known = known.map_or_else(
                || KnownProblem::begun_at(begin(&problem, now), now, wall_ms),
                |known| known.extended(begin(&problem, now), now, wall_ms),
            );
            self.known.insert(key, known);
            if !is_repeated {
                lasting.push(LastingProblem { problem, age: Duration::ZERO, since_ms: 0 });
            }
        }
        for entry in &mut lasting {
            let key = (entry.problem.kind, entry.problem.subject.clone());
            if let Some(known) = self.known.get(&key) {
                entry.age = now.saturating_duration_since(known.begun);
                entry.since_ms = known.since_ms;
            }
        }
        lasting.retain(|entry| entry.age >= facts(entry.problem.kind).grace);
        lasting
    }

    /// Forgets all problems.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

/// Returns the begin of a problem by its own age.
fn begin(problem: &Problem, now: Instant) -> Instant {
    now.checked_sub(problem.age.unwrap_or_default()).unwrap_or(now)
}

impl KnownProblem {
    fn begun_at(begun: Instant, now: Instant, wall_ms: u64) -> Self {
        Self { begun, since_ms: wall_before(wall_ms, now.saturating_duration_since(begun)) }
    }

    /// Returns the begin that is known now. It moves back only: ages that are measured on other nodes
    /// differ by the time of their transport.
    fn extended(self, begun: Instant, now: Instant, wall_ms: u64) -> Self {
        const TOLERANCE: Duration = Duration::from_secs(2);
        let is_earlier = self.begun.saturating_duration_since(begun) > TOLERANCE;
        if is_earlier || self.since_ms == 0 {
            return Self::begun_at(begun.min(self.begun), now, wall_ms);
        }
        // The wall clock of a new leader's first moments may have been ahead.
        Self { since_ms: self.since_ms.min(wall_ms.max(1)), ..self }
    }
}

/// Returns the time `age` ago; 0 if the wall clock is unknown.
fn wall_before(wall_ms: u64, age: Duration) -> u64 {
    if wall_ms == 0 {
        return 0;
    }
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    wall_ms.saturating_sub(age_ms).max(1)
}

impl From<&LastingProblem> for v1::Problem {
    fn from(lasting: &LastingProblem) -> Self {
        let problem = &lasting.problem;
        Self {
            kind: problem.kind.into(),
            subject: Some((&problem.subject).into()),
            since_ms: lasting.since_ms,
            detail: problem.detail.clone(),
            remedy: facts(problem.kind).remedy.to_owned(),
        }
    }
}

impl From<LastingProblem> for Problem {
    fn from(lasting: LastingProblem) -> Self {
        lasting.problem.lasting(lasting.age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, NodeId};

    const NOON: u64 = 1_700_000_000_000;

    #[allow(clippy::disallowed_methods, reason = "an arbitrary origin")]
    fn origin() -> Instant {
        Instant::now() + Duration::from_secs(1_000)
    }

    fn full(node: u64) -> Problem {
        Problem::new(ProblemKind::DiskFull, "its disk is full").of_node(NodeId(node))
    }

    fn shown(lasting: &[LastingProblem]) -> Vec<(Option<NodeId>, u64, u64)> {
        let of = |entry: &LastingProblem| {
            (entry.problem.subject.node, entry.age.as_secs(), entry.since_ms)
        };
        lasting.iter().map(of).collect()
    }

    #[test]
    fn problem_keeps_its_begin_until_it_disappears() {
        let start = origin();
        let mut history = ProblemHistory::default();
        let mut at = |problems: Vec<Problem>, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            shown(&history.record(problems, now, NOON + 1_000 * seconds))
        };
        let node = |node| Some(NodeId(node));
        assert_eq!(at(vec![full(1)], 0), [(node(1), 0, NOON)]);
        let both = vec![full(1), full(2).lasting(Duration::from_secs(60))];
        let expected = [(node(1), 7, NOON), (node(2), 60, NOON + 7_000 - 60_000)];
        assert_eq!(at(both.clone(), 7), expected);
        // The same age a second later is a report that was measured earlier.
        assert_eq!(at(both, 8)[1], (node(2), 61, NOON + 7_000 - 60_000));
        assert_eq!(at(vec![full(1)], 9), [(node(1), 9, NOON)]);
        assert_eq!(at(vec![full(2)], 10), [(node(2), 0, NOON + 10_000)]);
        // A new leader learns later that the problem is older.
        let old = full(2).lasting(Duration::from_secs(600));
        assert_eq!(at(vec![old], 11), [(node(2), 600, NOON + 11_000 - 600_000)]);
    }

    #[test]
    fn time_of_a_problem_is_never_in_the_future() {
        let start = origin();
        let mut history = ProblemHistory::default();
        let since = |history: &mut ProblemHistory, seconds: u64, wall_ms| {
            let now = start + Duration::from_secs(seconds);
            history.record(vec![full(1)], now, wall_ms)[0].since_ms
        };
        assert_eq!(since(&mut history, 0, 0), 0, "the clocks have not agreed yet");
        assert_eq!(since(&mut history, 10, NOON), NOON - 10_000);
        assert_eq!(since(&mut history, 11, NOON - 60_000), NOON - 60_000);
        let old = full(1).lasting(Duration::MAX);
        assert_eq!(history.record(vec![old], start, NOON)[0].since_ms, NOON - 60_000);
    }

    #[test]
    fn problem_with_a_grace_is_shown_when_it_lasts() {
        let start = origin();
        let mut history = ProblemHistory::default();
        let missing = Problem::new(ProblemKind::ReplicaMissing, "missing").of_group(GroupId(1));
        let grace = facts(ProblemKind::ReplicaMissing).grace;
        let mut at = |problems: Vec<Problem>, after| history.record(problems, start + after, NOON);
        let second = Duration::from_secs(1);
        assert_eq!(at(vec![missing.clone()], Duration::ZERO), []);
        assert_eq!(at(vec![missing.clone()], grace - second), []);
        assert_eq!(at(vec![missing.clone()], grace)[0].age, grace);
        assert_eq!(at(vec![], grace + second), []);
        assert_eq!(at(vec![missing], grace + second), []);
    }

    #[test]
    fn repeated_subject_is_one_problem() {
        let mut history = ProblemHistory::default();
        let older = Problem { detail: "other".into(), ..full(1) }.lasting(Duration::from_secs(9));
        let lasting = history.record(vec![full(1), older], origin(), NOON);
        assert_eq!(lasting.len(), 1);
        assert_eq!(
            (lasting[0].problem.detail.as_str(), lasting[0].age.as_secs()),
            ("its disk is full", 9)
        );
    }
}
