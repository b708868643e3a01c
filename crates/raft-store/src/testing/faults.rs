//! A disk that can be full, or fail.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::log_store::Disk;

/// Disk with settable free space, errors and delays.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    free: AtomicU64,
    free_space_checks: AtomicU64,
    error: Mutex<Option<String>>,
    held: AtomicBool,
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self {
            free: AtomicU64::new(u64::MAX),
            free_space_checks: AtomicU64::new(0),
            error: Mutex::new(None),
            held: AtomicBool::new(false),
        }
    }
}

impl FaultyDisk {
    pub(crate) fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::SeqCst);
    }

    /// Returns how often free space was queried.
    pub(crate) fn free_space_checks(&self) -> u64 {
        self.free_space_checks.load(Ordering::SeqCst)
    }

    /// Makes writes fail with this error; `None` makes them succeed again.
    pub(crate) fn fail_with(&self, error: Option<&str>) {
        *self.error.lock() = error.map(str::to_owned);
    }

    /// Blocks writes while set.
    pub(crate) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }
}

impl Disk for FaultyDisk {
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.free_space_checks.fetch_add(1, Ordering::SeqCst);
        Ok(self.free.load(Ordering::SeqCst))
    }

    fn before_write(&self) -> Result<(), String> {
        while self.held.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        match &*self.error.lock() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}
