//! First delta of a region that begins with the files of its parents (pure).
//!
//! It depends on the parents' seals alone, so that all callers make the same one. A region inherits the part
//! of the manifest that its files need: schema and options; the files and their indexes, clipped to its range;
//! the flushed sequence; the epoch below which reads are refused; the time window of compactions; the rows that
//! are expired for good. Owner, the floor of garbage collection, the procedure step, removed files, staging
//! areas and the last recorded operation stay the parent's own: later operations on the region have greater
//! sequences, and every file at or below the parent's truncation has left it.

use std::sync::Arc;

use tidewater_common::ids::Sequence;

use super::RegionSpec;
use super::birth::{Parent, ParentProblem};
use crate::file_meta::FileMeta;
use crate::manifest::state::TableState;
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestState};

/// Content with which a region begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Beginning {
    table: TableState,
    /// The parents' files.
    pub(super) edit: Edit,
}

impl Beginning {
    /// Returns the beginning of a region from the manifests of its parents, in the order of the spec.
    ///
    /// # Errors
    /// The parent that does not fit, and the reason.
    pub(super) fn of(
        spec: &RegionSpec,
        states: &[Arc<ManifestState>],
    ) -> Result<Self, (Parent, ParentProblem)> {
        let mut table: Option<&TableState> = None;
        let mut edit = Edit::default();
        for (parent, state) in spec.parents.iter().zip(states) {
            let refuse = |problem| (*parent, problem);
            let parent_table = check_parent(spec, parent, state).map_err(refuse)?;
            if *table.get_or_insert(parent_table) != parent_table {
                return Err(refuse(ParentProblem::OtherTable));
            }
            let clipped = state.files().map(|file| file.clipped(&spec.range));
            edit.add.extend(clipped.filter(|file| file.shown_keys().is_some()));
            edit.since = edit.since.max(Some(state.since));
            edit.window_ms = edit.window_ms.max(state.window_ms);
            edit.expired.extend(state.expired.iter().copied());
        }
        edit.add.sort_by_cached_key(FileMeta::reference);
        edit.add.dedup_by(|next, file| joins(file, next));
        edit.flushed = Some(flushed(&spec.parents, states)?);
        let of_spec = || TableState { schema: spec.schema.clone(), options: spec.options.clone() };
        Ok(Self { table: table.cloned().unwrap_or_else(of_spec), edit })
    }

    /// Returns the change that the first delta commits.
    pub(super) fn into_change(self, spec: &RegionSpec) -> Change {
        let TableState { schema, options } = self.table;
        let actions = vec![
            ActionKind::Alter { schema: Box::new(schema), options },
            ActionKind::PartitionExprChange { range: spec.range.clone() },
            ActionKind::Edit(self.edit),
        ];
        let by_reference = spec.parents.iter().map(|parent| parent.dir.region_id).collect();
        Change { by_reference, ..Change::new(Author::System, actions) }
    }
}

/// Checks that a parent's state is that of its seal, and returns its table.
fn check_parent<'a>(
    spec: &RegionSpec,
    parent: &Parent,
    state: &'a ManifestState,
) -> Result<&'a TableState, ParentProblem> {
    if parent.dir.region_id >= spec.region_id {
        return Err(ParentProblem::NotLower);
    }
    if parent.dir.table_id != spec.table_id {
        return Err(ParentProblem::OtherTable);
    }
    if state.is_removed() {
        return Err(ParentProblem::Removed);
    }
    let table = state.table.as_ref().ok_or(ParentProblem::ManifestEmpty)?;
    if state.sealed_at != Some(parent.sealed_at) {
        return Err(ParentProblem::NotSealed {
            expected: parent.sealed_at,
            found: state.sealed_at,
        });
    }
    // The log may have altered the region since; the manifest records that after the first delta.
    let known = &spec.schema;
    if known.version() < table.schema.version()
        || (known.version() == table.schema.version() && *known != table.schema)
    {
        return Err(ParentProblem::OtherTable);
    }
    Ok(table)
}

/// Extends the clip of a reference by that of the next one if both show adjoining parts of one file, as the
/// parents of a merge do that a split has separated. Otherwise references to a file would grow with splits.
fn joins(file: &mut FileMeta, next: &FileMeta) -> bool {
    let adjoins = file.clip.end.as_ref() == Some(&next.clip.start);
    if !adjoins || *next != (FileMeta { clip: next.clip.clone(), ..file.clone() }) {
        return false;
    }
    file.clip.end.clone_from(&next.clip.end);
    true
}

/// Returns the flushed sequence: the greatest of the parents. A row at or below it that is in no file would be
/// lost, so a parent that is flushed less far must have no unflushed row.
fn flushed(
    parents: &[Parent],
    states: &[Arc<ManifestState>],
) -> Result<Sequence, (Parent, ParentProblem)> {
    let greatest = states.iter().map(|state| state.flushed).max().unwrap_or_default();
    for (parent, state) in parents.iter().zip(states) {
        let (flushed, last) = (state.flushed, parent.last_sequence);
        if flushed < greatest && flushed < last {
            return Err((*parent, ParentProblem::NotFlushed { flushed, last }));
        }
    }
    Ok(greatest)
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Epoch, ManifestVersion, RegionId, TableId};
    use tidewater_common::keys::KeyRange;
    use tidewater_common::schema::{SchemaChange, TableOptions};

    use super::*;
    use crate::layout::RegionDir;
    use crate::manifest::samples::{DIR, create, delta, fence, file, index, schema};
    use crate::manifest::{ExpiryMark, replay};

    const SECOND: RegionDir = RegionDir { region_id: RegionId(13), ..DIR };

    /// A sealed region with these files.
    fn sealed(dir: RegionDir, files: Vec<FileMeta>) -> ManifestState {
        let flushed = files.iter().map(FileMeta::max_sequence).max();
        let edit = Edit { add: files, flushed, ..Edit::default() };
        let owned =
            |kind| Change { actions: vec![crate::manifest::Action::live(kind)], ..fence(1) };
        let range = KeyRange::new(Vec::new(), Some(Vec::new()));
        let changes = [
            fence(1),
            create(1),
            owned(ActionKind::Edit(edit)),
            owned(ActionKind::PartitionExprChange { range }),
        ];
        let mut state = ManifestState::empty(dir);
        for (change, version) in changes.into_iter().zip(1..) {
            let outcome = replay::apply(&mut state, &delta(version, change));
            assert_eq!(outcome, replay::ReplayOutcome::Applied);
        }
        state
    }

    fn parent(dir: RegionDir) -> Parent {
        Parent { dir, sealed_at: ManifestVersion(4), last_sequence: Sequence(0) }
    }

    fn spec(parents: Vec<Parent>, range: KeyRange) -> RegionSpec {
        RegionSpec {
            region_id: RegionId(20),
            table_id: DIR.table_id,
            incarnation: DIR.incarnation,
            schema: schema(1),
            options: TableOptions::upsert(),
            range,
            parents,
        }
    }

    fn beginning(spec: &RegionSpec, states: &[&ManifestState]) -> Result<Beginning, ParentProblem> {
        let states: Vec<_> = states.iter().map(|state| Arc::new((*state).clone())).collect();
        Beginning::of(spec, &states).map_err(|(_, problem)| problem)
    }

    #[test]
    fn child_inherits_clipped_files_and_watermarks() {
        let outside = FileMeta { max_key: vec![0x80, 3], ..file(2) };
        let indexed = FileMeta { indexes: vec![index(1)], ..file(1) };
        let mut state = sealed(DIR, vec![indexed.clone(), outside, file(3)]);
        state.since = Epoch(7);
        state.window_ms = Some(60_000);
        let mark = ExpiryMark { before_ms: 5, through: Sequence(9) };
        state.expired.add(mark);
        state.truncated = Sequence(9);
        state.done_through = Sequence(8);
        let range = KeyRange::new([0x80, 5], None);
        let spec = spec(vec![parent(DIR)], range.clone());
        let found = beginning(&spec, &[&state]).unwrap();
        let clipped = |file: &FileMeta| FileMeta { clip: range.clone(), ..file.clone() };
        let expected = Edit {
            add: vec![clipped(&indexed), clipped(&file(3))],
            flushed: Some(Sequence(39)),
            since: Some(Epoch(7)),
            window_ms: Some(60_000),
            expired: vec![mark],
            ..Edit::default()
        };
        assert_eq!(found.edit, expected);
        // Later bookkeeping of the parent changes nothing.
        state.owner = None;
        state.gc_floor_ms = 9_000_000;
        state.version = ManifestVersion(30);
        assert_eq!(beginning(&spec, &[&state]), Ok(found.clone()));
        let change = found.into_change(&spec);
        assert_eq!(
            (change.author, change.by_reference.as_slice()),
            (Author::System, &[RegionId(12)][..])
        );
        let mut own = ManifestState::empty(RegionDir { region_id: RegionId(20), ..DIR });
        assert_eq!(replay::apply(&mut own, &delta(1, change)), replay::ReplayOutcome::Applied);
        assert_eq!((own.parents, own.range), (vec![RegionId(12)], Some(range)));
    }

    #[test]
    fn merged_region_has_files_and_watermarks_of_both_parents() {
        let mut low = sealed(DIR, vec![file(1)]);
        let mut high = sealed(SECOND, vec![FileMeta { origin: SECOND, ..file(2) }]);
        low.since = Epoch(3);
        high.window_ms = Some(5);
        let spec = spec(vec![parent(DIR), parent(SECOND)], KeyRange::whole());
        let found = beginning(&spec, &[&low, &high]).unwrap();
        assert_eq!(found.edit.add, [file(1), FileMeta { origin: SECOND, ..file(2) }]);
        let marks = (found.edit.flushed, found.edit.since, found.edit.window_ms);
        assert_eq!(marks, (Some(Sequence(29)), Some(Epoch(3)), Some(5)));
        assert_eq!(found.into_change(&spec).by_reference, [RegionId(12), RegionId(13)]);
    }

    #[test]
    fn adjoining_parts_of_a_file_are_joined() {
        let part = |start: u8, end: Option<u8>| FileMeta {
            clip: KeyRange::new([start], end.map(|end| vec![end])),
            min_key: vec![2],
            max_key: vec![8],
            ..file(1)
        };
        let beginning_of = |low: &FileMeta, high: &FileMeta| {
            let spec = spec(vec![parent(DIR), parent(SECOND)], KeyRange::whole());
            let states = [sealed(DIR, vec![low.clone()]), sealed(SECOND, vec![high.clone()])];
            beginning(&spec, &[&states[0], &states[1]]).unwrap().edit.add
        };
        let [low, high] = [part(0, Some(5)), part(5, None)];
        assert_eq!(beginning_of(&low, &high), [part(0, None)]);
        // A compaction has replaced the rows between.
        let above = part(6, None);
        assert_eq!(beginning_of(&low, &above), [low.clone(), above]);
        // Only one of them has the index.
        let indexed = FileMeta { indexes: vec![index(1)], ..high };
        assert_eq!(beginning_of(&low, &indexed), [low, indexed]);
        // An empty part between these keys shows nothing.
        assert_eq!(beginning_of(&part(5, Some(5)), &part(5, None)), [part(5, None)]);
    }

    #[test]
    fn parent_with_unflushed_rows_is_not_merged() {
        let low = sealed(DIR, vec![file(1)]);
        let high = sealed(SECOND, vec![FileMeta { origin: SECOND, ..file(2) }]);
        let with = |low_last, high_last| {
            let last = |dir, last| Parent { last_sequence: Sequence(last), ..parent(dir) };
            let parents = vec![last(DIR, low_last), last(SECOND, high_last)];
            let found = beginning(&spec(parents, KeyRange::whole()), &[&low, &high]);
            found.map(|found| found.edit.flushed)
        };
        let flushed = Sequence(19);
        assert_eq!(with(19, 29), Ok(Some(Sequence(29))));
        // Rows above the flushed sequence of both are in memory, and stay unflushed.
        assert_eq!(with(19, 35), Ok(Some(Sequence(29))));
        let last = Sequence(20);
        assert_eq!(with(20, 29), Err(ParentProblem::NotFlushed { flushed, last }));
    }

    #[test]
    fn unsuitable_parent_is_refused() {
        let state = sealed(DIR, vec![file(1)]);
        type Damage = fn(&mut RegionSpec, &mut ManifestState);
        let problem = |change: Damage| {
            let mut spec = spec(vec![parent(DIR)], KeyRange::whole());
            let mut state = state.clone();
            change(&mut spec, &mut state);
            beginning(&spec, &[&state]).err()
        };
        let (expected, found) = (ManifestVersion(4), Some(ManifestVersion(6)));
        assert_eq!(problem(|_, _| ()), None);
        let cases: [(Damage, ParentProblem); 7] = [
            (|spec, _| spec.region_id = RegionId(12), ParentProblem::NotLower),
            (|spec, _| spec.table_id = TableId(99), ParentProblem::OtherTable),
            (|_, state| state.removed_at_ms = Some(1), ParentProblem::Removed),
            (|_, state| state.table = None, ParentProblem::ManifestEmpty),
            (|_, state| state.sealed_at = None, ParentProblem::NotSealed { expected, found: None }),
            (
                |_, state| state.sealed_at = Some(ManifestVersion(6)),
                ParentProblem::NotSealed { expected, found },
            ),
            (
                |_, state| {
                    if let Some(table) = &mut state.table {
                        table.schema = schema(2);
                    }
                },
                ParentProblem::OtherTable,
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(problem(change), Some(expected));
        }
        let both = spec(vec![parent(DIR), parent(SECOND)], KeyRange::whole());
        let mut other = sealed(SECOND, Vec::new());
        if let Some(table) = &mut other.table {
            table.options = TableOptions::append_only();
        }
        assert_eq!(beginning(&both, &[&state, &other]), Err(ParentProblem::OtherTable));
    }

    #[test]
    fn child_begins_with_the_schema_of_its_parents() {
        let state = sealed(DIR, vec![file(1)]);
        let mut spec = spec(vec![parent(DIR)], KeyRange::whole());
        let drop = SchemaChange::DropColumn { name: "text".to_owned() };
        spec.schema = spec.schema.altered(&[drop]).unwrap();
        let table = beginning(&spec, &[&state]).unwrap().table;
        assert_eq!(table.schema, schema(1));
    }
}
