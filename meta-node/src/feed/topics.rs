//! Topics of a watch: the kinds of records that a watcher asks for.

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, WatchTopic};

/// All topics, in the order of their parts in an event.
pub(super) const TOPICS: [WatchTopic; 5] = [
    WatchTopic::Nodes,
    WatchTopic::Groups,
    WatchTopic::Tables,
    WatchTopic::Routes,
    WatchTopic::Hooks,
];

/// Set of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicSet(u8);

impl TopicSet {
    /// Every topic.
    pub(crate) const ALL: Self = Self((1 << TOPICS.len()) - 1);

    /// Parses the topics of a request. Without topics, a watcher receives everything.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]: this release does not know a topic.
    pub(crate) fn parse(requested: &[i32]) -> Result<Self, Refusal> {
        if requested.is_empty() {
            return Ok(Self::ALL);
        }
        let mut topics = Self(0);
        for number in requested {
            let position = TOPICS.iter().position(|topic| i32::from(*topic) == *number);
            let position = position.ok_or_else(|| {
                let text = format!(
                    "the watch topic {number} is unknown to this meta node (known: 1 to {}): watch \
                     without topics, or upgrade the meta nodes",
                    TOPICS.len()
                );
                Refusal::new(Reason::InvalidArgument, text)
            })?;
            topics.0 |= 1 << position;
        }
        Ok(topics)
    }

    /// Returns the elements of `parts`, which has one for each of [`TOPICS`], that are in the set.
    pub(super) fn select<'a, T>(
        self,
        parts: &'a [T; TOPICS.len()],
    ) -> impl Iterator<Item = &'a T> + 'a {
        let is_selected = move |(position, _): &(usize, &T)| self.0 & (1 << position) != 0;
        parts.iter().enumerate().filter(is_selected).map(|(_, part)| part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_topics_are_selected() {
        let parts = ["nodes", "groups", "tables", "routes", "hooks"];
        let selected = |requested: &[i32]| -> Vec<&str> {
            TopicSet::parse(requested).unwrap().select(&parts).copied().collect()
        };
        assert_eq!(selected(&[]), parts);
        assert_eq!(selected(&[5, 1, 1]), ["nodes", "hooks"]);
        assert_eq!(selected(&[1, 2, 3, 4, 5]), parts);
        for topic in TOPICS {
            assert_eq!(selected(&[topic.into()]).len(), 1, "{topic:?}");
        }
    }

    #[test]
    fn unknown_topics_are_refused() {
        for unknown in [0, 6, -1, i32::MAX] {
            let refusal = TopicSet::parse(&[1, unknown]).unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidArgument);
            assert!(refusal.message.contains("(known: 1 to 5)"), "{refusal}");
        }
    }
}
