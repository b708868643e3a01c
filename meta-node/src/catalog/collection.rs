//! Collections: records of the readable epochs of tables. The holds are records of their own.

use std::num::NonZeroU64;

use tidewater_collections::{Capabilities, ReadPolicy, Retention};
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1::{self, read_policy::Policy};

use super::CatalogError;
use super::records::invalid;

/// Oldest readable epoch of a table, as of the last change of its record. Barriers of later epochs may have raised it, by the
/// same rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It is this one.
    Known(Epoch),
    /// It has to be learned from the regions, since they were truncated, and is not less.
    AtLeast(Epoch),
}

/// Readable epochs of a table whose oldest readable epoch is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// The table.
    pub table: TableId,
    /// Oldest readable epoch.
    pub since: Since,
    /// Epochs that remain readable without holds.
    pub policy: ReadPolicy,
    /// Epochs that callers have added to keep them readable.
    pub capabilities: Capabilities,
}

impl Collection {
    /// Returns the oldest readable epoch as of an epoch of the leader. `kept_from`: that of
    /// [`MetaState::kept_from`](super::MetaState::kept_from).
    #[must_use]
    pub fn since_at(&self, kept_from: Option<Epoch>, upper: Epoch) -> Since {
        let capabilities = &self.capabilities;
        let retention = Retention { policy: &self.policy, capabilities, least_hold: kept_from };
        match self.since {
            Since::Known(since) => Since::Known(retention.since_at(since, upper)),
            Since::AtLeast(since) => Since::AtLeast(retention.since_at(since, upper)),
        }
    }
}

impl From<&Collection> for v1::CollectionRecord {
    fn from(of: &Collection) -> Self {
        let counts = of.capabilities.counts();
        let stored = counts
            .map(|(epoch, count)| v1::CapabilityCount { epoch: epoch.get(), count: count.get() });
        let (since, since_unknown) = match of.since {
            Since::Known(since) => (since, false),
            Since::AtLeast(since) => (since, true),
        };
        Self {
            table_id: of.table.get(),
            since: since.get(),
            since_unknown,
            policy: Some(policy_to_wire(&of.policy)),
            capabilities: stored.collect(),
        }
    }
}

impl TryFrom<v1::CollectionRecord> for Collection {
    type Error = CatalogError;

    fn try_from(stored: v1::CollectionRecord) -> Result<Self, CatalogError> {
        let policy = stored.policy.as_ref().and_then(policy_from_wire);
        let counts = stored.capabilities.iter().map(|of| {
            let count = NonZeroU64::new(of.count);
            count.map(|count| (Epoch(of.epoch), count))
        });
        let counts: Option<Vec<_>> = counts.collect();
        let counts = counts.ok_or_else(|| invalid("collection", "a capability has no count"))?;
        let capabilities = Capabilities::from_counts(counts);
        let since = Epoch(stored.since);
        Ok(Self {
            table: TableId(stored.table_id),
            since: if stored.since_unknown { Since::AtLeast(since) } else { Since::Known(since) },
            policy: policy.ok_or_else(|| invalid("collection", "its read policy is unknown"))?,
            capabilities: capabilities.map_err(|error| invalid("collection", error))?,
        })
    }
}

/// Returns a policy in the form of calls and records.
pub fn policy_to_wire(policy: &ReadPolicy) -> v1::ReadPolicy {
    let policy = match policy {
        ReadPolicy::Empty => Policy::Empty(true),
        ReadPolicy::NoPolicy => Policy::NoPolicy(true),
        ReadPolicy::ValidFrom(epoch) => Policy::ValidFrom(epoch.get()),
        ReadPolicy::LagWriteFrontier { lag_ms, granularity_ms } => {
            let (lag_ms, granularity_ms) = (*lag_ms, *granularity_ms);
            Policy::LagWriteFrontier(v1::LagWriteFrontier { lag_ms, granularity_ms })
        }
        ReadPolicy::Multiple(policies) => Policy::Multiple(v1::ReadPolicies {
            policies: policies.iter().map(policy_to_wire).collect(),
        }),
    };
    v1::ReadPolicy { policy: Some(policy) }
}

/// Returns the policy of a call or a record; `None`: this release does not know its kind.
pub fn policy_from_wire(wire: &v1::ReadPolicy) -> Option<ReadPolicy> {
    Some(match wire.policy.as_ref()? {
        Policy::Empty(_) => ReadPolicy::Empty,
        Policy::NoPolicy(_) => ReadPolicy::NoPolicy,
        Policy::ValidFrom(epoch) => ReadPolicy::ValidFrom(Epoch(*epoch)),
        Policy::LagWriteFrontier(lag) => {
            ReadPolicy::LagWriteFrontier { lag_ms: lag.lag_ms, granularity_ms: lag.granularity_ms }
        }
        Policy::Multiple(of) => {
            let policies: Option<Vec<_>> = of.policies.iter().map(policy_from_wire).collect();
            ReadPolicy::Multiple(policies?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};

    fn collection() -> Collection {
        let lag = ReadPolicy::LagWriteFrontier { lag_ms: 60_000, granularity_ms: 1_000 };
        let counts = [(Epoch(9), NonZeroU64::MIN), (Epoch(12), NonZeroU64::MIN)];
        Collection {
            table: TableId(300),
            since: Since::Known(Epoch(1 << 40)),
            policy: ReadPolicy::Multiple(vec![
                lag,
                ReadPolicy::ValidFrom(Epoch(7)),
                ReadPolicy::NoPolicy,
            ]),
            capabilities: Capabilities::from_counts(counts).unwrap(),
        }
    }

    #[test]
    fn stored_collection_bytes_are_frozen() {
        let of = collection();
        assert_eq!(keys::collection(TableId(258)), b"meta/collection/\0\0\x01\x02");
        let stored = codec::encode_message(&v1::CollectionRecord::from(&of));
        let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, STORED);
        let read = codec::decode_message::<v1::CollectionRecord>("collection", &stored).unwrap();
        assert_eq!(Collection::try_from(read).unwrap(), of);
        for policy in [ReadPolicy::NoPolicy, ReadPolicy::Empty] {
            let since = Since::AtLeast(Epoch(3));
            let capabilities = Capabilities::default();
            let plain = Collection { since, policy, capabilities, ..of };
            assert_eq!(Collection::try_from(v1::CollectionRecord::from(&plain)).unwrap(), plain);
        }
    }

    #[test]
    fn damaged_collections_are_refused() {
        let stored = v1::CollectionRecord::from(&collection());
        let unknown = v1::ReadPolicy { policy: None };
        let nested = v1::ReadPolicies { policies: vec![unknown.clone()] };
        let nested = v1::ReadPolicy { policy: Some(Policy::Multiple(nested)) };
        let no_count = v1::CapabilityCount { epoch: 3, count: 0 };
        for damaged in [
            v1::CollectionRecord { policy: None, ..stored.clone() },
            v1::CollectionRecord { policy: Some(unknown), ..stored.clone() },
            v1::CollectionRecord { policy: Some(nested), ..stored.clone() },
            v1::CollectionRecord { capabilities: vec![no_count], ..stored.clone() },
        ] {
            assert!(Collection::try_from(damaged).is_err());
        }
    }

    #[test]
    fn least_of_policy_capabilities_and_holds_is_readable() {
        let known = |epoch| Since::Known(Epoch(epoch));
        let lag = ReadPolicy::LagWriteFrontier { lag_ms: 0, granularity_ms: 0 };
        let none = Capabilities::default();
        let plain = Collection { since: known(5), policy: lag, capabilities: none, ..collection() };
        assert_eq!(plain.since_at(None, Epoch(20)), known(20));
        assert_eq!(plain.since_at(Some(Epoch(8)), Epoch(20)), known(8));
        let unknown = Collection { since: Since::AtLeast(Epoch(5)), ..plain.clone() };
        assert_eq!(unknown.since_at(None, Epoch(20)), Since::AtLeast(Epoch(20)));
        let capable = Collection { capabilities: collection().capabilities, ..plain };
        assert_eq!(capable.since_at(None, Epoch(20)), known(9));
        assert_eq!(capable.since_at(Some(Epoch(8)), Epoch(20)), known(8));
        let kept = Collection { policy: ReadPolicy::NoPolicy, ..capable };
        assert_eq!(kept.since_at(None, Epoch(20)), known(5));
    }

    const STORED: &str = "0108949e6808ac02108080808080201a1522130a091a0708e0d40310e8070a0210070a020801220408\
                          0910012204080c1001";
}
