//! Changes of the catalog since a revision that a client knows.

use prost::Message;
use tidewater_common::catalog_hint::CatalogHint;
use tidewater_common::ids::{Incarnation, Revision};
use tidewater_proto::v1;

use crate::catalog::MetaState;

/// Encoded deltas of one answer, in bytes. The first one is returned whatever its size.
const PAGE_BYTES: usize = 1 << 20;

/// Returns the changes since the revision of the request, at most `page_bytes` of them.
fn page(
    state: &MetaState,
    request: &v1::GetCatalogChangesRequest,
    page_bytes: usize,
) -> v1::GetCatalogChangesResponse {
    let header = state.header();
    let mut page = v1::GetCatalogChangesResponse {
        revision: header.revision.get(),
        ..v1::GetCatalogChangesResponse::default()
    };
    let is_known = Incarnation(request.incarnation) == header.incarnation;
    let kept =
        is_known.then(|| state.deltas_since(Revision(request.revision), usize::MAX)).flatten();
    let Some(kept) = kept else {
        page.snapshot_needed = true;
        return page;
    };
    let mut bytes = 0;
    for delta in kept {
        bytes += delta.encoded_len();
        if bytes > page_bytes && !page.deltas.is_empty() {
            break;
        }
        page.deltas.push(state.published_delta(&delta));
    }
    page
}

/// Returns the changes since the revision of the request.
pub(super) fn changes(
    state: &MetaState,
    request: &v1::GetCatalogChangesRequest,
) -> v1::GetCatalogChangesResponse {
    page(state, request, PAGE_BYTES)
}

/// Returns the position of the catalog, for the caller of a refused call who knows an older one.
pub(super) fn hint(state: &MetaState) -> CatalogHint {
    CatalogHint::Catalog { revision: state.header().revision, version: state.catalog_version() }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::catalog::DELTAS_KEPT;
    use crate::commands::testing::{registration, run, with_nodes};

    fn request(revision: u64, incarnation: u64) -> v1::GetCatalogChangesRequest {
        v1::GetCatalogChangesRequest { revision, incarnation, ..Default::default() }
    }

    /// The revisions of a page, or `None` if the caller needs a snapshot.
    fn revisions(page: &v1::GetCatalogChangesResponse) -> Option<Vec<u64>> {
        (!page.snapshot_needed).then(|| page.deltas.iter().map(|delta| delta.revision).collect())
    }

    #[test]
    fn caller_receives_the_changes_since_its_revision() {
        let state = with_nodes(3);
        let newest = state.header().revision.get();
        for (revision, incarnation, expected) in [
            (newest, 1, Some(vec![])),
            (newest - 2, 1, Some(vec![newest - 1, newest])),
            // Ahead of the state, and of another incarnation.
            (newest + 1, 1, None),
            (u64::MAX, 1, None),
            (newest, 2, None),
            (newest, 0, None),
        ] {
            let page = changes(&state, &request(revision, incarnation));
            assert_eq!(page.revision, newest);
            assert_eq!(revisions(&page), expected, "{revision} {incarnation}");
        }
    }

    #[test]
    fn hint_names_the_position_of_the_catalog() {
        let state = with_nodes(2);
        let CatalogHint::Catalog { revision, version } = hint(&state) else { panic!() };
        assert_eq!((revision, version), (state.header().revision, state.catalog_version()));
    }

    #[test]
    fn caller_behind_the_kept_changes_needs_a_snapshot() {
        let mut state = with_nodes(1);
        let first = state.header().revision.get();
        for number in 0..DELTAS_KEPT as u64 {
            let down = if number % 2 == 0 { v1::NodeState::Down } else { v1::NodeState::Up };
            let change = v1::SetNodeState { node_id: 101, state: down.into() };
            run(&mut state, Kind::SetNodeState(change)).unwrap();
        }
        let page = changes(&state, &request(first, 1));
        assert_eq!(revisions(&page).unwrap().len(), DELTAS_KEPT);
        assert!(changes(&state, &request(first - 1, 1)).snapshot_needed);
    }

    #[test]
    fn long_history_is_returned_in_pages() {
        let mut state = with_nodes(1);
        let first = state.header().revision.get();
        for number in 2..=6 {
            run(&mut state, Kind::RegisterNode(registration(number))).unwrap();
        }
        let newest = state.header().revision.get();
        let mut known = first;
        let mut pages = 0;
        while known < newest {
            let page = page(&state, &request(known, 1), 1);
            assert_eq!(page.revision, newest);
            // A page has one delta at least, so that the caller makes progress.
            assert_eq!(revisions(&page), Some(vec![known + 1]));
            known += 1;
            pages += 1;
        }
        assert_eq!(pages, newest - first);
    }
}
