//! Limits and step numbers on which meta nodes and data nodes must agree: one side decides by them, the
//! other one checks the decision.

/// Number of voters of a group, when the cluster has enough data nodes.
pub const REPLICAS_PER_GROUP: usize = 3;

/// Maximum number of manifest versions that a durable hook receives in one delivery, after which the
/// region's owner moves its cursor. Bounds the versions that are repeated after a crash, and the memory.
pub const CURSOR_VERSIONS_PER_MOVE: u64 = 64;

/// Most bytes of a region's state in the calls of its move: that of all producers a region knows.
pub const REGION_STATE_BYTES: usize = 64 * 1024 * 1024;

/// Maximum number of files that one staging area publishes or merges: the meta leader fails a refresh early that has more.
pub const AREA_FILES: usize = 4_096;

/// Milliseconds by which timestamps may be ahead of replicated time. Leaders of all releases agree on it.
pub const TIMESTAMP_LEAD_MS: u64 = 3_000;

/// Score of one written row. A key that is looked up and a scan have a score of 1. Scores are per minute.
pub const WRITE_SCORE: u64 = 4;
/// Length of a window in which data nodes measure the load of routes, in milliseconds.
pub const LOAD_WINDOW_MS: u64 = 6_000;
/// Most routes whose load a node reports for a window, those with the highest scores.
pub const LOAD_ROUTES: usize = 64;
/// Most routes of a node whose sampled keys it reports for a window.
pub const LOAD_SAMPLED_ROUTES: usize = 8;
/// Most sampled keys of a route in a window.
pub const LOAD_KEYS: usize = 64;
/// Longest sampled key, in bytes: longer ones are cut, which moves a split point by less than a row.
pub const LOAD_KEY_BYTES: usize = 256;

/// Step of a region's alteration or truncation in the procedure of its table.
pub const CHANGE_STEP: u32 = 1;
/// Change number and step of the adoption of the source's files by a region of a new clone.
pub const CLONE_STEP: (u64, u32) = (1, 1);
/// Step that opens the staging area of an atomic load in a region.
pub const LOAD_OPEN_STEP: u32 = 1;
/// Step that publishes or abandons it.
pub const LOAD_CLOSE_STEP: u32 = 2;
/// Step that holds and seals a region before its split.
pub const SPLIT_HOLD_STEP: u32 = 1;
/// Step that replaces a region by its children.
pub const SPLIT_STEP: u32 = 2;
/// Step that abandons a split. Above the two before: one of them that is delayed has no effect any more.
pub const SPLIT_ABANDON_STEP: u32 = 3;
/// Step that closes a region that its children have replaced.
pub const SPLIT_CLOSE_STEP: u32 = 4;
/// Step that holds the regions of a merge while they are written.
pub const MERGE_HOLD_STEP: u32 = 1;
/// Step that fences, flushes and seals them.
pub const MERGE_FENCE_STEP: u32 = 2;
/// Step that replaces them by their child.
pub const MERGE_STEP: u32 = 3;
/// Step that abandons a merge. Above the three before. A group takes it by itself when a fence lasts too long.
pub const MERGE_ABANDON_STEP: u32 = 4;
/// Step that closes the regions that their child has replaced.
pub const MERGE_CLOSE_STEP: u32 = 5;
/// Step that holds a region before its move, while it is written.
pub const MOVE_HOLD_STEP: u32 = 1;
/// Step that prepares the target group of a move.
pub const MOVE_PREPARE_STEP: u32 = 2;
/// Step that fences and flushes the region.
pub const MOVE_FENCE_STEP: u32 = 3;
/// Step in which the target group takes the region's manifest over, the point of no return.
pub const MOVE_RECEIVE_STEP: u32 = 4;
/// Step that abandons a move. Above the four before. The source group takes it by itself when the fence lasts too long
/// and the target group does not own the manifest.
pub const MOVE_ABANDON_STEP: u32 = 5;
/// Step that ends the service of the region by the source group.
pub const MOVE_RELEASE_STEP: u32 = 6;
/// Step that begins its service by the target group.
pub const MOVE_ACTIVATE_STEP: u32 = 7;
