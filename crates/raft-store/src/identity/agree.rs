//! Comparison of the two copies of an identity.

use super::record::IdentityRecord;

/// Result of comparing the two copies, with the action to take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CopyComparison {
    /// The directory is new: create a directory id.
    Fresh,
    /// Both copies are equal, or no identity is adopted yet.
    Agreed(IdentityRecord),
    /// The file was lost before the log store received entries: write it again.
    RewriteFile(IdentityRecord),
    /// A crash happened between writing the two copies: write the second.
    RewriteCopy(IdentityRecord),
    /// The copies name different nodes.
    Differ { file: IdentityRecord, store: IdentityRecord },
    /// One copy is missing although the log store holds entries.
    Missing(&'static str),
}

/// Compares the `file` with its `copy` in the log store. `logs_empty`: the log store has no entries.
pub(super) fn compare_copies(
    file: Option<IdentityRecord>,
    copy: Option<IdentityRecord>,
    logs_empty: bool,
) -> CopyComparison {
    match (file, copy) {
        (Some(file), Some(copy)) if file.is_same_node(&copy) => {
            let boot = file.boot.max(copy.boot);
            CopyComparison::Agreed(IdentityRecord { boot, ..file })
        }
        (Some(file), Some(store)) => CopyComparison::Differ { file, store },
        // The copy is written before the first entry.
        (Some(_), None) if !logs_empty => CopyComparison::Missing("the log store"),
        (Some(file), None) if file.node_id.is_some() => CopyComparison::RewriteCopy(file),
        (Some(file), None) => CopyComparison::Agreed(file),
        (None, Some(copy)) if logs_empty => CopyComparison::RewriteFile(copy),
        (None, None) if logs_empty => CopyComparison::Fresh,
        (None, _) => CopyComparison::Missing("the file `identity`"),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{ClusterId, DirectoryId, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::identity::Role;

    #[test]
    fn every_state_of_the_two_copies_is_decided() {
        let fresh = IdentityRecord::fresh(Role::Data, DirectoryId(Uuid::nil()));
        let adopted = fresh.with_identity(ClusterId(Uuid::nil()), NodeId(3));
        let other = fresh.with_identity(ClusterId(Uuid::nil()), NodeId(4));
        let started = adopted.started().started();
        let missing_file = || CopyComparison::Missing("the file `identity`");
        let missing_copy = || CopyComparison::Missing("the log store");
        let some = |record: &IdentityRecord| Some(record.clone());
        let cases = [
            (None, None, true, CopyComparison::Fresh),
            (None, None, false, missing_file()),
            (some(&fresh), None, true, CopyComparison::Agreed(fresh.clone())),
            (some(&fresh), None, false, missing_copy()),
            (some(&adopted), None, true, CopyComparison::RewriteCopy(adopted.clone())),
            (some(&adopted), None, false, missing_copy()),
            (None, some(&adopted), true, CopyComparison::RewriteFile(adopted.clone())),
            (None, some(&adopted), false, missing_file()),
            (some(&adopted), some(&adopted), true, CopyComparison::Agreed(adopted.clone())),
            (some(&adopted), some(&adopted), false, CopyComparison::Agreed(adopted.clone())),
            // Starts are counted in the file. A restored file must not reset the number.
            (some(&started), some(&adopted), false, CopyComparison::Agreed(started.clone())),
            (some(&adopted), some(&started), false, CopyComparison::Agreed(started.clone())),
            (
                some(&started),
                some(&other),
                false,
                CopyComparison::Differ { file: started.clone(), store: other.clone() },
            ),
            (
                some(&adopted),
                some(&other),
                true,
                CopyComparison::Differ { file: adopted.clone(), store: other.clone() },
            ),
            (
                some(&fresh),
                some(&other),
                false,
                CopyComparison::Differ { file: fresh.clone(), store: other.clone() },
            ),
        ];
        for (file, copy, logs_empty, expected) in cases {
            let case = format!("{file:?} {copy:?} {logs_empty}");
            assert_eq!(compare_copies(file, copy, logs_empty), expected, "{case}");
        }
    }
}
