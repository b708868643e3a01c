//! Map with a limit in bytes that evicts the least recently used entries.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// An LRU map. A lookup counts as use.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    capacity: usize,
    entries: HashMap<K, Entry<V>>,
    by_use: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// Creates a map of at most `capacity` bytes; 0 stores nothing.
    pub(crate) fn new(capacity: usize) -> Self {
        let entries = HashMap::new();
        let by_use = BTreeMap::new();
        Self { capacity, entries, by_use, clock: 0, weight: 0 }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of all entries.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        let before = std::mem::replace(&mut entry.used, self.clock);
        if let Some(key) = self.by_use.remove(&before) {
            self.by_use.insert(self.clock, key);
        }
        Some(entry.value.clone())
    }

    /// Inserts `value` of `weight` bytes, replacing any value of this key. A value above the
    /// capacity is not stored.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.capacity {
            return;
        }
        self.clock += 1;
        self.by_use.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, weight, used: self.clock });
        self.weight += weight;
        while self.weight > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lru_evicts_the_least_recently_used_entry() {
        let mut lru = Lru::new(10);
        for key in 1..4 {
            lru.insert(key, key * 10, 3);
        }
        assert_eq!((lru.get(&1), lru.weight()), (Some(10), 9));
        lru.insert(4, 40, 3);
        assert_eq!(
            (lru.get(&1), lru.get(&2), lru.get(&3), lru.get(&4)),
            (Some(10), None, Some(30), Some(40))
        );
        // Replaces a value of another weight.
        lru.insert(4, 41, 5);
        assert_eq!(
            (lru.get(&4), lru.get(&3), lru.get(&1), lru.weight()),
            (Some(41), Some(30), None, 8)
        );
        // Too large: other entries stay, but the older value of its key is removed.
        lru.insert(4, 42, 11);
        assert_eq!((lru.get(&4), lru.get(&3), lru.weight()), (None, Some(30), 3));
        let mut none = Lru::new(0);
        none.insert(1, 1, 1);
        assert_eq!((none.get(&1), none.weight()), (None, 0));
    }
}
