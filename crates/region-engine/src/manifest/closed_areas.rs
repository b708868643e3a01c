//! Closed staging areas and their outcomes: late operations on a closed area are refused, and a
//! repeated request receives the recorded outcome.

use std::collections::VecDeque;

use super::AreaId;

/// Number of areas that are remembered. An operation that arrives after this many others were
/// closed had an unknown outcome for a long time.
const MAX_AREAS: usize = 4_096;

/// Outcome of a staging area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AreaOutcome {
    /// The staged content became live.
    Published,
    /// The staged content is garbage.
    Abandoned,
}

/// The most recently closed areas, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClosedAreas(VecDeque<(AreaId, AreaOutcome)>);

impl ClosedAreas {
    /// Records an area and, above the limit, forgets the one that was closed first.
    pub fn insert(&mut self, area: AreaId, outcome: AreaOutcome) {
        if self.get(&area).is_some() {
            return;
        }
        self.0.push_back((area, outcome));
        if self.0.len() > MAX_AREAS {
            self.0.pop_front();
        }
    }

    /// Returns the outcome of the area if it is closed and still remembered.
    pub fn get(&self, area: &AreaId) -> Option<AreaOutcome> {
        // From the newest: most lookups are for areas in current use.
        self.0.iter().rev().find(|(closed, _)| closed == area).map(|(_, outcome)| *outcome)
    }

    /// Iterates over the areas in the order of closing.
    pub fn iter(&self) -> impl Iterator<Item = (AreaId, AreaOutcome)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn most_recently_closed_areas_are_remembered() {
        let area = |number: usize| AreaId(Uuid::from_u128(u128::MAX - number as u128));
        let mut closed = ClosedAreas::default();
        for number in 0..MAX_AREAS + 10 {
            closed.insert(area(number), AreaOutcome::Published);
            closed.insert(area(number), AreaOutcome::Abandoned);
        }
        assert_eq!(closed.iter().count(), MAX_AREAS);
        assert_eq!(closed.get(&area(9)), None);
        assert_eq!(closed.get(&area(10)), Some(AreaOutcome::Published));
        assert_eq!(closed.get(&area(MAX_AREAS + 9)), Some(AreaOutcome::Published));
    }
}
