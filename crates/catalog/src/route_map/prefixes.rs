//! Search of sorted starts by a few of their bytes, which are adjacent in memory.
//!
//! Starts of one table often begin with the same bytes, so the numbers are taken from the bytes after these.

use std::cmp::Ordering;

use crate::GlobalKey;
use crate::global_key::SharedStart;

/// First bytes of sorted starts.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefixes {
    /// Bytes that all starts begin with; they may begin with more.
    shared: Option<SharedStart>,
    /// The bytes after these, for each start.
    numbers: Vec<u64>,
}

impl Prefixes {
    /// Returns the first bytes of sorted starts.
    pub(super) fn of<'a>(starts: impl DoubleEndedIterator<Item = GlobalKey<'a>> + Clone) -> Self {
        // Sorted starts share what the first and the last one share.
        let (first, last) = (starts.clone().next(), starts.clone().next_back());
        let shared = first.zip(last).and_then(|(first, last)| first.shared_with(last));
        let number = |start: GlobalKey<'_>| start.number_after(shared.as_ref()).unwrap_or(0);
        let numbers = starts.map(number).collect();
        Self { shared, numbers }
    }

    /// Adds a start. Returns `false`, without a change, if it does not begin with the shared bytes.
    pub(super) fn insert(&mut self, at: usize, start: GlobalKey<'_>) -> bool {
        let number = start.number_after(self.shared.as_ref());
        if let Ok(number) = number {
            self.numbers.insert(at, number);
        }
        number.is_ok()
    }

    /// Replaces a start. Returns `false`, without a change, if it does not begin with the shared bytes.
    pub(super) fn replace(&mut self, at: usize, start: GlobalKey<'_>) -> bool {
        let number = start.number_after(self.shared.as_ref());
        if let (Ok(number), Some(old)) = (number, self.numbers.get_mut(at)) {
            *old = number;
        }
        number.is_ok()
    }

    /// Removes a start.
    pub(super) fn remove(&mut self, at: usize) {
        self.numbers.remove(at);
    }

    /// Returns the same bytes of the end of a route, or more: the end is above each key with a lower number.
    pub(super) fn number_of_end(&self, end: Option<GlobalKey<'_>>) -> u64 {
        match end.map(|end| end.number_after(self.shared.as_ref())) {
            Some(Ok(number)) => number,
            Some(Err(Ordering::Less)) => 0,
            Some(Err(_)) | None => u64::MAX,
        }
    }

    /// Compares the end of a route, by its number, with a key. `Equal`: the numbers do not decide.
    pub(super) fn compare_end(&self, number: u64, key: GlobalKey<'_>) -> Ordering {
        key.number_after(self.shared.as_ref()).map_or(Ordering::Equal, |of_key| number.cmp(&of_key))
    }

    /// Returns the number of starts up to a key; `start_at` returns a start.
    pub(super) fn count_up_to<'a>(
        &self,
        key: GlobalKey<'_>,
        start_at: impl Fn(usize) -> Option<GlobalKey<'a>>,
    ) -> usize {
        let number = match key.number_after(self.shared.as_ref()) {
            Ok(number) => number,
            Err(Ordering::Less) => return 0,
            Err(_) => return self.numbers.len(),
        };
        let mut low = self.numbers.partition_point(|other| *other < number);
        let equal = self.numbers.get(low..).unwrap_or_default();
        if equal.first() != Some(&number) {
            return low;
        }
        let mut high = low + equal.partition_point(|other| *other == number);
        while low < high {
            let middle = low + (high - low) / 2;
            if start_at(middle).is_some_and(|start| start <= key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    /// Checks the count of each key, and that the numbers are those of the starts.
    fn assert_counts(prefixes: &Prefixes, starts: &[Vec<u8>], keys: &[Vec<u8>]) {
        assert_eq!(prefixes.numbers.len(), starts.len());
        let start_at = |at: usize| starts.get(at).map(|start| GlobalKey::from_bytes(start));
        for key in keys {
            let expected = starts.iter().filter(|start| *start <= key).count();
            assert_eq!(prefixes.count_up_to(GlobalKey::from_bytes(key), start_at), expected);
        }
    }

    fn of(starts: &[Vec<u8>]) -> Prefixes {
        Prefixes::of(starts.iter().map(|start| GlobalKey::from_bytes(start)))
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list(
            starts in btree_set(vec(0u8..2, 0..16), 0..20), keys in vec(vec(0u8..2, 0..16), 1..20),
            head in vec(0u8..2, 0..8), added in vec(0u8..2, 0..16), at in any::<usize>(),
        ) {
            let join = |tail: &Vec<u8>| [head.as_slice(), tail].concat();
            let mut starts: Vec<Vec<u8>> = starts.iter().map(join).collect();
            let mut keys = keys;
            keys.extend(keys.clone().iter().map(join));
            keys.extend(starts.clone());
            let mut prefixes = of(&starts);
            assert_counts(&prefixes, &starts, &keys);
            let position = starts.iter().filter(|start| **start < added).count();
            if !starts.contains(&added) && prefixes.insert(position, GlobalKey::from_bytes(&added)) {
                starts.insert(position, added);
            }
            assert_counts(&prefixes, &starts, &keys);
            if !starts.is_empty() {
                // The start of a list of chunks moves when the first route of a chunk is removed.
                let at = at % starts.len();
                let later = [starts[at].as_slice(), &[0]].concat();
                let is_free = starts.get(at + 1).is_none_or(|next| *next > later);
                if is_free && prefixes.replace(at, GlobalKey::from_bytes(&later)) {
                    starts[at] = later;
                }
                assert_counts(&prefixes, &starts, &keys);
                starts.remove(at);
                prefixes.remove(at);
            }
            assert_counts(&prefixes, &starts, &keys);
        }
    }
}
