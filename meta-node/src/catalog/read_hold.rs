//! Read holds: named and leased, each of some tables at one epoch.

use std::ops::Bound;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync as PersistentMap, RedBlackTreeSetSync as PersistentSet};
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1;
use uuid::Uuid;

use super::CatalogError;
use super::records::invalid;

/// End of the lease of a hold that does not expire, and its length.
pub(super) const NO_LEASE_END_MS: u64 = u64::MAX;

/// Named hold of tables at an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadHold {
    /// Unique among holds.
    pub name: String,
    /// Text for people: the program or person that holds.
    pub holder: String,
    /// Each once, in ascending order; at least one.
    pub tables: Vec<TableId>,
    /// Oldest epoch that the tables can be read at because of the hold.
    pub epoch: Epoch,
    /// Length of the lease in milliseconds, from each renewal; `u64::MAX`: the hold does not expire.
    pub lease_ms: u64,
    /// Replicated time at which the lease ends; `u64::MAX`: never.
    pub lease_end_ms: u64,
    /// Replicated time of the acquisition.
    pub acquired_ms: u64,
    /// Id of the request that has acquired the hold.
    pub request: Uuid,
}

impl From<&ReadHold> for v1::ReadHold {
    fn from(hold: &ReadHold) -> Self {
        Self {
            name: hold.name.clone(),
            holder: hold.holder.clone(),
            table_ids: hold.tables.iter().map(|table| table.get()).collect(),
            epoch: hold.epoch.get(),
            lease_ms: hold.lease_ms,
            lease_end_ms: hold.lease_end_ms,
            acquired_ms: hold.acquired_ms,
            request_id: hold.request.as_bytes().to_vec().into(),
        }
    }
}

impl TryFrom<v1::ReadHold> for ReadHold {
    type Error = CatalogError;

    fn try_from(stored: v1::ReadHold) -> Result<Self, CatalogError> {
        let is_ascending = stored.table_ids.is_sorted_by(|one, next| one < next);
        if stored.table_ids.is_empty() || !is_ascending {
            return Err(invalid("hold", "its tables are missing or not in ascending order"));
        }
        let request = Uuid::from_slice(&stored.request_id)
            .map_err(|_| invalid("hold", "its request id is not a UUID"))?;
        Ok(Self {
            name: stored.name,
            holder: stored.holder,
            tables: stored.table_ids.into_iter().map(TableId).collect(),
            epoch: Epoch(stored.epoch),
            lease_ms: stored.lease_ms,
            lease_end_ms: stored.lease_end_ms,
            acquired_ms: stored.acquired_ms,
            request,
        })
    }
}

/// The read holds of a state. Clones share their records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadHolds {
    by_name: PersistentMap<String, Arc<ReadHold>>,
    // Indexes over the holds.
    by_table: PersistentSet<(TableId, Epoch, Arc<str>)>,
    by_lease: PersistentSet<(u64, String)>,
}

impl ReadHolds {
    /// Returns the hold with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<ReadHold>> {
        self.by_name.get(name)
    }

    /// Returns the number of holds.
    pub fn count(&self) -> usize {
        self.by_name.size()
    }

    /// Returns the sum of the numbers of tables of all holds.
    pub fn held_tables(&self) -> usize {
        self.by_table.size()
    }

    /// Returns all holds, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ReadHold>> {
        self.by_name.values()
    }

    /// Returns the holds with a later name, by name.
    pub fn after(&self, name: &str) -> impl Iterator<Item = &Arc<ReadHold>> {
        let later = (Bound::Excluded(name), Bound::Unbounded);
        self.by_name.range::<str, _>(later).map(|(_, hold)| hold)
    }

    /// Returns the holds of a table, by epoch.
    pub fn for_table(&self, table: TableId) -> impl Iterator<Item = &Arc<ReadHold>> {
        let from = (table, Epoch(0), Arc::from(""));
        let held = self.by_table.range(from..).take_while(move |(of, _, _)| *of == table);
        held.filter_map(|(_, _, name)| self.by_name.get(name.as_ref()))
    }

    /// Returns the hold of a table at the least epoch.
    pub fn least_of(&self, table: TableId) -> Option<&Arc<ReadHold>> {
        self.for_table(table).next()
    }

    /// Returns the holds whose leases have ended, the first one first.
    pub fn ended_at(&self, time_ms: u64) -> impl Iterator<Item = &Arc<ReadHold>> {
        let ended = self.by_lease.iter().take_while(move |(end_ms, _)| *end_ms <= time_ms);
        ended.filter_map(|(_, name)| self.by_name.get(name))
    }

    /// Adds a hold, or replaces the one with its name. A renewal takes no time for the tables.
    pub(super) fn put(&mut self, hold: ReadHold) {
        let before = self.by_name.get(&hold.name).cloned();
        let is_same = before
            .as_ref()
            .is_some_and(|before| (before.epoch, &before.tables) == (hold.epoch, &hold.tables));
        if let Some(before) = &before {
            self.by_lease.remove_mut(&(before.lease_end_ms, before.name.clone()));
            if !is_same {
                self.remove_tables(before);
            }
        }
        if !is_same {
            let name: Arc<str> = hold.name.as_str().into();
            for table in &hold.tables {
                self.by_table.insert_mut((*table, hold.epoch, Arc::clone(&name)));
            }
        }
        self.by_lease.insert_mut((hold.lease_end_ms, hold.name.clone()));
        self.by_name.insert_mut(hold.name.clone(), Arc::new(hold));
    }

    /// Removes the hold with this name.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(hold) = self.by_name.get(name).cloned() else { return };
        self.remove_tables(&hold);
        self.by_lease.remove_mut(&(hold.lease_end_ms, hold.name.clone()));
        self.by_name.remove_mut(name);
    }

    fn remove_tables(&mut self, hold: &ReadHold) {
        let name: Arc<str> = hold.name.as_str().into();
        for table in &hold.tables {
            self.by_table.remove_mut(&(*table, hold.epoch, Arc::clone(&name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};

    fn hold(name: &str, tables: &[u32], epoch: u64, lease_end_ms: u64) -> ReadHold {
        ReadHold {
            name: name.to_owned(),
            holder: "backup".to_owned(),
            tables: tables.iter().copied().map(TableId).collect(),
            epoch: Epoch(epoch),
            lease_ms: 60_000,
            lease_end_ms,
            acquired_ms: 7,
            request: Uuid::from_u128(5),
        }
    }

    fn names<'a>(holds: impl Iterator<Item = &'a Arc<ReadHold>>) -> Vec<&'a str> {
        holds.map(|hold| hold.name.as_str()).collect()
    }

    #[test]
    fn holds_are_found_by_table_and_by_lease() {
        let mut holds = ReadHolds::default();
        for of in [hold("b", &[1, 2], 30, 500), hold("a", &[2], 20, 900), hold("c", &[2], 20, 400)]
        {
            holds.put(of);
        }
        assert_eq!(names(holds.for_table(TableId(2))), ["a", "c", "b"]);
        assert_eq!(names(holds.for_table(TableId(1))), ["b"]);
        assert_eq!(names(holds.for_table(TableId(3))), Vec::<&str>::new());
        assert_eq!(names(holds.ended_at(500)), ["c", "b"]);
        assert_eq!(names(holds.after("a")), ["b", "c"]);
        assert_eq!((holds.count(), holds.held_tables()), (3, 4));
        // A later lease, and then a later epoch.
        holds.put(hold("b", &[1, 2], 30, 600));
        assert_eq!(names(holds.for_table(TableId(2))), ["a", "c", "b"]);
        holds.put(hold("b", &[1, 2], 40, 600));
        assert_eq!(names(holds.ended_at(500)), ["c"]);
        assert_eq!(holds.least_of(TableId(1)).unwrap().epoch, Epoch(40));
        for name in ["a", "b", "c", "c"] {
            holds.remove(name);
        }
        assert_eq!(holds, ReadHolds::default());
    }

    #[test]
    fn stored_hold_bytes_are_frozen() {
        let of = hold("b", &[1, 300], 1 << 40, 1_800_000_000_000);
        assert_eq!(keys::read_hold("b"), b"meta/hold/b");
        let stored = codec::encode_message(&v1::ReadHold::from(&of));
        let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, STORED);
        let read = codec::decode_message::<v1::ReadHold>("hold", &stored).unwrap();
        assert_eq!(ReadHold::try_from(read).unwrap(), of);
    }

    #[test]
    fn damaged_holds_are_refused() {
        let stored = v1::ReadHold::from(&hold("b", &[1, 2], 3, 4));
        for damaged in [
            v1::ReadHold { table_ids: Vec::new(), ..stored.clone() },
            v1::ReadHold { table_ids: vec![2, 1], ..stored.clone() },
            v1::ReadHold { table_ids: vec![1, 1], ..stored.clone() },
            v1::ReadHold { request_id: vec![1].into(), ..stored.clone() },
        ] {
            assert!(ReadHold::try_from(damaged).is_err());
        }
    }

    const STORED: &str = "0177e74c650a016212066261636b75701a0301ac022080808080802028e0d4033080a0f1c2b13438\
                          07421000000000000000000000000000000005";
}
