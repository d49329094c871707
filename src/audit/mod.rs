//! The audit log: a chain of JSON lines in which every verdict stands before it takes effect.
//!
//! [`AuditLog::record`] takes an [`Entry`] and gives back [`Recorded`], the one proof that its line was written; what
//! demands the proof cannot be reached without a record. Each line holds the SHA-256 of the line before it, so that
//! [`verify()`] finds every changed, dropped or moved line but the last one. The chain shows tampering only against a
//! known end: who can write the file can also cut its end off, and a copy of the last hash elsewhere is what shows that.
//!
//! Two things leave no record of their own, and are told of by others: refusals of callers that nobody knows beyond so many a
//! second of one address, which are counted in a `suppressed` record within eleven seconds, so that a process that dies takes
//! the counts of that long along; and rotated files that [`Keep`] lets go, each of which an `expired` record names before it
//! is removed, or, where the disk has no room for that record, afterwards.

mod alarm;
mod chain;
mod entry;
mod file;
mod keep;
mod latch;
mod log;
mod loss;
mod object;
mod queue;
mod resume;
mod sink;
mod state;
mod stream;
mod suppress;
mod tail;
mod verify;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::entry::{Entry, Event};
pub use self::log::{AuditLog, Recorded, Unrecorded};
pub use self::object::{Object, Slot, Written};
pub use self::state::Position;
pub use self::verify::{Before, Broken, Unverified, Verified, sorted, verify};

/// How the log is kept; the `[audit]` part of the configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the lines go.
    pub sink: Sink,
    /// Where a line is when its record counts as made.
    pub durability: Durability,
    /// The size in bytes that a file is not written past; a single write larger than this gets a file of its own.
    pub rotate_bytes: u64,
    /// What a record that cannot be written means.
    pub on_failure: OnFailure,
    /// Which rotated files are kept.
    pub keep: Keep,
    /// How many refusals of callers that are not known are recorded a second for one address, and ten times as many at once; at
    /// least 1.
    pub refusals_per_address: u32,
}

impl Settings {
    /// A log in `sink` with every default.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self {
            sink,
            durability: Durability::Written,
            rotate_bytes: 256 << 20,
            on_failure: OnFailure::Deny,
            keep: Keep::default(),
            refusals_per_address: 10,
        }
    }
}

/// Which rotated files are kept; all of them by default. What is beyond either bound is removed, oldest first, after a record
/// of it was made; but where the disk is full, one is removed first, and its record is the next. The file being written is
/// none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// How many.
    pub files: Option<usize>,
    /// How long after their last record.
    pub age: Option<Duration>,
}

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A regular file; rotated ones lie beside it as `NAME.<first seq, 20 digits>.EXTENSION`.
    File(PathBuf),
    /// The standard output; the chain begins with the process, and nothing is rotated.
    Stdout,
}

/// Where a line is when its record counts as made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the kernel: it survives the process, not a power cut.
    Written,
    /// In memory for up to 100 ms, 64 KiB or 1,000 records.
    Buffered,
}

/// What a record that cannot be written means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The record is an error, and what needed it does not happen.
    Deny,
    /// What needed it happens all the same; the log tells of it as soon as it can.
    Allow,
}

impl OnFailure {
    /// The text in the configuration and in a `loss` record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Whether the file at `path` ends so that the chain of a log could go on there. Nothing of it is changed.
///
/// # Errors
/// It cannot be read, or ends with something else than a record or its beginning.
pub fn continues(path: &std::path::Path) -> Result<(), OpenError> {
    let file = std::fs::File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    tail::Tail::read(&file, path).map(drop)
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path is a directory, a pipe or a device.
    #[error("{}: not a regular file (for the standard output use `-`)", path.display())]
    NotAFile {
        /// The path as configured.
        path: PathBuf,
    },
    /// Two writers would fork the chain.
    #[error("{}: another process is writing this audit log", path.display())]
    InUse {
        /// The path as configured.
        path: PathBuf,
    },
    /// The chain has no end to go on from, or the file holds what is not the log's own.
    #[error("{}:{line}: {why}; name another path, or move the file away to begin a new chain", file.display())]
    Broken {
        /// The file, which can be a rotated one.
        file: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The thread that writes what is buffered could not start.
    #[error("the audit log's thread could not start: {0}")]
    Thread(#[source] io::Error),
}
