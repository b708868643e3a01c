//! Staging areas that are closed, and how: what comes late for one is refused, and whoever asks again
//! learns what became of it.

use std::collections::VecDeque;

use super::AreaId;

/// Areas that are remembered; what comes later than so many others was in doubt for long.
const MOST: usize = 4_096;

/// How an area ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AreaOutcome {
    /// What was staged in it became live.
    Published,
    /// What was staged in it is garbage.
    Abandoned,
}

/// The last areas that were closed, in that order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClosedAreas(VecDeque<(AreaId, AreaOutcome)>);

impl ClosedAreas {
    /// Remembers an area, and forgets the one that was closed first when there are too many.
    pub fn insert(&mut self, area: AreaId, how: AreaOutcome) {
        if self.get(&area).is_some() {
            return;
        }
        self.0.push_back((area, how));
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// How the area ended, if it has, as far as is remembered.
    pub fn get(&self, area: &AreaId) -> Option<AreaOutcome> {
        // Whoever asks for one is mostly at work with it.
        self.0.iter().rev().find(|(closed, _)| closed == area).map(|(_, how)| *how)
    }

    /// In the order of their closing.
    pub fn iter(&self) -> impl Iterator<Item = (AreaId, AreaOutcome)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_ones_are_remembered_whatever_their_ids() {
        let area = |number: usize| AreaId(Uuid::from_u128(u128::MAX - number as u128));
        let mut closed = ClosedAreas::default();
        for number in 0..MOST + 10 {
            closed.insert(area(number), AreaOutcome::Published);
            closed.insert(area(number), AreaOutcome::Abandoned);
        }
        assert_eq!(closed.iter().count(), MOST);
        assert_eq!(closed.get(&area(9)), None);
        assert_eq!(closed.get(&area(10)), Some(AreaOutcome::Published));
        assert_eq!(closed.get(&area(MOST + 9)), Some(AreaOutcome::Published));
    }
}
