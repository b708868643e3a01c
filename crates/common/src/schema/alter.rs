//! Schema changes: adding and dropping columns.

use super::{Column, ColumnType, SchemaError, TableSchema};
use crate::ids::{ColumnId, SchemaVersion};

/// One change of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaChange {
    /// A new column at the end, with an id that the table has never used.
    AddColumn {
        /// Name of the column.
        name: String,
        /// Its type.
        data_type: ColumnType,
        /// True if it may be null.
        nullable: bool,
        /// Value of rows that were written without the column; `None`: null.
        default: Option<String>,
    },
    /// Drops a column and its values.
    DropColumn {
        /// Name of the column.
        name: String,
    },
}

impl TableSchema {
    /// Returns the schema after these changes, applied one after the other, at the next version.
    /// Ids of dropped columns are not reused, so that a column added later under the same name does
    /// not bring old values back.
    ///
    /// # Errors
    /// [`SchemaError`] when a change is invalid; no change is applied then.
    pub fn altered(&self, changes: &[SchemaChange]) -> Result<Self, SchemaError> {
        let mut columns = self.columns.clone();
        let mut next = self.next_column_id;
        for change in changes {
            match change {
                SchemaChange::AddColumn { name, data_type, nullable, default } => {
                    if columns.iter().any(|column| column.name == *name) {
                        return Err(SchemaError::ColumnExists(name.clone()));
                    }
                    if !nullable && default.is_none() {
                        return Err(SchemaError::DefaultMissing(name.clone()));
                    }
                    columns.push(Column {
                        id: next,
                        name: name.clone(),
                        data_type: data_type.clone(),
                        nullable: *nullable,
                        default: default.clone(),
                    });
                    next = ColumnId(next.get().checked_add(1).ok_or(SchemaError::IdsUsedUp)?);
                }
                SchemaChange::DropColumn { name } => {
                    let Some(at) = columns.iter().position(|column| column.name == *name) else {
                        return Err(SchemaError::ColumnMissing(name.clone()));
                    };
                    if self.primary_key.contains(&columns[at].id) {
                        return Err(SchemaError::KeyColumnDropped(name.clone()));
                    }
                    if self.time_column == Some(columns[at].id) {
                        return Err(SchemaError::TimeColumnDropped(name.clone()));
                    }
                    columns.remove(at);
                }
            }
        }
        let version = self.version.get().checked_add(1).ok_or(SchemaError::IdsUsedUp)?;
        let key = self.primary_key.clone();
        Self::new(SchemaVersion(version), columns, key, self.time_column, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(id: u32, name: &str, nullable: bool) -> Column {
        let data_type = ColumnType::Int64;
        Column { id: ColumnId(id), name: name.to_owned(), data_type, nullable, default: None }
    }

    fn schema() -> TableSchema {
        let time = Column { data_type: "timestamp(ms)".parse().unwrap(), ..column(3, "at", true) };
        let columns = vec![column(1, "k", false), column(2, "v", true), time];
        TableSchema::new(
            SchemaVersion(4),
            columns,
            vec![ColumnId(1)],
            Some(ColumnId(3)),
            ColumnId(9),
        )
        .unwrap()
    }

    fn add(name: &str, nullable: bool, default: Option<&str>) -> SchemaChange {
        SchemaChange::AddColumn {
            name: name.to_owned(),
            data_type: ColumnType::Int8,
            nullable,
            default: default.map(str::to_owned),
        }
    }

    fn drop(name: &str) -> SchemaChange {
        SchemaChange::DropColumn { name: name.to_owned() }
    }

    #[test]
    fn column_added_again_gets_a_new_id() {
        let after = schema().altered(&[drop("v"), add("v", true, None)]).unwrap();
        assert_eq!(after.version(), SchemaVersion(5));
        assert_eq!(after.column_named("v").unwrap().id, ColumnId(9));
        assert_eq!(after.next_column_id(), ColumnId(10));
        assert!(after.column(ColumnId(2)).is_none());
    }

    #[test]
    fn invalid_schema_changes_are_refused() {
        let cases = [
            (vec![drop("k")], SchemaError::KeyColumnDropped("k".into())),
            (vec![drop("at")], SchemaError::TimeColumnDropped("at".into())),
            (vec![drop("w")], SchemaError::ColumnMissing("w".into())),
            (vec![drop("v"), drop("v")], SchemaError::ColumnMissing("v".into())),
            (vec![add("v", true, None)], SchemaError::ColumnExists("v".into())),
            (
                vec![add("w", true, None), add("w", true, None)],
                SchemaError::ColumnExists("w".into()),
            ),
            (vec![add("w", false, None)], SchemaError::DefaultMissing("w".into())),
        ];
        for (changes, expected) in cases {
            assert_eq!(schema().altered(&changes).unwrap_err(), expected);
        }
        let error = schema().altered(&[add("w", false, Some("300"))]).unwrap_err();
        assert!(matches!(error, SchemaError::BadDefault { .. }), "{error}");
        assert!(schema().altered(&[add("w", false, Some("3"))]).is_ok());
    }
}
