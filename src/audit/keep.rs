//! Old files of the log: how many are kept and for how long, and what is known of one before it is removed.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;

use super::chain::{LINE_BYTES, Link};
use super::file::rotated_files;
use super::tail::Tail;
use super::{Event, Keep};
use crate::metrics::RecordKind;

/// How soon files that may be removed to make room are looked for again, when there were none.
const SEEK_EVERY: Duration = Duration::from_secs(1);

/// Sees to it that no more files are kept than the operator wants.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    keep: Keep,
    /// Files that could not be removed: one try is enough, because each leaves a record.
    spared: Mutex<HashSet<PathBuf>>,
    /// When there was nothing that might be removed to make room.
    sought: Mutex<Option<Instant>>,
}

/// A file that is to be removed.
#[derive(Debug)]
pub(super) struct Old {
    file: PathBuf,
    /// Which rule it is beyond.
    cause: &'static str,
    first: u64,
    last: u64,
    last_hash: String,
    last_time: Timestamp,
}

impl Keeper {
    /// For the log at `path`; nothing where everything is kept.
    pub(super) fn new(path: &Path, keep: Keep) -> Option<Self> {
        (keep != Keep::default()).then(|| Self {
            path: path.to_owned(),
            keep,
            spared: Mutex::default(),
            sought: Mutex::default(),
        })
    }

    /// The files that are too many, or too old at `now`, oldest first.
    ///
    /// Only what is certainly the log's own counts: a regular file beside it, under a rotated name, whose first record has the
    /// number in that name. It also must end with a whole record, or it stays. The file being written has no such name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn beyond(&self, now: Timestamp) -> io::Result<Vec<Old>> {
        let spared = self.spared.lock();
        let mut files = rotated_files(&self.path)?;
        files.retain(|(number, file)| !spared.contains(file) && begins_with(file, *number));
        let too_many = self.keep.files.map_or(0, |most| files.len().saturating_sub(most));
        let too_old = |time: Timestamp| {
            let age = self.keep.age.and_then(|age| SignedDuration::try_from(age).ok());
            age.and_then(|age| now.checked_sub(age).ok()).is_some_and(|bound| time < bound)
        };
        let mut beyond = Vec::new();
        for (index, (_, file)) in files.into_iter().enumerate() {
            let Some((records, last_time)) = ended(&file) else { continue };
            let cause = match (index < too_many, too_old(last_time)) {
                (true, _) => "keep",
                (false, true) => "keep_age",
                // Those behind it are younger.
                (false, false) => break,
            };
            let (first, last, last_hash) = (records.first, records.last, records.hash.as_str().to_owned());
            beyond.push(Old { file, cause, first, last, last_hash, last_time });
        }
        Ok(beyond)
    }

    /// Removes the oldest file that is beyond a bound, because there is no room for a record: the one that would tell of it first
    /// has no room either. `surplus` are such files as far as they were looked for. Gives back the record that is owed now.
    pub(super) fn make_room(&self, surplus: &mut Option<VecDeque<Old>>) -> Option<Event> {
        let now = Timestamp::now();
        let surplus = surplus.get_or_insert_with(|| self.surplus(now));
        while let Some(old) = surplus.pop_front() {
            if self.remove(&old).is_ok() {
                return Some(old.record(now));
            }
        }
        None
    }

    /// The files beyond the bounds, unless there were none a moment ago: a full disk fails every record.
    fn surplus(&self, now: Timestamp) -> VecDeque<Old> {
        let mut sought = self.sought.lock();
        if sought.is_some_and(|sought| sought.elapsed() < SEEK_EVERY) {
            return VecDeque::new();
        }
        let found = self.beyond(now).unwrap_or_default();
        *sought = found.is_empty().then(Instant::now);
        found.into()
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system refuses. The file is not tried again by this process.
    pub(super) fn remove(&self, old: &Old) -> io::Result<()> {
        fs::remove_file(&old.file).inspect_err(|error| {
            tracing::warn!(%error, file = %old.file.display(), "an old file of the audit log could not be removed");
            self.spared.lock().insert(old.file.clone());
        })?;
        tracing::info!(file = %old.file.display(), cause = old.cause, "an old file of the audit log was removed");
        Ok(())
    }
}

impl Old {
    /// Whether it is there still: it may have been removed to make room.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.file).is_ok()
    }

    /// The record of its removal at `now`, by which [`verify`](super::verify()) knows that the rest begins where it may.
    pub(super) fn record(&self, now: Timestamp) -> Event {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fields = [
            ("file", json!(name)),
            ("cause", json!(self.cause)),
            ("first", json!(self.first)),
            ("last", json!(self.last)),
            ("last_time", json!(format!("{:.6}", self.last_time))),
            ("last_hash", json!(self.last_hash)),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Event { kind: RecordKind::Expired, time: now, fields }
    }
}

/// Whether a write failed for want of room that the removal of a file can make.
pub(super) fn wants_room(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether `file` is a regular one whose first line is the record with this number.
fn begins_with(file: &Path, number: u64) -> bool {
    let is_file = fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file());
    let first = || -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        BufReader::new(File::open(file)?).take(LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        Ok(line)
    };
    is_file && first().is_ok_and(|line| line.strip_suffix(b"\n").is_some_and(|line| number_of(line) == Some(number)))
}

fn number_of(line: &[u8]) -> Option<u64> {
    Link::read(line).ok().map(|link| link.seq)
}

/// The records of a file that ends with a whole one, and when that was.
fn ended(path: &Path) -> Option<(super::tail::Records, Timestamp)> {
    let tail = Tail::read(&File::open(path).ok()?, path).ok().filter(|tail| tail.torn.is_empty())?;
    let records = tail.records?;
    let time = records.time?;
    Some((records, time))
}
