//! Staging areas, bulk-load files and copies.

mod adopt;
mod areas;
mod changes;
mod copy;
