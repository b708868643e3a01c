//! The manifest: the versioned record of what a region consists of.
//!
//! A **delta** is one committed change, created by put if absent at exactly the current version + 1.
//! Its **writer id** names its content. A **checkpoint** is the whole state at a version. **State** is
//! what replaying deltas yields; a delta that breaks a rule is **void**: it keeps its version and
//! changes nothing.
//!
//! # Layout
//!
//! - `action`: the words: author, delta, actions.
//! - [`state`]: what replay yields.
//! - [`replay`]: the one function that holds the rules; committers ask it before a put.
//! - `codec`: the bytes of deltas and checkpoints.
//! - `listing`: what a listing shows, and what to read because of it.
//! - `reader`: tail and newest checkpoint, from a listing.
//! - `manager`: the commit loop: puts, settles what is ambiguous, writes checkpoints.
//! - `context`: the funnel that all logical writes go through.
//! - `announce`: what hooks are told of a delta.
//! - [`history`]: the deltas since a version, for those who are told of every one.
//! - [`json`]: a manifest as an operator reads it.

mod action;
mod announce;
mod closed_areas;
mod codec;
mod context;
pub mod history;
pub mod json;
mod listing;
mod manager;
mod options;
mod reader;
pub mod replay;
#[cfg(test)]
pub(crate) mod samples;
pub mod state;
mod void;

pub use self::action::{
    Action, ActionKind, AreaId, AreaStep, Author, Change, Delta, Edit, ProcedureStep, Truncate,
};
pub(crate) use self::announce::announced_as;
pub use self::closed_areas::{AreaOutcome, ClosedAreas};
pub use self::codec::CodecError;
pub use self::context::ManifestContext;
pub(crate) use self::context::PendingManifestHook;
pub use self::json::manifest_json;
pub use self::manager::RegionManifestManager;
pub use self::options::ManifestOptions;
pub use self::state::ManifestState;
pub use self::void::Void;
