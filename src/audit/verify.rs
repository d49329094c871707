//! Checks the chain over files at rest, and names the first bad line.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

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
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, first, last, last_hash } = self;
        match (records, first) {
            (0, _) => f.write_str("no records"),
            (_, 1) => {
                write!(f, "{records} records, seq 1 to {last}, unbroken from the beginning; the last line's hash is {last_hash}")
            }
            _ => write!(
                f,
                "{records} records, seq {first} to {last}, unbroken from seq {first} on (what came before was not given); \
                 the last line's hash is {last_hash}"
            ),
        }
    }
}

/// The first line that is not what was written, or not where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}:{line}: {why}", file.display())]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 when the file could not be opened.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Checks the chain over `files` in the given order, oldest first; takes 2 MiB of memory whatever their size.
///
/// Nothing but its own form vouches for the last line, and nothing shows that lines are missing after it.
///
/// # Errors
/// The first bad line. A changed line is found by the hash in the next one; where the two disagree, the line after
/// them tells which of the two was changed.
pub fn verify(files: &[PathBuf]) -> Result<Verified, Broken> {
    let mut walk = Walk::default();
    for file in files {
        walk.file(file)?;
    }
    walk.end()
}

#[derive(Debug, Default)]
struct Walk {
    records: u64,
    first: u64,
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
    fn file(&mut self, path: &Path) -> Result<(), Broken> {
        let place = |line| Place { file: path.to_owned(), line };
        let file = File::open(path).map_err(|error| place(0).broken(format!("cannot be opened: {error}")))?;
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = LINE_BYTES as u64 + 1;
            let read = file.by_ref().take(limit).read_until(b'\n', &mut line);
            match read.map_err(|error| place(number).broken(format!("cannot be read: {error}")))? {
                0 => break,
                _ => self.line(place(number), &line)?,
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
            None => self.first = link.seq,
            Some(_) => {}
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
            Err(flaw) => return broken(flaw.why()),
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

    fn end(mut self) -> Result<Verified, Broken> {
        if let Some(doubt) = self.doubt.take() {
            return Err(doubt.resolve(self.last.take(), None));
        }
        let (last, last_hash) =
            self.last.map_or((0, NOTHING_BEFORE.to_owned()), |last| (last.seq, last.hash.as_str().to_owned()));
        Ok(Verified { records: self.records, first: self.first, last, last_hash })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::audit::chain::Chain;

    /// `count` chained lines, each with its newline.
    fn chained(count: u64) -> Vec<Vec<u8>> {
        let mut chain = Chain::new();
        (1..=count)
            .map(|number| {
                let mut line = Vec::new();
                let body = format!(r#","time":"2026-01-02T03:04:05.000000Z","kind":"reload","text":"ü{number}""#);
                chain.seal(body.as_bytes(), &mut line);
                line
            })
            .collect()
    }

    /// Writes each of `files` to a file, and verifies them in this order.
    fn verify_bytes(files: &[Vec<u8>]) -> Result<Verified, (usize, u64, String)> {
        let folder = TempDir::new().unwrap();
        let paths: Vec<_> = (0..files.len()).map(|index| folder.path().join(index.to_string())).collect();
        for (path, bytes) in paths.iter().zip(files) {
            fs::write(path, bytes).unwrap();
        }
        verify(&paths).map_err(|broken| {
            let index = paths.iter().position(|path| *path == broken.file).unwrap();
            (index, broken.line, broken.why)
        })
    }

    fn place(outcome: Result<Verified, (usize, u64, String)>) -> (usize, u64) {
        outcome.map_err(|(file, line, _)| (file, line)).unwrap_err()
    }

    #[test]
    fn an_untouched_chain_over_files_is_whole_and_names_its_last_hash() {
        let lines = chained(5);
        let files = [lines[..2].concat(), Vec::new(), lines[2..].concat()];
        let verified = verify_bytes(&files).unwrap();
        assert_eq!((verified.records, verified.first, verified.last), (5, 1, 5));
        assert_eq!(verified.last_hash, hash(lines[4].trim_ascii_end()).as_str());
        assert!(verified.to_string().starts_with("5 records, seq 1 to 5, unbroken from the beginning"));
    }

    #[test]
    fn a_chain_whose_beginning_is_not_at_hand_says_from_where_it_was_checked() {
        let verified = verify_bytes(&[chained(5)[2..].concat()]).unwrap();
        assert_eq!((verified.records, verified.first, verified.last), (3, 3, 5));
        assert!(verified.to_string().contains("unbroken from seq 3 on"), "{verified}");
    }

    #[test]
    fn no_record_at_all_is_no_flaw() {
        assert_eq!(verify_bytes(&[Vec::new()]).unwrap().to_string(), "no records");
    }

    #[test]
    fn dropped_swapped_and_repeated_lines_are_named() {
        let lines = chained(5);
        let pick = |order: &[usize]| order.iter().flat_map(|index| lines[*index].clone()).collect::<Vec<u8>>();
        assert_eq!(place(verify_bytes(&[pick(&[0, 1, 3, 4])])), (0, 3));
        assert_eq!(place(verify_bytes(&[pick(&[0, 2, 1, 3, 4])])), (0, 2));
        assert_eq!(place(verify_bytes(&[pick(&[0, 1, 1, 2, 3, 4])])), (0, 3));
        assert_eq!(place(verify_bytes(&[pick(&[2, 3, 4]), pick(&[0, 1])])), (1, 1), "files in the wrong order");
        assert_eq!(place(verify_bytes(&[pick(&[0, 1]), pick(&[3, 4])])), (1, 1), "a file is missing");
    }

    #[test]
    fn each_fault_of_form_is_told_in_its_own_words() {
        let lines = chained(3);
        let [first, last] = [&lines[0], &lines[2]].map(|line| String::from_utf8(line.clone()).unwrap());
        let before = lines[..2].concat();
        let zeros = "0".repeat(64);
        for (bad, why) in [
            (last.replace("\"v\":1", "\"v\":2"), "its `v` is 2"),
            (last.replace("\"seq\":3", "\"seq\":4"), "`seq` is 4 where 3 must follow 2"),
            (last.replace("\"seq\":3", "\"seq\":0"), "out of range"),
            (last.replace('}', ""), "not JSON"),
            (last.replace("\"kind\"", "\"seq\":3,\"kind\""), "duplicate field"),
            (last.replace("\"prev\":\"", "\"prev\":\"A"), "64 lower-case hex digits"),
            (last.trim_end().to_owned(), "no newline"),
            ("\n".to_owned(), "not JSON"),
            ("x".repeat(2 << 20), "longer than 1 MiB"),
            (format!("{}\n", "x".repeat(1 << 20)), "not JSON"),
        ] {
            let (_, line, told) = verify_bytes(&[[&before, bad.as_bytes()].concat()]).unwrap_err();
            assert!(line == 3 && told.contains(why), "line {line}: {told}, not {why}");
        }
        let mut latin = last.into_bytes();
        latin.retain(|byte| *byte != 0xc3);
        let (_, line, told) = verify_bytes(&[[before, latin].concat()]).unwrap_err();
        assert!(line == 3 && told.contains("not UTF-8"), "{told}");
        for (bad, why) in [
            (first.replace("\"prev\":\"0", "\"prev\":\"1"), "must be 64 zeros"),
            (first.replace("\"seq\":1", "\"seq\":2"), "the first line ever"),
        ] {
            let (_, line, told) = verify_bytes(&[bad.into_bytes()]).unwrap_err();
            assert!(line == 1 && told.contains(why), "{told}");
        }
        let missing = verify(&[PathBuf::from("missing.jsonl")]).unwrap_err();
        assert!(missing.to_string().starts_with("missing.jsonl:0: cannot be opened"), "{missing}");
        assert_eq!(zeros, NOTHING_BEFORE);
    }

    #[test]
    fn a_changed_line_before_the_last_is_told_together_with_the_doubt() {
        let lines = chained(2);
        let changed = String::from_utf8(lines.concat()).unwrap().replace("ü1", "ü7");
        let (_, line, told) = verify_bytes(&[changed.into_bytes()]).unwrap_err();
        assert_eq!(line, 1);
        assert!(told.contains("or the next line's `prev`"), "{told}");
    }

    proptest! {
        #[test]
        fn any_one_changed_byte_in_any_line_but_the_last_breaks_the_chain_at_that_line(
            count in 3_u64..8,
            split in 0_usize..8,
            at in any::<prop::sample::Index>(),
            change in 1_u8..=255,
        ) {
            let mut lines = chained(count);
            let guarded = lines[..lines.len() - 1].concat().len();
            let mut offset = at.index(guarded);
            let mut number = 0;
            while offset >= lines[number].len() {
                offset -= lines[number].len();
                number += 1;
            }
            lines[number][offset] ^= change;
            let split = split.min(lines.len());
            let outcome = verify_bytes(&[lines[..split].concat(), lines[split..].concat()]);
            let (file, line) = place(outcome);
            let named = if file == 0 { line as usize - 1 } else { split + line as usize - 1 };
            // Only one line follows the last but one, so that its own `prev` and the line before it stay in doubt.
            let exact = number + 2 < lines.len();
            prop_assert!(named == number || !exact && named + 1 == number, "line {number} was changed, {named} named");
        }
    }
}
