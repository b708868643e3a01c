//! What the two copies of an identity say together.

use super::record::Record;

/// What to do about the two copies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Nothing was ever here: make a directory id.
    Fresh,
    /// Both say the same, or nobody was adopted yet.
    Agreed(Record),
    /// The file was lost before anything was logged: write it again.
    RewriteFile(Record),
    /// A crash came between the two copies: write the second.
    RewriteCopy(Record),
    /// They name different nodes.
    Differ { file: Record, store: Record },
    /// One is missing though something was logged.
    Missing(&'static str),
}

/// Decides over the `file`, its `copy` in the log store, and whether nothing was logged yet.
pub(super) fn agree(file: Option<Record>, copy: Option<Record>, logs_empty: bool) -> Agreement {
    match (file, copy) {
        (Some(file), Some(copy)) if file == copy => Agreement::Agreed(file),
        (Some(file), Some(store)) => Agreement::Differ { file, store },
        // Nothing is logged before the copy is written.
        (Some(_), None) if !logs_empty => Agreement::Missing("the log store"),
        (Some(file), None) if file.node_id.is_some() => Agreement::RewriteCopy(file),
        (Some(file), None) => Agreement::Agreed(file),
        (None, Some(copy)) if logs_empty => Agreement::RewriteFile(copy),
        (None, None) if logs_empty => Agreement::Fresh,
        (None, _) => Agreement::Missing("the file `identity`"),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{ClusterId, DirectoryId, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::identity::Role;

    #[test]
    fn every_state_of_the_two_copies_has_an_answer() {
        let fresh = Record::fresh(Role::Data, DirectoryId(Uuid::nil()));
        let adopted = fresh.adopted(ClusterId(Uuid::nil()), NodeId(3));
        let other = fresh.adopted(ClusterId(Uuid::nil()), NodeId(4));
        let missing_file = || Agreement::Missing("the file `identity`");
        let missing_copy = || Agreement::Missing("the log store");
        let some = |record: &Record| Some(record.clone());
        let cases = [
            (None, None, true, Agreement::Fresh),
            (None, None, false, missing_file()),
            (some(&fresh), None, true, Agreement::Agreed(fresh.clone())),
            (some(&fresh), None, false, missing_copy()),
            (some(&adopted), None, true, Agreement::RewriteCopy(adopted.clone())),
            (some(&adopted), None, false, missing_copy()),
            (None, some(&adopted), true, Agreement::RewriteFile(adopted.clone())),
            (None, some(&adopted), false, missing_file()),
            (some(&adopted), some(&adopted), true, Agreement::Agreed(adopted.clone())),
            (some(&adopted), some(&adopted), false, Agreement::Agreed(adopted.clone())),
            (
                some(&adopted),
                some(&other),
                true,
                Agreement::Differ { file: adopted.clone(), store: other.clone() },
            ),
            (
                some(&fresh),
                some(&other),
                false,
                Agreement::Differ { file: fresh.clone(), store: other.clone() },
            ),
        ];
        for (file, copy, logs_empty, expected) in cases {
            let case = format!("{file:?} {copy:?} {logs_empty}");
            assert_eq!(agree(file, copy, logs_empty), expected, "{case}");
        }
    }
}
