//! Whether the columns of a file are the table's: by field id and type, never by name.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::TableSchema;

use crate::sst::convert::stored_type;
use crate::sst::format::{EPOCH_ID, OP_ID, SEQUENCE_ID};

/// `leaves`: the position of each column, by its field id. Says what is wrong.
///
/// A column that the file lacks must be one that older rows may lack too: nullable, or with a
/// default.
pub(super) fn check(
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
        let wanted = stored_type(&column.data_type.arrow());
        typed(file, *leaf, name, &wanted, column.nullable)?;
        known += 1;
    }
    for (id, name, wanted) in [
        (SEQUENCE_ID, "of sequences", DataType::UInt64),
        (EPOCH_ID, "of epochs", DataType::UInt64),
        (OP_ID, "of operations", DataType::UInt8),
    ] {
        let leaf = leaves.get(&id).ok_or_else(|| format!("the column {name} is missing"))?;
        typed(file, *leaf, name, &wanted, false)?;
        known += 1;
    }
    match known == leaves.len() {
        true => Ok(()),
        false => Err("it has columns that the table does not have".to_owned()),
    }
}

fn typed(
    file: &Schema,
    leaf: usize,
    name: &str,
    wanted: &DataType,
    nullable: bool,
) -> Result<(), String> {
    let field = file.fields().get(leaf).ok_or_else(|| format!("column {name:?} is nested"))?;
    if field.data_type() != wanted {
        return Err(format!("column {name:?} has type {}, not {wanted}", field.data_type()));
    }
    match field.is_nullable() && !nullable {
        true => Err(format!("column {name:?} may hold nulls")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;
    use crate::manifest::samples::schema;
    use crate::sst::format::file_schema;

    fn leaves(count: usize) -> HashMap<ColumnId, usize> {
        let ids = [ColumnId(1), ColumnId(2), SEQUENCE_ID, EPOCH_ID, OP_ID];
        ids.into_iter().enumerate().map(|(leaf, id)| (id, leaf)).take(count).collect()
    }

    #[test]
    fn columns_are_those_of_the_table_by_id_and_type() {
        let table = schema(1);
        let file = file_schema(&table, false);
        assert_eq!(check(&file, &leaves(5), &table), Ok(()));
        let with = |at: usize, field: Field| {
            let mut fields = file.fields().to_vec();
            fields[at] = Arc::new(field);
            Schema::new(fields)
        };
        let id = |data_type, nullable| Field::new("id", data_type, nullable);
        let wrong = |file: &Schema, leaves: &HashMap<ColumnId, usize>, says: &str| {
            let error = check(file, leaves, &table).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        wrong(&with(0, id(DataType::Utf8, false)), &leaves(5), "has type");
        wrong(&with(0, id(DataType::Int64, true)), &leaves(5), "may hold nulls");
        // Another name is as good.
        let renamed = with(0, Field::new("other", DataType::Int64, false));
        assert_eq!(check(&renamed, &leaves(5), &table), Ok(()));
        wrong(&file, &leaves(4), "nested");
        let without = |gone: ColumnId, new: Option<ColumnId>| {
            let mut leaves = leaves(5);
            let leaf = leaves.remove(&gone);
            leaves.extend(new.zip(leaf));
            leaves
        };
        let stranger = Some(ColumnId(9));
        wrong(&file, &without(ColumnId(1), stranger), "is missing");
        wrong(&file, &without(SEQUENCE_ID, stranger), "is missing");
        // The text is nullable: older rows may lack it, but nothing may stand in its place.
        wrong(&file, &without(ColumnId(2), stranger), "does not have");
        let mut shorter = file.fields().to_vec();
        shorter.remove(1);
        let mut lacking = leaves(5);
        lacking.remove(&ColumnId(2));
        lacking.values_mut().for_each(|leaf| *leaf = leaf.saturating_sub(1));
        assert_eq!(check(&Schema::new(shorter), &lacking, &table), Ok(()));
    }
}
