//! Regions as data nodes see them: ranges of row keys, with the definition of their table.

use tidewater_proto::v1;

use super::{RouteDescriptor, Table, table_bounds};

/// Returns the row key of a global key, which starts with the table's id.
pub fn row_key(key: &[u8]) -> &[u8] {
    key.get(size_of::<u32>()..).unwrap_or_default()
}

/// Returns the descriptor of a route's region.
pub fn region_descriptor(table: &Table, route: &RouteDescriptor) -> v1::RegionDescriptor {
    let end_of_table = table_bounds(table.id).map(|(_, end)| end);
    let end = route.end.as_deref().filter(|end| Some(*end) != end_of_table.as_deref());
    v1::RegionDescriptor {
        region_id: route.route_id.get(),
        table_id: table.id.get(),
        table_name: table.name.clone(),
        start: row_key(&route.start).to_vec().into(),
        end: end.map(|end| row_key(end).to_vec().into()),
        schema: Some((&table.schema).into()),
        options: Some((&table.options).into()),
        incarnation: route.incarnation.get(),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{run, table, with_groups};

    #[test]
    fn region_descriptor_bounds_omit_the_table_id() {
        let mut state = with_groups(1, 1);
        let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(request)).unwrap();
        let table = state.table(TableId(1)).unwrap();
        let regions: Vec<_> =
            state.routes_of(TableId(1)).map(|route| region_descriptor(table, route)).collect();
        assert!(regions[0].start.is_empty());
        assert_eq!(regions[0].end.as_deref(), Some(&[0x80, 0][..]));
        assert_eq!(regions[1].start, [0x80, 0].as_slice());
        assert_eq!(regions[1].end, None);
    }
}
