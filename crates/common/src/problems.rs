//! Problems of a process that its nodes report to operators in their heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Current problems of a process, shared by the parts that find them and the nodes that report them.
#[derive(Debug, Clone, Default)]
pub struct ProcessProblems {
    current: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl ProcessProblems {
    /// Replaces the problem of one part of the process; `None`: it has no problem. A problem is a
    /// sentence whose subject is the node, with its duration and its remedy.
    pub fn set(&self, part: &'static str, problem: Option<String>) {
        let mut current = self.current.lock();
        match problem {
            Some(problem) => current.insert(part, problem),
            None => current.remove(part),
        };
    }

    /// Returns the current problems.
    pub fn list(&self) -> Vec<String> {
        self.current.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_is_listed_until_its_part_withdraws_it() {
        let problems = ProcessProblems::default();
        problems.set("b", Some("second".to_owned()));
        problems.set("a", Some("first".to_owned()));
        problems.set("b", Some("other".to_owned()));
        assert_eq!(problems.clone().list(), ["first", "other"]);
        problems.set("a", None);
        assert_eq!(problems.list(), ["other"]);
    }
}
