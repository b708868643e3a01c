//! Typed administrative calls. Each is routed to the node that serves it, and retried until its outcome is
//! known or its deadline passes.

mod balance;
mod catalog_store;
mod change;
mod cluster;
mod collection_ids;
mod collections;
mod compactions;
mod exports;
mod garbage;
mod hold_costs;
mod holds;
mod hooks;
mod meta_members;
mod nodes;
mod procedures;
mod refreshes;
mod regions;
mod routes;
mod storage_call;
mod storage_pages;
mod table_epochs;
mod table_regions;
mod tables;

pub use self::balance::{BalanceChange, BalanceSettings};
pub use self::catalog_store::{CatalogCursor, CatalogStore, RouteChanges, StoredRoutes};
pub use self::compactions::Compactions;
pub use self::exports::ExportDefinition;
pub use self::hold_costs::{HoldCost, TableHoldCosts};
pub use self::holds::{AcquireHold, HoldLoss, LiveHold};
pub use self::hooks::{HookFrom, NewHook};
pub use self::meta_members::MetaChange;
pub use self::regions::{MAX_REPLACED, RegionFilter, TableFlush};
pub use self::table_epochs::TableEpochs;
pub use self::table_regions::{TableRegion, TableRegions, TableSize};
pub use self::tables::{AlterTable, ColumnChange, DroppedTable, KeptRows, NewColumn, NewTable};
