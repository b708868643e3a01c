//! Frontiers of collections: which epochs can be read, and what holds them back (pure).
//!
//! Epochs are totally ordered, so that a frontier, the begin of the epochs that have a property, is one of them.
//!
//! - **Since**: the oldest epoch that can be read. Versions that only earlier reads return may be dropped.
//! - **Upper**: epoch of the last barrier, the first that is not complete. Reads at `since <= epoch < upper` return the same rows at any time.
//! - **Read policy**: rule by which since follows upper. It is deleted with the collection.
//! - **Capabilities**: multiset of epochs that callers have added; the least one limits since.
//! - **Read hold**: an epoch that one reader keeps readable, until it moves the hold to a later epoch or releases it.
//!
//! # Rule
//!
//! Since is the least of: the epoch of the policy, the least capability, the least hold, and upper. It does not
//! go back: a weaker policy does not bring back versions that were dropped. New holds and capabilities are refused below since,
//! so that they are never below it (K1).
//!
//! Apply of the meta group depends on these rules and their limits, so they never change.
//!
//! # Layout
//!
//! - `retention`: the rule. `policy`, `capabilities`, `change_batch`: what holds since back. `epoch_counts`: multisets of epochs.
//! - `span`: epochs at a distance in time. `common_epoch`: epoch of holds of several collections.

mod capabilities;
mod change_batch;
mod common_epoch;
mod epoch_counts;
mod policy;
mod retention;
mod span;
#[cfg(test)]
mod testing;

pub use self::capabilities::{Capabilities, CapabilityError};
pub use self::change_batch::{ChangeBatch, ChangeError};
pub use self::common_epoch::{CommonEpochError, earliest_common};
pub use self::policy::{PolicyError, ReadPolicy};
pub use self::retention::Retention;
pub use self::span::epoch_before;
