//! Sources, and the refreshes of a table.

use tidewater_common::ids::{Generation, SourceId, TableId};
use tidewater_proto::v1::{self, RefreshRun, RefreshSettings};

use super::CatalogError;
use super::records::invalid;

/// Ended refreshes that are kept for each table.
pub const RUNS_KEPT: usize = 20;

/// Source of refreshable tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Never used again.
    pub id: SourceId,
    /// Name of a registered kind.
    pub kind: String,
    /// JSON object of the kind.
    pub config: String,
}

/// Refreshes of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Refreshes {
    /// The refreshable table.
    pub table: TableId,
    /// Its source.
    pub source: SourceId,
    /// Generation of the last refresh that was begun.
    pub generation: Generation,
    /// Interval, deadline and guard.
    pub settings: RefreshSettings,
    /// None is begun.
    pub paused: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Replicated time at which the next one is due by itself.
    pub next_ms: Option<u64>,
    /// The one in progress.
    pub current: Option<RefreshRun>,
    /// Ended ones, the last one first, at most [`RUNS_KEPT`].
    pub history: Vec<RefreshRun>,
    /// Rows of the source at the last one that was published.
    pub published_rows: u64,
}

impl From<&Source> for v1::SourceRecord {
    fn from(source: &Source) -> Self {
        Self {
            source_id: source.id.get(),
            kind: source.kind.clone(),
            config: source.config.clone(),
        }
    }
}

impl From<v1::SourceRecord> for Source {
    fn from(stored: v1::SourceRecord) -> Self {
        Self { id: SourceId(stored.source_id), kind: stored.kind, config: stored.config }
    }
}

impl From<&Refreshes> for v1::RefreshRecord {
    fn from(of: &Refreshes) -> Self {
        Self {
            table_id: of.table.get(),
            source_id: of.source.get(),
            generation: of.generation.get(),
            settings: Some(of.settings),
            paused: of.paused,
            failures: of.failures,
            next_ms: of.next_ms.unwrap_or(0),
            current: of.current.clone(),
            history: of.history.clone(),
            published_rows: of.published_rows,
        }
    }
}

impl TryFrom<v1::RefreshRecord> for Refreshes {
    type Error = CatalogError;

    fn try_from(stored: v1::RefreshRecord) -> Result<Self, CatalogError> {
        let settings = stored.settings.ok_or_else(|| invalid("refresh", "it has no settings"))?;
        Ok(Self {
            table: TableId(stored.table_id),
            source: SourceId(stored.source_id),
            generation: Generation(stored.generation),
            settings,
            paused: stored.paused,
            failures: stored.failures,
            next_ms: Some(stored.next_ms).filter(|next_ms| *next_ms > 0),
            current: stored.current,
            history: stored.history,
            published_rows: stored.published_rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};

    #[test]
    fn stored_refresh_bytes_are_frozen() {
        let source = Source { id: SourceId(300), kind: "csv".to_owned(), config: "{}".to_owned() };
        let run = RefreshRun { generation: 7, begun_ms: 5, ..RefreshRun::default() };
        let refreshes = Refreshes {
            table: TableId(3),
            source: SourceId(300),
            generation: Generation(7),
            settings: RefreshSettings { interval_ms: 60_000, ..RefreshSettings::default() },
            paused: true,
            failures: 2,
            next_ms: Some(9),
            current: Some(run.clone()),
            history: vec![run],
            published_rows: 1_000,
        };
        assert_eq!(keys::source(SourceId(258)), b"meta/source/\0\0\0\0\0\0\x01\x02");
        assert_eq!(keys::refresh(TableId(3)), b"meta/refresh/\0\0\0\x03");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let stored = codec::encode_message(&v1::SourceRecord::from(&source));
        assert_eq!(hex(&stored), SOURCE);
        let read = codec::decode_message::<v1::SourceRecord>("source", &stored).unwrap();
        assert_eq!(Source::from(read), source);
        let stored = codec::encode_message(&v1::RefreshRecord::from(&refreshes));
        assert_eq!(hex(&stored), REFRESHES);
        let read = codec::decode_message::<v1::RefreshRecord>("refresh", &stored).unwrap();
        assert_eq!(Refreshes::try_from(read).unwrap(), refreshes);
        assert!(Refreshes::try_from(v1::RefreshRecord::default()).is_err());
    }

    const SOURCE: &str = "0157e69ae208ac0212036373761a027b7d";
    const REFRESHES: &str =
        "014d32d9c9080310ac021807220408e0d4032801300238094204080718054a040807180550e807";
}
