//! Limits of a batch of writes (pure).

/// Limits of one log entry.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Bytes of rows. A larger write is proposed alone.
    pub bytes: usize,
    /// Number of writes; at most 65,536, the ordinals of an entry.
    pub writes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { bytes: 4 * 1024 * 1024, writes: 1_024 }
    }
}

/// Size of the batch that is being filled.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchSize {
    bytes: usize,
    writes: usize,
}

impl BatchSize {
    /// Adds a write if it fits. The first write always fits.
    pub fn try_add(&mut self, limits: &BatchLimits, bytes: usize) -> bool {
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
            if !size.try_add(&limits, *bytes) {
                batches.push(count);
                count = 0;
                size = BatchSize::default();
                assert!(size.try_add(&limits, *bytes), "the first write always fits");
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
        assert_eq!(cut(limits, &[500, 1]), [1, 1], "a large write is proposed alone");
        assert_eq!(cut(limits, &[1, 500, 1]), [1, 1, 1]);
    }
}
