//! All procedures, with indexes by table, by route and by the time of their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync as PersistentMap, RedBlackTreeSetSync as PersistentSet};
use tidewater_common::ids::{RegionId, TableId};
use tidewater_proto::v1::LockMode;
use uuid::Uuid;

use super::locks::conflicts;
use super::records::invalid;
use super::{CatalogError, Procedure, Table};

/// All procedures, by id. Clones share their records and the nodes of their trees.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Procedures {
    by_id: PersistentMap<Uuid, Arc<Procedure>>,
    // Indexes over the procedures.
    running: PersistentSet<Uuid>,
    /// Tables that running procedures lock.
    tables: PersistentSet<(TableId, Uuid)>,
    /// Routes that running procedures lock.
    routes: PersistentMap<RegionId, Uuid>,
    /// Ended procedures by the replicated time of their end.
    ended: PersistentSet<(u64, Uuid)>,
}

impl Procedures {
    /// The procedure with this id.
    pub fn get(&self, id: Uuid) -> Option<&Arc<Procedure>> {
        self.by_id.get(&id)
    }

    /// All procedures, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Procedure>> {
        self.by_id.values()
    }

    /// Number of all procedures.
    pub fn count(&self) -> usize {
        self.by_id.size()
    }

    /// The procedures that have not ended, by id.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Procedure>> {
        self.running.iter().filter_map(|id| self.by_id.get(id))
    }

    /// The running procedures that lock a table.
    pub fn of_table(&self, table: TableId) -> impl Iterator<Item = &Arc<Procedure>> {
        let range = (table, Uuid::nil())..=(table, Uuid::max());
        self.tables.range(range).filter_map(|(_, id)| self.by_id.get(id))
    }

    /// The running procedure that locks a route.
    pub fn of_route(&self, route: RegionId) -> Option<&Arc<Procedure>> {
        self.routes.get(&route).and_then(|id| self.by_id.get(id))
    }

    /// The procedures that have ended, the last one first.
    pub fn last_ended(&self) -> impl Iterator<Item = &Arc<Procedure>> {
        self.ended.iter().rev().filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Ids of the procedures that ended before `time_ms`, oldest first, at most `limit`.
    pub fn ended_before(&self, time_ms: u64, limit: usize) -> Vec<Uuid> {
        let old = self.ended.range(..(time_ms, Uuid::nil()));
        old.take(limit).map(|(_, id)| *id).collect()
    }

    /// Checks that the locks of running procedures are compatible, and that their tables exist and have no
    /// change that was begun without a procedure.
    pub(super) fn verify<'a>(
        &self,
        table_of: impl Fn(TableId) -> Option<&'a Table>,
    ) -> Result<(), CatalogError> {
        let mut tables: BTreeMap<TableId, Vec<(LockMode, Uuid)>> = BTreeMap::new();
        for procedure in self.running() {
            for lock in &procedure.locks {
                if table_of(lock.table).is_none_or(|table| table.change.is_some()) {
                    let (id, table) = (procedure.id, lock.table);
                    let problem = format!("procedure {id} locks table {table}, which it must not");
                    return Err(invalid("procedure", problem));
                }
                let held = tables.entry(lock.table).or_default();
                if let Some((_, other)) = held.iter().find(|(mode, _)| conflicts(*mode, lock.mode))
                {
                    let (id, table) = (procedure.id, lock.table);
                    let problem = format!("procedures {other} and {id} lock table {table}");
                    return Err(invalid("procedure", problem));
                }
                held.push((lock.mode, procedure.id));
            }
            let is_other = |route: &&RegionId| self.routes.get(*route) != Some(&procedure.id);
            if let Some(route) = procedure.routes.iter().find(is_other) {
                return Err(invalid("procedure", format!("two procedures lock route {route}")));
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, procedure: Procedure) {
        self.remove(procedure.id);
        let id = procedure.id;
        match procedure.ended_ms {
            Some(ended_ms) => self.ended.insert_mut((ended_ms, id)),
            None => {
                self.running.insert_mut(id);
                for lock in &procedure.locks {
                    self.tables.insert_mut((lock.table, id));
                }
                for route in &procedure.routes {
                    self.routes.insert_mut(*route, id);
                }
            }
        }
        self.by_id.insert_mut(id, Arc::new(procedure));
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        let Some(before) = self.by_id.get(&id).cloned() else { return };
        if let Some(ended_ms) = before.ended_ms {
            self.ended.remove_mut(&(ended_ms, id));
        }
        self.running.remove_mut(&id);
        for lock in &before.locks {
            self.tables.remove_mut(&(lock.table, id));
        }
        for route in &before.routes {
            if self.routes.get(route) == Some(&id) {
                self.routes.remove_mut(route);
            }
        }
        self.by_id.remove_mut(&id);
    }
}
