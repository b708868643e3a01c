//! Commands whose application takes milliseconds or more: as long as one of a cursor for each region of the
//! cluster. The tasks of Raft share the runtime's threads, of which there may be one only: while a leader
//! applies such a command on it, it would send no heartbeats, and be deposed.

use tidewater_proto::v1::meta_command::Kind;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Length of a command, in bytes, from which its application may take more than a millisecond.
const LONG_COMMAND: usize = 16 * 1024;

/// Returns whether a command may change very many records. `length`: of the command, in bytes.
pub(super) fn takes_long(kind: Option<&Kind>, length: usize) -> bool {
    let changes_many_records = matches!(
        kind,
        Some(
            Kind::AddHook(_)
                | Kind::RemoveHook(_)
                | Kind::StepHook(_)
                | Kind::RecordObservations(_)
                | Kind::CreateTable(_)
                | Kind::CloneTable(_)
                | Kind::BeginDropTable(_)
                | Kind::FinishDropTable(_)
                | Kind::ChangeCollections(_)
        )
    );
    changes_many_records || length >= LONG_COMMAND
}

/// Does work. While work that takes long is done, another thread of the runtime polls the tasks of this one.
pub(super) fn run<T>(takes_long: bool, work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    // A runtime of one thread, as in tests, has no other.
    if takes_long && matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tidewater_proto::v1;

    use super::*;

    #[test]
    fn commands_that_change_many_records_take_long() {
        let cases = [
            (Some(Kind::AddHook(v1::AddHookRequest::default())), 100, true),
            (Some(Kind::RemoveHook(v1::RemoveHookRequest::default())), 100, true),
            (Some(Kind::StepHook(v1::StepHook::default())), 100, true),
            (Some(Kind::RecordObservations(v1::RecordObservations::default())), 100, true),
            (Some(Kind::AdvanceCursors(v1::AdvanceCursors::default())), 100, false),
            (Some(Kind::AdvanceCursors(v1::AdvanceCursors::default())), LONG_COMMAND, true),
            (Some(Kind::ReportGroup(v1::ReportGroup::default())), 100, false),
            (None, 0, false),
        ];
        for (kind, length, expected) in cases {
            assert_eq!(takes_long(kind.as_ref(), length), expected, "{kind:?} {length}");
        }
    }

    /// The work waits for another task of a runtime with one thread.
    fn other_task_runs(takes_long: bool) -> bool {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (sender, receiver) = mpsc::channel();
        let worked = runtime.spawn(async move {
            tokio::spawn(async move { sender.send(()) });
            // Only the wait for a task that cannot run ends at its limit.
            let limit = Duration::from_secs(if takes_long { 60 } else { 1 });
            run(takes_long, || receiver.recv_timeout(limit).is_ok())
        });
        runtime.block_on(worked).unwrap()
    }

    #[test]
    fn long_work_keeps_no_other_task_waiting() {
        assert!(other_task_runs(true));
        assert!(!other_task_runs(false), "the test has no other thread to notice the difference");
    }

    #[tokio::test]
    async fn long_work_runs_on_one_threaded_runtime() {
        assert_eq!(run(true, || 5), 5);
    }
}
