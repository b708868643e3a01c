//! Rules for the bytes of a connection, by its source and target.

use std::collections::HashMap;
use std::time::Duration;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A node of the cluster, by name.
    Node(String),
    /// Any other process: the test and the client commands that it runs.
    Client,
}

impl Party {
    /// Returns the node with this name.
    pub fn node(name: impl Into<String>) -> Self {
        Self::Node(name.into())
    }
}

/// Treatment of the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// Bytes are forwarded.
    #[default]
    Pass,
    /// Bytes are held back and connections stay open, as in a network partition. Held bytes arrive when
    /// the rule ends.
    Hold,
    /// Open and new connections are closed.
    Cut,
    /// Bytes are forwarded after a delay.
    Delay(Duration),
    /// Requests are forwarded, answers are discarded. The connection is closed when the rule ends.
    LoseAnswers,
}

/// Rules of directed pairs; [`Rule::Pass`] by default.
#[derive(Debug, Clone, Default)]
pub struct RuleTable {
    rules: HashMap<(Party, Party), Rule>,
}

impl RuleTable {
    /// Returns the rule for connections that `from` opens to `to`.
    pub fn rule(&self, from: &Party, to: &Party) -> Rule {
        self.rules.get(&(from.clone(), to.clone())).copied().unwrap_or_default()
    }

    /// Sets the rule for connections that `from` opens to `to`.
    pub fn set(&mut self, from: Party, to: Party, rule: Rule) {
        self.rules.insert((from, to), rule);
    }

    /// Sets the rule between `node` and each of `others`, in both directions.
    pub fn isolate(&mut self, node: &str, others: &[String], rule: Rule) {
        for other in others.iter().filter(|other| *other != node) {
            self.set(Party::node(node), Party::node(other), rule);
            self.set(Party::node(other), Party::node(node), rule);
        }
    }

    /// Removes all rules.
    pub fn clear(&mut self) {
        self.rules.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolated_node_keeps_its_clients() {
        let mut table = RuleTable::default();
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        table.isolate("a", &names, Rule::Hold);
        let cases = [
            (Party::node("a"), Party::node("b"), Rule::Hold),
            (Party::node("b"), Party::node("a"), Rule::Hold),
            (Party::node("c"), Party::node("a"), Rule::Hold),
            (Party::node("b"), Party::node("c"), Rule::Pass),
            (Party::Client, Party::node("a"), Rule::Pass),
            (Party::node("a"), Party::node("a"), Rule::Pass),
        ];
        for (from, to, rule) in cases {
            assert_eq!(table.rule(&from, &to), rule, "{from:?} to {to:?}");
        }
        table.clear();
        assert_eq!(table.rule(&Party::node("a"), &Party::node("b")), Rule::Pass);
    }
}
