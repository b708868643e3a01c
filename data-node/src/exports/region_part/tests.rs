use super::*;
use crate::exports::testing::{ExportDirectory, file, reason};

const NAME: &str = "_parts/00000000000000000002/7.json";
const EPOCHS: StepEpochs = StepEpochs { after: Some(5), as_of: 6 };

async fn record(target: &OpenTarget, epochs: StepEpochs, path: &str) -> Vec<StepFile> {
    target.record_part(NAME, epochs, vec![file(path)]).await.unwrap()
}

#[tokio::test]
async fn written_part_is_found_by_later_calls() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    assert_eq!(target.find_part(NAME, EPOCHS).await.unwrap(), None);
    assert_eq!(record(&target, EPOCHS, "a").await, [file("a")]);
    assert_eq!(target.find_part(NAME, EPOCHS).await.unwrap(), Some(vec![file("a")]));
}

#[tokio::test]
async fn second_writer_of_a_part_returns_the_first_files() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    assert_eq!(record(&target, EPOCHS, "first").await, [file("first")]);
    assert_eq!(record(&target, EPOCHS, "second").await, [file("first")]);
}

#[tokio::test]
async fn part_without_files_has_no_object() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let files = target.record_part(NAME, EPOCHS, Vec::new()).await.unwrap();
    assert_eq!((files, directory.files()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn part_of_a_dropped_export_is_replaced() {
    let directory = ExportDirectory::new();
    let dropped = directory.open(4).await;
    record(&dropped, EPOCHS, "dropped").await;
    let target = directory.open(5).await;
    assert_eq!(target.find_part(NAME, EPOCHS).await.unwrap(), None);
    assert_eq!(directory.files(), Vec::<String>::new());
    assert_eq!(record(&target, EPOCHS, "new").await, [file("new")]);
    // Another task of the dropped export.
    assert_eq!(record(&dropped, EPOCHS, "late").await, [file("late")]);
    assert_eq!(target.find_part(NAME, EPOCHS).await.unwrap(), Some(vec![file("new")]));
}

#[tokio::test]
async fn part_of_other_epochs_is_refused_by_url() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    record(&target, StepEpochs { as_of: 7, ..EPOCHS }, "a").await;
    let refused = target.find_part(NAME, EPOCHS).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Corrupt);
    let object = format!("{}/{NAME}", target.target.url());
    assert!(refused.message.starts_with(&object), "{refused}");
    let recorded = target.record_part(NAME, EPOCHS, vec![file("b")]).await;
    assert_eq!(reason(recorded), Reason::Corrupt);
}
