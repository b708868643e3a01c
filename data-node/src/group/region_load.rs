//! Load of a region in the current window: numbers of writes and reads, and a sample of their keys.
//!
//! *Sample*: keys at random distances in the sequence of accesses, with a mean distance (*interval*) in units of the
//! score. When there are too many, every second one is dropped and the interval doubles, so that each key stands for
//! the same part of the load. Distances are random, since batches of a fixed length would let the same
//! position of each batch be sampled.

use parking_lot::Mutex;
use tidewater_common::agreed_limits::{LOAD_KEY_BYTES, LOAD_KEYS, WRITE_SCORE};

/// Load of a region in the current window.
#[derive(Debug)]
pub struct RegionLoad {
    window: Mutex<LoadWindow>,
}

/// Load of a region in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeasuredLoad {
    /// Rows that were written.
    pub writes: u64,
    /// Keys that were looked up, and scans.
    pub reads: u64,
    /// Row keys, each of which stands for the same part of the load.
    pub keys: Vec<Vec<u8>>,
}

impl MeasuredLoad {
    /// Writes and reads, weighted.
    pub fn score(&self) -> u64 {
        self.writes.saturating_mul(WRITE_SCORE).saturating_add(self.reads)
    }
}

#[derive(Debug)]
struct LoadWindow {
    load: MeasuredLoad,
    /// Mean distance of two sampled keys, as a score.
    interval: u64,
    /// Score until the next sampled key.
    until_next: u64,
    bits: u64,
}

impl RegionLoad {
    /// Begins a window. `seed`: any number, for the distances of the sampled keys.
    pub fn new(seed: u64) -> Self {
        let window =
            LoadWindow { load: MeasuredLoad::default(), interval: 1, until_next: 0, bits: seed };
        Self { window: Mutex::new(window) }
    }

    /// Counts `rows` written rows. `key_of` returns the row key of the one with an index below `rows`, if it can be
    /// computed.
    pub fn record_writes(&self, rows: usize, key_of: impl Fn(usize) -> Option<Vec<u8>>) {
        let mut window = self.window.lock();
        window.load.writes = window.load.writes.saturating_add(rows as u64);
        window.sample(rows, WRITE_SCORE, key_of);
    }

    /// Counts `reads` keys that were looked up, or a scan; `key_of` as for writes.
    pub fn record_reads(&self, reads: usize, key_of: impl Fn(usize) -> Option<Vec<u8>>) {
        let mut window = self.window.lock();
        window.load.reads = window.load.reads.saturating_add(reads as u64);
        window.sample(reads, 1, key_of);
    }

    /// Ends the window and begins the next one.
    pub fn take(&self) -> MeasuredLoad {
        let mut window = self.window.lock();
        // The next window is expected to be similar: few keys are sampled and dropped.
        window.interval = (window.interval / 4).max(1);
        // Not the rest of a distance from a time of much more load.
        window.until_next = window.distance().min(window.until_next);
        std::mem::take(&mut window.load)
    }
}

impl LoadWindow {
    fn sample(&mut self, items: usize, score: u64, key_of: impl Fn(usize) -> Option<Vec<u8>>) {
        let total = (items as u64).saturating_mul(score);
        while self.until_next < total {
            let at = usize::try_from(self.until_next / score).unwrap_or(usize::MAX);
            if let Some(mut key) = key_of(at) {
                key.truncate(LOAD_KEY_BYTES);
                self.load.keys.push(key);
            }
            if self.load.keys.len() > LOAD_KEYS {
                let mut is_kept = false;
                self.load.keys.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
                self.interval = self.interval.saturating_mul(2);
            }
            let distance = self.distance();
            self.until_next = self.until_next.saturating_add(distance);
        }
        self.until_next -= total;
    }

    /// Returns a random distance with the mean `interval`, from 1 on. Linear congruential generator of Knuth, The Art of
    /// Computer Programming, volume 2, section 3.3.4 (MMIX).
    fn distance(&mut self) -> u64 {
        self.bits = self
            .bits
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        1 + (self.bits >> 33) % (self.interval.saturating_mul(2).saturating_sub(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Option<Vec<u8>> {
        Some(u32::try_from(number).unwrap().to_be_bytes().to_vec())
    }

    fn number(key: &[u8]) -> usize {
        u32::from_be_bytes(key.try_into().unwrap()) as usize
    }

    #[test]
    fn window_counts_until_it_is_taken() {
        let load = RegionLoad::new(7);
        load.record_writes(3, key);
        load.record_reads(2, |_| None);
        let window = load.take();
        assert_eq!((window.writes, window.reads, window.score()), (3, 2, 14));
        assert!(!window.keys.is_empty());
        assert_eq!(load.take(), MeasuredLoad::default());
    }

    #[test]
    fn sampled_keys_stand_for_equal_parts_of_the_load() {
        // Batches of powers of two, and of other lengths.
        for (batch, batches) in [(1, 50_000), (8, 8_192), (64, 1_024), (100, 1_000), (100_000, 1)] {
            let load = RegionLoad::new(batch as u64);
            for round in 0..batches {
                load.record_writes(batch, |at| key(round * batch + at));
            }
            let total = batch * batches;
            let keys = load.take().keys;
            assert!((LOAD_KEYS / 4..=LOAD_KEYS).contains(&keys.len()), "{batch}: {}", keys.len());
            let median = number(&keys[keys.len() / 2]);
            let share = median as f64 / total as f64;
            assert!((0.3..0.7).contains(&share), "batches of {batch}: median at {share}");
            // Positions within a batch: none is preferred.
            let late = keys.iter().filter(|key| number(key) % batch >= batch / 2).count();
            let is_spread = late * 5 > keys.len() && late * 5 < keys.len() * 4;
            assert!(batch == 1 || is_spread, "batches of {batch}: {late} of {}", keys.len());
        }
    }

    #[test]
    fn keys_are_sampled_soon_after_a_burst() {
        let load = RegionLoad::new(1);
        load.record_writes(50_000_000, key);
        load.take();
        for _ in 0..12 {
            load.record_writes(15_000, key);
            load.take();
        }
        load.record_writes(15_000, key);
        assert!(load.take().keys.len() >= 16);
    }

    #[test]
    fn reads_count_less_than_writes() {
        let load = RegionLoad::new(1);
        for _ in 0..20_000 {
            load.record_writes(1, |_| key(1));
            load.record_reads(1, |_| key(2));
        }
        let keys = load.take().keys;
        let writes = keys.iter().filter(|key| number(key) == 1).count();
        assert!(writes * 2 > keys.len(), "{writes} of {}", keys.len());
        assert!(writes < keys.len());
    }

    #[test]
    fn long_keys_are_cut() {
        let load = RegionLoad::new(1);
        load.record_writes(1, |_| Some(vec![1; LOAD_KEY_BYTES + 1]));
        let keys = load.take().keys;
        assert!(!keys.is_empty() && keys.iter().all(|key| *key == [1; LOAD_KEY_BYTES]));
    }
}
