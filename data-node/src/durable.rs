//! Durable hooks: the leader of a group tells them every version of its regions' manifests, from the
//! manifests, at least once, without a gap, for the first time in order of version.
//!
//! How far a hook is with a region is its *cursor*, which the meta group keeps. A *turn* reads what
//! comes after the cursor and tells it, one version after the other; a version follows only on one
//! that the hook took. Then the cursor is moved, by compare and set, and only then comes the next
//! turn. So whoever takes over goes on from the cursor, and what was told and not recorded is told
//! again. Two leaders at once, one of which does not know yet that it no longer is, do no harm: each
//! tells in order and without a gap, from a cursor at or below what was told before, and so the first
//! time of each version is in order, too.
//!
//! A hook that fails, is paused or is unknown here holds up its own cursors alone: a few turns of each
//! hook run at once, and a region whose turn failed waits longer each time.
//!
//! # Layout
//!
//! - `cursor`: a cursor as this node uses it. `turn`: one turn. `track`: what is known of one cursor,
//!   and when its next turn is due (pure). `tracks`: all of them (pure). `book`: the meta service.
//!   `teller`: the loop.

mod book;
mod cursor;
mod teller;
mod track;
mod tracks;
mod turn;

pub use self::book::{CursorBook, MetaBook};
pub use self::teller::run;

#[cfg(test)]
mod tests;
