//! The replicated catalog: records, their stored bytes, and the state that they form.
//!
//! The module is pure: no clock, no disk, no network. [`commands`](crate::commands) decides on a
//! [`MetaState`] and returns a [`CatalogChange`]. Only [`MetaState::absorb`] modifies a state, and it
//! cannot fail, so a rejected command has changed nothing.
//!
//! - *Record*: one table, route, group, node, hook, procedure, procedure of a hook, cursor, collection, hold, export or
//!   request outcome.
//! - *State row* ([`StateRow`]): a stored record: key and framed bytes.
//! - *Revision*: counter that grows with every change that watchers see.
//! - *Catalog version*: counter that grows only with changes of routes.

mod balance;
mod change;
mod codec;
mod collection;
mod cursor;
mod error;
mod export;
mod hook;
mod hook_procedure;
mod keys;
mod locks;
mod member_replacement;
mod outcome;
mod procedure;
mod procedures;
mod read_hold;
mod records;
mod refresh;
mod region_descriptor;
mod replaced;
mod route_index;
mod row_kind;
mod rows;
mod state;
mod table;

// Routes and their records are those of the library, under the names of this module.
pub use tidewater_catalog::{
    Coverage, RouteDescriptor, RouteError, RouteState, catalog_next_route_id_key,
    catalog_route_key, catalog_version_key, decode_catalog_next_route_id, decode_catalog_route,
    decode_catalog_version, encode_catalog_next_route_id, encode_catalog_route,
    encode_catalog_version, is_catalog_route_key, route_id_from_key, table_bounds, validate_routes,
};

pub use self::balance::BalanceSettings;
pub use self::change::{CatalogChange, ChangeEffects, StateRowWrite};
pub use self::collection::{Collection, Since, policy_from_wire, policy_to_wire};
pub use self::cursor::{Cursors, HookCursor};
pub use self::error::CatalogError;
pub use self::export::{EXPORT_HOLD_PREFIX, EXPORT_TOKEN_PREFIX, Export, Exports};
pub use self::hook::Hook;
pub use self::hook_procedure::{CursorWork, HookProcedure};
pub use self::locks::{LockHolder, lock_conflict, procedure_conflict};
pub use self::member_replacement::{MemberReplacement, ReplacementChange};
pub use self::outcome::{OutcomeKind, RequestOutcome};
pub use self::procedure::{Procedure, ProcedureFailure, TableLock};
pub use self::procedures::Procedures;
pub use self::read_hold::{ReadHold, ReadHolds};
pub use self::records::{Group, Header, Node};
pub use self::refresh::{RUNS_KEPT, Refreshes, Source};
pub use self::region_descriptor::{region_descriptor, row_key};
pub use self::replaced::ReplacedRecords;
use self::route_index::RouteIndex;
pub(crate) use self::row_kind::RowKind;
pub use self::rows::{StateRow, digest};
pub use self::state::{
    COMPACTOR_KEPT_MS, DELTAS_KEPT, FIRST_NODE_ID, MAX_OUTCOMES, MetaState, OUTCOME_KEPT_MS,
    TICK_INTERVAL_MS,
};
pub use self::table::{AtomicLoad, DroppedRegion, DroppedTable, Table, TableChange};
