//! Cursors: the position of each durable hook in each region.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync as PersistentMap, RedBlackTreeSetSync as PersistentSet};
use tidewater_common::ids::{GroupId, Incarnation, ManifestVersion, RegionId, Revision, TableId};
use tidewater_proto::v1::{self, CursorState};
use twox_hash::XxHash64;

use super::CatalogError;

/// Position of one durable hook in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCursor {
    /// The hook's name.
    pub hook: String,
    /// The hook's generation.
    pub generation: Revision,
    /// Id of the region.
    pub region: RegionId,
    /// Table of the region. With the incarnation, locates the region's manifest, also after the
    /// table's record is deleted.
    pub table: TableId,
    /// Incarnation of the cluster at the region's creation.
    pub incarnation: Incarnation,
    /// Group that serves the region, or last served it. Its leader calls the hook.
    pub group: GroupId,
    /// Manifest version, whose meaning depends on the state.
    pub version: ManifestVersion,
    /// State of the cursor; never unspecified.
    pub state: CursorState,
}

impl HookCursor {
    /// The facts that stay when the cursor moves.
    fn identity(&self) -> (&str, [u64; 5]) {
        let ids = [
            self.generation.get(),
            self.region.get(),
            u64::from(self.table.get()),
            self.incarnation.get(),
            self.group.get(),
        ];
        (&self.hook, ids)
    }

    fn identity_hash(&self) -> u64 {
        let (hook, ids) = self.identity();
        let mut hasher = XxHash64::with_seed(0);
        ids.iter().for_each(|id| hasher.write(&id.to_le_bytes()));
        hasher.write(hook.as_bytes());
        hasher.finish()
    }
}

/// All cursors, by region. Clones share their records and the nodes of their trees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursors {
    /// Of each region: the cursors ordered by hook. A slice of the exact length: there may be a hundred
    /// thousand regions, most with one cursor.
    by_region: PersistentMap<RegionId, Arc<[HookCursor]>>,
    // Indexes over the cursors.
    by_group: PersistentSet<(GroupId, RegionId)>,
    /// Number of cursors of each hook in each state.
    counts: PersistentMap<(String, CursorState), usize>,
    /// Of each group with cursors: the sum of the hashes of their identities.
    fingerprints: PersistentMap<GroupId, u64>,
    /// Number of cursors of each group in the regions of each table.
    tables: PersistentMap<(GroupId, TableId), usize>,
}

impl Cursors {
    /// The cursor of a hook in a region.
    pub fn get(&self, region: RegionId, hook: &str) -> Option<&HookCursor> {
        find(self.by_region.get(&region)?, hook)
    }

    /// All cursors, ordered by region and hook.
    pub fn iter(&self) -> impl Iterator<Item = &HookCursor> {
        self.by_region.values().flat_map(|cursors| cursors.iter())
    }

    /// The cursors of one hook, ordered by region. Takes time for every region that has cursors.
    pub fn of_hook<'a>(&'a self, hook: &'a str) -> impl Iterator<Item = &'a HookCursor> {
        self.by_region.values().filter_map(move |cursors| find(cursors, hook))
    }

    /// The first region in which a hook's cursor has this state. Constant time when there is none.
    pub fn first_in_state(&self, hook: &str, state: CursorState) -> Option<RegionId> {
        if self.count_in_state(hook, state) == 0 {
            return None;
        }
        self.of_hook(hook).find(|cursor| cursor.state == state).map(|cursor| cursor.region)
    }

    /// Number of cursors of a hook.
    pub fn count(&self, hook: &str) -> usize {
        let counts = self.counts.range((hook.to_owned(), CursorState::Unspecified)..);
        counts.take_while(|((name, _), _)| name == hook).map(|(_, count)| count).sum()
    }

    /// Number of cursors of a hook in one state.
    pub fn count_in_state(&self, hook: &str, state: CursorState) -> usize {
        self.counts.get(&(hook.to_owned(), state)).copied().unwrap_or(0)
    }

    /// Regions with an id of `from` or above, each with its cursors.
    pub fn regions_from(
        &self,
        from: RegionId,
    ) -> impl Iterator<Item = (RegionId, impl Iterator<Item = &HookCursor>)> {
        self.by_region.range(from..).map(|(region, cursors)| (*region, cursors.iter()))
    }

    /// Ids, of `from` or above, of the regions with cursors of a group.
    pub fn regions_of_group(
        &self,
        group: GroupId,
        from: RegionId,
    ) -> impl Iterator<Item = RegionId> {
        let range = (group, from)..=(group, RegionId(u64::MAX));
        self.by_group.range(range).map(|(_, region)| *region)
    }

    /// The cursors of one region, ordered by hook.
    pub fn in_region(&self, region: RegionId) -> impl Iterator<Item = &HookCursor> {
        self.by_region.get(&region).into_iter().flat_map(|cursors| cursors.iter())
    }

    /// Fingerprint of the cursors of some groups. It does not depend on their positions, is the same on all
    /// replicas, and differs for other cursors except with a probability of 2^-64.
    pub fn fingerprint(&self, groups: &BTreeSet<GroupId>) -> u64 {
        let mut hasher = XxHash64::with_seed(0);
        for group in groups {
            let of_group = self.fingerprints.get(group).copied().unwrap_or(0);
            hasher.write(&group.get().to_le_bytes());
            hasher.write(&of_group.to_le_bytes());
        }
        hasher.finish()
    }

    /// Tables with cursors of a group, also deleted ones.
    pub fn tables_of_group(&self, group: GroupId) -> impl Iterator<Item = TableId> {
        let range = (group, TableId(0))..=(group, TableId(u32::MAX));
        self.tables.range(range).map(|((_, table), _)| *table)
    }

    pub(super) fn put(&mut self, cursor: HookCursor) {
        let region = cursor.region;
        let mut cursors = self.others(region, &cursor.hook);
        let at = cursors.partition_point(|other| other.hook < cursor.hook);
        cursors.insert(at, cursor);
        self.replace(region, cursors);
    }

    pub(super) fn remove(&mut self, region: RegionId, hook: &str) {
        let others = self.others(region, hook);
        self.replace(region, others);
    }

    /// The cursors of a region apart from that of one hook.
    fn others(&self, region: RegionId, hook: &str) -> Vec<HookCursor> {
        self.in_region(region).filter(|cursor| cursor.hook != hook).cloned().collect()
    }

    /// Replaces the cursors of one region, and changes the indexes with them. `after`: ordered by hook.
    fn replace(&mut self, region: RegionId, after: Vec<HookCursor>) {
        let before = self.by_region.get(&region).cloned().unwrap_or_default();
        for cursor in before.iter().filter(|cursor| find(&after, &cursor.hook) != Some(cursor)) {
            self.recount(cursor, |count| count.saturating_sub(1));
        }
        for cursor in after.iter().filter(|cursor| find(&before, &cursor.hook) != Some(cursor)) {
            self.recount(cursor, |count| count + 1);
        }
        let is_in = |list: &[HookCursor], cursor: &HookCursor| {
            find(list, &cursor.hook).is_some_and(|found| found.identity() == cursor.identity())
        };
        for cursor in before.iter().filter(|cursor| !is_in(&after, cursor)) {
            self.refingerprint(cursor.group, |sum| sum.wrapping_sub(cursor.identity_hash()));
            self.recount_table(cursor, |count| count.saturating_sub(1));
        }
        for cursor in after.iter().filter(|cursor| !is_in(&before, cursor)) {
            self.refingerprint(cursor.group, |sum| sum.wrapping_add(cursor.identity_hash()));
            self.recount_table(cursor, |count| count + 1);
        }
        let groups = |cursors: &[HookCursor]| -> BTreeSet<GroupId> {
            cursors.iter().map(|cursor| cursor.group).collect()
        };
        let left = groups(&before);
        let joined = groups(&after);
        for group in left.difference(&joined) {
            self.by_group.remove_mut(&(*group, region));
        }
        for group in joined.difference(&left) {
            self.by_group.insert_mut((*group, region));
        }
        if after.is_empty() {
            self.by_region.remove_mut(&region);
        } else {
            self.by_region.insert_mut(region, after.into());
        }
    }

    fn recount(&mut self, cursor: &HookCursor, change: impl FnOnce(usize) -> usize) {
        let key = (cursor.hook.clone(), cursor.state);
        match change(self.counts.get(&key).copied().unwrap_or(0)) {
            0 => drop(self.counts.remove_mut(&key)),
            count => self.counts.insert_mut(key, count),
        }
    }

    fn recount_table(&mut self, cursor: &HookCursor, change: impl FnOnce(usize) -> usize) {
        let key = (cursor.group, cursor.table);
        match change(self.tables.get(&key).copied().unwrap_or(0)) {
            0 => drop(self.tables.remove_mut(&key)),
            count => self.tables.insert_mut(key, count),
        }
    }

    fn refingerprint(&mut self, group: GroupId, change: impl FnOnce(u64) -> u64) {
        match change(self.fingerprints.get(&group).copied().unwrap_or(0)) {
            0 => drop(self.fingerprints.remove_mut(&group)),
            sum => self.fingerprints.insert_mut(group, sum),
        }
    }
}

/// Returns the cursor of a hook among those of a region.
fn find<'a>(cursors: &'a [HookCursor], hook: &str) -> Option<&'a HookCursor> {
    let at = cursors.binary_search_by(|cursor| cursor.hook.as_str().cmp(hook)).ok()?;
    cursors.get(at)
}

impl From<&HookCursor> for v1::HookCursor {
    fn from(cursor: &HookCursor) -> Self {
        Self {
            hook: cursor.hook.clone(),
            generation: cursor.generation.get(),
            region_id: cursor.region.get(),
            table_id: cursor.table.get(),
            incarnation: cursor.incarnation.get(),
            group_id: cursor.group.get(),
            version: cursor.version.get(),
            state: cursor.state.into(),
        }
    }
}

impl TryFrom<v1::HookCursor> for HookCursor {
    type Error = CatalogError;

    fn try_from(stored: v1::HookCursor) -> Result<Self, CatalogError> {
        let invalid = |problem: &str| CatalogError::InvalidRecord {
            kind: "cursor",
            problem: problem.to_owned(),
        };
        let state = CursorState::try_from(stored.state).unwrap_or_default();
        if state == CursorState::Unspecified {
            return Err(invalid("its state is unknown"));
        }
        if stored.hook.is_empty() || stored.region_id == 0 {
            return Err(invalid("it has no hook or no region"));
        }
        Ok(Self {
            hook: stored.hook,
            generation: Revision(stored.generation),
            region: RegionId(stored.region_id),
            table: TableId(stored.table_id),
            incarnation: Incarnation(stored.incarnation),
            group: GroupId(stored.group_id),
            version: ManifestVersion(stored.version),
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};

    fn cursor(region: u64, hook: &str) -> HookCursor {
        HookCursor {
            hook: hook.to_owned(),
            generation: Revision(42),
            region: RegionId(region),
            table: TableId(3),
            incarnation: Incarnation(1),
            group: GroupId(5),
            version: ManifestVersion(300),
            state: CursorState::Tail,
        }
    }

    #[test]
    fn stored_cursor_bytes_are_frozen() {
        let cursor = cursor(7, "audit");
        let stored = codec::encode_message(&v1::HookCursor::from(&cursor));
        let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(keys::cursor(RegionId(7), "audit"), b"meta/cursor/\0\0\0\0\0\0\0\x07audit");
        let read = codec::decode_message::<v1::HookCursor>("cursor", &stored).unwrap();
        assert_eq!(HookCursor::try_from(read).unwrap(), cursor);
        for state in [0, 99] {
            let unknown = v1::HookCursor { state, ..v1::HookCursor::from(&cursor) };
            assert!(HookCursor::try_from(unknown).is_err());
        }
    }

    const GOLDEN: &str = "01a002ed570a056175646974102a180720032801300538ac024004";

    #[test]
    fn cursors_are_found_by_region_and_by_hook() {
        let mut cursors = Cursors::default();
        for (region, hook) in [(7, "b"), (7, "a"), (9, "a")] {
            cursors.put(cursor(region, hook));
        }
        let names = |found: &mut dyn Iterator<Item = &HookCursor>| -> Vec<(u64, String)> {
            found.map(|cursor| (cursor.region.get(), cursor.hook.clone())).collect()
        };
        let all = [(7, "a".to_owned()), (7, "b".to_owned()), (9, "a".to_owned())];
        assert_eq!(names(&mut cursors.iter()), all);
        assert_eq!(names(&mut cursors.of_hook("b")), all[1..2]);
        assert_eq!((cursors.count("a"), cursors.count("b"), cursors.count("c")), (2, 1, 0));
        let frozen = cursors.clone();
        cursors.remove(RegionId(9), "a");
        cursors.remove(RegionId(9), "a");
        assert_eq!(cursors.regions_from(RegionId(8)).count(), 0);
        assert_eq!(frozen.regions_from(RegionId(8)).count(), 1);
        assert!(frozen.get(RegionId(9), "a").is_some());
    }

    #[test]
    fn indexes_follow_the_cursors() {
        let mut cursors = Cursors::default();
        for (region, hook) in [(7, "a"), (7, "b"), (9, "a")] {
            cursors.put(cursor(region, hook));
        }
        let of_group = |cursors: &Cursors, group| -> Vec<u64> {
            let regions = cursors.regions_of_group(GroupId(group), RegionId(0));
            regions.map(RegionId::get).collect()
        };
        assert_eq!(of_group(&cursors, 5), [7, 9]);
        assert_eq!(cursors.regions_of_group(GroupId(5), RegionId(8)).count(), 1);
        cursors.put(HookCursor { group: GroupId(6), ..cursor(7, "a") });
        assert_eq!((of_group(&cursors, 5), of_group(&cursors, 6)), (vec![7, 9], vec![7]));
        cursors.put(HookCursor { group: GroupId(6), ..cursor(7, "b") });
        assert_eq!((of_group(&cursors, 5), of_group(&cursors, 6)), (vec![9], vec![7]));
        cursors.put(HookCursor { table: TableId(4), group: GroupId(6), ..cursor(7, "b") });
        let tables = |cursors: &Cursors, group| -> Vec<u32> {
            cursors.tables_of_group(GroupId(group)).map(TableId::get).collect()
        };
        assert_eq!((tables(&cursors, 5), tables(&cursors, 6)), (vec![3], vec![3, 4]));
        cursors.put(HookCursor { state: CursorState::Lagged, ..cursor(9, "a") });
        assert_eq!(cursors.count_in_state("a", CursorState::Tail), 1);
        assert_eq!(cursors.first_in_state("a", CursorState::Lagged), Some(RegionId(9)));
        assert_eq!(cursors.first_in_state("b", CursorState::Lagged), None);
        for (region, hook) in [(7, "a"), (7, "b"), (9, "a")] {
            cursors.remove(RegionId(region), hook);
        }
        assert_eq!(cursors, Cursors::default(), "nothing of removed cursors is left");
    }

    #[test]
    fn fingerprint_ignores_positions_of_cursors() {
        let mut cursors = Cursors::default();
        let fingerprint = |cursors: &Cursors, groups: &[u64]| {
            cursors.fingerprint(&groups.iter().copied().map(GroupId).collect())
        };
        let empty = fingerprint(&cursors, &[5]);
        cursors.put(cursor(7, "a"));
        cursors.put(cursor(9, "a"));
        let two = fingerprint(&cursors, &[5]);
        assert_ne!(two, empty);
        let moved = HookCursor { version: ManifestVersion(301), ..cursor(7, "a") };
        cursors.put(HookCursor { state: CursorState::Lagged, ..moved });
        assert_eq!(fingerprint(&cursors, &[5]), two);
        let mut in_other_order = Cursors::default();
        in_other_order.put(cursor(9, "a"));
        in_other_order.put(cursor(7, "a"));
        assert_eq!(fingerprint(&in_other_order, &[5]), two);
        let others = [
            cursor(7, "b"),
            HookCursor { generation: Revision(43), ..cursor(7, "a") },
            HookCursor { table: TableId(4), ..cursor(7, "a") },
            HookCursor { incarnation: Incarnation(2), ..cursor(7, "a") },
            HookCursor { group: GroupId(6), ..cursor(7, "a") },
        ];
        for other in others {
            let mut changed = cursors.clone();
            changed.put(other.clone());
            assert_ne!(fingerprint(&changed, &[5]), two, "{other:?}");
            assert_ne!(fingerprint(&changed, &[5, 6]), fingerprint(&cursors, &[5, 6]), "{other:?}");
        }
        cursors.remove(RegionId(9), "a");
        let one = fingerprint(&cursors, &[5]);
        assert!(one != two && one != empty);
        assert_ne!(fingerprint(&cursors, &[6]), empty, "it is of other groups");
    }
}
