//! The end of an existing file, from which the chain goes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::OpenError;
use super::chain::{Flaw, Hash, LINE_BYTES, Link, hash, is_beginning};
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
    /// What follows: the torn beginning of one more record, as a process leaves it that dies while it writes.
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
    /// When the last one was made, if it says so.
    pub(super) time: Option<Timestamp>,
}

impl Tail {
    /// Reads the end of `file`; takes 2 MiB of memory whatever its length.
    ///
    /// # Errors
    /// It cannot be read, its first line or its last whole one is no record, or what follows that one is something else than
    /// the beginning of a record. Such bytes are not the log's own, and nobody but their owner may take them away.
    pub(super) fn read(file: &File, path: &Path) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Io { path: path.to_owned(), source };
        let (window, start) = window(file).map_err(refused)?;
        let (whole, torn) = split_last_line(&window);
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
                let last = Link::read(line).map_err(|flaw| broken(flaw.0))?.seq;
                let first = first_seq(file).map_err(refused)?.map_err(|flaw| OpenError::Broken {
                    file: path.to_owned(),
                    line: 1,
                    why: flaw.0,
                })?;
                Some(Records { first, last, hash: hash(line), time: time_of(line) })
            }
            None if start > 0 => return Err(broken("what follows the line is longer than 1 MiB".to_owned())),
            None => None,
        };
        if !is_torn(torn, records.is_some()) {
            let line = number_of_last_line(file, length).map_err(refused)? + 1;
            let why = match records {
                Some(_) => "what follows the last record is not the beginning of one",
                None => "the file holds something else than records",
            };
            return Err(OpenError::Broken { file: path.to_owned(), line, why: why.to_owned() });
        }
        Ok(Self { records, whole: length, torn: torn.to_vec() })
    }
}

/// The time that a record names.
fn time_of(line: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Timed<'a> {
        time: &'a str,
    }
    serde_json::from_slice::<Timed<'_>>(line).ok()?.time.parse().ok()
}

/// Whether `rest`, which follows the last newline of a file with or without records, is what an interrupted write leaves: the
/// beginning of a record, and behind it the zeros with which a file system fills what it had no time to write. Zeros alone
/// are that only where records come before them.
fn is_torn(rest: &[u8], behind_records: bool) -> bool {
    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let written = rest.get(..written).unwrap_or_default();
    if written.is_empty() { rest.is_empty() || behind_records } else { is_beginning(written) }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::chain::Chain;

    /// A line such as the log writes, without its newline.
    fn line(seq: u64, text: &str, number: i64) -> Vec<u8> {
        let mut line = Vec::new();
        let text = serde_json::to_string(text).unwrap();
        let body = format!(
            r#","time":"2026-01-02T03:04:05.000000Z","id":"01J","kind":"decision","text":{text},"n":{number},"f":-1.5e-7,"t":[true,null]"#
        );
        Chain::after(seq, hash(b"before")).seal(body.as_bytes(), &mut line);
        line.truncate(line.len() - 1);
        line
    }

    /// What [`Tail::read`] makes of a file with these bytes.
    fn read(bytes: &[u8]) -> Result<Tail, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        Tail::read(&File::open(&path).unwrap(), &path)
    }

    #[test]
    fn zeros_are_what_a_file_system_leaves_behind_records_and_not_a_log_by_themselves() {
        let whole = [line(1, "a", 0), b"\n".to_vec()].concat();
        for rest in [&b"\0\0\0"[..], b"{\"v\":1,\0\0", b"{\"v\":1,\"seq\":3,\"time\":\"20\0"] {
            let tail = read(&[&whole, rest].concat()).unwrap();
            assert_eq!((tail.whole, tail.torn.as_slice()), (whole.len() as u64, rest));
        }
        read(b"\0\0\0").unwrap_err();
        read(&[&whole, &b"{\"v\":1,\0\"seq\""[..]].concat()).unwrap_err();
    }

    #[test]
    fn a_file_that_never_held_a_record_is_somebody_elses() {
        for (bytes, line) in [
            (&b"hello"[..], 1),
            (b"{\"v\":2,", 1),
            (b"{\"name\":\"x\"}", 1),
            (b"# notes\nmore", 1),
            (b"\n", 1),
            (b"\x7fELF", 1),
            (b"{}\n", 1),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(matches!(error, OpenError::Broken { line: named, .. } if named == line), "{error}");
        }
        assert!(read(b"").unwrap().torn.is_empty());
    }

    proptest! {
        #[test]
        fn every_beginning_of_a_record_is_torn_and_nothing_else_is(
            seq in 1_u64..1 << 53,
            text in any::<String>(),
            number: i64,
            at in any::<prop::sample::Index>(),
            other: u8,
            held: bool,
        ) {
            let whole = line(seq - 1, &text, number);
            let before = if held { [line(seq.saturating_sub(2), "b", 1), b"\n".to_vec()].concat() } else { Vec::new() };
            // The whole line without its newline is a beginning, too.
            let cut = at.index(whole.len()) + 1;
            let tail = read(&[&before, &whole[..cut]].concat());
            prop_assert_eq!(tail.map(|tail| tail.torn).map_err(|error| error.to_string()), Ok(whole[..cut].to_vec()));

            // The same bytes as a line of their own are no record, but for the whole one.
            let ended = read(&[&before, &whole[..cut], b"\n"].concat());
            prop_assert_eq!(ended.is_ok(), cut == whole.len());

            // One other byte in the part that is the same in every record.
            let mut changed = whole[..cut].to_vec();
            let fixed = at.index(cut.min(r#"{"v":1,"seq":"#.len()));
            if changed[fixed] != other && other != b'\n' && !(other == 0 && fixed + 1 == changed.len()) {
                changed[fixed] = other;
                prop_assert!(read(&[&before[..], &changed].concat()).is_err(), "{:?}", String::from_utf8_lossy(&changed));
            }
        }

        #[test]
        fn bytes_that_are_no_beginning_of_a_record_stop_the_start(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..200),
                "[ -~]{1,80}".prop_map(String::into_bytes),
                r#"\{"v":1,"seq":[0-9]{0,3}[^0-9,]"#.prop_map(String::into_bytes),
                r#"\{"v":1,"seq":0[0-9]"#.prop_map(String::into_bytes),
                r#"\{"v":1,"seq":7,"time":"a",[^" \t\r\n]"#.prop_map(String::into_bytes),
                r#"\{"v":1,"seq":7,"time":"a"\}[ -~]"#.prop_map(String::into_bytes),
            ],
        ) {
            prop_assume!(!bytes.contains(&b'\n') && bytes.iter().any(|byte| *byte != 0));
            let head = br#"{"v":1,"seq":"#;
            prop_assume!(!head.starts_with(&bytes) && !bytes.ends_with(&[0]));
            let before = [line(1, "b", 1), b"\n".to_vec()].concat();
            prop_assert!(read(&[&before[..], &bytes].concat()).is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
