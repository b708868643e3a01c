//! Keys of the state rows that only meta nodes have: a readable kind, then the id in big endian, so that rows sort by
//! id.

use tidewater_common::ids::{GroupId, NodeId, RegionId, Revision, SourceId, TableId};
use uuid::Uuid;

use super::RowKind;

/// Key of the header.
pub(super) fn header() -> Vec<u8> {
    RowKind::Header.prefix().to_vec()
}

/// Key of the replacement of a member of the meta group.
pub(super) fn member_replacement() -> Vec<u8> {
    RowKind::MemberReplacement.prefix().to_vec()
}

/// Key of the settings of the balance.
pub(super) fn balance() -> Vec<u8> {
    RowKind::Balance.prefix().to_vec()
}

/// Key of the mark of a route that begins where a split of a hot route has divided it.
pub(super) fn soft_start(route: RegionId) -> Vec<u8> {
    joined(RowKind::SoftStart, &route.get().to_be_bytes())
}

pub(super) fn source(id: SourceId) -> Vec<u8> {
    joined(RowKind::Source, &id.get().to_be_bytes())
}

/// Key of the refreshes of a table.
pub(super) fn refresh(table: TableId) -> Vec<u8> {
    joined(RowKind::Refresh, &table.get().to_be_bytes())
}

/// Key of the record of a table's readable epochs.
pub(super) fn collection(table: TableId) -> Vec<u8> {
    joined(RowKind::Collection, &table.get().to_be_bytes())
}

pub(super) fn read_hold(name: &str) -> Vec<u8> {
    joined(RowKind::ReadHold, name.as_bytes())
}

pub(super) fn export(name: &str) -> Vec<u8> {
    joined(RowKind::Export, name.as_bytes())
}

/// Key of an id that was handed out and is not used.
pub(super) fn unused_id(id: TableId) -> Vec<u8> {
    joined(RowKind::UnusedId, &id.get().to_be_bytes())
}

pub(super) fn table(id: TableId) -> Vec<u8> {
    joined(RowKind::Table, &id.get().to_be_bytes())
}

pub(super) fn group(id: GroupId) -> Vec<u8> {
    joined(RowKind::Group, &id.get().to_be_bytes())
}

pub(super) fn node(id: NodeId) -> Vec<u8> {
    joined(RowKind::Node, &id.get().to_be_bytes())
}

pub(super) fn outcome(request: Uuid) -> Vec<u8> {
    joined(RowKind::Outcome, request.as_bytes())
}

pub(super) fn hook(name: &str) -> Vec<u8> {
    joined(RowKind::Hook, name.as_bytes())
}

pub(super) fn hook_procedure(hook: &str) -> Vec<u8> {
    joined(RowKind::HookProcedure, hook.as_bytes())
}

pub(super) fn procedure(id: Uuid) -> Vec<u8> {
    joined(RowKind::Procedure, id.as_bytes())
}

/// Key of a cursor: the region, then the hook's name.
pub(super) fn cursor(region: RegionId, hook: &str) -> Vec<u8> {
    [RowKind::Cursor.prefix(), &region.get().to_be_bytes(), hook.as_bytes()].concat()
}

pub(super) fn delta(revision: Revision) -> Vec<u8> {
    joined(RowKind::Delta, &revision.get().to_be_bytes())
}

fn joined(kind: RowKind, id: &[u8]) -> Vec<u8> {
    [kind.prefix(), id].concat()
}
