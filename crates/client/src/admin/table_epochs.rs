//! Epochs of a table that can be read.

use tidewater_common::ids::Epoch;

use super::table_regions::TableRegion;
use crate::client::Client;
use crate::error::ClientError;

/// Epochs of a table that all of its regions can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEpochs {
    /// Oldest epoch that can be read.
    pub since: Epoch,
    /// First epoch that is not complete; 0: a group of the table has applied no barrier.
    pub upper: Epoch,
}

impl TableEpochs {
    /// Returns what the regions have in common; `None` if the owner of one did not report.
    pub fn of(regions: &[TableRegion]) -> Option<Self> {
        let mut all: Option<Self> = None;
        for region in regions {
            let report = region.report.as_ref().ok()?;
            let (since, upper) = (Epoch(report.since), Epoch(report.upper));
            let before = all.unwrap_or(Self { since, upper });
            all = Some(Self { since: before.since.max(since), upper: before.upper.min(upper) });
        }
        all
    }

    /// Newest epoch that can be read; `None` if there is none.
    pub fn newest(self) -> Option<Epoch> {
        (self.since < self.upper).then(|| self.upper.previous())
    }
}

impl Client {
    /// Returns the epochs of a table that can be read.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`], and [`ClientError::RegionsUnreported`] if the owner of a region did not report.
    pub async fn table_epochs(&self, name: &str) -> Result<TableEpochs, ClientError> {
        let found = self.table_regions(name).await?;
        TableEpochs::of(&found.regions).ok_or_else(|| {
            let missing = found.regions.iter().find_map(|region| {
                let reason = region.report.as_ref().err()?;
                Some(format!("region {}: {reason}", region.region))
            });
            let reason = missing.unwrap_or_else(|| "it has no regions".to_owned());
            ClientError::RegionsUnreported { table: name.to_owned(), reason }
        })
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::RegionId;
    use tidewater_proto::v1::RegionInfo;

    use super::*;

    fn region(id: u64, since: u64, upper: u64) -> TableRegion {
        let report = RegionInfo { since, upper, ..RegionInfo::default() };
        TableRegion { region: RegionId(id), report: Ok(report) }
    }

    #[test]
    fn table_has_the_epochs_that_all_regions_have() {
        let epochs = TableEpochs::of(&[region(1, 3, 20), region(2, 5, 18), region(3, 4, 25)]);
        assert_eq!(epochs, Some(TableEpochs { since: Epoch(5), upper: Epoch(18) }));
        assert_eq!(epochs.and_then(TableEpochs::newest), Some(Epoch(17)));
    }

    #[test]
    fn table_without_common_epochs_has_no_newest() {
        for (since, upper) in [(0, 0), (7, 7), (9, 7)] {
            let epochs = TableEpochs::of(&[region(1, since, upper)]).unwrap();
            assert_eq!(epochs.newest(), None, "{since} to {upper}");
        }
    }

    #[test]
    fn silent_owner_leaves_the_epochs_unknown() {
        let silent = TableRegion { region: RegionId(2), report: Err("no answer".to_owned()) };
        assert_eq!(TableEpochs::of(&[region(1, 3, 20), silent]), None);
        assert_eq!(TableEpochs::of(&[]), None);
    }
}
