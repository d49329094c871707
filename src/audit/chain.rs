//! What ties each line to the one before it: its number and the hash of that line.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::object::digits;

/// The most bytes of a line, without its newline.
pub(super) const LINE_BYTES: usize = 1 << 20;

/// The `prev` of the first line ever.
pub(super) const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The greatest number that every JSON reader takes for an exact integer (RFC 8259 §6).
const GREATEST_SEQ: u64 = (1 << 53) - 1;

/// What a line begins with, before its number.
const HEAD: &[u8] = br#"{"v":1,"seq":"#;
/// What stands between a line's body and its last value.
const BEFORE_HASH: &[u8] = br#","prev":""#;
/// What a line ends with.
const END: &[u8] = br#""}"#;

/// What stands between a line's number and the first value of its body.
const BEFORE_TIME: &[u8] = br#","time":""#;

/// What a line has more than its body and the digits of its number, without its newline, in bytes.
pub(super) const AROUND: usize = HEAD.len() + BEFORE_HASH.len() + NOTHING_BEFORE.len() + END.len();

/// A hash as it stands in a line: 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash([u8; 64]);

/// The end of the chain, to which the next line is tied.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    next: u64,
    prev: Hash,
}

impl Chain {
    /// A chain without a line.
    pub(super) fn new() -> Self {
        Self { next: 1, prev: Hash([b'0'; 64]) }
    }

    /// A chain whose last line has the number `seq` and this hash.
    pub(super) fn after(seq: u64, hash: Hash) -> Self {
        Self { next: seq.saturating_add(1), prev: hash }
    }

    /// The number of the next line.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether `body` has room in the line with the number `seq`.
    ///
    /// # Errors
    /// The line would be longer than [`LINE_BYTES`].
    pub(super) fn fits(seq: u64, body: &[u8]) -> io::Result<()> {
        let digits = seq.checked_ilog10().unwrap_or(0) as usize + 1;
        if body.len().saturating_add(AROUND + digits) > LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is longer than 1 MiB"));
        }
        Ok(())
    }

    /// Puts the whole next line, its newline included, behind `lines`.
    pub(super) fn seal(&mut self, body: &[u8], lines: &mut Vec<u8>) {
        let begins = lines.len();
        lines.extend_from_slice(HEAD);
        digits(lines, self.next);
        for part in [body, BEFORE_HASH, &self.prev.0, END] {
            lines.extend_from_slice(part);
        }
        *self = Self::after(self.next, hash(lines.get(begins..).unwrap_or_default()));
        lines.push(b'\n');
    }
}

/// The hash by which the next line names `line`, which comes without its newline.
pub(super) fn hash(line: &[u8]) -> Hash {
    let mut digits = [b'0'; 64];
    // Two digits for each of 32 bytes: it cannot fail.
    let _ = hex::encode_to_slice(Sha256::digest(line), &mut digits);
    Hash(digits)
}

impl Hash {
    /// The digits.
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Whether `bytes`, which hold no newline, are the beginning of a line such as [`Chain::seal`] writes, up to the whole of it
/// without its newline.
pub(super) fn is_beginning(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(HEAD) else { return HEAD.starts_with(bytes) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (seq, rest) = rest.split_at(digits);
    // The greatest number has 16 digits.
    if seq.starts_with(b"0") || digits > 16 {
        return false;
    }
    if rest.len() < BEFORE_TIME.len() {
        return rest.is_empty() || digits > 0 && BEFORE_TIME.starts_with(rest);
    }
    if digits == 0 || !rest.starts_with(BEFORE_TIME) || bytes.len() > LINE_BYTES {
        return false;
    }
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Ok(_) => Link::read(bytes).is_ok(),
        Err(error) => error.is_eof(),
    }
}

/// What the chain needs of a line.
#[derive(Debug)]
pub(super) struct Link<'a> {
    pub(super) seq: u64,
    pub(super) prev: Cow<'a, str>,
}

/// Why a line is no link of a chain, in words.
#[derive(Debug)]
pub(super) struct Flaw(pub(super) String);

impl<'a> Link<'a> {
    /// Reads `line`, which comes without its newline.
    ///
    /// # Errors
    /// It is not UTF-8, not JSON, or not an object with `"v":1`, a `seq` from 1 and a `prev` of 64 hex digits, each once.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, Flaw> {
        #[derive(Deserialize)]
        struct Record<'a> {
            v: u64,
            seq: u64,
            #[serde(borrow)]
            prev: Cow<'a, str>,
        }
        let text = str::from_utf8(line).map_err(|error| Flaw(format!("not UTF-8: {error}")))?;
        let record: Record<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Flaw(format!("not a record: {error}")),
            _ => Flaw(format!("not JSON: {error}")),
        })?;
        if record.v != 1 {
            return Err(Flaw(format!("its `v` is {}, and only 1 is known", record.v)));
        }
        if !(1..=GREATEST_SEQ).contains(&record.seq) {
            return Err(Flaw(format!("its `seq` {} is out of range", record.seq)));
        }
        if record.prev.len() != 64 || !record.prev.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Flaw("its `prev` is not a hash of 64 lower-case hex digits".to_owned()));
        }
        Ok(Self { seq: record.seq, prev: record.prev })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_the_hash_of_the_line_before_it_without_its_newline() {
        let mut chain = Chain::new();
        let mut first = Vec::new();
        chain.seal(br#","kind":"start""#, &mut first);
        assert_eq!(first, format!("{{\"v\":1,\"seq\":1,\"kind\":\"start\",\"prev\":\"{NOTHING_BEFORE}\"}}\n").as_bytes());
        let mut second = first.clone();
        chain.seal(br#","kind":"stop""#, &mut second);
        let second = second.split_off(first.len());
        assert_eq!(chain.next(), 3);
        let link = Link::read(second.trim_ascii_end()).unwrap();
        assert_eq!((link.seq, &*link.prev), (2, hash(first.trim_ascii_end()).as_str()));
    }

    #[test]
    fn the_hash_is_the_one_that_sha256sum_prints() {
        assert_eq!(hash(b"abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_line_of_one_mebibyte_is_the_longest() {
        for seq in [1, 10, GREATEST_SEQ] {
            let mut line = Vec::new();
            Chain { next: seq, ..Chain::new() }.seal(b"", &mut line);
            let body = vec![b' '; LINE_BYTES + 2 - line.len()];
            let (most, more) = (&body[1..], &body[..]);
            assert!(Chain::fits(seq, most).is_ok());
            assert!(Chain::fits(seq, more).is_err());
            line.clear();
            Chain { next: seq, ..Chain::new() }.seal(most, &mut line);
            assert_eq!(line.len(), LINE_BYTES + 1);
        }
    }

    #[test]
    fn a_name_that_stands_twice_has_two_readings_and_is_no_link() {
        let line = format!(r#"{{"v":1,"seq":1,"seq":2,"prev":"{NOTHING_BEFORE}"}}"#);
        assert!(matches!(Link::read(line.as_bytes()), Err(Flaw(why)) if why.contains("duplicate field `seq`")));
    }
}
