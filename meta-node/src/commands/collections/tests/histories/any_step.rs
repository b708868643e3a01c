//! Random steps of the histories.

use proptest::prelude::*;
use tidewater_common::ids::Epoch;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, change_collections::Change};

use super::{EXPORTS, HOLDS, ORIGIN_MS, TABLES, TOKEN};
use crate::commands::collections::testing::{
    acquire, capabilities, drop_export, export_request, policy, release,
};

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Time passes, and a barrier is sent.
    Barrier { ms: u64 },
    /// A leader begins a change, which is applied later.
    Begin(Change),
    /// The oldest change in progress is applied, or was lost.
    End { is_applied: bool },
    /// Another node leads, with another history. Changes in progress are applied before its term, or lost.
    NewLeader { history_ms: u64, is_applied: bool },
    /// The truncation of a table begins, unless the table is held or is being truncated.
    BeginTruncation(&'static str),
    /// The oldest truncation in progress is completed. Its regions can be read from this time on, or from the last barrier on.
    CompleteTruncation { ms: u64 },
    /// A leader begins to record that the next step of an export has begun, unless the export does not exist.
    BeginExport(&'static str),
    /// A leader begins to record that the next step of an export is completed, unless the export does not exist.
    CompleteExport(&'static str),
}

pub(super) fn any_step() -> impl Strategy<Value = Step> {
    let table = prop::sample::select(TABLES.to_vec());
    let name = prop::sample::select(HOLDS.to_vec());
    let export = prop::sample::select(EXPORTS.to_vec());
    let back = || 0u64..8_000;
    let any_policy = prop_oneof![
        Just(None),
        Just(Some(Policy::NoPolicy(true))),
        (0u64..5_000, 0u64..2_000).prop_map(|(lag_ms, granularity_ms)| {
            Some(Policy::LagWriteFrontier(v1::LagWriteFrontier { lag_ms, granularity_ms }))
        }),
        back().prop_map(|ms| Some(Policy::ValidFrom(Epoch::at_ms(ORIGIN_MS + ms).get()))),
    ];
    let epoch = || prop_oneof![Just(0), back().prop_map(|ms| Epoch::at_ms(ORIGIN_MS + ms).get())];
    let token = prop_oneof![Just(""), Just(TOKEN)];
    let any_change = prop_oneof![
        4 => (1u64..9, name.clone(), prop::sample::subsequence(TABLES.to_vec(), 1..3), epoch())
            .prop_map(|(number, name, tables, epoch)| acquire(number, name, &tables, epoch)),
        2 => name.clone().prop_map(release),
        1 => (name, back()).prop_map(|(name, ms)| {
            let (name, epoch) = (name.to_owned(), Epoch::at_ms(ORIGIN_MS + ms).get());
            Change::Downgrade(v1::DowngradeReadHoldRequest { name, epoch })
        }),
        2 => (table.clone(), any_policy).prop_map(|(table, of)| policy(table, of)),
        2 => (table.clone(), back(), -2i64..3).prop_map(|(table, ms, difference)| {
            capabilities(table, &[(Epoch::at_ms(ORIGIN_MS + ms).get(), difference)])
        }),
        1 => Just(Change::Expire(v1::ReleaseReadHoldsRequest {
            names: HOLDS.iter().map(|name| (*name).to_owned()).collect(),
        })),
        1 => Just(Change::Record(v1::RecordSinces {})),
        2 => (50u64..54, export.clone(), table.clone(), epoch(), token).prop_map(
            |(number, name, table, epoch, token)| {
                let request = export_request(number, name, table, epoch);
                let token = token.to_owned();
                Change::CreateExport(v1::CreateExportRequest { token, ..request })
            }
        ),
        1 => export.clone().prop_map(drop_export),
    ];
    prop_oneof![
        6 => (1u64..1_500).prop_map(|ms| Step::Barrier { ms }),
        5 => any_change.prop_map(Step::Begin),
        5 => any::<bool>().prop_map(|lost| Step::End { is_applied: !lost }),
        1 => (0u64..4_000, any::<bool>())
            .prop_map(|(history_ms, is_applied)| Step::NewLeader { history_ms, is_applied }),
        2 => table.prop_map(Step::BeginTruncation),
        2 => (0u64..20_000).prop_map(|ms| Step::CompleteTruncation { ms }),
        2 => export.clone().prop_map(Step::BeginExport),
        3 => export.prop_map(Step::CompleteExport),
    ]
}
