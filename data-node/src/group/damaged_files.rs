//! Files of regions that are missing or damaged, for the operator. Reads and checks find them; a file that
//! is intact again, or that the region no longer has, is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::file_meta::FileMeta;
use tidewater_region_engine::storage::StorageError;
use tokio::time::Instant;

/// Maximum number of files that are remembered for a region.
const MAX_FILES: usize = 100;

/// State of a file that cannot be read as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// Time at which the damage was found.
    pub since: Instant,
    /// Description of the damage.
    pub detail: String,
}

/// Missing and damaged files by region and object path.
#[derive(Debug, Default)]
pub struct DamagedFiles {
    by_region: Mutex<BTreeMap<RegionId, BTreeMap<String, DamagedFile>>>,
}

impl DamagedFiles {
    /// Records a missing or damaged file.
    pub fn record(&self, region: RegionId, object: String, detail: String, now: Instant) {
        let mut by_region = self.by_region.lock();
        let files = by_region.entry(region).or_default();
        if files.len() < MAX_FILES || files.contains_key(&object) {
            let since = files.get(&object).map_or(now, |known| known.since);
            files.insert(object, DamagedFile { since, detail });
        }
    }

    /// Records the file that an error of reading names, if the error is about one.
    pub fn record_error(&self, region: RegionId, error: &EngineError, now: Instant) {
        let found = match error {
            EngineError::Damaged { object, detail } => Some((object, detail.clone())),
            EngineError::Storage(StorageError::NotFound { object, .. }) => {
                Some((object, MISSING.to_owned()))
            }
            EngineError::Storage(error @ StorageError::Short { object, .. }) => {
                Some((object, error.to_string()))
            }
            _ => None,
        };
        if let Some((object, detail)) = found {
            self.record(region, object.clone(), detail, now);
        }
    }

    /// Forgets a file.
    pub fn remove(&self, region: RegionId, object: &str) {
        let mut by_region = self.by_region.lock();
        if let Some(files) = by_region.get_mut(&region) {
            files.remove(object);
            if files.is_empty() {
                by_region.remove(&region);
            }
        }
    }

    /// Returns the regions with damaged files.
    pub fn regions(&self) -> BTreeSet<RegionId> {
        self.by_region.lock().keys().copied().collect()
    }

    /// Returns the damaged files of a region by object path.
    pub fn of_region(&self, region: RegionId) -> BTreeMap<String, DamagedFile> {
        self.by_region.lock().get(&region).cloned().unwrap_or_default()
    }
}

/// Description of a missing file.
const MISSING: &str = "the object is missing";

/// Compares a file with the size of its stored object; `None`: the store has no such object. Returns the
/// damage.
pub fn stored_damage(file: &FileMeta, stored: Option<u64>) -> Option<String> {
    match stored {
        None => Some(MISSING.to_owned()),
        Some(bytes) if bytes != file.size => {
            Some(format!("the object has {bytes} bytes instead of {}", file.size))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tidewater_region_engine::storage::Operation;

    use super::*;

    #[test]
    fn only_errors_about_files_are_damage() {
        let files = DamagedFiles::default();
        let region = RegionId(7);
        let begin = Instant::now();
        let missing = StorageError::NotFound { operation: Operation::Get, object: "a".into() };
        let short = StorageError::Short { object: "b".into(), expected: 9, actual: 3 };
        let damaged = EngineError::Damaged { object: "c".into(), detail: "checksum".into() };
        let others = [
            EngineError::Loading { region },
            EngineError::Storage(StorageError::Conflict {
                operation: Operation::Put,
                object: "d".into(),
            }),
        ];
        for error in others.into_iter().chain([missing.into(), short.into(), damaged.clone()]) {
            files.record_error(region, &error, begin);
        }
        let known = files.of_region(region);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(known["a"].detail, MISSING);
        files.record_error(region, &damaged, Instant::now());
        assert_eq!(files.of_region(region)["c"].since, begin, "the first time counts");
        for object in ["a", "b", "c"] {
            assert_eq!(files.regions().len(), 1);
            files.remove(region, object);
        }
        assert!(files.regions().is_empty());
        for number in 0..2 * MAX_FILES {
            files.record(region, number.to_string(), String::new(), begin);
        }
        assert_eq!(files.of_region(region).len(), MAX_FILES);
    }
}
