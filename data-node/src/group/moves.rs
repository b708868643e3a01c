//! Moves of regions between groups, as a group remembers them. Entries of a move can be delayed beyond its end, and a
//! region can come back: they differ by the number of the move, which is the move epoch of the region's manifest.

use std::collections::BTreeMap;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1::{self, Reason};

use super::entry::EntryOutcome;

/// Number of regions whose moves a group remembers. Beyond it, the departed regions with the least ids are forgotten.
const REMEMBERED: usize = 65_536;

/// End of a region's move in a group: the region has left, or has not been received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Number of the move.
    pub epoch: u64,
    /// Group that has the region.
    pub to: GroupId,
}

impl Departure {
    /// Returns the refusal of a call to the region.
    pub fn refusal(self, region: RegionId) -> EntryOutcome {
        let text = format!("region {region} has moved to group {}: refresh the catalog", self.to);
        EntryOutcome::refused(Reason::RouteMoved, text)
    }
}

/// Returns the refusal of an operation on a region that the group does not serve.
pub fn not_served(region: RegionId, departure: Option<Departure>) -> EntryOutcome {
    match departure {
        Some(departure) => departure.refusal(region),
        None => EntryOutcome::refused(
            Reason::RegionNotFound,
            format!("region {region} is no longer served by this group"),
        ),
    }
}

/// Moves that a group remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moves {
    departed: BTreeMap<RegionId, Departure>,
    /// Numbers of the moves of regions that the group is about to receive.
    prepared: BTreeMap<RegionId, u64>,
}

impl Moves {
    /// Returns the last departure of a region that has not come back.
    pub fn departure(&self, region: RegionId) -> Option<Departure> {
        self.departed.get(&region).copied()
    }

    /// Returns the number of the move with which the group is about to receive a region.
    pub fn prepared(&self, region: RegionId) -> Option<u64> {
        self.prepared.get(&region).copied()
    }

    /// Prepares for a region. Returns false if the group prepares for too many: one that is forgotten could not be received.
    pub fn prepare(&mut self, region: RegionId, epoch: u64) -> bool {
        let has_room = self.prepared.len() < REMEMBERED || self.prepared.contains_key(&region);
        if has_room {
            self.prepared.insert(region, epoch);
        }
        has_room
    }

    /// Records that a region has left, or is not received.
    pub fn depart(&mut self, region: RegionId, departure: Departure) {
        if self.prepared(region).is_some_and(|epoch| epoch <= departure.epoch) {
            self.prepared.remove(&region);
        }
        self.departed.insert(region, departure);
        while self.departed.len() > REMEMBERED {
            self.departed.pop_first();
        }
    }

    /// Forgets a region.
    pub fn forget(&mut self, region: RegionId) {
        self.departed.remove(&region);
        self.prepared.remove(&region);
    }

    /// Converts to the stored form, by region.
    pub fn departed_to_wire(&self) -> Vec<v1::RegionDeparture> {
        let departed = self.departed.iter();
        let to_wire = |(region, departure): (&RegionId, &Departure)| v1::RegionDeparture {
            region_id: region.get(),
            move_epoch: departure.epoch,
            group_id: departure.to.get(),
        };
        departed.map(to_wire).collect()
    }

    /// Converts to the stored form, by region.
    pub fn prepared_to_wire(&self) -> Vec<v1::PreparedRegion> {
        let prepared = self.prepared.iter();
        let to_wire = |(region, epoch): (&RegionId, &u64)| v1::PreparedRegion {
            region_id: region.get(),
            move_epoch: *epoch,
        };
        prepared.map(to_wire).collect()
    }

    /// Converts from the stored form.
    pub fn from_wire(departed: &[v1::RegionDeparture], prepared: &[v1::PreparedRegion]) -> Self {
        let departed = departed.iter().map(|wire| {
            let departure = Departure { epoch: wire.move_epoch, to: GroupId(wire.group_id) };
            (RegionId(wire.region_id), departure)
        });
        let prepared = prepared.iter().map(|wire| (RegionId(wire.region_id), wire.move_epoch));
        Self { departed: departed.collect(), prepared: prepared.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_remembered_for_a_bounded_number_of_regions() {
        let mut moves = Moves::default();
        let departure = Departure { epoch: 4, to: GroupId(2) };
        for region in 1..=REMEMBERED as u64 + 1 {
            moves.depart(RegionId(region), departure);
            assert_eq!(moves.prepare(RegionId(region), 5), region <= REMEMBERED as u64);
        }
        assert_eq!(moves.departure(RegionId(1)), None);
        assert_eq!(moves.departure(RegionId(2)), Some(departure));
        // One that is known can be prepared again.
        assert!(moves.prepare(RegionId(1), 6));
        assert_eq!(moves.prepared(RegionId(1)), Some(6));
        let stored = Moves::from_wire(&moves.departed_to_wire(), &moves.prepared_to_wire());
        assert_eq!(stored, moves);
    }

    #[test]
    fn departure_ends_preparations_up_to_its_move() {
        let mut moves = Moves::default();
        moves.prepare(RegionId(7), 6);
        moves.depart(RegionId(7), Departure { epoch: 5, to: GroupId(2) });
        assert_eq!(moves.prepared(RegionId(7)), Some(6));
        moves.depart(RegionId(7), Departure { epoch: 6, to: GroupId(3) });
        assert_eq!(moves.prepared(RegionId(7)), None);
        moves.forget(RegionId(7));
        assert_eq!(moves, Moves::default());
    }
}
