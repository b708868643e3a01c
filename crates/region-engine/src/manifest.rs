//! The manifest: the versioned record of a region's content.
//!
//! A **delta** is one committed change, created by put-if-absent at exactly the next version. Its
//! **writer id** identifies its content. A **checkpoint** is the whole state at one version.
//! **State** is the result of replaying deltas; a delta that breaks a rule is **void**: it keeps
//! its version and changes nothing.
//!
//! # Layout
//!
//! - `action`: authors, deltas and actions.
//! - [`state`]: the result of replay.
//! - [`replay`]: the one function that holds the rules; committers call it before a put.
//! - `codec`: the bytes of deltas and checkpoints.
//! - `listing`: read plans from the object names of a listing.
//! - `reader`: tail and newest checkpoint, from a listing.
//! - `manager`: the commit loop: puts deltas, resolves ambiguous puts, writes checkpoints.
//! - `context`: the entry point of all logical writes.
//! - `expiry_marks`: expiry that a commit has made permanent.
//! - `announce`: the notification that hooks receive for a delta.
//! - [`history`]: the deltas after a version, for readers that need every one.
//! - [`json`]: a manifest as JSON for operators.

mod action;
mod announce;
mod closed_areas;
mod codec;
mod context;
mod expiry_marks;
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
    Action, ActionKind, AreaId, AreaStep, Author, Change, Delta, Edit, ProcedureStep,
    RequiredProgress, Truncate,
};
pub(crate) use self::announce::announced_as;
pub use self::closed_areas::{AreaOutcome, ClosedAreas};
pub use self::codec::CodecError;
pub use self::context::ManifestContext;
pub(crate) use self::context::PendingManifestHook;
pub use self::expiry_marks::{ExpiryMark, ExpiryMarks};
pub use self::json::manifest_json;
pub use self::manager::RegionManifestManager;
pub use self::options::ManifestOptions;
pub use self::state::{ManifestState, RegionOwner};
pub use self::void::Void;
