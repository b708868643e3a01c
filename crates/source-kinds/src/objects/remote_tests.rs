use std::fmt;
use std::io::{self, Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::*;

/// A store that keeps all versions of its objects.
#[derive(Debug, Default)]
struct Versions {
    current: InMemory,
    /// Object `name/tag` for each version.
    all: InMemory,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("versions")
    }
}

#[async_trait]
impl ObjectStore for Versions {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let put = self.current.put_opts(location, payload.clone(), options.clone()).await?;
        let tag = put.e_tag.clone().unwrap();
        self.all.put_opts(&location.clone().join(tag.as_str()), payload, options).await?;
        Ok(put)
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let version = match &options.version {
            Some(version) => version.clone(),
            None => self.current.head(location).await?.e_tag.unwrap(),
        };
        let read = GetOptions { if_match: None, ..options };
        let mut found = self.all.get_opts(&location.clone().join(version.as_str()), read).await?;
        found.meta.location = location.clone();
        found.meta.e_tag = Some(version.clone());
        found.meta.version = Some(version);
        Ok(found)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.current.list(prefix)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.current.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.current.delete_stream(locations)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.current.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.current.copy_opts(from, to, options).await
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    objects: RemoteObjects,
}

impl Fixture {
    fn new(store: impl ObjectStore) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = RemoteObjects {
            store: Arc::new(store),
            name: "s3://b/p".to_owned(),
            format: ObjectFormat::Csv,
            spool: Spool::new(dir.path().join("spool"), 0),
        };
        Self { dir, objects }
    }

    async fn put(&self, name: &str, text: &'static str) {
        self.objects.store.put(&Path::from(name), text.into()).await.unwrap();
    }

    async fn listed(&self) -> Vec<Split> {
        self.objects.list().await.unwrap().splits
    }

    async fn fetch(&self, split: &Split) -> Result<String, SourceError> {
        let mut file = self.objects.fetch(split).await?;
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        Ok(text)
    }
}

#[tokio::test]
async fn remote_objects_are_listed_in_order_and_pinned() {
    let fixture = Fixture::new(InMemory::new());
    assert!(fixture.listed().await.is_empty());
    for name in ["b.csv", "a/x.csv.gz", "_x/a.csv", "a/.x.csv", "x.parquet"] {
        fixture.put(name, "id\n1\n").await;
    }
    let splits = fixture.listed().await;
    let names: Vec<&str> = splits.iter().map(|split| split.name.as_str()).collect();
    assert_eq!(names, ["s3://b/p/a/x.csv.gz", "s3://b/p/b.csv"]);
    let pin = Pin::of_split(&splits[1]).unwrap();
    assert_eq!((pin.object.as_str(), pin.size, pin.version), ("b.csv", 5, None));
    assert!(pin.e_tag.is_some());
}

#[tokio::test]
async fn remote_object_is_fetched_while_it_is_unchanged() {
    let fixture = Fixture::new(InMemory::new());
    fixture.put("a.csv", "id\n1\n").await;
    let split = fixture.listed().await.remove(0);
    for _ in 0..2 {
        assert_eq!(fixture.fetch(&split).await, Ok("id\n1\n".to_owned()));
    }
    let spooled = std::fs::read_dir(fixture.dir.path().join("spool")).unwrap();
    assert_eq!(spooled.count(), 0, "a temporary file has a name");
    // Of the same size.
    fixture.put("a.csv", "id\n2\n").await;
    let error = fixture.fetch(&split).await.unwrap_err();
    assert!(matches!(error, SourceError::Changed(_)), "{error:?}");
    fixture.objects.store.delete(&Path::from("a.csv")).await.unwrap();
    let error = fixture.fetch(&split).await.unwrap_err();
    assert_eq!(
        error,
        SourceError::Changed(
            "s3://b/p/a.csv was deleted since the source was listed: list it again".to_owned()
        )
    );
}

#[tokio::test]
async fn replaced_object_is_detected_without_conditional_requests() {
    let fixture = Fixture::new(InMemory::new());
    fixture.put("a.csv", "id\n1\n").await;
    let mut split = fixture.listed().await.remove(0);
    // A weak tag is compared with that of the response only.
    split.pin.insert("e_tag".to_owned(), "W/\"1\"".to_owned());
    let error = fixture.fetch(&split).await.unwrap_err();
    assert!(matches!(error, SourceError::Changed(_)), "{error:?}");
    split.pin.remove("e_tag");
    assert_eq!(fixture.fetch(&split).await, Ok("id\n1\n".to_owned()));
    split.pin.insert("modified".to_owned(), "7".to_owned());
    assert!(matches!(fixture.fetch(&split).await, Err(SourceError::Changed(_))));
}

#[tokio::test]
async fn replaced_object_is_read_by_its_version() {
    let fixture = Fixture::new(Versions::default());
    fixture.put("a.csv", "id\n1\n").await;
    fixture.put("b.csv", "id\n2\n").await;
    let splits = fixture.listed().await;
    assert!(splits.iter().all(|split| split.pin.contains_key("version")), "{splits:?}");
    fixture.put("a.csv", "id\n10\n").await;
    assert_eq!(fixture.fetch(&splits[0]).await, Ok("id\n1\n".to_owned()));
    let mut forgotten = splits[0].clone();
    forgotten.pin.insert("version".to_owned(), "99".to_owned());
    assert!(matches!(fixture.fetch(&forgotten).await, Err(SourceError::Changed(_))));
}

#[tokio::test]
async fn size_of_remote_objects_is_bounded() {
    let mut fixture = Fixture::new(InMemory::new());
    fixture.put("a.csv", "id\n1\n").await;
    let split = fixture.listed().await.remove(0);
    fixture.objects.spool.max_bytes = 4;
    for error in [
        fixture.objects.list().await.map(drop).unwrap_err(),
        fixture.fetch(&split).await.map(drop).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("has 5 B, the maximum of an object is 4 B"), "{text}");
    }
    // A response may be longer than the store has announced.
    fixture.objects.spool.max_bytes = 5;
    let parts = stream::iter([Ok(Bytes::from("id\n1\n2\n"))]).boxed();
    let error = fixture.objects.copy("a.csv", 5, parts).await.unwrap_err();
    assert!(matches!(error, SourceError::Changed(_)), "{error:?}");
    let parts = stream::iter([Ok(Bytes::from("id"))]).boxed();
    let error = fixture.objects.copy("a.csv", 5, parts).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreadable(_)), "{error:?}");
}

#[tokio::test]
async fn unusable_spool_directory_is_named() {
    let mut fixture = Fixture::new(InMemory::new());
    fixture.put("a.csv", "id\n1\n").await;
    let split = fixture.listed().await.remove(0);
    let directory = fixture.dir.path().join("file");
    std::fs::write(&directory, "").unwrap();
    fixture.objects.spool = Spool::new(directory.clone(), 0);
    let error = fixture.fetch(&split).await.unwrap_err().to_string();
    assert!(error.contains(&directory.display().to_string()), "{error}");
}

#[tokio::test]
async fn object_without_disk_space_is_not_copied() {
    let mut fixture = Fixture::new(InMemory::new());
    fixture.put("a.csv", "id\n1\n").await;
    let split = fixture.listed().await.remove(0);
    fixture.objects.spool.free_bytes = |_| Ok(4);
    let error = fixture.fetch(&split).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreadable(_)), "{error:?}");
    assert!(error.to_string().starts_with("s3://b/p/a.csv: no space for 5 B more in "), "{error}");
}

/// The disk is full after the first check.
fn full_later(_: &std::path::Path) -> io::Result<u64> {
    static IS_FULL: AtomicBool = AtomicBool::new(false);
    Ok(if IS_FULL.swap(true, Ordering::Relaxed) { 0 } else { u64::MAX })
}

#[tokio::test]
async fn copy_ends_when_the_disk_becomes_full() {
    const PART: u64 = 1 << 20;
    let mut fixture = Fixture::new(InMemory::new());
    fixture.objects.spool.free_bytes = full_later;
    let part = Bytes::from(vec![0; 1 << 20]);
    let parts = CHECK_EVERY_BYTES / PART + 1;
    let sent = stream::iter(0..parts).map(move |_| Ok(part.clone())).boxed();
    let error = fixture.objects.copy("a.csv", parts * PART, sent).await.unwrap_err();
    assert_eq!(
        error.to_string().split(" in ").next(),
        Some("a.csv: no space for 2.0 MiB more"),
        "{error}"
    );
}
