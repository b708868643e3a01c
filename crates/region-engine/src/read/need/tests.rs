use super::*;

const ROW: SourceRow = SourceRow {
    held: RowBytes { decoded: 110, stored: 40 },
    width: 100,
    rows: 1 << 20,
    all_rows: 1 << 20,
};
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn need_grows_with_open_sources() {
    let merge = GroupUse::Merge { batch_rows: 8_192 };
    for open in [1, 2, 10, 300] {
        let rows = vec![ROW; open];
        let need = GroupNeed::new(&rows, merge, u64::MAX);
        let sources = open as u64 * (Pace::MERGED.bytes(ROW.held) + SOURCE_BYTES);
        assert_eq!(need.want, need.fixed + sources - open as u64 * SOURCE_BYTES);
        assert!(need.least <= need.want && need.least > open as u64 * SOURCE_BYTES);
        assert!(need.distribute(need.want)[0] >= Pace::MERGED.bytes(ROW.held));
        let slow = Pace::MERGED.within_bytes(ROW.held, need.distribute(need.least)[0]);
        assert!(slow.unit_rows >= LEAST_ROWS, "{slow:?}");
    }
    let count = GroupNeed::new(&[ROW; 10], GroupUse::Count, u64::MAX);
    assert!(count.want < GroupNeed::new(&[ROW; 10], merge, u64::MAX).want);
    assert_eq!(count.distribute(u64::MAX), [u64::MAX; 10]);
}

#[test]
fn scan_needs_as_much_as_its_largest_group() {
    let merge = GroupUse::Merge { batch_rows: 8_192 };
    let [few, many] = [2, 20].map(|open| GroupNeed::new(&vec![ROW; open], merge, u64::MAX));
    let expected = ScanNeed { least: many.least, want: many.want };
    assert_eq!(ScanNeed::default().or(&few).or(&many).or(&few), expected);
}

#[test]
fn single_source_is_streamed_without_merge() {
    let merge = GroupUse::Merge { batch_rows: 8_192 };
    let stream = GroupUse::Stream { batch_rows: 8_192 };
    assert_eq!((merge.without_merge(), stream.without_merge()), (stream, stream));
    assert_eq!(GroupUse::Count.without_merge(), GroupUse::Stream { batch_rows: 0 });
}

#[test]
fn many_sources_are_read_within_the_limit() {
    // With the pages of tests, a group of 100,000 sources needs 3 GiB for one row of each.
    for open in [100, 1_000] {
        let rows = vec![ROW; open];
        let merge = GroupUse::Merge { batch_rows: 8_192 };
        let need = GroupNeed::new(&rows, merge, 32 * MIB);
        assert!(need.least <= 32 * MIB, "{need:?}");
        let pace = Pace::MERGED.within_bytes(ROW.held, need.distribute(need.least)[0]);
        let held = pace.bytes(ROW.held) * open as u64 + need.fixed;
        assert!(held <= 32 * MIB, "{pace:?} holds {held}");
    }
}

#[test]
fn small_sources_need_no_more_than_their_rows() {
    let row = SourceRow { rows: 3, all_rows: 3, ..ROW };
    let need = GroupNeed::new(&[row; 10], GroupUse::Merge { batch_rows: 8_192 }, u64::MAX);
    let most = 10 * (SOURCE_BYTES + 3 * 150 + 3 * 30 * 100);
    assert!(need.want <= most, "{need:?}");
}

#[test]
fn wide_rows_need_one_row_of_each_source() {
    let held = RowBytes { decoded: 14 * MIB, stored: 14 * MIB };
    let row = SourceRow { held, width: 14 * MIB, rows: 4, all_rows: 4 };
    let need = GroupNeed::new(&[row; 3], GroupUse::Stream { batch_rows: 8_192 }, MIB);
    assert!(need.least >= 3 * 2 * 14 * MIB, "{need:?}");
    assert!(need.want >= need.least);
}

#[test]
fn output_of_streamed_rows_is_counted() {
    let row = SourceRow { held: RowBytes { decoded: KIB, stored: KIB }, width: KIB, ..ROW };
    let need = |batch_rows| GroupNeed::new(&[row], GroupUse::Stream { batch_rows }, u64::MAX).least;
    assert_eq!(need(1_000) - need(0), 2 * 1_000 * KIB);
    assert_eq!(need(1 << 20) - need(0), 2 * BATCH_BYTES as u64);
}

#[test]
fn output_of_chain_counts_rows_of_all_links() {
    let merge = GroupUse::Merge { batch_rows: 8_192 };
    let link = SourceRow { rows: 5, all_rows: 5, ..ROW };
    let chain =
        |links: usize| vec![link; links].into_iter().fold(SourceRow::LEAST, SourceRow::then);
    let [one, ten] = [1, 10].map(|links| GroupNeed::new(&[chain(links)], merge, u64::MAX));
    // One link is open at a time.
    assert_eq!(one.distribute(one.want), ten.distribute(ten.want));
    let page = |rows: u64| rows.min(PAGE_ROWS as u64);
    assert_eq!(ten.fixed - one.fixed, (2 * (50 - 5) + page(50) - page(5)) * 100);
}

#[test]
fn source_of_wide_rows_gets_more_than_others() {
    let held = RowBytes { decoded: MIB, stored: MIB };
    let wide = SourceRow { held, width: MIB, rows: 100, all_rows: 100 };
    let mut rows = vec![ROW; 99];
    rows.insert(40, wide);
    for limit in [MIB, 64 * MIB, u64::MAX] {
        let need = GroupNeed::new(&rows, GroupUse::Merge { batch_rows: 8_192 }, limit);
        for granted in [need.least, need.least + MIB, need.want / 2, need.want, 2 * need.want] {
            let granted = granted.max(need.least);
            let parts = need.distribute(granted);
            for (row, part) in rows.iter().zip(&parts) {
                assert!(*part >= row.bytes(Pace::least()), "{part} of {granted}: {need:?}");
            }
            assert!(parts.iter().sum::<u64>() <= granted - need.fixed, "{granted}: {parts:?}");
        }
        let full = need.distribute(need.want);
        assert!(full[0] >= Pace::MERGED.bytes(ROW.held), "{full:?}");
        assert!(full[40] > 10 * full[0], "{full:?}");
    }
}
