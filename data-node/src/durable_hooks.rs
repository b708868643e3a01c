//! Durable hooks: the leader of a group calls them for every version of its regions' manifests, at
//! least once, without a gap, and for the first time in order of version.
//!
//! - *Cursor*: the manifest version of a region up to which a hook has accepted the deltas. The meta
//!   group stores it.
//! - *Delivery*: reads the deltas after the cursor from the manifest and calls the hook with one
//!   version after the other; it stops at the first version that the hook does not accept. Then the
//!   cursor is moved by compare and set, and only then does the next delivery of that cursor begin.
//! - *Dispatcher*: the loop of a node that lists cursors, starts deliveries and records their moves.
//!
//! A new leader continues from the cursor: versions that were delivered but not recorded are delivered
//! again. Two leaders at the same time, one of which does not know yet that it has lost the leadership,
//! do no harm: each delivers in order and without a gap, from a cursor at or below the versions that
//! were delivered before, so the first delivery of each version is in order, too.
//!
//! A hook that fails, is paused or is unknown on this node delays its own cursors only: a few
//! deliveries of each hook run concurrently, and a region whose delivery failed backs off
//! exponentially.
//!
//! # Layout
//!
//! - `cursor`: a cursor as this node uses it. `delivery`: one delivery. `cursor_state`: one cursor, and
//!   when its next delivery is due (pure). `cursor_states`: all cursors (pure). `lagging`: cursors that lag
//!   (pure). `lag_events`: their events. `cursor_store`: the meta service. `dispatcher`: the loop.

mod cursor;
mod cursor_state;
mod cursor_states;
mod cursor_store;
mod delivery;
mod dispatcher;
mod lag_events;
mod lagging;

pub use self::cursor_store::{CursorStore, MetaCursorStore};
pub use self::dispatcher::run;

#[cfg(test)]
mod tests;
