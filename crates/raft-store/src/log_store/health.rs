use std::future::Future;
use std::io;
use std::time::Duration;

use tidewater_common::disk::is_full;
use tokio::sync::watch;

/// Pause after an attempt that failed on a full disk.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Health of the node's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskHealth {
    /// The disk accepts writes.
    Ok,
    /// There is too little space. Accepted entries are kept in memory and written when there is
    /// space again; refuse new proposals until then.
    Full,
    /// A write failed for another reason. The store accepts no more writes: the node must exit.
    Failed(String),
}

/// Retries writing a file outside of the log store until the disk has space for it: an error would
/// end the group's Raft for good. Returns other errors immediately, and the disk's own error when
/// the store is closed.
pub async fn retry_while_disk_full<T, F>(
    mut health: watch::Receiver<DiskHealth>,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut logged = false;
    loop {
        let error = match attempt().await {
            Err(error) if is_full(&error) => error,
            other => return other,
        };
        if !std::mem::replace(&mut logged, true) {
            tracing::warn!(%error, "no disk space for {what}; retrying");
        }
        // A file larger than the free space fails again, and must not fill the disk continuously.
        tokio::time::sleep(RETRY_PAUSE).await;
        let closed = health.wait_for(|health| *health == DiskHealth::Ok).await.is_err();
        // The last health of a closed store may have been `Ok`.
        if closed || health.has_changed().is_err() {
            return Err(error);
        }
    }
}

/// Writes that the free space of the disk allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskSpace {
    /// All writes.
    Enough,
    /// Writes of accepted entries; no new entries should be accepted.
    Low,
    /// No writes: a write could fail half-way.
    None,
}

/// Returns the writes that `free` bytes allow when the floor is `floor` bytes. Once low, a quarter
/// more than the floor must be free, so that the state does not flap.
pub(super) fn disk_space(free: u64, floor: u64, was_low: bool) -> DiskSpace {
    let enough = if was_low { floor.saturating_add(floor / 4) } else { floor };
    if free >= enough {
        DiskSpace::Enough
    } else if free >= floor / 4 {
        DiskSpace::Low
    } else {
        DiskSpace::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn file_write_retries_until_there_is_space() {
        let (disk, health) = watch::channel(DiskHealth::Ok);
        let attempts = std::cell::Cell::new(0);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let written = retry_while_disk_full(health.clone(), "a file", || async {
            attempts.set(attempts.get() + 1);
            match attempts.get() {
                1 => {
                    disk.send_replace(DiskHealth::Full);
                    Err(full())
                }
                // The attempt must wait until health has changed.
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

        let other = retry_while_disk_full(health.clone(), "a file", || async {
            Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied))
        });
        assert_eq!(other.await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        drop(disk);
        let closed = retry_while_disk_full(health, "a file", || async { Err::<(), _>(full()) });
        assert_eq!(closed.await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn disk_space_has_hysteresis() {
        let cases = [
            (1_000, false, DiskSpace::Enough),
            (999, false, DiskSpace::Low),
            (1_000, true, DiskSpace::Low),
            (1_249, true, DiskSpace::Low),
            (1_250, true, DiskSpace::Enough),
            (250, false, DiskSpace::Low),
            (249, false, DiskSpace::None),
            (0, true, DiskSpace::None),
        ];
        for (free, was_low, expected) in cases {
            assert_eq!(disk_space(free, 1_000, was_low), expected, "{free} {was_low}");
        }
        // A floor of 0 disables the check.
        assert_eq!(disk_space(0, 0, false), DiskSpace::Enough);
    }
}
