//! Outcome of a call to the meta service by the answers to its attempts.

use tidewater_common::refusal::Refusal;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::Reason;

use crate::admin::{NewColumn, NewHook, NewTable};
use crate::client::Client;
use crate::error::ClientError;
use crate::fake::FakeCluster;

/// Operations that change the catalog and are idempotent.
const CHANGES: [&str; 5] =
    ["create table", "drop table", "add hook", "remove hook", "set hook paused"];

async fn apply_change(client: &Client, change: &str) -> Result<(), ClientError> {
    match change {
        "create table" => client.create_table(new_table()).await.map(drop),
        "drop table" => client.drop_table("t").await.map(drop),
        "add hook" => client.add_hook(new_hook()).await,
        "remove hook" => client.remove_hook("h").await,
        "set hook paused" => client.set_hook_paused("h", true).await,
        other => panic!("{other}"),
    }
}

fn new_table() -> NewTable {
    NewTable {
        name: "new".into(),
        columns: vec![NewColumn::new("id", "int64", false)],
        primary_key: vec!["id".into()],
        time_column: None,
        write_mode: WriteMode::Upsert,
        hash_columns: Vec::new(),
        vnode_count: 0,
        regions: 0,
        ttl_ms: None,
        compaction_window: None,
        holds_events: false,
        refresh: None,
    }
}

fn new_hook() -> NewHook {
    NewHook {
        name: "h".into(),
        kind: "log".into(),
        config: "{}".into(),
        table: None,
        durable: None,
    }
}

fn set_answers(cluster: &FakeCluster, reasons: &[Reason]) {
    cluster.state.lock().admin_refusals =
        reasons.iter().map(|reason| Refusal::new(*reason, "injected")).collect();
}

#[tokio::test]
async fn definite_error_after_unknown_effect_leaves_change_unknown() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    for change in CHANGES {
        set_answers(&cluster, &[Reason::DeadlineExceeded, Reason::InvalidArgument]);
        let error = apply_change(&client, change).await.unwrap_err();
        assert!(error.maybe_done(), "{change}: {error}");
        let ClientError::OutcomeUnknown { attempts, cause, .. } = error else {
            panic!("{change}: {error}")
        };
        assert_eq!((attempts, cause.reason), (2, Reason::InvalidArgument), "{change}");
        // A retry with the same request id succeeds and resolves the outcome.
        set_answers(&cluster, &[Reason::DeadlineExceeded, Reason::NotLeader]);
        apply_change(&client, change).await.unwrap();
        set_answers(&cluster, &[Reason::NotLeader, Reason::InvalidArgument]);
        let error = apply_change(&client, change).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{change}: {error}");
        assert!(!error.maybe_done());
    }
}

#[tokio::test]
async fn change_with_exhausted_retries_keeps_unknown_effect() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.max_attempts = 3;
    let client = Client::connect(options).await.unwrap();
    for change in CHANGES {
        set_answers(&cluster, &[Reason::DeadlineExceeded, Reason::NotLeader, Reason::NotLeader]);
        let error = apply_change(&client, change).await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{change}: {error}");
        set_answers(&cluster, &[Reason::NotLeader; 3]);
        let error = apply_change(&client, change).await.unwrap_err();
        assert!(matches!(error, ClientError::RetriesExhausted { .. }), "{change}: {error}");
    }
}

#[tokio::test]
async fn read_never_has_an_unknown_outcome() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.max_attempts = 3;
    let client = Client::connect(options).await.unwrap();
    set_answers(&cluster, &[Reason::DeadlineExceeded, Reason::InvalidArgument]);
    let error = client.hooks().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    set_answers(&cluster, &[Reason::DeadlineExceeded; 3]);
    let error = client.hooks().await.unwrap_err();
    assert!(matches!(error, ClientError::RetriesExhausted { .. }), "{error}");
    assert!(!error.maybe_done());
}
