use tidewater_region_engine::env::{IdSource, SystemIds};

use super::*;
use crate::testing::job;

const SOURCE: NodeId = NodeId(101);
const REQUESTED: CompactionLimits = CompactionLimits { parallelism: 4, memory_bytes: u64::MAX };

fn start(jobs: &Arc<JobTable>, job: &CompactionJob) -> Result<JobSlot, JobError> {
    jobs.start(job, REQUESTED, None, (2, SOURCE), Instant::now())
}

fn with_new_id(job: &CompactionJob) -> CompactionJob {
    CompactionJob { job_id: SystemIds.job_id(5_000), ..job.clone() }
}

#[tokio::test]
async fn job_and_its_files_run_once_at_a_time() {
    let jobs = JobTable::new(JobCapacity { slots: 4, sub_jobs: 4, memory_bytes: 1 << 30 });
    let first = job().await;
    let slot = start(&jobs, &first).unwrap();
    assert_eq!((slot.job.number, slot.job.source, slot.job.limits.parallelism), (2, SOURCE, 1));
    assert_eq!(start(&jobs, &first).unwrap_err(), JobError::Exists(first.job_id));
    let mut overlapping = with_new_id(&first);
    let mut other_region = with_new_id(&first);
    overlapping.inputs.truncate(1);
    let file = overlapping.inputs[0].file_id;
    assert_eq!(
        start(&jobs, &overlapping).unwrap_err(),
        JobError::FileBusy { job: first.job_id, file }
    );
    let reference = [overlapping.inputs[0].reference()];
    assert!(jobs.check(overlapping.job_id, overlapping.dir, &reference).is_err());
    other_region.dir.region_id = tidewater_common::ids::RegionId(77);
    let other = start(&jobs, &other_region).unwrap();
    assert_eq!((jobs.list().len(), jobs.in_use().jobs), (2, 2));
    drop(slot);
    assert!(jobs.check(overlapping.job_id, overlapping.dir, &reference).is_ok());
    drop((start(&jobs, &overlapping).unwrap(), other));
    assert_eq!(jobs.in_use(), JobsInUse::default());
}

#[tokio::test]
async fn unwritten_bytes_of_jobs_count_against_the_disk() {
    let jobs = JobTable::new(JobCapacity { slots: 4, sub_jobs: 4, memory_bytes: 1 << 30 });
    let first = job().await;
    let _slot = start(&jobs, &first).unwrap();
    assert_eq!(jobs.in_use().unwritten_bytes, first.bytes());
    let mut other = with_new_id(&first);
    other.dir.region_id = tidewater_common::ids::RegionId(77);
    let with = |room| jobs.start(&other, REQUESTED, Some(room), (1, SOURCE), Instant::now());
    assert!(matches!(
        with(2 * first.bytes() - 1),
        Err(JobError::NotAdmitted(AdmissionError::Disk { needed, .. })) if needed == first.bytes()
    ));
    assert!(with(2 * first.bytes()).is_ok());
}

#[tokio::test]
async fn first_cause_of_an_early_end_is_recorded() {
    let jobs = JobTable::new(JobCapacity { slots: 1, sub_jobs: 1, memory_bytes: 1 << 30 });
    let first = job().await;
    let slot = start(&jobs, &first).unwrap();
    assert_eq!(slot.job.ended_by(), None);
    assert_eq!(
        jobs.cancel(with_new_id(&first).job_id).map_err(|error| Refusal::from(error).reason),
        Err(Reason::JobNotFound)
    );
    jobs.cancel(first.job_id).unwrap();
    jobs.drain();
    assert_eq!(jobs.abort_all(), 1);
    assert_eq!(slot.job.ended_by(), Some(EndCause::Cancel));
    assert!(slot.job.attempt.cancel.is_cancelled());
    let more = jobs.check(with_new_id(&first).job_id, first.dir, &[]);
    assert_eq!(more, Err(JobError::NotAdmitted(AdmissionError::Draining)));
    let idle = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.wait_idle().await }
    });
    tokio::task::yield_now().await;
    assert!(!idle.is_finished());
    drop(slot);
    idle.await.unwrap();
}
