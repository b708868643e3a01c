//! Exports in tests.

use tidewater_common::ids::{Epoch, TableId};
use uuid::Uuid;

use crate::catalog::Export;

/// Time before all others, in milliseconds since the Unix epoch.
pub(super) const BEGIN_MS: u64 = 1_800_000_000_000;

/// Returns an export whose first step has not begun.
pub(super) fn export(number: u128) -> Export {
    Export {
        id: Uuid::from_u128(number),
        name: format!("x{number}"),
        table: TableId(1),
        target: "{}".to_owned(),
        interval_ms: 10_000,
        as_of: Epoch::at_ms(BEGIN_MS + 1_000),
        created_ms: BEGIN_MS + 1_000,
        steps: 0,
        frontier: None,
        advanced_ms: 0,
        step_as_of: None,
        files: 0,
        rows: 0,
        bytes: 0,
    }
}
