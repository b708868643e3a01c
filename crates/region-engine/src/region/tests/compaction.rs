//! Compaction, local and offloaded.

mod local;
mod passes;
mod race;
mod remote_races;
mod remote_rejections;
mod time_to_live;
mod windows;
