use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::sync::watch;

/// Pause after an attempt for which there was no room.
const PAUSE: Duration = Duration::from_secs(1);

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

/// Attempts to write a file beside the log store until there is room for it: a full disk is no
/// failure, and an error would end the group's Raft for good. Other errors are returned, and the
/// disk's own when the store is closed.
pub async fn when_there_is_room<T, F>(
    mut health: watch::Receiver<DiskHealth>,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut told = false;
    loop {
        let error = match attempt().await {
            Err(error) if is_full(&error) => error,
            other => return other,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%error, "there is no room for {what}: it is written when there is");
        }
        // A file larger than what is free now fails again, and must not fill the disk all the time.
        tokio::time::sleep(PAUSE).await;
        let closed = health.wait_for(|health| *health == DiskHealth::Ok).await.is_err();
        // The last word of a store that is closed may have been that all is well.
        if closed || health.has_changed().is_err() {
            return Err(error);
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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

    #[tokio::test(start_paused = true)]
    async fn a_file_is_written_when_there_is_room_for_it() {
        let (disk, health) = watch::channel(DiskHealth::Ok);
        let tries = std::cell::Cell::new(0);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let written = when_there_is_room(health.clone(), "a file", || async {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 => {
                    disk.send_replace(DiskHealth::Full);
                    Err(full())
                }
                // Not before health has changed.
                2 if *disk.borrow() == DiskHealth::Ok => Err(full()),
                3 => Ok(7),
                other => Err(io::Error::other(format!("try {other}"))),
            }
        });
        let mut written = Box::pin(written);
        assert!(futures::poll!(&mut written).is_pending());
        disk.send_replace(DiskHealth::Ok);
        assert_eq!(written.as_mut().await.unwrap(), 7);
        drop(written);

        let other = when_there_is_room(health.clone(), "a file", || async {
            Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied))
        });
        assert_eq!(other.await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        drop(disk);
        let closed = when_there_is_room(health, "a file", || async { Err::<(), _>(full()) });
        assert_eq!(closed.await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

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
