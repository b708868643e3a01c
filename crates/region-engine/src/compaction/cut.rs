//! Cuts a job into sub-jobs by key range (pure).

use tidewater_common::keys::KeyRange;

/// Returns consecutive ranges with about the same number of blocks each, at most `parts`. `firsts`:
/// the first key of every block of every input, in any order. All versions of a key are in one
/// range, since only keys bound them.
pub(crate) fn cut(whole: &KeyRange, mut firsts: Vec<Vec<u8>>, parts: usize) -> Vec<KeyRange> {
    firsts.retain(|key| whole.contains(key) && *key > whole.start);
    firsts.sort_unstable();
    let mut bounds: Vec<Vec<u8>> = Vec::new();
    for part in 1..parts {
        let Some(key) = firsts.get(part * firsts.len() / parts) else { break };
        // The first block of all begins at the start of the range.
        if bounds.last() != Some(key) && *key != firsts[0] {
            bounds.push(key.clone());
        }
    }
    let starts = std::iter::once(whole.start.clone()).chain(bounds.iter().cloned());
    let ends = bounds.iter().cloned().map(Some).chain([whole.end.clone()]);
    starts.zip(ends).map(|(start, end)| KeyRange { start, end }).collect()
}

/// Returns the number of concurrent sub-jobs: bounded by `parallelism`, by the least size of a
/// useful sub-job, and by memory.
pub(crate) fn sub_job_count(
    parallelism: usize,
    bytes: u64,
    least_bytes: u64,
    memory: u64,
    each: u64,
) -> usize {
    let useful = bytes / least_bytes.max(1);
    let fitting = memory / each.max(1);
    usize::try_from(useful.min(fitting)).unwrap_or(usize::MAX).clamp(1, parallelism.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: Option<&str>) -> KeyRange {
        KeyRange::new(start.as_bytes(), end.map(|end| end.as_bytes().to_vec()))
    }

    fn keys(text: &str) -> Vec<Vec<u8>> {
        text.split_whitespace().map(|key| key.as_bytes().to_vec()).collect()
    }

    #[test]
    fn ranges_are_consecutive_and_balanced_by_blocks() {
        let whole = KeyRange::whole();
        assert_eq!(cut(&whole, vec![], 4), vec![whole.clone()]);
        assert_eq!(cut(&whole, keys("a"), 4), vec![whole.clone()]);
        assert_eq!(cut(&whole, keys("d b a c"), 1), vec![whole.clone()]);
        assert_eq!(cut(&whole, keys("d b a c"), 2), [range("", Some("c")), range("c", None)]);
        assert_eq!(
            cut(&whole, keys("a b c d e f"), 3),
            [range("", Some("c")), range("c", Some("e")), range("e", None)]
        );
        // One key fills many blocks: it is not cut.
        assert_eq!(cut(&whole, keys("a b b b b b"), 3), [range("", Some("b")), range("b", None)]);
        // Only blocks in the clip count.
        assert_eq!(
            cut(&range("c", Some("g")), keys("a b c d e f g h"), 2),
            [range("c", Some("e")), range("e", Some("g"))]
        );
    }

    #[test]
    fn memory_and_size_bound_the_sub_jobs() {
        assert_eq!(sub_job_count(4, 1_000, 100, 1_000, 10), 4);
        assert_eq!(sub_job_count(4, 250, 100, 1_000, 10), 2);
        assert_eq!(sub_job_count(4, 1_000, 100, 30, 10), 3);
        assert_eq!(sub_job_count(4, 0, 100, 0, 10), 1);
        assert_eq!(sub_job_count(0, 1_000, 0, 1_000, 0), 1);
    }
}
