//! Tables that take no rows yet.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, TableState};

use crate::catalog::WatchedCatalog;
use crate::group::descriptor::Descriptor;

/// Time after which a write to a table that is being created is repeated.
const CREATION: Duration = Duration::from_millis(100);

/// Checks that the creation of a table is complete: rows of one that is still being created would be lost without a
/// trace when the creation is cancelled.
///
/// # Errors
/// [`Reason::RouteWriteFenced`], to be repeated.
pub(super) fn check_created(
    catalog: &WatchedCatalog,
    descriptor: &Descriptor,
) -> Result<(), Refusal> {
    let is_creating = catalog.read(|records| {
        let table = records.tables.get(&descriptor.table_id.get());
        table.is_some_and(|table| table.state() == TableState::Creating)
    });
    if !is_creating {
        return Ok(());
    }
    let text = format!("table {} is being created and takes no rows yet", descriptor.table_name);
    Err(Refusal::new(Reason::RouteWriteFenced, text).retry_after(CREATION))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{self, watch_event::Event};

    use super::*;
    use crate::group::testing::region;

    #[test]
    fn table_takes_rows_once_its_creation_is_complete() {
        let descriptor = Descriptor::new(&region(7, None, None)).unwrap();
        for (state, expected) in [
            (None, None),
            (Some(TableState::Creating), Some(Reason::RouteWriteFenced)),
            (Some(TableState::Active), None),
        ] {
            let table_id = descriptor.table_id.get();
            let table = |state: TableState| v1::Table {
                table_id,
                state: state.into(),
                ..v1::Table::default()
            };
            let tables = state.into_iter().map(table).collect();
            let catalog = WatchedCatalog::default();
            catalog.follow(&Event::Snapshot(v1::CatalogSnapshot { tables, ..Default::default() }));
            let refused = check_created(&catalog, &descriptor).err();
            assert_eq!(refused.map(|refusal| refusal.reason), expected, "{state:?}");
        }
    }
}
