//! When a batch of writes is full: pure.

/// What one log entry carries at most.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Bytes of rows. A single larger write goes alone.
    pub bytes: usize,
    /// Writes; at most 65,536, the ordinals of an entry.
    pub writes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { bytes: 4 * 1024 * 1024, writes: 1_024 }
    }
}

/// Fills up one batch after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchSize {
    bytes: usize,
    writes: usize,
}

impl BatchSize {
    /// Adds a write if there is room for it. There is always room for the first.
    pub fn add(&mut self, limits: &BatchLimits, bytes: usize) -> bool {
        let fits = self.writes < limits.writes && self.bytes.saturating_add(bytes) <= limits.bytes;
        if self.writes > 0 && !fits {
            return false;
        }
        self.writes += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(limits: BatchLimits, sizes: &[usize]) -> Vec<usize> {
        let mut batches = Vec::new();
        let mut size = BatchSize::default();
        let mut count = 0;
        for bytes in sizes {
            if !size.add(&limits, *bytes) {
                batches.push(count);
                count = 0;
                size = BatchSize::default();
                assert!(size.add(&limits, *bytes), "the first always fits");
            }
            count += 1;
        }
        batches.push(count);
        batches
    }

    #[test]
    fn batches_are_bounded_by_bytes_and_by_writes() {
        let limits = BatchLimits { bytes: 100, writes: 3 };
        assert_eq!(cut(limits, &[10, 10]), [2]);
        assert_eq!(cut(limits, &[10, 10, 10, 10]), [3, 1]);
        assert_eq!(cut(limits, &[60, 40, 1]), [2, 1]);
        assert_eq!(cut(limits, &[60, 50]), [1, 1]);
        assert_eq!(cut(limits, &[500, 1]), [1, 1], "a large write goes alone");
        assert_eq!(cut(limits, &[1, 500, 1]), [1, 1, 1]);
    }
}
