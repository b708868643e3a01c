use tidewater_region_engine::env::{IdSource, SystemIds};

use super::*;
use crate::testing::job;

const SOURCE: NodeId = NodeId(101);
const WANTED: CompactionLimits = CompactionLimits { parallelism: 4, memory_bytes: u64::MAX };

fn begin(jobs: &Arc<Jobs>, job: &CompactionJob) -> Result<Slot, JobError> {
    jobs.begin(job, WANTED, None, (2, SOURCE), Instant::now())
}

fn another(of: &CompactionJob) -> CompactionJob {
    CompactionJob { job_id: SystemIds.job_id(5_000), ..of.clone() }
}

#[tokio::test]
async fn a_job_and_its_files_run_once_at_a_time() {
    let jobs = Jobs::new(Capacity { slots: 4, memory_bytes: 1 << 30 });
    let one = job().await;
    let slot = begin(&jobs, &one).unwrap();
    assert_eq!((slot.job.number, slot.job.source, slot.job.limits.parallelism), (2, SOURCE, 1));
    assert_eq!(begin(&jobs, &one).unwrap_err(), JobError::Exists(one.job_id));
    let (mut some, mut elsewhere) = (another(&one), another(&one));
    some.inputs.truncate(1);
    let file = some.inputs[0].file_id;
    assert_eq!(begin(&jobs, &some).unwrap_err(), JobError::FileBusy { job: one.job_id, file });
    let reference = [some.inputs[0].reference()];
    assert!(jobs.check(some.job_id, some.dir, &reference).is_err());
    elsewhere.dir.region_id = tidewater_common::ids::RegionId(77);
    let other = begin(&jobs, &elsewhere).unwrap();
    assert_eq!((jobs.list().len(), jobs.in_use().jobs), (2, 2));
    drop(slot);
    assert!(jobs.check(some.job_id, some.dir, &reference).is_ok());
    drop((begin(&jobs, &some).unwrap(), other));
    assert_eq!(jobs.in_use(), InUse::default());
}

#[tokio::test]
async fn what_a_job_may_write_counts_against_the_disk() {
    let jobs = Jobs::new(Capacity { slots: 4, memory_bytes: 1 << 30 });
    let one = job().await;
    let _slot = begin(&jobs, &one).unwrap();
    assert_eq!(jobs.in_use().unwritten_bytes, one.bytes());
    let mut other = another(&one);
    other.dir.region_id = tidewater_common::ids::RegionId(77);
    let with = |room| jobs.begin(&other, WANTED, Some(room), (1, SOURCE), Instant::now());
    assert!(matches!(
        with(2 * one.bytes() - 1),
        Err(JobError::NotTaken(NotTaken::Disk { needed, .. })) if needed == one.bytes()
    ));
    assert!(with(2 * one.bytes()).is_ok());
}

#[tokio::test]
async fn what_ends_a_job_first_is_why_it_ended() {
    let jobs = Jobs::new(Capacity { slots: 1, memory_bytes: 1 << 30 });
    let one = job().await;
    let slot = begin(&jobs, &one).unwrap();
    assert_eq!(slot.job.ended_by(), None);
    assert_eq!(
        jobs.cancel(another(&one).job_id).map_err(|error| Refusal::from(error).reason),
        Err(Reason::JobNotFound)
    );
    jobs.cancel(one.job_id).unwrap();
    jobs.drain();
    assert_eq!(jobs.hand_back(), 1);
    assert_eq!(slot.job.ended_by(), Some(EndedBy::Cancel));
    assert!(slot.job.attempt.cancel.is_cancelled());
    let more = jobs.check(another(&one).job_id, one.dir, &[]);
    assert_eq!(more, Err(JobError::NotTaken(NotTaken::Draining)));
    let idle = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.idle().await }
    });
    tokio::task::yield_now().await;
    assert!(!idle.is_finished());
    drop(slot);
    idle.await.unwrap();
}
