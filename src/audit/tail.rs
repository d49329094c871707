//! The end of an existing file, from which the chain goes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::OpenError;
use super::chain::{Flaw, Hash, LINE_BYTES, Link, hash};
use super::sink::count_lines;

/// Two lines of the greatest length and the newline before them.
const WINDOW: u64 = 2 * (LINE_BYTES as u64 + 1) + 1;

/// What an existing file ends with.
#[derive(Debug)]
pub(super) struct Tail {
    /// Its whole records; nothing when there is none.
    pub(super) records: Option<Records>,
    /// The length of the file up to the end of its last whole record.
    pub(super) whole: u64,
    /// What follows: a line without its newline, or one that is not JSON.
    pub(super) torn: Vec<u8>,
}

/// The records of a file.
#[derive(Debug)]
pub(super) struct Records {
    /// The number of the first one.
    pub(super) first: u64,
    /// The number of the last one.
    pub(super) last: u64,
    /// The hash of the last one.
    pub(super) hash: Hash,
}

impl Tail {
    /// Reads the end of `file`; takes 2 MiB of memory whatever its length.
    ///
    /// # Errors
    /// It cannot be read, or its first line or its last whole one is no record.
    pub(super) fn read(file: &File, path: &Path) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Io { path: path.to_owned(), source };
        let (window, start) = window(file).map_err(refused)?;
        let (mut whole, mut torn) = split_last_line(&window);
        if torn.is_empty()
            && let Some((before, line)) = last_line(whole)
            && matches!(Link::read(line), Err(Flaw::Garbled(_)))
        {
            torn = window.get(before.len()..).unwrap_or_default();
            whole = before;
        }
        let length = start + whole.len() as u64;
        let broken = |why: String| match number_of_last_line(file, length) {
            Ok(line) => OpenError::Broken { file: path.to_owned(), line, why },
            Err(source) => refused(source),
        };
        let records = match last_line(whole) {
            Some((before, _)) if before.is_empty() && start > 0 => {
                return Err(broken("the line is longer than 1 MiB".to_owned()));
            }
            Some((_, line)) => {
                let last = Link::read(line).map_err(|flaw| broken(flaw.why()))?.seq;
                let first = first_seq(file).map_err(refused)?.map_err(|flaw| OpenError::Broken {
                    file: path.to_owned(),
                    line: 1,
                    why: flaw.why(),
                })?;
                Some(Records { first, last, hash: hash(line) })
            }
            None if start > 0 => return Err(broken("what follows the line is longer than 1 MiB".to_owned())),
            None => None,
        };
        Ok(Self { records, whole: length, torn: torn.to_vec() })
    }
}

/// The last bytes of `file` and where they begin.
fn window(mut file: &File) -> io::Result<(Vec<u8>, u64)> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut window = Vec::new();
    file.take(WINDOW).read_to_end(&mut window)?;
    Ok((window, start))
}

/// The lines that end with a newline, and what follows them.
fn split_last_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1))
}

/// What stands before the last line of `lines`, and that line without its newline.
fn last_line(lines: &[u8]) -> Option<(&[u8], &[u8])> {
    lines.strip_suffix(b"\n").map(split_last_line)
}

fn first_seq(mut file: &File) -> io::Result<Result<u64, Flaw>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file).take(LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    Ok(Link::read(line.strip_suffix(b"\n").unwrap_or(&line)).map(|link| link.seq))
}

/// How many lines end in the first `length` bytes.
fn number_of_last_line(mut file: &File, length: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut rest = BufReader::with_capacity(1 << 16, file).take(length);
    let mut lines = 0;
    loop {
        let bytes = rest.fill_buf()?;
        let count = bytes.len();
        if count == 0 {
            return Ok(lines);
        }
        lines += count_lines(bytes) as u64;
        rest.consume(count);
    }
}
