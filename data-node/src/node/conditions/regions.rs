//! Conditions of the regions of a replica: not hosted, not served, damaged, and work that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::problem::Problem;
use tidewater_common::quote::cut_at;
use tidewater_proto::v1::{CompactionInfo, ProblemKind, TableState};
use tidewater_region_engine::region::Phase;
use tokio::time::Instant;

use crate::catalog::CatalogRecords;
use crate::group::damaged_files::DamagedFile;
use crate::group::failing_work::RegionFailures;
use crate::group::hosted::HostedRegion;
use crate::group::replica::GroupReplica;
use crate::group::shared::ReplicaState;
use crate::groups::Groups;

/// Maximum length of an error, in characters.
const MAX_ERROR: usize = 300;
/// Files that are named in one condition.
const NAMED_FILES: usize = 3;

/// A region of a replica, as conditions name it.
#[derive(Debug, Clone, Copy)]
struct RegionName<'a> {
    group: GroupId,
    region: RegionId,
    table: &'a str,
}

impl RegionName<'_> {
    fn problem(self, kind: ProblemKind, detail: impl Into<String>) -> Problem {
        let Self { group, region, table } = self;
        Problem::new(kind, detail).of_group(group).of_region(region).of_table(table)
    }
}

/// Returns the conditions of all regions of a replica.
pub(super) fn problems(groups: &Groups, replica: &GroupReplica) -> Vec<Problem> {
    let shared = &replica.shared;
    let hosted = shared.regions.all();
    let mut problems: Vec<Problem> =
        hosted.iter().flat_map(|hosted| of_region(shared, hosted)).collect();
    // A follower may not have applied the entry that opens a region.
    if replica.leadership().is_leader {
        let ids = hosted.iter().map(|hosted| hosted.descriptor.region_id.get()).collect();
        problems.extend(
            groups.context().catalog.read(|records| unhosted(records, replica.group(), &ids)),
        );
    }
    problems
}

fn of_region(shared: &ReplicaState, hosted: &HostedRegion) -> Vec<Problem> {
    let descriptor = &hosted.descriptor;
    let region = descriptor.region_id;
    let name = RegionName { group: shared.group, region, table: &descriptor.table_name };
    let is_loading = hosted.region.stats().phase == Phase::Loading;
    let now = Instant::now();
    [
        not_served(name, is_loading, shared.failing_loads.failing(region, now)),
        damaged(name, &shared.damaged.of_region(region)),
        failing(
            name,
            ProblemKind::FlushFailing,
            "flushes",
            shared.failing_flushes.failing(region, now),
        ),
        failing(
            name,
            ProblemKind::CompactionFailing,
            "compactions",
            shared.failing_compactions.failing(region, now),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn not_served(
    name: RegionName<'_>,
    is_loading: bool,
    failures: Option<RegionFailures>,
) -> Option<Problem> {
    let RegionName { region, table, .. } = name;
    let effect =
        if is_loading { "is loading and not served" } else { "may be served with old files" };
    let detail =
        format!("region {region} of table {table:?} {effect}: its manifest cannot be read");
    match failures {
        Some(failures) => {
            let error = cut_at(&failures.error, MAX_ERROR);
            let problem = name.problem(ProblemKind::RegionNotServed, format!("{detail}: {error}"));
            Some(problem.lasting(failures.since.elapsed()))
        }
        None if is_loading => {
            Some(name.problem(ProblemKind::RegionNotServed, format!("{detail} yet")))
        }
        None => None,
    }
}

fn damaged(name: RegionName<'_>, files: &BTreeMap<String, DamagedFile>) -> Option<Problem> {
    let oldest = files.values().map(|file| file.since).min()?;
    let RegionName { region, table, .. } = name;
    let named = files.iter().take(NAMED_FILES);
    let mut texts: Vec<String> = named
        .map(|(object, file)| format!("{object}: {}", cut_at(&file.detail, MAX_ERROR)))
        .collect();
    if files.len() > NAMED_FILES {
        texts.push(format!("and {} more", files.len() - NAMED_FILES));
    }
    let detail = format!(
        "{} files of region {region} of table {table:?} are missing or damaged: {}",
        files.len(),
        texts.join("; ")
    );
    Some(name.problem(ProblemKind::RegionDamaged, detail).lasting(oldest.elapsed()))
}

fn failing(
    name: RegionName<'_>,
    kind: ProblemKind,
    work: &str,
    failures: Option<RegionFailures>,
) -> Option<Problem> {
    let failures = failures?;
    let RegionName { region, table, .. } = name;
    let detail = format!(
        "{work} of region {region} of table {table:?} have failed {} times in a row: {}",
        failures.count,
        cut_at(&failures.error, MAX_ERROR)
    );
    Some(name.problem(kind, detail).lasting(failures.since.elapsed()))
}

/// Returns the regions of active tables that the catalog assigns to a group and the group does not have.
fn unhosted(records: &CatalogRecords, group: GroupId, hosted: &BTreeSet<u64>) -> Vec<Problem> {
    let is_missing =
        |id: &u64, place_group: u64| place_group == group.get() && !hosted.contains(id);
    let missing = records.regions.iter().filter(|(id, place)| is_missing(id, place.group_id));
    missing
        .filter_map(|(id, place)| {
            let table = records.tables.get(&place.table_id)?;
            (table.state() == TableState::Active).then(|| {
                let name = RegionName { group, region: RegionId(*id), table: &table.name };
                let detail = format!(
                    "group {group} does not have region {id} of table {:?}, which the catalog assigns to \
                     it: its rows cannot be read or written",
                    table.name
                );
                name.problem(ProblemKind::RegionNotHosted, detail)
            })
        })
        .collect()
}

/// Returns a condition for each region with quarantined compactions.
pub(super) fn quarantined(jobs: &[CompactionInfo]) -> Vec<Problem> {
    let mut by_region: BTreeMap<(u64, u64), Vec<&CompactionInfo>> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.state == "quarantined") {
        by_region.entry((job.group_id, job.region_id)).or_default().push(job);
    }
    let problem = |((group, region), jobs): ((u64, u64), Vec<&CompactionInfo>)| {
        let age_ms = jobs.iter().map(|job| job.age_ms).max().unwrap_or(0);
        let error = jobs.first().map_or("", |job| job.last_error.as_str());
        let detail = format!(
            "{} compactions of region {region} have failed too often and are quarantined: {}",
            jobs.len(),
            cut_at(error, MAX_ERROR)
        );
        Problem::new(ProblemKind::CompactionQuarantined, detail)
            .of_group(GroupId(group))
            .of_region(RegionId(region))
            .lasting(Duration::from_millis(age_ms))
    };
    by_region.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;

    use super::*;
    use crate::catalog::RegionPlace;

    const NAME: RegionName<'static> =
        RegionName { group: GroupId(5), region: RegionId(7), table: "t" };

    fn failures(error: &str) -> Option<RegionFailures> {
        Some(RegionFailures { since: Instant::now(), count: 4, error: error.to_owned() })
    }

    fn is_about_the_region(problem: &Problem) -> bool {
        let subject = &problem.subject;
        subject.group == Some(GroupId(5))
            && subject.region == Some(RegionId(7))
            && subject.table.as_deref() == Some("t")
    }

    #[test]
    fn unread_manifest_is_a_problem() {
        for (is_loading, error, expected) in [
            (false, None, None),
            (true, None, Some("is loading and not served: its manifest cannot be read yet")),
            (
                true,
                Some("gone"),
                Some("is loading and not served: its manifest cannot be read: gone"),
            ),
            (
                false,
                Some("gone"),
                Some("may be served with old files: its manifest cannot be read: gone"),
            ),
        ] {
            let problem = not_served(NAME, is_loading, error.and_then(failures));
            let detail = problem.as_ref().map(|problem| problem.detail.as_str());
            let expected = expected.map(|text| format!("region 7 of table \"t\" {text}"));
            assert_eq!(detail, expected.as_deref());
            assert!(problem.is_none_or(|problem| is_about_the_region(&problem)));
        }
    }

    #[test]
    fn damaged_files_are_counted_and_named() {
        let file = |detail: &str| DamagedFile { since: Instant::now(), detail: detail.to_owned() };
        assert_eq!(damaged(NAME, &BTreeMap::new()), None);
        let files: BTreeMap<String, DamagedFile> =
            ["a", "b", "c", "d"].map(|name| (name.to_owned(), file("missing"))).into();
        let problem = damaged(NAME, &files).unwrap();
        assert_eq!(problem.kind, ProblemKind::RegionDamaged);
        assert!(is_about_the_region(&problem) && problem.age.is_some());
        let expected = "4 files of region 7 of table \"t\" are missing or damaged: a: missing; b: missing; \
                        c: missing; and 1 more";
        assert_eq!(problem.detail, expected);
    }

    #[test]
    fn work_that_fails_repeatedly_is_a_problem() {
        let flush = |failures| failing(NAME, ProblemKind::FlushFailing, "flushes", failures);
        assert_eq!(flush(None), None);
        let problem = flush(failures(&"x".repeat(1_000))).unwrap();
        assert!(is_about_the_region(&problem));
        let text = "flushes of region 7 of table \"t\" have failed 4 times in a row: xxx";
        assert!(problem.detail.starts_with(text) && problem.detail.len() < 500, "{problem:?}");
    }

    #[test]
    fn region_that_its_group_lacks_is_a_problem() {
        let place = |table_id, group_id| RegionPlace {
            table_id,
            group_id,
            start: Vec::new(),
            end: None,
            incarnation: 1,
        };
        let table = |name: &str, state: TableState| v1::Table {
            name: name.into(),
            state: state.into(),
            ..v1::Table::default()
        };
        let records = CatalogRecords {
            tables: [(1, table("t", TableState::Active)), (2, table("u", TableState::Creating))]
                .into(),
            // Hosted; missing; of another group; of a table that is being created; of no table.
            regions: [
                (6, place(1, 5)),
                (7, place(1, 5)),
                (8, place(1, 6)),
                (9, place(2, 5)),
                (10, place(3, 5)),
            ]
            .into(),
            ..CatalogRecords::default()
        };
        let problems = unhosted(&records, GroupId(5), &BTreeSet::from([6]));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(is_about_the_region(&problems[0]));
        assert_eq!(problems[0].kind, ProblemKind::RegionNotHosted);
        assert_eq!(unhosted(&records, GroupId(5), &BTreeSet::from([6, 7])), []);
    }

    #[test]
    fn quarantined_jobs_are_counted_by_region() {
        let job = |region_id, state: &str, age_ms| CompactionInfo {
            group_id: 5,
            region_id,
            state: state.into(),
            last_error: "stalled".into(),
            age_ms,
            ..CompactionInfo::default()
        };
        let jobs = [
            job(7, "quarantined", 10),
            job(7, "quarantined", 30),
            job(7, "running", 90),
            job(8, "waiting", 5),
        ];
        let [problem] = &quarantined(&jobs)[..] else { panic!("one region") };
        let expected =
            "2 compactions of region 7 have failed too often and are quarantined: stalled";
        assert_eq!(problem.detail, expected);
        assert_eq!(problem.age, Some(Duration::from_millis(30)));
    }
}
