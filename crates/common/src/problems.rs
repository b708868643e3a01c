//! Problems of a process that its nodes report to operators in their heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::problem::Problem;

/// Current problems of a process, shared by the parts that find them and the nodes that report them.
#[derive(Debug, Clone, Default)]
pub struct ProcessProblems {
    current: Arc<Mutex<BTreeMap<&'static str, Problem>>>,
}

impl ProcessProblems {
    /// Replaces the problem of one part of the process; `None`: it has no problem. Its detail is a
    /// sentence with the remedy, without the node.
    pub fn set(&self, part: &'static str, problem: Option<Problem>) {
        let mut current = self.current.lock();
        match problem {
            Some(problem) => current.insert(part, problem),
            None => current.remove(part),
        };
    }

    /// Returns the current problems.
    pub fn list(&self) -> Vec<Problem> {
        self.current.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::ProblemKind;

    use super::*;

    #[test]
    fn problem_is_listed_until_its_part_withdraws_it() {
        let problems = ProcessProblems::default();
        let set = |part, detail| {
            problems.set(part, Some(Problem::new(ProblemKind::ConnectionsRefused, detail)));
        };
        let listed = || -> Vec<String> {
            problems.clone().list().into_iter().map(|problem| problem.detail).collect()
        };
        set("b", "second");
        set("a", "first");
        set("b", "other");
        assert_eq!(listed(), ["first", "other"]);
        problems.set("a", None);
        assert_eq!(listed(), ["other"]);
    }
}
