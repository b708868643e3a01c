//! Derives the range of row keys from a filter's terms on leading key columns.

use arrow::array::ArrayRef;
use tidewater_common::keys::{KeyRange, successor};

use super::filter::{CompareOp, Filter, Term};
use super::shape::TableShape;
use crate::EngineError;

/// Returns a range that contains all rows that pass the filter. It follows from the leading key
/// columns that are equal to one value, and from the bounds of the next column. Hash-distributed
/// tables get the whole range, because the vnode comes first.
pub(crate) fn key_range(shape: &TableShape, filter: &Filter) -> Result<KeyRange, EngineError> {
    let mut range = KeyRange::whole();
    let mut prefix: Vec<ArrayRef> = Vec::new();
    for id in shape.schema.primary_key() {
        let terms: Vec<&Term> = filter.terms().iter().filter(|term| term.column == *id).collect();
        for term in &terms {
            if let Some(admitted) = admitted(shape, &prefix, term)? {
                range = range.intersection(&admitted);
            }
        }
        let single = terms.iter().find_map(|term| match (term.op, term.values.as_slice()) {
            (CompareOp::Eq | CompareOp::In, [value]) => Some(value.clone().into_inner()),
            _ => None,
        });
        match single {
            Some(value) => prefix.push(value),
            None => break,
        }
    }
    Ok(range)
}

/// Returns the keys that one term admits when the columns before it have the values of `prefix`;
/// `None`: all.
fn admitted(
    shape: &TableShape,
    prefix: &[ArrayRef],
    term: &Term,
) -> Result<Option<KeyRange>, EngineError> {
    let mut bounds: Vec<Vec<u8>> = Vec::new();
    for value in &term.values {
        let columns = [prefix, &[value.clone().into_inner()]].concat();
        match shape.codec.key_prefix(&columns)? {
            Some(bound) => bounds.push(bound),
            None => return Ok(None),
        }
    }
    let Some(whole) = shape.codec.key_prefix(prefix)? else { return Ok(None) };
    let (Some(low), Some(high)) = (bounds.iter().min(), bounds.iter().max()) else {
        return Ok((term.op == CompareOp::In).then(empty_range));
    };
    let whole_end = successor(&whole);
    Ok(match term.op {
        CompareOp::Eq | CompareOp::In => Some(KeyRange::new(low.clone(), successor(high))),
        CompareOp::Lt => Some(KeyRange::new(whole, Some(high.clone()))),
        CompareOp::Le => Some(KeyRange::new(whole, successor(high))),
        CompareOp::Ge => Some(KeyRange::new(low.clone(), whole_end)),
        CompareOp::Gt => Some(match successor(low) {
            Some(next) => KeyRange::new(next, whole_end),
            None => empty_range(),
        }),
        CompareOp::Ne | CompareOp::IsNull | CompareOp::IsNotNull => None,
    })
}

fn empty_range() -> KeyRange {
    KeyRange::new([], Some(Vec::new()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{
        Column, ColumnType, HashDistribution, TableOptions, TableSchema,
    };

    use super::super::filter::Predicate;
    use super::*;

    fn shape(hashed: bool) -> TableShape {
        let column = |id, data_type| Column {
            id: ColumnId(id),
            name: format!("c{id}"),
            data_type,
            nullable: false,
            default: None,
        };
        let columns = vec![column(1, ColumnType::Int32), column(2, ColumnType::Utf8)];
        let key = vec![ColumnId(2), ColumnId(1)];
        let schema = TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(3)).unwrap();
        let hash = hashed.then(|| HashDistribution { columns: vec![ColumnId(2)], vnode_count: 8 });
        let options = TableOptions { hash, ..TableOptions::upsert() };
        TableShape::new(schema, options).unwrap()
    }

    /// Every key of a small table is in the range exactly when the narrowing terms hold.
    #[test]
    fn key_range_contains_exactly_the_admitted_keys() {
        use CompareOp::{Eq, Ge, Gt, In, Le, Lt, Ne};
        let names = ["", "a", "a\0", "ab", "b"];
        let term = |column, op, values: &[&str]| Predicate {
            column: ColumnId(column),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        type Expected = fn(&str, i32) -> bool;
        let cases: Vec<(Vec<Predicate>, Expected)> = vec![
            (vec![], |_, _| true),
            (vec![term(2, Eq, &["a"])], |s, _| s == "a"),
            (vec![term(2, Lt, &["ab"])], |s, _| s < "ab"),
            (vec![term(2, Le, &["ab"])], |s, _| s <= "ab"),
            (vec![term(2, Gt, &["a"])], |s, _| s > "a"),
            (vec![term(2, Ge, &["a"])], |s, _| s >= "a"),
            (vec![term(2, Ge, &["a"]), term(2, Lt, &["b"])], |s, _| ("a".."b").contains(&s)),
            (vec![term(2, In, &[])], |_, _| false),
            // Between the lowest and the highest value.
            (vec![term(2, In, &["ab", "a"])], |s, _| ("a"..="ab").contains(&s)),
            (vec![term(2, Eq, &["a"]), term(1, Gt, &["1"])], |s, n| s == "a" && n > 1),
            (vec![term(2, Eq, &["a"]), term(1, Le, &["-1"])], |s, n| s == "a" && n <= -1),
            (vec![term(2, In, &["a"]), term(1, Eq, &["2"])], |s, n| s == "a" && n == 2),
            // A term after one that does not pin its column narrows nothing.
            (vec![term(2, Gt, &["a"]), term(1, Eq, &["2"])], |s, _| s > "a"),
            (vec![term(1, Eq, &["2"])], |_, _| true),
            (vec![term(2, Ne, &["a"])], |_, _| true),
        ];
        for hashed in [false, true] {
            let shape = shape(hashed);
            for (terms, holds) in &cases {
                let filter = Filter::bind(&shape.schema, terms).unwrap();
                let range = key_range(&shape, &filter).unwrap();
                for name in names {
                    for number in -3..4 {
                        let columns: Vec<ArrayRef> = vec![
                            Arc::new(StringArray::from(vec![name])),
                            Arc::new(Int32Array::from(vec![number])),
                        ];
                        let key = shape.codec.row_key(&columns, 0).unwrap();
                        let expected = holds(name, number) || hashed;
                        assert_eq!(
                            range.contains(&key),
                            expected,
                            "{terms:?}: {name:?} {number} {hashed}"
                        );
                    }
                }
            }
        }
    }
}
