//! Application of the changes that a meta node returns for a known revision.

use tidewater_proto::v1;

use super::Catalog;

/// Catalog after a page of changes.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The newest catalog.
    Current(Catalog),
    /// More changes follow.
    Behind(Catalog),
    /// The changes do not lead from the known catalog to the newest one.
    SnapshotNeeded,
}

impl Catalog {
    /// Applies a page of changes. Changes that this catalog contains already are skipped.
    pub(crate) fn follow(&self, page: &v1::GetCatalogChangesResponse) -> Followed {
        if page.snapshot_needed {
            return Followed::SnapshotNeeded;
        }
        let mut next = self.clone();
        for delta in &page.deltas {
            if delta.revision <= next.revision().get() {
                continue;
            }
            next = match next.with_delta(delta) {
                Ok(next) => next,
                Err(error) => {
                    tracing::debug!(%error, "catalog change cannot be applied");
                    return Followed::SnapshotNeeded;
                }
            };
        }
        if next.revision().get() >= page.revision {
            return Followed::Current(next);
        }
        // A page without progress would be followed by the same one.
        if next.revision() == self.revision() {
            return Followed::SnapshotNeeded;
        }
        Followed::Behind(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::{catalog, delta};

    fn page(revision: u64, deltas: &[u64]) -> v1::GetCatalogChangesResponse {
        let delta = |revision: &u64| v1::CatalogDelta { revision: *revision, ..delta() };
        v1::GetCatalogChangesResponse {
            revision,
            deltas: deltas.iter().map(delta).collect(),
            snapshot_needed: false,
        }
    }

    #[test]
    fn changes_lead_to_the_newest_catalog() {
        // The known catalog is at revision 10.
        for (page, expected) in [
            (page(10, &[]), "current 10"),
            (page(11, &[11]), "current 11"),
            (page(13, &[11, 12, 13]), "current 13"),
            (page(13, &[11, 12]), "behind 12"),
            // The stream was faster.
            (page(9, &[]), "current 10"),
            (page(11, &[9, 10, 11]), "current 11"),
            // A gap, no progress, and a server that has the whole catalog only.
            (page(13, &[12, 13]), "snapshot"),
            (page(13, &[11, 13]), "snapshot"),
            (page(u64::MAX, &[]), "snapshot"),
            (page(11, &[u64::MAX]), "snapshot"),
            (
                v1::GetCatalogChangesResponse { snapshot_needed: true, ..page(11, &[11]) },
                "snapshot",
            ),
        ] {
            let found = match catalog().follow(&page) {
                Followed::Current(next) => format!("current {}", next.revision()),
                Followed::Behind(next) => format!("behind {}", next.revision()),
                Followed::SnapshotNeeded => "snapshot".to_owned(),
            };
            assert_eq!(found, expected, "{page:?}");
        }
    }
}
