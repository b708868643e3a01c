//! Table of the kinds of procedures that this release knows.

use super::alter::AlterTable;
use super::clone::CloneTable;
use super::create::CreateTable;
use super::drop::DropTable;
use super::kind::ProcedureKind;
use super::load::LoadTable;
use super::merge::MergeRoutes;
use super::move_route::MoveRoute;
use super::open::OpenTable;
use super::refresh::RefreshTable;
use super::split::SplitRoute;
#[cfg(test)]
use super::test_kind::TestKind;
use super::truncate::TruncateTable;

const KINDS: &[&dyn ProcedureKind] = &[
    &TruncateTable,
    &CreateTable,
    &DropTable,
    &CloneTable,
    &LoadTable,
    &AlterTable,
    &SplitRoute,
    &MergeRoutes,
    &OpenTable,
    &MoveRoute,
    &RefreshTable,
    #[cfg(test)]
    &TestKind,
];

/// Returns the kind with this number; `None`: a later release has it.
pub(crate) fn kind_of(number: u32) -> Option<&'static dyn ProcedureKind> {
    KINDS.iter().copied().find(|kind| kind.facts().number == number)
}

/// Returns the kind of the procedures that create tables.
pub(in crate::commands) fn creation_kind() -> &'static dyn ProcedureKind {
    &CreateTable
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidewater_common::feature_level::FeatureLevel;
    use tidewater_proto::v1;

    use super::*;

    #[test]
    fn every_number_has_one_kind_within_the_release() {
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.facts().name).collect();
        let numbers: BTreeSet<u32> = KINDS.iter().map(|kind| kind.facts().number).collect();
        assert_eq!((names.len(), numbers.len()), (KINDS.len(), KINDS.len()));
        for number in (1..100).filter(|number| v1::ProcedureKind::try_from(*number).is_ok()) {
            let kind = kind_of(number.unsigned_abs()).unwrap();
            assert!((FeatureLevel::new(3)..=FeatureLevel::HIGHEST).contains(&kind.facts().level));
        }
        assert!(kind_of(0).is_none() && kind_of(99).is_none());
    }
}
