//! Kinds of state rows: their keys, and the feature level that each needs.

use tidewater_catalog::{NEXT_ROUTE_ID_KEY, ROUTE_KEY_PREFIX, VERSION_KEY};
use tidewater_common::feature_level::FeatureLevel;

/// Kind of a state row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowKind {
    Header,
    CatalogVersion,
    NextRouteId,
    Route,
    Table,
    Group,
    Node,
    Outcome,
    Hook,
    HookProcedure,
    Procedure,
    Cursor,
    Delta,
    Balance,
    SoftStart,
    MemberReplacement,
    Source,
    Refresh,
    Collection,
    ReadHold,
    Export,
    UnusedId,
}

impl RowKind {
    /// All kinds. The most frequent ones are first.
    const ALL: [Self; 22] = [
        Self::Header,
        Self::Delta,
        Self::Route,
        Self::Outcome,
        Self::Table,
        Self::Cursor,
        Self::CatalogVersion,
        Self::NextRouteId,
        Self::Node,
        Self::Group,
        Self::Hook,
        Self::HookProcedure,
        Self::Procedure,
        Self::Balance,
        Self::SoftStart,
        Self::MemberReplacement,
        Self::Source,
        Self::Refresh,
        Self::Collection,
        Self::ReadHold,
        Self::Export,
        Self::UnusedId,
    ];

    /// Returns the key of the kind's only row, or the prefix of the keys of its rows.
    pub(super) const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Header => b"meta/header",
            Self::CatalogVersion => VERSION_KEY,
            Self::NextRouteId => NEXT_ROUTE_ID_KEY,
            Self::Route => ROUTE_KEY_PREFIX,
            Self::Table => b"meta/table/",
            Self::Group => b"meta/group/",
            Self::Node => b"meta/node/",
            Self::Outcome => b"meta/outcome/",
            Self::Hook => b"meta/hook/",
            Self::HookProcedure => b"meta/hook_procedure/",
            Self::Procedure => b"meta/procedure/",
            Self::Cursor => b"meta/cursor/",
            Self::Delta => b"meta/delta/",
            Self::Balance => b"meta/balance",
            Self::SoftStart => b"meta/soft_start/",
            Self::MemberReplacement => b"meta/member_replacement",
            Self::Source => b"meta/source/",
            Self::Refresh => b"meta/refresh/",
            Self::Collection => b"meta/collection/",
            Self::ReadHold => b"meta/hold/",
            Self::Export => b"meta/export/",
            Self::UnusedId => b"meta/unused_id/",
        }
    }

    /// Returns the level that a cluster needs for rows of this kind: releases below it cannot load a state
    /// with such a row. No wildcard: a new kind needs a decision, and a level above those that exist.
    pub(super) const fn level(self) -> FeatureLevel {
        match self {
            Self::Header
            | Self::CatalogVersion
            | Self::NextRouteId
            | Self::Route
            | Self::Table
            | Self::Group
            | Self::Node
            | Self::Outcome
            | Self::Hook
            | Self::Cursor
            | Self::Delta => FeatureLevel::FIRST,
            Self::HookProcedure => FeatureLevel::new(2),
            Self::Procedure => FeatureLevel::new(3),
            Self::Balance | Self::SoftStart | Self::MemberReplacement => FeatureLevel::new(4),
            Self::Source | Self::Refresh => FeatureLevel::new(6),
            Self::Collection | Self::ReadHold => FeatureLevel::COLLECTIONS,
            Self::Export => FeatureLevel::EXPORTS,
            Self::UnusedId => FeatureLevel::HELD_DROPS,
        }
    }

    /// Returns whether the kind has one row, whose key is the prefix.
    const fn is_single(self) -> bool {
        matches!(
            self,
            Self::Header
                | Self::CatalogVersion
                | Self::NextRouteId
                | Self::Balance
                | Self::MemberReplacement
        )
    }

    /// Returns the kind of the row with this key.
    pub(super) fn from_key(key: &[u8]) -> Option<Self> {
        let is_of = |kind: &Self| {
            key.starts_with(kind.prefix()) && (!kind.is_single() || key == kind.prefix())
        };
        Self::ALL.into_iter().find(is_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::MetaState;
    use crate::commands::collections::testing::with_export;
    use crate::commands::testing::one_of_each;

    #[test]
    fn every_row_has_a_kind_within_the_release() {
        for state in [MetaState::default(), one_of_each(), with_export()] {
            for (key, _) in state.rows().unwrap() {
                let kind = RowKind::from_key(&key);
                assert!(kind.is_some_and(|kind| kind.level() <= FeatureLevel::HIGHEST), "{key:?}");
            }
        }
        for unknown in [&b"meta/procedures/1"[..], b"", b"meta/header2", b"meta/tabl", b"catalog/"]
        {
            assert_eq!(RowKind::from_key(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn prefixes_of_row_kinds_are_distinct() {
        for kind in RowKind::ALL {
            assert_eq!(RowKind::from_key(kind.prefix()), Some(kind));
        }
    }
}
