//! Checks the columns of a file against the table's, by field id and type, never by name.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::TableSchema;

use crate::sst::convert::is_stored_type;
use crate::sst::format::{EPOCH_ID, OP_ID, SEQUENCE_ID};

/// Checks the columns of a file of `format`; an error describes the problem. `leaves`: the position
/// of each column, by its field id.
///
/// A column that the file lacks must be one that older rows may lack too: nullable, or with a
/// default.
pub(super) fn check(
    format: u32,
    file: &Schema,
    leaves: &HashMap<ColumnId, usize>,
    table: &TableSchema,
) -> Result<(), String> {
    if file.fields().len() != leaves.len() {
        return Err("a column is nested, has no field id or shares it with another".to_owned());
    }
    let mut known = 0;
    for column in table.columns() {
        let name = &column.name;
        let Some(leaf) = leaves.get(&column.id) else {
            let key = table.primary_key().contains(&column.id);
            if key || !(column.nullable || column.default.is_some()) {
                return Err(format!("column {name:?} (field id {}) is missing", column.id));
            }
            continue;
        };
        let own = column.data_type.arrow();
        check_type(format, file, *leaf, name, &own, column.nullable)?;
        known += 1;
    }
    for (id, name, expected) in [
        (SEQUENCE_ID, "of sequences", DataType::UInt64),
        (EPOCH_ID, "of epochs", DataType::UInt64),
        (OP_ID, "of operations", DataType::UInt8),
    ] {
        let leaf = leaves.get(&id).ok_or_else(|| format!("the column {name} is missing"))?;
        check_type(format, file, *leaf, name, &expected, false)?;
        known += 1;
    }
    if known != leaves.len() {
        return Err("it has columns that the table does not have".to_owned());
    }
    Ok(())
}

fn check_type(
    format: u32,
    file: &Schema,
    leaf: usize,
    name: &str,
    expected: &DataType,
    nullable: bool,
) -> Result<(), String> {
    let field = file.fields().get(leaf).ok_or_else(|| format!("column {name:?} is nested"))?;
    let found = field.data_type();
    if !is_stored_type(format, found, expected) {
        return Err(format!("column {name:?} has type {found}, which does not store {expected}"));
    }
    if field.is_nullable() && !nullable {
        return Err(format!("column {name:?} may hold nulls"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;
    use crate::manifest::samples::schema;
    use crate::sst::format::{FORMAT, file_schema};
    use crate::sst::units::StoredUnits;

    fn leaves(count: usize) -> HashMap<ColumnId, usize> {
        let ids = [ColumnId(1), ColumnId(2), SEQUENCE_ID, EPOCH_ID, OP_ID];
        ids.into_iter().enumerate().map(|(leaf, id)| (id, leaf)).take(count).collect()
    }

    #[test]
    fn file_columns_must_match_by_id_and_type() {
        let table = schema(1);
        let file = file_schema(&table, &StoredUnits::micros(2), false);
        assert_eq!(check(FORMAT, &file, &leaves(5), &table), Ok(()));
        let with = |at: usize, field: Field| {
            let mut fields = file.fields().to_vec();
            fields[at] = Arc::new(field);
            Schema::new(fields)
        };
        let id = |data_type, nullable| Field::new("id", data_type, nullable);
        let wrong = |file: &Schema, leaves: &HashMap<ColumnId, usize>, problem: &str| {
            let error = check(FORMAT, file, leaves, &table).unwrap_err();
            assert!(error.contains(problem), "{error}");
        };
        wrong(&with(0, id(DataType::Utf8, false)), &leaves(5), "has type");
        wrong(&with(0, id(DataType::Int64, true)), &leaves(5), "may hold nulls");
        // The name does not matter.
        let renamed = with(0, Field::new("other", DataType::Int64, false));
        assert_eq!(check(FORMAT, &renamed, &leaves(5), &table), Ok(()));
        wrong(&file, &leaves(4), "nested");
        let without = |removed: ColumnId, added: Option<ColumnId>| {
            let mut leaves = leaves(5);
            let leaf = leaves.remove(&removed);
            leaves.extend(added.zip(leaf));
            leaves
        };
        let stranger = Some(ColumnId(9));
        wrong(&file, &without(ColumnId(1), stranger), "is missing");
        wrong(&file, &without(SEQUENCE_ID, stranger), "is missing");
        // The text is nullable: older rows may lack it, but no other column may replace it.
        wrong(&file, &without(ColumnId(2), stranger), "does not have");
        let mut shorter = file.fields().to_vec();
        shorter.remove(1);
        let mut lacking = leaves(5);
        lacking.remove(&ColumnId(2));
        lacking.values_mut().for_each(|leaf| *leaf = leaf.saturating_sub(1));
        assert_eq!(check(FORMAT, &Schema::new(shorter), &lacking, &table), Ok(()));
    }
}
