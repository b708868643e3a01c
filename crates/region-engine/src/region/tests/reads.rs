//! Scans and point reads: caches, indexes, pruning, duration.

mod as_of;
mod bounded;
mod caching;
mod held_epoch;
mod indexes;
mod kept_versions;
mod point_reads;
mod pruning;
mod pruning_agrees;
mod scan_lifetime;
