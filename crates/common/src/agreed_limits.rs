//! Limits and step numbers on which meta nodes and data nodes must agree: one side decides by them, the
//! other one checks the decision.

/// Number of voters of a group, when the cluster has enough data nodes.
pub const REPLICAS_PER_GROUP: usize = 3;

/// Maximum number of manifest versions that a durable hook receives in one delivery, after which the
/// region's owner moves its cursor. Bounds the versions that are repeated after a crash, and the memory.
pub const CURSOR_VERSIONS_PER_MOVE: u64 = 64;

/// Step of a region's alteration or truncation in the procedure of its table.
pub const CHANGE_STEP: u32 = 1;
/// Change number and step of the adoption of the source's files by a region of a new clone.
pub const CLONE_STEP: (u64, u32) = (1, 1);
/// Step that opens the staging area of an atomic load in a region.
pub const LOAD_OPEN_STEP: u32 = 1;
/// Step that publishes or abandons it.
pub const LOAD_CLOSE_STEP: u32 = 2;
