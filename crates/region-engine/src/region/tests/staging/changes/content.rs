//! Changes of a region against a model, with rows in files and in memory.

use tidewater_common::keys::KeyRange;

use super::*;

#[tokio::test]
async fn changes_turn_region_into_staged_rows() {
    for hashed in [false, true] {
        for (chunk_rows, chunk_bytes) in [(usize::MAX, usize::MAX), (1, 1), (17, 300), (40, 60)] {
            let mut fixture = fixture(hashed).await;
            let filled = fill(&mut fixture).await;
            check_rows(&fixture, &filled).await;
            let files = source(&filled);
            let area = area_of(&mut fixture, &files).await;
            let options = ChangeOptions { chunk_rows, chunk_bytes, ..whole() };
            let chunks = changes(&fixture, area, options.clone()).await.unwrap();
            let expected = ChangeCounts { inserted: 20, updated: 30, deleted: 40, unchanged: 120 };
            assert_eq!(total(&chunks), expected);
            write(&mut fixture, &chunks);
            check_rows(&fixture, &files.concat()).await;
            let chunks = changes(&fixture, area, options).await.unwrap();
            assert_eq!(total(&chunks), ChangeCounts { unchanged: 170, ..Default::default() });
            let memory = &fixture.region.env.scan_memory;
            assert_eq!((memory.used(), memory.comparisons().used()), (0, 0));
        }
    }
}

#[tokio::test]
async fn comparison_resumes_after_each_chunk() {
    let mut fixture = fixture(false).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, &source(&filled)).await;
    let options = ChangeOptions { chunk_rows: 13, chunk_bytes: 200, ..whole() };
    let chunks = changes(&fixture, area, options.clone()).await.unwrap();
    assert!(chunks.len() > 10);
    for (position, chunk) in chunks.iter().enumerate() {
        let options = ChangeOptions { after: Some(chunk.reached.clone()), ..options.clone() };
        let rest = changes(&fixture, area, options.clone()).await.unwrap();
        if chunk.is_last {
            let [last] = rest.try_into().unwrap();
            assert_eq!(
                (last.counts, last.reached),
                (ChangeCounts::default(), chunk.reached.clone())
            );
        } else {
            assert_eq!(rest, chunks[position + 1..]);
        }
    }
    assert_eq!(resumed_changes(&fixture, area, options.clone()).await.unwrap(), chunks);
    // Those before are already written.
    for chunk in &chunks {
        write(&mut fixture, std::slice::from_ref(chunk));
        let options = ChangeOptions { after: Some(chunk.reached.clone()), ..options.clone() };
        let rest = changes(&fixture, area, options).await.unwrap();
        assert!(chunk.is_last || rest.last().unwrap().reached == chunks.last().unwrap().reached);
    }
    check_rows(&fixture, &source(&filled).concat()).await;
}

#[tokio::test]
async fn parts_between_split_keys_give_all_changes() {
    for hashed in [false, true] {
        let mut fixture = fixture(hashed).await;
        let filled = fill(&mut fixture).await;
        let area = area_of(&mut fixture, &source(&filled)).await;
        let all = changes(&fixture, area, whole()).await.unwrap();
        let keys = fixture.region.staged_split_keys(area, 4).await.unwrap();
        assert_eq!(keys.len(), 3);
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]) && !keys[0].is_empty());
        let starts = std::iter::once(Vec::new()).chain(keys.iter().cloned());
        let ends = keys.iter().cloned().map(Some).chain([None]);
        let mut chunks = Vec::new();
        for (start, end) in starts.zip(ends) {
            let options = ChangeOptions { range: KeyRange::new(start, end), ..whole() };
            let part = changes(&fixture, area, options).await.unwrap();
            let ChangeCounts { inserted, updated, deleted, unchanged } = total(&part);
            let compared = inserted + updated + deleted + unchanged;
            // 210 keys.
            assert!((20..100).contains(&compared), "{compared}");
            chunks.extend(part);
        }
        assert_eq!(total(&chunks), total(&all));
        write(&mut fixture, &chunks);
        check_rows(&fixture, &source(&filled).concat()).await;
        assert_eq!(fixture.region.staged_split_keys(area, 1).await.unwrap(), Vec::<Vec<u8>>::new());
        let [chunk] = changes(&fixture, area, ChangeOptions { range: sealed_range(), ..whole() })
            .await
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(chunk.counts, ChangeCounts::default());
    }
}

#[tokio::test]
async fn empty_area_deletes_all_rows() {
    let mut fixture = fixture(false).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, &[]).await;
    let chunks = changes(&fixture, area, whole()).await.unwrap();
    let deleted = filled.len() as u64;
    assert_eq!(total(&chunks), ChangeCounts { deleted, ..Default::default() });
    write(&mut fixture, &chunks);
    check_rows(&fixture, &[]).await;
    let [chunk] = changes(&fixture, area, whole()).await.unwrap().try_into().unwrap();
    assert_eq!((chunk.counts, chunk.reached), (ChangeCounts::default(), Vec::new()));
    fixture.region.flush().await.unwrap();
    assert!(changes(&fixture, area, whole()).await.unwrap()[0].is_last);
}

#[tokio::test]
async fn empty_region_receives_all_staged_rows() {
    let mut fixture = fixture(false).await;
    let files = [rows(0..50), rows(50..100)];
    let area = area_of(&mut fixture, &files).await;
    let chunks = changes(&fixture, area, whole()).await.unwrap();
    assert_eq!(total(&chunks), ChangeCounts { inserted: 100, ..Default::default() });
    write(&mut fixture, &chunks);
    check_rows(&fixture, &files.concat()).await;
}

#[tokio::test]
async fn comparison_does_not_see_later_writes() {
    let mut fixture = fixture(false).await;
    let filled = fill(&mut fixture).await;
    let area = area_of(&mut fixture, std::slice::from_ref(&filled)).await;
    let options = ChangeOptions { chunk_rows: 10, ..whole() };
    let mut stream = fixture.region.staged_changes(area, options).await.unwrap();
    fixture.put(&rows(300..400));
    fixture.delete(&(0..200).map(key).collect::<Vec<_>>());
    fixture.region.flush().await.unwrap();
    let mut counts = ChangeCounts::default();
    while let Some(chunk) = stream.next().await.unwrap() {
        counts += chunk.counts;
    }
    assert_eq!(counts, ChangeCounts { unchanged: filled.len() as u64, ..Default::default() });
    assert_eq!(stream.next().await.unwrap(), None);
}
