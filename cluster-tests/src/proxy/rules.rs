//! What happens to the bytes of a connection, by who opened it and where it goes.

use std::collections::HashMap;
use std::time::Duration;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A node of the cluster, by name.
    Node(String),
    /// Everybody else: the test itself and the client commands that it runs.
    Client,
}

impl Party {
    /// The node of this name.
    pub fn node(name: impl Into<String>) -> Self {
        Self::Node(name.into())
    }
}

/// What happens to the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// They arrive.
    #[default]
    Pass,
    /// Nothing arrives and nothing is refused: a network that lost its way. What was sent arrives
    /// when the rule ends.
    Hold,
    /// Connections are closed, new ones too.
    Cut,
    /// They arrive later.
    Delay(Duration),
    /// Requests arrive, answers are lost. The connection is closed when the rule ends.
    LoseAnswers,
}

/// The rule of each directed pair; [`Rule::Pass`] where none is set.
#[derive(Debug, Clone, Default)]
pub struct RuleTable {
    rules: HashMap<(Party, Party), Rule>,
}

impl RuleTable {
    /// The rule for connections that `from` opens to `to`.
    pub fn rule(&self, from: &Party, to: &Party) -> Rule {
        self.rules.get(&(from.clone(), to.clone())).copied().unwrap_or_default()
    }

    /// Sets the rule for connections that `from` opens to `to`.
    pub fn set(&mut self, from: Party, to: Party, rule: Rule) {
        self.rules.insert((from, to), rule);
    }

    /// Sets the rule between `node` and each of `others`, whoever opened the connection.
    pub fn part(&mut self, node: &str, others: &[String], rule: Rule) {
        for other in others.iter().filter(|other| *other != node) {
            self.set(Party::node(node), Party::node(other), rule);
            self.set(Party::node(other), Party::node(node), rule);
        }
    }

    /// Everything passes again.
    pub fn clear(&mut self) {
        self.rules.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parting_a_node_leaves_its_clients_and_the_others_alone() {
        let mut table = RuleTable::default();
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        table.part("a", &names, Rule::Hold);
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
