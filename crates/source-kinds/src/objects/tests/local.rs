use std::os::unix::fs::symlink;

use serde_json::json;
use tokio::sync::mpsc;

use super::{CSV, Node, long_csv, read, rows};
use crate::{Listing, SourceAccess, SourceError};

fn names(listing: &Listing) -> Vec<&str> {
    listing.splits.iter().map(|split| split.pin["object"].as_str()).collect()
}

#[tokio::test]
async fn local_files_are_listed_without_hidden_ones() {
    let node = Node::new();
    for name in [
        "b.csv",
        "a/z.csv.gz",
        "a.csv",
        "a/b/c.csv",
        "_x.csv",
        ".x.csv",
        "_tmp/x.csv",
        "x.txt",
        "x.parquet",
        ".git/x.csv",
    ] {
        node.write(name, CSV);
    }
    let listing = node.open("csv").await.list().await.unwrap();
    assert_eq!(names(&listing), ["a.csv", "a/b/c.csv", "a/z.csv.gz", "b.csv"]);
    assert_eq!(listing.snapshot, format!("4 objects, {} B", 4 * CSV.len()));
    let split = &listing.splits[1];
    assert_eq!(split.name, node.sources.join("a/b/c.csv").display().to_string());
    assert_eq!(split.bytes, CSV.len() as u64);
    let parquet = node.open("parquet").await.list().await.unwrap();
    assert_eq!(names(&parquet), ["x.parquet"]);
    assert_eq!(parquet.snapshot, format!("1 object, {} B", CSV.len()));
}

#[tokio::test]
async fn directory_without_files_has_an_empty_listing() {
    let node = Node::new();
    let listing = node.open("csv").await.list().await.unwrap();
    assert_eq!((listing.splits.len(), listing.snapshot.as_str()), (0, "0 objects, 0 B"));
}

#[tokio::test]
async fn file_that_changed_after_the_listing_is_refused() {
    let node = Node::new();
    let path = node.write("x.csv", CSV);
    let source = node.open("csv").await;
    let split = source.list().await.unwrap().splits.remove(0);
    let listed = std::fs::metadata(&path).unwrap().modified().unwrap();
    let longer = || std::fs::write(&path, format!("{CSV}4,4,d\n")).unwrap();
    let replaced = || {
        let other = node.write("other", CSV.replace('a', "b"));
        std::fs::rename(other, &path).unwrap();
    };
    let deleted = || std::fs::remove_file(&path).unwrap();
    let set_time = |seconds: u64| {
        let time = listed + std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    assert_eq!(read(source.as_ref(), &split).await, Ok(Some(rows())));
    for change in
        [&|| (longer(), set_time(0)).1, &|| (replaced(), set_time(1)).1, &deleted] as [&dyn Fn(); 3]
    {
        change();
        let error = read(source.as_ref(), &split).await.unwrap_err();
        assert!(matches!(error, SourceError::Changed(_)), "{error:?}");
        assert!(error.to_string().contains("x.csv"), "{error}");
    }
    // The same content again, with its time.
    node.write("x.csv", CSV);
    set_time(0);
    assert_eq!(read(source.as_ref(), &split).await, Ok(Some(rows())));
}

#[tokio::test]
async fn file_that_changes_during_the_read_is_refused() {
    let node = Node::new();
    let path = node.write("x.csv", long_csv());
    let source = node.open("csv").await;
    let split = source.list().await.unwrap().splits.remove(0);
    let (sender, mut receiver) = mpsc::channel(1);
    let received = async {
        receiver.recv().await.unwrap();
        // Not only a change: rows that follow it are an error in themselves.
        std::fs::write(&path, "id\nx\n").unwrap();
        while receiver.recv().await.is_some() {}
    };
    let (result, ()) = tokio::join!(source.read(&split, sender), received);
    assert!(matches!(result, Err(SourceError::Changed(_))), "{result:?}");
}

#[tokio::test]
async fn missing_directory_is_unreadable() {
    let node = Node::new();
    node.write("x.csv", CSV);
    for below in ["no", "x.csv"] {
        let url = format!("file://{}/{below}", node.sources.display());
        let source = node.open_with("csv", &json!({ "url": url })).await.unwrap();
        let error = source.list().await.unwrap_err();
        assert!(matches!(error, SourceError::Unreadable(_)), "{error:?}");
    }
    // Not the change of a file, which a new listing would find.
    let source = node.open("csv").await;
    let split = source.list().await.unwrap().splits.remove(0);
    std::fs::rename(&node.sources, node.outside.join("moved")).unwrap();
    let error = read(source.as_ref(), &split).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreadable(_)), "{error:?}");
}

#[tokio::test]
async fn sources_read_granted_directories_only() {
    let mut node = Node::new();
    symlink(&node.outside, node.sources.join("link")).unwrap();
    for path in [node.outside.clone(), node.sources.join("link"), node.sources.join("..")] {
        let url = format!("file://{}", path.display());
        let source = node.open_with("csv", &json!({ "url": url })).await.unwrap();
        let error = source.list().await.unwrap_err();
        assert!(matches!(error, SourceError::NotPermitted(_)), "{error:?}");
    }
    node.access = SourceAccess::default();
    let url = format!("file://{}", node.sources.display());
    let error = node.open_with("csv", &json!({ "url": url })).await.err().unwrap();
    assert!(matches!(error, SourceError::NotPermitted(_)), "{error:?}");
    assert!(error.to_string().contains("--source-dir DIR"), "{error}");
}

#[tokio::test]
async fn symbolic_links_below_a_directory_are_refused() {
    let node = Node::new();
    let source = node.open("csv").await;
    let link = node.sources.join("link.csv");
    for (target, link) in
        [(node.outside.join("x.csv"), link), (node.outside.clone(), node.sources.join("day=1"))]
    {
        symlink(target, &link).unwrap();
        let error = source.list().await.unwrap_err();
        assert!(matches!(error, SourceError::NotPermitted(_)), "{error:?}");
        assert!(error.to_string().starts_with(&link.display().to_string()), "{error}");
        std::fs::remove_file(link).unwrap();
    }
    // Links that cannot have rows of the source.
    symlink(node.outside.join("x.csv"), node.sources.join("readme")).unwrap();
    symlink(&node.outside, node.sources.join("_old")).unwrap();
    assert!(source.list().await.unwrap().splits.is_empty());
}

#[tokio::test]
async fn splits_do_not_lead_out_of_their_directory() {
    let node = Node::new();
    let path = node.write("a/x.csv", CSV);
    let source = node.open("csv").await;
    let split = source.list().await.unwrap().splits.remove(0);
    for object in ["../outside/x.csv", "a/../../outside/x.csv", "/etc/passwd"] {
        let mut split = split.clone();
        split.pin.insert("object".to_owned(), object.to_owned());
        let error = read(source.as_ref(), &split).await.unwrap_err();
        assert!(matches!(error, SourceError::NotPermitted(_)), "{error:?}");
    }
    // Replaced since the listing.
    std::fs::remove_file(&path).unwrap();
    symlink(node.outside.join("x.csv"), &path).unwrap();
    let error = read(source.as_ref(), &split).await.unwrap_err();
    assert!(matches!(error, SourceError::NotPermitted(_)), "{error:?}");
}
