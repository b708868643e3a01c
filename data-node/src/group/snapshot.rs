//! Content of a data group's snapshot file: the registry with its producers, the membership, and
//! the unflushed rows, all at the same index: the last one applied.
//!
//! Runs are immutable, so a [`SnapshotView`] copies pointers only; writing it is slow and runs on
//! another thread.

use std::io::{self, Read, Write};

use bytes::Bytes;
use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, GroupId, RegionId};
use tidewater_proto::v1::{self, group_snapshot_record::Record};
use tidewater_raft_store::types::{LogId, SnapshotMeta, StoredMembership, wire};
use tidewater_region_engine::RunImage;

use super::entry::EntryError;
use super::moves::Moves;
use super::state::{GroupState, RegionState};

#[cfg(test)]
mod tests;

/// Version of the file format at the first feature level.
const FIRST_FORMAT: u32 = 1;
/// Version of the file format above the first feature level: its header has the level, which releases that
/// support the first level only would lose. A greater version is of a newer release.
const LEVELED_FORMAT: u32 = 2;
/// Sizes of records.
#[derive(Debug, Clone, Copy)]
struct RecordSizes {
    // Approximate bytes of rows per record. Writing and reading a snapshot hold a few times as much
    // in memory, in addition to the rows themselves.
    piece: usize,
    // Largest record: the limit of prost.
    record: u64,
}

const SIZES: RecordSizes = RecordSizes { piece: 16 * 1024 * 1024, record: 2 * 1024 * 1024 * 1024 };

/// State of a group at one index, by pointer.
#[derive(Debug)]
pub struct SnapshotView {
    /// Id of the group.
    pub group: GroupId,
    /// Last applied entry.
    pub applied: Option<LogId>,
    /// Last applied membership.
    pub membership: StoredMembership,
    /// Replicated state.
    pub state: GroupState,
    /// Unflushed rows by region.
    pub runs: Vec<(RegionId, RunImage)>,
}

impl SnapshotView {
    /// Metadata for openraft.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    /// Checks that this is a snapshot of the group with this metadata.
    pub fn check(&self, group: GroupId, meta: &SnapshotMeta) -> io::Result<()> {
        if self.group != group {
            return Err(damaged(format!("it is of group {}, not of group {group}", self.group)));
        }
        if self.meta() != *meta {
            return Err(damaged("its log id or membership differs from the one announced"));
        }
        Ok(())
    }

    /// Writes the file's content. Blocking.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_sized(out, SIZES)
    }

    fn write_sized(&self, out: &mut impl Write, sizes: RecordSizes) -> io::Result<()> {
        let mut put = |record| put(out, record, sizes.record);
        put(Record::Header(v1::GroupSnapshotHeader {
            format: format_at(self.state.level),
            group_id: self.group.get(),
            applied: self.applied.as_ref().map(wire::log_id_to_wire),
            membership: Some(wire::stored_membership_to_wire(&self.membership)),
            dropped: self.state.dropped.iter().map(|region| region.get()).collect(),
            departed: self.state.moves.departed_to_wire(),
            prepared: self.state.moves.prepared_to_wire(),
            epoch: self.state.epoch.get(),
            since: self.state.since.get(),
            level: match self.state.level {
                FeatureLevel::FIRST => 0,
                level => level.get(),
            },
        }))?;
        for region in self.state.regions.values() {
            put(Record::Region(region.to_wire()))?;
        }
        let mut records = 0;
        for (region, image) in &self.runs {
            let mut continues = false;
            // Encodes one piece at a time to bound memory.
            for piece in image.pieces(sizes.piece) {
                let region_id = region.get();
                let image = piece.encode().map_err(io::Error::other)?;
                put(Record::Run(v1::GroupSnapshotRun { region_id, image, continues }))?;
                continues = true;
                records += 1;
            }
        }
        let regions = u32::try_from(self.state.regions.len()).unwrap_or(u32::MAX);
        put(Record::End(v1::GroupSnapshotEnd { regions, runs: records }))
    }

    /// Reads a file's content. Blocking.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut view = read_header(input)?;
        let mut regions = 0u32;
        let mut records = 0u64;
        // The run that is being read, piece by piece.
        let mut pieces: Vec<RunImage> = Vec::new();
        let mut of = RegionId(0);
        loop {
            match get(input)? {
                Record::Header(_) => return Err(damaged("a second header")),
                Record::Region(region) => {
                    regions += 1;
                    let region = RegionState::from_wire(region).map_err(damaged)?;
                    view.state.regions.insert(region.descriptor.region_id, region);
                }
                Record::Run(run) => {
                    records += 1;
                    let region = RegionId(run.region_id);
                    if run.continues && (pieces.is_empty() || region != of) {
                        return Err(damaged("a piece continues the run of another region"));
                    }
                    if !run.continues {
                        view.runs.extend(RunImage::join(&pieces).map(|image| (of, image)));
                        pieces.clear();
                        of = region;
                    }
                    pieces.push(RunImage::decode(&run.image).map_err(damaged)?);
                }
                Record::End(end) => {
                    view.runs.extend(RunImage::join(&pieces).map(|image| (of, image)));
                    if end.regions != regions || end.runs != records {
                        return Err(damaged("regions or runs are missing"));
                    }
                    return Ok(view);
                }
            }
        }
    }
}

/// Reads the metadata only. Blocking.
pub fn read_meta(input: &mut impl Read) -> io::Result<SnapshotMeta> {
    read_header(input).map(|view| view.meta())
}

fn read_header(input: &mut impl Read) -> io::Result<SnapshotView> {
    let Record::Header(header) = get(input)? else {
        return Err(damaged("it does not start with a header"));
    };
    if header.format > LEVELED_FORMAT {
        return Err(damaged(format!(
            "it has format {}; this release reads formats up to {LEVELED_FORMAT}",
            header.format
        )));
    }
    let level = FeatureLevel::new(header.level);
    if level > FeatureLevel::HIGHEST {
        return Err(damaged(EntryError::LevelAboveRelease(level)));
    }
    if (header.format == LEVELED_FORMAT) == (level == FeatureLevel::FIRST) {
        let format = header.format;
        return Err(damaged(format!(
            "its format {format} does not belong to feature level {level}"
        )));
    }
    let membership = match header.membership {
        Some(membership) => wire::stored_membership_from_wire(membership).map_err(damaged)?,
        None => StoredMembership::default(),
    };
    Ok(SnapshotView {
        group: GroupId(header.group_id),
        applied: header.applied.as_ref().map(wire::log_id_from_wire),
        membership,
        state: GroupState {
            dropped: header.dropped.into_iter().map(RegionId).collect(),
            level,
            moves: Moves::from_wire(&header.departed, &header.prepared),
            epoch: Epoch(header.epoch),
            since: Epoch(header.since),
            ..GroupState::default()
        },
        runs: Vec::new(),
    })
}

const fn format_at(level: FeatureLevel) -> u32 {
    match level {
        FeatureLevel::FIRST => FIRST_FORMAT,
        _ => LEVELED_FORMAT,
    }
}

fn put(out: &mut impl Write, record: Record, most: u64) -> io::Result<()> {
    let record = v1::GroupSnapshotRecord { record: Some(record) };
    // A record that cannot be read back must not allow the log below it to be purged.
    if record.encoded_len() as u64 > most {
        return Err(io::Error::other(format!(
            "a record of {} bytes is too large for a snapshot",
            record.encoded_len()
        )));
    }
    let bytes = record.encode_to_vec();
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(&bytes)
}

fn get(input: &mut impl Read) -> io::Result<Record> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > SIZES.record {
        return Err(damaged(format!("a record of {length} bytes is too large")));
    }
    // Grows with the bytes read: a damaged length does not cause a large allocation.
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(damaged("it ends within a record"));
    }
    v1::GroupSnapshotRecord::decode(Bytes::from(bytes))
        .map_err(damaged)?
        .record
        .ok_or_else(|| damaged("a record has a kind unknown to this release"))
}

fn damaged(detail: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("group snapshot: {detail}"))
}
