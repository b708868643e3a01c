//! Compactions on compactor nodes that are cancelled: by command, or because who asked went away.

use std::sync::Arc;

use tidewater_proto::v1::Reason;
use tokio::sync::Notify;

use crate::cluster::until;
use crate::fake_compactor::Act;
use crate::remote_setting::{
    A_WHILE, Setting, by_itself, cancel, flush_rows, for_ever, full, jobs, no_fallback, patient,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_does_not_begin_again_at_once() {
    let setting = Setting::start(patient(by_itself(no_fallback()))).await;
    setting.one.script([Act::Hang(Arc::new(Notify::new()))]);
    flush_rows(&setting.node, 5..9).await;
    until("a compactor has it", async || setting.one.attempts() == [1]).await;
    let running = jobs(&setting.node).await;
    cancel(&setting.node, &running[0].job_id).await.unwrap();
    until("it has ended", async || jobs(&setting.node).await.is_empty()).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((setting.one.attempts(), setting.two.attempts()), (vec![1], vec![]));
    assert!(setting.compact().await.is_ok(), "who asks is not kept waiting");
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_asker_cancelled_its_compaction_waits_as_well() {
    let setting = Setting::start(patient(by_itself(no_fallback()))).await;
    setting.one.script([Act::Hang(Arc::new(Notify::new()))]);
    let compacting = setting.compact_until_one_has_it().await;
    let running = jobs(&setting.node).await;
    cancel(&setting.node, &running[0].job_id).await.unwrap();
    compacting.await.unwrap_err();
    flush_rows(&setting.node, 5..9).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((setting.one.attempts(), setting.two.attempts()), (vec![1], vec![]));
    assert_eq!(setting.node.info().await.unwrap().files, 7);
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_asker_went_away_does_not_wait() {
    let setting = Setting::start(by_itself(no_fallback())).await;
    setting.one.script([Act::Hang(Arc::new(Notify::new()))]);
    let compacting = setting.compact_until_one_has_it().await;
    drop(compacting);
    until("it has ended", async || jobs(&setting.node).await.is_empty()).await;
    flush_rows(&setting.node, 5..9).await;
    until("it is compacted by itself", async || setting.node.info().await.unwrap().files <= 4)
        .await;
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_without_an_answer_leaves_the_outcome_open() {
    let setting = Setting::start(patient(no_fallback())).await;
    let go = Arc::new(Notify::new());
    setting.one.script([Act::Hang(go.clone())]);
    let compacting = setting.compact_until_one_has_it().await;
    let running = jobs(&setting.node).await;
    cancel(&setting.node, &running[0].job_id).await.unwrap();
    let refusal = compacting.await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Unavailable, "{refusal}");
    assert!(refusal.message.contains("cancelled"), "{refusal}");
    go.notify_one();
    until("it has tried", async || setting.one.late.lock().len() == 1).await;
    assert_eq!(*setting.one.late.lock(), [Ok(())], "as was said");
    setting.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_is_cancelled_by_command() {
    let setting = Setting::start(for_ever(no_fallback())).await;
    setting.one.script(full());
    setting.two.script(full());
    let mut compacting = Box::pin(setting.compact());
    until("nobody has room", async || {
        assert!(futures::poll!(&mut compacting).is_pending());
        setting.two.attempts().len() > 1
    })
    .await;
    let waiting = jobs(&setting.node).await;
    cancel(&setting.node, &waiting[0].job_id).await.unwrap();
    assert_eq!(compacting.await.unwrap_err().reason, Reason::JobCancelled);
    setting.node.stop().await;
}
