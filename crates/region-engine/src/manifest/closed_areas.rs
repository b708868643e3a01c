//! Staging areas that were published or abandoned: what comes late for one is refused.

use std::collections::VecDeque;

use super::AreaId;

/// Areas that are remembered; what comes later than so many others was in doubt for long.
const MOST: usize = 4_096;

/// The last areas that were closed, in that order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClosedAreas(VecDeque<AreaId>);

impl ClosedAreas {
    /// Remembers an area, and forgets the one that was closed first when there are too many.
    pub fn insert(&mut self, area: AreaId) {
        if self.contains(&area) {
            return;
        }
        self.0.push_back(area);
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// Whether the area was closed, as far as is remembered.
    pub fn contains(&self, area: &AreaId) -> bool {
        // Whoever asks for one is mostly at work with it.
        self.0.iter().rev().any(|closed| closed == area)
    }

    /// In the order of their closing.
    pub fn iter(&self) -> impl Iterator<Item = &AreaId> {
        self.0.iter()
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
            closed.insert(area(number));
            closed.insert(area(number));
        }
        assert_eq!(closed.iter().count(), MOST);
        assert!(!closed.contains(&area(9)) && closed.contains(&area(10)));
        assert!(closed.contains(&area(MOST + 9)));
    }
}
