/// Whether the node's disk takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskHealth {
    /// It does.
    Ok,
    /// There is too little room. What was accepted is kept in memory and written when there is
    /// room again; refuse new proposals meanwhile.
    Full,
    /// A write failed for another reason. Nothing is written any more: the node must exit.
    Failed(String),
}

/// What the free space of the disk allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Everything.
    Enough,
    /// What was accepted is written, nothing new should be accepted.
    Low,
    /// Not even that: a write could fail half-way.
    None,
}

/// What `free` bytes allow when the floor is `floor` bytes. Once low, a quarter more than the floor
/// must be free, so that the state does not flap.
pub(super) fn room(free: u64, floor: u64, was_low: bool) -> Room {
    let enough = if was_low { floor.saturating_add(floor / 4) } else { floor };
    if free >= enough {
        Room::Enough
    } else if free >= floor / 4 {
        Room::Low
    } else {
        Room::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_has_two_thresholds_and_does_not_flap() {
        let cases = [
            (1_000, false, Room::Enough),
            (999, false, Room::Low),
            (1_000, true, Room::Low),
            (1_249, true, Room::Low),
            (1_250, true, Room::Enough),
            (250, false, Room::Low),
            (249, false, Room::None),
            (0, true, Room::None),
        ];
        for (free, was_low, expected) in cases {
            assert_eq!(room(free, 1_000, was_low), expected, "{free} {was_low}");
        }
        // A floor of 0 switches the check off.
        assert_eq!(room(0, 0, false), Room::Enough);
    }
}
