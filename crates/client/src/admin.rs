//! Typed calls of an operator. Each is routed to the right node and retried until it is settled.

mod cluster;
mod compactions;
mod garbage;
mod hooks;
mod regions;
mod tables;

pub use self::cluster::MetaChange;
pub use self::compactions::Compactions;
pub use self::hooks::{HookFrom, NewHook};
pub use self::regions::{RegionFilter, TableFlush};
pub use self::tables::{AlterTable, ColumnChange, NewColumn, NewTable};
