//! Conversion of the complete state to and from rows, for snapshots, restarts and replica comparison.

use std::sync::Arc;

use tidewater_common::ids::{RegionId, Revision, TableId};
use tidewater_proto::v1;
use uuid::Uuid;

use super::{
    BalanceSettings, CatalogError, MetaState, RouteError, RowKind, catalog_next_route_id_key,
    catalog_route_key, catalog_version_key, codec, decode_catalog_next_route_id,
    decode_catalog_route, decode_catalog_version, encode_catalog_next_route_id,
    encode_catalog_route, encode_catalog_version, keys, route_id_from_key,
};

/// A state row: key and framed bytes.
pub type StateRow = (Vec<u8>, Vec<u8>);

impl MetaState {
    /// Encodes all rows of the state. Equal states have equal rows in the same order.
    pub fn rows(&self) -> Result<Vec<StateRow>, CatalogError> {
        let mut rows = vec![
            (keys::header(), codec::encode_header(&self.header)),
            (catalog_version_key(), encode_catalog_version(self.catalog_version)),
            (catalog_next_route_id_key(), encode_catalog_next_route_id(self.next_route_id)),
        ];
        for route in self.routes.values() {
            rows.push((catalog_route_key(route.route_id), encode_catalog_route(route)?));
        }
        for table in self.tables.values() {
            let message = v1::TableRecord::from(table.as_ref());
            rows.push((keys::table(table.id), codec::encode_message(&message)));
        }
        for group in self.groups.values() {
            let message = v1::Group::from(group.as_ref());
            rows.push((keys::group(group.id), codec::encode_message(&message)));
        }
        for node in self.nodes.values() {
            let message = v1::NodeRecord::from(node.as_ref());
            rows.push((keys::node(node.id), codec::encode_message(&message)));
        }
        for hook in self.hooks.values() {
            let message = v1::Hook::from(hook.as_ref());
            rows.push((keys::hook(&hook.name), codec::encode_message(&message)));
        }
        for procedure in self.hook_procedures.values() {
            let message = v1::HookProcedure::from(procedure);
            rows.push((keys::hook_procedure(&procedure.hook), codec::encode_message(&message)));
        }
        for procedure in self.procedures.iter() {
            let message = v1::ProcedureRecord::from(procedure.as_ref());
            rows.push((keys::procedure(procedure.id), codec::encode_message(&message)));
        }
        for cursor in self.cursors.iter() {
            let message = v1::HookCursor::from(cursor);
            let key = keys::cursor(cursor.region, &cursor.hook);
            rows.push((key, codec::encode_message(&message)));
        }
        if self.balance != BalanceSettings::default() {
            let message = v1::BalanceSettings::from(self.balance);
            rows.push((keys::balance(), codec::encode_message(&message)));
        }
        if let Some(replacement) = &self.replacement {
            let message = v1::MemberReplacement::from(replacement);
            rows.push((keys::member_replacement(), codec::encode_message(&message)));
        }
        for route in &self.soft_starts {
            let message = v1::SoftStart { route_id: route.get() };
            rows.push((keys::soft_start(*route), codec::encode_message(&message)));
        }
        for source in self.sources.values() {
            let message = v1::SourceRecord::from(source.as_ref());
            rows.push((keys::source(source.id), codec::encode_message(&message)));
        }
        for refreshes in self.refreshes.values() {
            let message = v1::RefreshRecord::from(refreshes.as_ref());
            rows.push((keys::refresh(refreshes.table), codec::encode_message(&message)));
        }
        for collection in self.collections.values() {
            let message = v1::CollectionRecord::from(collection.as_ref());
            rows.push((keys::collection(collection.table), codec::encode_message(&message)));
        }
        for hold in self.holds.iter() {
            let message = v1::ReadHold::from(hold.as_ref());
            rows.push((keys::read_hold(&hold.name), codec::encode_message(&message)));
        }
        for export in self.exports.iter() {
            let message = v1::Export::from(export.as_ref());
            rows.push((keys::export(&export.name), codec::encode_message(&message)));
        }
        for id in &self.unused_ids {
            let message = v1::AllocatedId { table_id: id.get() };
            rows.push((keys::unused_id(*id), codec::encode_message(&message)));
        }
        for (request, outcome) in &self.outcomes {
            let message = v1::OutcomeRecord::from(outcome.as_ref());
            rows.push((keys::outcome(*request), codec::encode_message(&message)));
        }
        for delta in self.deltas.values() {
            let key = keys::delta(Revision(delta.revision));
            rows.push((key, codec::encode_message(delta.as_ref())));
        }
        Ok(rows)
    }

    /// Decodes the output of [`rows`](Self::rows) and verifies the state. Rows may have any order. An empty
    /// list is the state of a new cluster.
    pub fn from_rows(rows: impl IntoIterator<Item = StateRow>) -> Result<Self, CatalogError> {
        let mut state = Self::default();
        for (key, bytes) in rows {
            state.load_row(&key, &bytes)?;
        }
        state.verify()?;
        Ok(state)
    }

    fn load_row(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), CatalogError> {
        let kind = RowKind::from_key(key).ok_or(CatalogError::UnknownKey(key.len()))?;
        match kind {
            RowKind::Route => {
                let id = route_id_from_key(key)?;
                let route = decode_catalog_route(bytes)?;
                if id != route.route_id {
                    let mismatch = RouteError::RouteKeyMismatch { key: id, record: route.route_id };
                    return Err(mismatch.into());
                }
                self.put_route(route);
            }
            RowKind::CatalogVersion => self.catalog_version = decode_catalog_version(bytes)?,
            RowKind::NextRouteId => self.next_route_id = decode_catalog_next_route_id(bytes)?,
            RowKind::Header => self.header = codec::decode_header(bytes)?,
            RowKind::Table => {
                let table = codec::decode_message::<v1::TableRecord>("table", bytes)?.try_into()?;
                self.put_table(table);
            }
            RowKind::Group => {
                let group: super::Group =
                    codec::decode_message::<v1::Group>("group", bytes)?.try_into()?;
                self.groups.insert_mut(group.id, Arc::new(group));
            }
            RowKind::Node => {
                let node = codec::decode_message::<v1::NodeRecord>("node", bytes)?.try_into()?;
                self.put_node(node);
            }
            RowKind::Hook => {
                let hook: super::Hook =
                    codec::decode_message::<v1::Hook>("hook", bytes)?.try_into()?;
                self.hooks.insert_mut(hook.name.clone(), Arc::new(hook));
            }
            RowKind::HookProcedure => {
                let stored = codec::decode_message::<v1::HookProcedure>("hook procedure", bytes)?;
                let procedure: super::HookProcedure = stored.try_into()?;
                self.hook_procedures.insert_mut(procedure.hook.clone(), procedure);
            }
            RowKind::Procedure => {
                let stored = codec::decode_message::<v1::ProcedureRecord>("procedure", bytes)?;
                let procedure = super::Procedure::try_from(stored)?;
                if key != keys::procedure(procedure.id) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.procedures.put(procedure);
            }
            RowKind::Cursor => {
                let cursor =
                    codec::decode_message::<v1::HookCursor>("cursor", bytes)?.try_into()?;
                self.cursors.put(cursor);
            }
            RowKind::Balance => {
                let stored = codec::decode_message::<v1::BalanceSettings>("balance", bytes)?;
                self.balance = stored.try_into()?;
            }
            RowKind::MemberReplacement => {
                let what = "member replacement";
                let stored = codec::decode_message::<v1::MemberReplacement>(what, bytes)?;
                self.replacement = Some(stored.into());
            }
            RowKind::SoftStart => {
                let stored = codec::decode_message::<v1::SoftStart>("soft start", bytes)?;
                let route = RegionId(stored.route_id);
                if key != keys::soft_start(route) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.soft_starts.insert_mut(route);
            }
            RowKind::Source => {
                let stored = codec::decode_message::<v1::SourceRecord>("source", bytes)?;
                let source = super::Source::from(stored);
                if key != keys::source(source.id) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.sources.insert_mut(source.id, Arc::new(source));
            }
            RowKind::Refresh => {
                let stored = codec::decode_message::<v1::RefreshRecord>("refresh", bytes)?;
                let refreshes = super::Refreshes::try_from(stored)?;
                if key != keys::refresh(refreshes.table) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.refreshes.insert_mut(refreshes.table, Arc::new(refreshes));
            }
            RowKind::Collection => {
                let stored = codec::decode_message::<v1::CollectionRecord>("collection", bytes)?;
                let collection = super::Collection::try_from(stored)?;
                if key != keys::collection(collection.table) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.collections.insert_mut(collection.table, Arc::new(collection));
            }
            RowKind::ReadHold => {
                let stored = codec::decode_message::<v1::ReadHold>("hold", bytes)?;
                let hold = super::ReadHold::try_from(stored)?;
                if key != keys::read_hold(&hold.name) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.holds.put(hold);
            }
            RowKind::Export => {
                let stored = codec::decode_message::<v1::Export>("export", bytes)?;
                let export = super::Export::try_from(stored)?;
                if key != keys::export(&export.name) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.exports.put(export);
            }
            RowKind::UnusedId => {
                let stored = codec::decode_message::<v1::AllocatedId>("unused id", bytes)?;
                let id = TableId(stored.table_id);
                if key != keys::unused_id(id) {
                    return Err(CatalogError::UnknownKey(key.len()));
                }
                self.unused_ids.insert_mut(id);
            }
            RowKind::Outcome => {
                let request = key.strip_prefix(kind.prefix()).unwrap_or_default();
                let request =
                    Uuid::from_slice(request).map_err(|_| CatalogError::UnknownKey(key.len()))?;
                let outcome =
                    codec::decode_message::<v1::OutcomeRecord>("outcome", bytes)?.try_into()?;
                self.put_outcome(request, outcome);
            }
            RowKind::Delta => {
                let delta = codec::decode_message::<v1::CatalogDelta>("delta", bytes)?;
                self.deltas.insert_mut(Revision(delta.revision), Arc::new(delta));
            }
        }
        Ok(())
    }
}

/// Returns a checksum over all rows: equal states have equal digests.
pub fn digest(state: &MetaState) -> Result<u32, CatalogError> {
    let mut sum = 0;
    for (key, bytes) in state.rows()? {
        sum = crc32c::crc32c_append(sum, &key);
        sum = crc32c::crc32c_append(sum, &bytes);
    }
    Ok(sum)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
