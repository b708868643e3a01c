//! Results of calls to the meta service, by the responses to their attempts.

use tidewater_common::refusal::Refusal;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::Reason;

use crate::admin::{NewColumn, NewHook, NewTable};
use crate::client::Client;
use crate::error::ClientError;
use crate::fake::FakeCluster;

/// Calls that change state and may be retried.
const CHANGES: [&str; 5] =
    ["create table", "drop table", "add hook", "remove hook", "set hook paused"];

async fn make(client: &Client, change: &str) -> Result<(), ClientError> {
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

fn answers(cluster: &FakeCluster, reasons: &[Reason]) {
    cluster.state.lock().admin_refusals =
        reasons.iter().map(|reason| Refusal::new(*reason, "scripted")).collect();
}

#[tokio::test]
async fn unknown_outcome_survives_later_refusals() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    for change in CHANGES {
        answers(&cluster, &[Reason::DeadlineExceeded, Reason::InvalidArgument]);
        let error = make(&client, change).await.unwrap_err();
        assert!(error.may_have_taken_effect(), "{change}: {error}");
        let ClientError::OutcomeUnknown { attempts, cause, .. } = error else {
            panic!("{change}: {error}")
        };
        assert_eq!((attempts, cause.reason), (2, Reason::InvalidArgument), "{change}");
        // A retry carries the same request id: its success settles the outcome.
        answers(&cluster, &[Reason::DeadlineExceeded, Reason::NotLeader]);
        make(&client, change).await.unwrap();
        answers(&cluster, &[Reason::NotLeader, Reason::InvalidArgument]);
        let error = make(&client, change).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{change}: {error}");
        assert!(!error.may_have_taken_effect());
    }
}

#[tokio::test]
async fn exhausted_retries_keep_an_unknown_outcome() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.max_attempts = 3;
    let client = Client::connect(options).await.unwrap();
    for change in CHANGES {
        answers(&cluster, &[Reason::DeadlineExceeded, Reason::NotLeader, Reason::NotLeader]);
        let error = make(&client, change).await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{change}: {error}");
        answers(&cluster, &[Reason::NotLeader; 3]);
        let error = make(&client, change).await.unwrap_err();
        assert!(matches!(error, ClientError::RetriesExhausted { .. }), "{change}: {error}");
    }
}

#[tokio::test]
async fn read_never_has_an_unknown_outcome() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.max_attempts = 3;
    let client = Client::connect(options).await.unwrap();
    answers(&cluster, &[Reason::DeadlineExceeded, Reason::InvalidArgument]);
    let error = client.hooks().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    answers(&cluster, &[Reason::DeadlineExceeded; 3]);
    let error = client.hooks().await.unwrap_err();
    assert!(matches!(error, ClientError::RetriesExhausted { .. }), "{error}");
    assert!(!error.may_have_taken_effect());
}
