//! Checks the chain over files at rest, and names the first bad line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::chain::{Hash, LINE_BYTES, Link, NOTHING_BEFORE, hash};

/// A chain without a flaw, as far as it was there to check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// The number of the first one, from which on the chain was checked; 0 without records. Above 1, what came before
    /// was not at hand.
    pub first: u64,
    /// The number of the last one; 0 without records.
    pub last: u64,
    /// The hash of the last line: nothing else vouches for that line, so keep it elsewhere. 64 zeros without records.
    pub last_hash: String,
    /// What came before the first record.
    pub before: Before,
}

/// What came before the first record that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Nothing: it is the first record ever, or there is none.
    Nothing,
    /// Files that `[audit] keep` or `keep_age` removed: the `expired` record with this number tells so, and names the very
    /// hash that the first record goes on from.
    Expired(u64),
    /// Records that were not given, and of whose removal no record tells.
    NotGiven,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, first, last, last_hash, before } = self;
        if *records == 0 {
            return f.write_str("no records");
        }
        write!(f, "{records} records, seq {first} to {last}, unbroken from ")?;
        match before {
            Before::Nothing => f.write_str("the beginning")?,
            Before::Expired(seq) => {
                write!(f, "seq {first} on (what came before was removed by `keep` or `keep_age`, as seq {seq} tells)")?;
            }
            Before::NotGiven => write!(f, "seq {first} on (what came before was not given)")?,
        }
        write!(f, "; the last line's hash is {last_hash}")
    }
}

/// Why files were not verified.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// A file that was named is not there.
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read, which says nothing about what is in it.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what was written, or not where it was written.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl Unverified {
    fn reading(file: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(file.to_owned()),
            _ => Self::Unreadable { file: file.to_owned(), source },
        }
    }
}

/// The first line that is not what was written, or not where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}:{line}: {why}", file.display())]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// How many lines of a file are looked at to find one that tells its place among others.
const LINES_TRIED: usize = 1000;

/// The files sorted by the number of their first record, where they were given in another order; nothing when they were not.
///
/// A file without a record comes last. Where the first lines of a file are no records, the first one that is counts.
///
/// # Errors
/// [`Unverified::Missing`] and [`Unverified::Unreadable`].
pub fn sorted(files: &[PathBuf]) -> Result<Option<Vec<PathBuf>>, Unverified> {
    let mut numbered = Vec::with_capacity(files.len());
    for file in files {
        numbered.push((first_number(file).map_err(|source| Unverified::reading(file, source))?, file));
    }
    if numbered.iter().filter_map(|(number, _)| *number).is_sorted() {
        return Ok(None);
    }
    numbered.sort_by_key(|(number, _)| number.unwrap_or(u64::MAX));
    Ok(Some(numbered.into_iter().map(|(_, file)| file.clone()).collect()))
}

/// The number of the first line of `file` that is a record.
fn first_number(file: &Path) -> io::Result<Option<u64>> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(file)?);
    let mut line = Vec::new();
    for _ in 0..LINES_TRIED {
        line.clear();
        if file.by_ref().take(LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if let Ok(link) = Link::read(line.strip_suffix(b"\n").unwrap_or(&line)) {
            return Ok(Some(link.seq));
        }
    }
    Ok(None)
}

/// Checks the chain over `files` in the given order, oldest first; takes 2 MiB of memory whatever their size.
///
/// Nothing but its own form vouches for the last line, and nothing shows that lines are missing after it.
///
/// # Errors
/// A file that is not there or cannot be read, or the first bad line. A changed line is found by the hash in the next one;
/// where the two disagree, the line after them tells which of the two was changed.
pub fn verify(files: &[PathBuf]) -> Result<Verified, Unverified> {
    let mut walk = Walk::default();
    for file in files {
        walk.file(file)?;
    }
    Ok(walk.end()?)
}

/// What an `expired` record says of the file that was removed.
#[derive(Deserialize)]
struct Expired<'a> {
    kind: &'a str,
    last: u64,
    last_hash: &'a str,
}

#[derive(Debug, Default)]
struct Walk {
    records: u64,
    first: u64,
    /// The hash that the first record goes on from.
    before_first: String,
    /// The number of the record that tells of the removal of what came before the first one.
    expired: Option<u64>,
    last: Option<Last>,
    doubt: Option<Doubt>,
}

/// The line read last.
#[derive(Debug)]
struct Last {
    place: Place,
    seq: u64,
    hash: Hash,
}

#[derive(Debug, Clone)]
struct Place {
    file: PathBuf,
    line: u64,
}

impl Place {
    fn broken(self, why: impl Into<String>) -> Broken {
        Broken { file: self.file, line: self.line, why: why.into() }
    }
}

/// The last line does not name the hash of the one before it: one of the two was changed.
#[derive(Debug)]
struct Doubt {
    before: Place,
}

impl Doubt {
    /// The verdict, given whether the last line is known to be as it was written.
    fn resolve(self, last: Option<Last>, last_is_original: Option<bool>) -> Broken {
        match (last, last_is_original) {
            (Some(last), Some(false)) => last.place.broken("the line was changed: neither neighbour fits it"),
            (_, Some(true)) => self.before.broken("the line was changed: its hash is not the next line's `prev`"),
            _ => self.before.broken("the line was changed, or the next line's `prev`: they do not fit"),
        }
    }
}

impl Walk {
    fn file(&mut self, path: &Path) -> Result<(), Unverified> {
        let unread = |error| Unverified::reading(path, error);
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(unread)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = LINE_BYTES as u64 + 1;
            match file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unread)? {
                0 => break,
                _ => self.line(Place { file: path.to_owned(), line: number }, &line)?,
            }
        }
        Ok(())
    }

    /// Checks one more line, which comes with its newline.
    fn line(&mut self, place: Place, bytes: &[u8]) -> Result<(), Broken> {
        let (link, line) = match self.read(&place, bytes) {
            Ok(read) => read,
            Err(broken) => return Err(self.doubt.take().map_or(broken, |doubt| doubt.resolve(None, None))),
        };
        if let Some(doubt) = self.doubt.take() {
            let last = self.last.take();
            let fits = last.as_ref().map(|last| last.hash.as_str() == link.prev);
            return Err(doubt.resolve(last, fits));
        }
        match &self.last {
            Some(last) if last.hash.as_str() != link.prev => self.doubt = Some(Doubt { before: last.place.clone() }),
            None => {
                self.first = link.seq;
                self.before_first = link.prev.clone().into_owned();
            }
            Some(_) => {}
        }
        if self.expired.is_none() && self.tells_of_removal(line) {
            self.expired = Some(link.seq);
        }
        self.records += 1;
        self.last = Some(Last { place, seq: link.seq, hash: hash(line) });
        Ok(())
    }

    /// Reads a line and checks what it says of itself.
    fn read<'a>(&self, place: &Place, bytes: &'a [u8]) -> Result<(Link<'a>, &'a [u8]), Broken> {
        let broken = |why: String| Err(place.clone().broken(why));
        let Some(line) = bytes.strip_suffix(b"\n") else {
            return broken(match bytes.len() > LINE_BYTES {
                true => "the line is longer than 1 MiB".to_owned(),
                false => "the line is torn: no newline ends it".to_owned(),
            });
        };
        let link = match Link::read(line) {
            Ok(link) => link,
            Err(flaw) => return broken(flaw.0),
        };
        match &self.last {
            Some(last) if link.seq != last.seq + 1 => {
                broken(format!("`seq` is {} where {} must follow {}", link.seq, last.seq + 1, last.seq))
            }
            None if (link.seq == 1) != (link.prev == NOTHING_BEFORE) => broken(match link.seq {
                1 => "`prev` must be 64 zeros, for seq 1 is the first line ever".to_owned(),
                seq => format!("`prev` says that this is the first line ever, but its `seq` is {seq}"),
            }),
            _ => Ok((link, line)),
        }
    }

    /// Whether a line is the record of the removal of what the first record goes on from.
    fn tells_of_removal(&self, line: &[u8]) -> bool {
        memmem::find(line, br#""kind":"expired""#).is_some()
            && serde_json::from_slice::<Expired<'_>>(line).is_ok_and(|expired| {
                expired.kind == "expired"
                    && expired.last.checked_add(1) == Some(self.first)
                    && expired.last_hash == self.before_first
            })
    }

    fn end(mut self) -> Result<Verified, Broken> {
        if let Some(doubt) = self.doubt.take() {
            return Err(doubt.resolve(self.last.take(), None));
        }
        let (last, last_hash) =
            self.last.map_or((0, NOTHING_BEFORE.to_owned()), |last| (last.seq, last.hash.as_str().to_owned()));
        let before = match (self.first, self.expired) {
            (0 | 1, _) => Before::Nothing,
            (_, Some(seq)) => Before::Expired(seq),
            (_, None) => Before::NotGiven,
        };
        Ok(Verified { records: self.records, first: self.first, last, last_hash, before })
    }
}

#[cfg(test)]
mod tests;
