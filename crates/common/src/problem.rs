//! Problems for operators: kind, subject and age, the same for conditions that a node reports and for
//! problems that the meta leader derives.

mod history;

use std::time::Duration;

use tidewater_proto::v1::{self, ProblemKind};

pub use self::history::{LastingProblem, ProblemHistory};
use crate::ids::{GroupId, NodeId, RegionId};
use crate::quote::cut_at;

/// Maximum length of a problem's text, in characters.
const MAX_DETAIL: usize = 1_000;

/// Subject of a problem.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProblemSubject {
    /// A node.
    pub node: Option<NodeId>,
    /// A group; 0 is the meta group.
    pub group: Option<GroupId>,
    /// A region.
    pub region: Option<RegionId>,
    /// Name of a table.
    pub table: Option<String>,
    /// Name of a hook.
    pub hook: Option<String>,
}

/// A problem at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind of the problem.
    pub kind: ProblemKind,
    /// Node, group, region, table or hook.
    pub subject: ProblemSubject,
    /// One sentence. Names the node only where the subject does.
    pub detail: String,
    /// Time for which it is known to last; `None`: unknown.
    pub age: Option<Duration>,
}

impl Problem {
    /// Creates a problem without subject and age.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, subject: ProblemSubject::default(), detail: detail.into(), age: None }
    }

    /// Sets the node.
    #[must_use]
    pub fn of_node(mut self, node: NodeId) -> Self {
        self.subject.node = Some(node);
        self
    }

    /// Sets the group.
    #[must_use]
    pub fn of_group(mut self, group: GroupId) -> Self {
        self.subject.group = Some(group);
        self
    }

    /// Sets the region.
    #[must_use]
    pub fn of_region(mut self, region: RegionId) -> Self {
        self.subject.region = Some(region);
        self
    }

    /// Sets the table's name.
    #[must_use]
    pub fn of_table(mut self, table: impl Into<String>) -> Self {
        self.subject.table = Some(table.into());
        self
    }

    /// Sets the hook's name.
    #[must_use]
    pub fn of_hook(mut self, hook: impl Into<String>) -> Self {
        self.subject.hook = Some(hook.into());
        self
    }

    /// Sets the age.
    #[must_use]
    pub fn lasting(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Returns the problem that a node reports. The detail names the node.
    pub fn reported(node: NodeId, condition: &v1::NodeCondition) -> Self {
        let kind = condition.kind();
        let kind = if kind == ProblemKind::Unspecified { ProblemKind::Reported } else { kind };
        let subject = condition.subject.as_ref().map(ProblemSubject::from).unwrap_or_default();
        let detail = format!("node {node}: {}", cut_at(&condition.detail, MAX_DETAIL));
        let age = Some(Duration::from_millis(condition.age_ms));
        Self { kind, subject: ProblemSubject { node: Some(node), ..subject }, detail, age }
    }
}

impl From<&v1::ProblemSubject> for ProblemSubject {
    fn from(subject: &v1::ProblemSubject) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| cut_at(text, MAX_DETAIL).into_owned());
        Self {
            node: (subject.node_id != 0).then_some(NodeId(subject.node_id)),
            group: subject.group_id.map(GroupId),
            region: (subject.region_id != 0).then_some(RegionId(subject.region_id)),
            table: text(&subject.table),
            hook: text(&subject.hook),
        }
    }
}

impl From<&ProblemSubject> for v1::ProblemSubject {
    fn from(subject: &ProblemSubject) -> Self {
        Self {
            node_id: subject.node.map_or(0, NodeId::get),
            group_id: subject.group.map(GroupId::get),
            region_id: subject.region.map_or(0, RegionId::get),
            table: subject.table.clone().unwrap_or_default(),
            hook: subject.hook.clone().unwrap_or_default(),
        }
    }
}

impl From<&Problem> for v1::NodeCondition {
    fn from(problem: &Problem) -> Self {
        let age = problem.age.unwrap_or_default();
        Self {
            kind: problem.kind.into(),
            subject: Some((&problem.subject).into()),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            detail: problem.detail.clone(),
        }
    }
}

/// Limits the problems of each kind to `most`, at least 2; the last one then counts the others. An
/// unavailable store is a problem of every region.
pub fn limit_per_kind(problems: Vec<Problem>, most: usize) -> Vec<Problem> {
    let count = |kind| problems.iter().filter(|problem| problem.kind == kind).count();
    let mut limited: Vec<Problem> = Vec::new();
    for problem in &problems {
        let kind = problem.kind;
        let total = count(kind);
        let listed = limited.iter().filter(|listed| listed.kind == kind).count();
        if total <= most || listed + 1 < most {
            limited.push(problem.clone());
        } else if listed < most {
            let others = total - listed;
            let detail =
                format!("{others} more problems of this kind, such as: {}", problem.detail);
            let age = problem.age;
            limited.push(Problem { age, ..Problem::new(kind, detail) });
        }
    }
    limited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_condition_is_a_problem_of_its_sender() {
        let condition = v1::NodeCondition {
            kind: ProblemKind::FlushFailing.into(),
            subject: Some(v1::ProblemSubject {
                node_id: 9,
                group_id: Some(3),
                region_id: 7,
                table: "t".into(),
                hook: String::new(),
            }),
            age_ms: 1_500,
            detail: "flushes fail".into(),
        };
        let expected = Problem::new(ProblemKind::FlushFailing, "node 101: flushes fail")
            .of_node(NodeId(101))
            .of_group(GroupId(3))
            .of_region(RegionId(7))
            .of_table("t")
            .lasting(Duration::from_millis(1_500));
        assert_eq!(Problem::reported(NodeId(101), &condition), expected);
        let unknown = v1::NodeCondition { kind: 9_999, ..condition };
        assert_eq!(Problem::reported(NodeId(101), &unknown).kind, ProblemKind::Reported);
        let subject = v1::ProblemSubject::from(&expected.subject);
        assert_eq!(ProblemSubject::from(&subject), expected.subject);
    }

    #[test]
    fn many_problems_of_one_kind_are_counted() {
        let flush = |id: u64| {
            let detail = format!("region {id}");
            Problem::new(ProblemKind::FlushFailing, detail).of_region(RegionId(id))
        };
        let full = Problem::new(ProblemKind::DiskFull, "full");
        let four: Vec<Problem> = (1..=4).map(flush).chain([full.clone()]).collect();
        assert_eq!(limit_per_kind(four.clone(), 4), four);
        let limited = limit_per_kind(four, 3);
        let details: Vec<&str> = limited.iter().map(|problem| problem.detail.as_str()).collect();
        let rest = "2 more problems of this kind, such as: region 3";
        assert_eq!(details, ["region 1", "region 2", rest, "full"]);
    }
}
