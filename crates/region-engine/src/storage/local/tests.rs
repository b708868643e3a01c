use std::collections::BTreeSet;

use object_store::ObjectStoreExt;

use super::*;

async fn open() -> (Arc<DurableLocal>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(dir.path().join("made/on/open")).await.unwrap();
    (Arc::new(store), dir)
}

/// Every file below the root, including hidden ones.
fn files(root: &std::path::Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found
}

fn names(listed: &[ObjectMeta]) -> Vec<&str> {
    listed.iter().map(|object| object.location.as_ref()).collect()
}

async fn listed(store: &DurableLocal) -> Vec<ObjectMeta> {
    use futures::TryStreamExt;
    store.list(None).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creates_have_one_winner_and_no_partial_reads() {
    let (store, _dir) = open().await;
    let path = Path::from("deep/er/object");
    let reader = {
        let store = Arc::clone(&store);
        let path = path.clone();
        tokio::spawn(async move {
            loop {
                if let Ok(found) = store.get(&path).await {
                    let bytes = found.bytes().await.unwrap();
                    assert_eq!(bytes.len(), 100_000);
                    return bytes[0];
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let creators = (0..16_u8).map(|number| {
        let store = Arc::clone(&store);
        let path = path.clone();
        tokio::spawn(async move {
            let body = PutPayload::from(vec![number; 100_000]);
            store.put_opts(&path, body, PutMode::Create.into()).await.map(|_| number)
        })
    });
    let results = futures::future::join_all(creators).await;
    let mut winners = Vec::new();
    for result in results {
        match result.unwrap() {
            Ok(number) => winners.push(number),
            Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(reader.await.unwrap(), winners[0]);
    assert_eq!(files(&store.root), BTreeSet::from(["deep/er/object".to_owned()]));
}

#[tokio::test]
async fn staged_files_are_hidden_and_removed_on_drop() {
    let (store, _dir) = open().await;
    let path = Path::from("data/object");
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(PutPayload::from_static(b"part")).await.unwrap();
    assert_eq!(files(&store.root).len(), 1);
    assert_eq!(names(&listed(&store).await), Vec::<&str>::new());
    drop(upload);
    assert_eq!(files(&store.root).len(), 0);
    // A file left by a crash stays hidden.
    std::fs::write(store.root.join("data/object#123"), "left").unwrap();
    store.put(&path, PutPayload::from_static(b"whole")).await.unwrap();
    assert_eq!(names(&listed(&store).await), ["data/object"]);
}

#[tokio::test]
async fn finished_upload_accepts_no_more_parts() {
    let (store, _dir) = open().await;
    let mut upload = store.put_multipart(&Path::from("object")).await.unwrap();
    let second = upload.put_part(PutPayload::from_static(b"two"));
    let third = upload.put_part(PutPayload::from_static(b"three"));
    // Parts may be written in any order.
    third.await.unwrap();
    second.await.unwrap();
    upload.complete().await.unwrap();
    let body = store.get(&Path::from("object")).await.unwrap().bytes().await.unwrap();
    assert_eq!(body, "twothree");
    assert!(upload.put_part(PutPayload::from_static(b"late")).await.is_err());
    assert!(upload.complete().await.is_err());
}

#[tokio::test]
async fn copy_is_not_offered_because_it_is_not_durable() {
    let (store, _dir) = open().await;
    store.put(&Path::from("a"), PutPayload::from_static(b"a")).await.unwrap();
    let copied = store.copy(&Path::from("a"), &Path::from("b")).await;
    assert!(matches!(copied, Err(Error::NotImplemented { .. })), "{copied:?}");
}

#[tokio::test]
async fn object_names_cannot_escape_the_root() {
    let (store, dir) = open().await;
    for name in ["../../../outside", "a/../../b"] {
        let path = Path::from(name);
        store.put(&path, PutPayload::from_static(b"x")).await.unwrap();
    }
    assert_eq!(files(dir.path()).len(), files(&store.root).len());
}

#[tokio::test]
async fn removed_directory_is_created_again() {
    let (store, _dir) = open().await;
    let path = Path::from("a/b/object");
    store.put(&path, PutPayload::from_static(b"x")).await.unwrap();
    std::fs::remove_dir_all(store.root.join("a")).unwrap();
    store.put(&path, PutPayload::from_static(b"x")).await.unwrap_err();
    store.put(&path, PutPayload::from_static(b"x")).await.unwrap();
}
