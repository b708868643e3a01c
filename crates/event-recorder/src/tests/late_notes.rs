//! Notes of calls that were aborted.

use super::*;

/// Handler whose first call hangs. Each later call stores a note for the one before it, late.
#[derive(Debug, Default)]
struct LateHandler {
    /// Notes of the call before.
    earlier: Mutex<Option<Notes>>,
    /// Results of the late notes.
    late: Mutex<Vec<Result<(), HandlerError>>>,
    /// Notes of the later calls after the late ones.
    found: Mutex<Vec<NoteMap>>,
}

#[async_trait]
impl EventHandler for LateHandler {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        let notes = batch.notes();
        let earlier = self.earlier.lock().replace(notes.clone());
        let Some(earlier) = earlier else {
            return std::future::pending().await;
        };
        let late = earlier.put(b"write", b"late").await;
        self.late.lock().push(late);
        let found = notes.all().await?;
        self.found.lock().push(found);
        notes.put(b"write", b"own").await?;
        Ok(Handled::default())
    }
}

#[tokio::test]
async fn late_note_of_an_aborted_call_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let handler = Arc::new(LateHandler::default());
    let shared: Arc<dyn EventHandler> = handler.clone();
    let filter = TypeFilter::default();
    let env = RecorderEnv::default();
    let recorder =
        EventRecorderImpl::open(directory.path(), shared, filter, options(), env).unwrap();
    record_all(&recorder, 0..3).await;
    until(|| recorder.counts().written == 3).await;
    // Notes keep the spool open.
    handler.earlier.lock().take();
    recorder.close().await;
    let late = handler.late.lock().clone();
    assert!(!late.is_empty());
    for result in late {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("passed again"), "{error}");
    }
    let is_late = |notes: &NoteMap| notes.values().any(|note| note == b"late");
    assert!(!handler.found.lock().iter().any(is_late));
}
