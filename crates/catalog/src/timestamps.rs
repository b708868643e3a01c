//! Timestamps of a cluster, strictly increasing across leaders and restarts (pure).
//!
//! - *Timestamp*: milliseconds of replicated time since the Unix epoch, and a counter of 18 bits.
//! - *Ceiling*: end of the timestamps that a leader may give, a fixed time ahead of the replicated time that it has
//!   applied. A later leader has applied at least as much, and begins at its own ceiling: above all timestamps of
//!   the leaders before it.
//!
//! A leader reads the time for the ceiling before it confirms its leadership, so that no later leader has advanced it.

use std::fmt;

use tidewater_common::agreed_limits::TIMESTAMP_LEAD_MS;
use tidewater_common::ids::Term;

/// Bits of the counter.
const COUNTER_BITS: u32 = 18;

/// A point in the order of events of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Reads the plain number of a message.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the first timestamp of a millisecond since the Unix epoch.
    pub const fn at_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1 << COUNTER_BITS))
    }

    /// Plain number, for messages; ordered like the timestamps.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// Timestamps above the ceiling were asked for. The ceiling rises with replicated time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no timestamps are left below the ceiling {0}: retry")]
pub struct PastCeiling(pub Timestamp);

/// Allocator of one leader.
#[derive(Debug, Default)]
pub struct TimestampAllocator {
    term: Term,
    next: u64,
}

impl TimestampAllocator {
    /// Allocates `count` timestamps in a row, at least one, and returns the first.
    ///
    /// `before_ms`: replicated time as applied before the leader confirmed that it leads in `term`. `after_ms`: as
    /// applied after that.
    ///
    /// # Errors
    /// [`PastCeiling`]; nothing is allocated.
    pub fn allocate(
        &mut self,
        term: Term,
        before_ms: u64,
        after_ms: u64,
        count: u32,
    ) -> Result<Timestamp, PastCeiling> {
        if term > self.term {
            *self = Self { term, next: ceiling(after_ms).0 };
        }
        let ceiling = ceiling(before_ms);
        let first = self.next.max(Timestamp::at_ms(before_ms).0);
        let end = first.checked_add(u64::from(count.max(1))).ok_or(PastCeiling(ceiling))?;
        if term < self.term || end > ceiling.0 {
            return Err(PastCeiling(ceiling));
        }
        self.next = end;
        Ok(Timestamp(first))
    }
}

/// Returns the end of the timestamps that a leader may give at this replicated time.
fn ceiling(time_ms: u64) -> Timestamp {
    Timestamp::at_ms(time_ms.saturating_add(TIMESTAMP_LEAD_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_follow_replicated_time() {
        let mut allocator = TimestampAllocator::default();
        let begun = 1_000_000;
        // The first term begins at its ceiling: another leader may have given all below.
        let early = allocator.allocate(Term(1), begun, begun, 1);
        assert_eq!(early, Err(PastCeiling(Timestamp::at_ms(begun + TIMESTAMP_LEAD_MS))));
        let first = allocator.allocate(Term(1), begun + 1, begun + 1, 3).unwrap();
        assert_eq!(first, Timestamp::at_ms(begun + TIMESTAMP_LEAD_MS));
        let next = allocator.allocate(Term(1), begun + 1, begun + 1, 0).unwrap();
        assert_eq!(next.number(), first.number() + 3);
        let later = begun + 60_000;
        let now = allocator.allocate(Term(1), later, later, 1).unwrap();
        assert_eq!((now, now.ms()), (Timestamp::at_ms(later), later));
        assert_eq!(now.to_string(), format!("{later}.0"));
    }

    #[test]
    fn allocation_ends_at_the_ceiling() {
        let mut allocator = TimestampAllocator::default();
        let all = u32::try_from(TIMESTAMP_LEAD_MS << COUNTER_BITS).unwrap();
        assert!(allocator.allocate(Term(1), 0, 0, 1).is_err());
        let time = 1_000_000;
        let refused = allocator.allocate(Term(1), time, time, all + 1);
        assert_eq!(refused, Err(PastCeiling(Timestamp::at_ms(time + TIMESTAMP_LEAD_MS))));
        allocator.allocate(Term(1), time, time, all).unwrap();
        assert!(allocator.allocate(Term(1), time, time, 1).is_err());
        allocator.allocate(Term(1), time + 1, time + 1, 1).unwrap();
        assert!(allocator.allocate(Term(1), u64::MAX, u64::MAX, 1).is_err(), "the end of time");
    }

    /// Step of a history: replicated time advances, another node leads, or a node is asked. A node that was deposed
    /// and does not know it is asked, too: it has confirmed its leadership before.
    #[derive(Debug, Clone)]
    enum Step {
        Advance(u64),
        Elect(usize),
        Ask { node: usize, count: u32 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u64..2_500).prop_map(Step::Advance),
            1 => (0usize..3).prop_map(Step::Elect),
            6 => (0usize..3, 0u32..2_000_000).prop_map(|(node, count)| Step::Ask { node, count }),
        ];
        proptest::collection::vec(step, 1..80)
    }

    proptest! {
        // R13. `confirmed`: term and time of each node when it last confirmed that it leads.
        #[test]
        fn timestamps_increase_across_leaders(steps in steps()) {
            let mut nodes: Vec<TimestampAllocator> = Vec::new();
            nodes.resize_with(3, TimestampAllocator::default);
            let mut confirmed = [None; 3];
            let (mut time, mut term, mut leader) = (5_000_u64, Term(1), 0);
            // Timestamps below these are given: by the leader, and by all nodes.
            let (mut given, mut ranges) = (0, Vec::<(u64, u64)>::new());
            for step in steps {
                match step {
                    Step::Advance(ms) => time += ms,
                    Step::Elect(node) => (term, leader) = (Term(term.get() + 1), node),
                    Step::Ask { node, count } => {
                        if node == leader {
                            confirmed[node] = Some((term, time));
                        }
                        let Some((of_term, before)) = confirmed[node] else { continue };
                        let allocated = nodes[node].allocate(of_term, before, time, count);
                        if let Ok(first) = allocated {
                            let range = (first.number(), first.number() + u64::from(count.max(1)));
                            prop_assert!(ranges.iter().all(|of| range.1 <= of.0 || of.1 <= range.0));
                            if node == leader {
                                prop_assert!(range.0 >= given);
                                given = range.1;
                            }
                            ranges.push(range);
                        }
                    }
                }
            }
        }
    }
}
