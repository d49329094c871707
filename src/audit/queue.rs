//! Records on their way into the chain: they take their places in it when they are written, all in one call to the kernel.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;

use super::chain::AROUND;

/// What waits is written before it grows past this, in bytes.
const BYTES: usize = 64 << 10;
/// What waits is written before there are more records.
const RECORDS: usize = 1000;

/// Who has to do with a record that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody: it is accepted, and waits until it can be written.
    Accepted,
    /// Somebody has not acted yet, and is told what became of it. It does not outlive a write that fails.
    Awaited(Turn),
    /// The log's own, for a record behind it. It does not outlive a write that fails.
    Own,
}

/// The place of an awaited record among all that ever were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// Records without a place in the chain, in their order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bodies: Vec<u8>,
    records: Vec<Record>,
    accepted: usize,
    /// The turn of the next one that is awaited.
    next: Turn,
    /// Every turn before this one is written or has failed.
    open: Turn,
    /// What was not written, until it is told to whoever waits for it.
    failed: BTreeMap<Turn, io::Error>,
}

#[derive(Debug)]
struct Record {
    /// Where its body ends, which begins where the one before it ends.
    end: usize,
    /// When it happened.
    time: Timestamp,
    claim: Claim,
}

impl Queue {
    /// Whether it should be written before anything comes to it.
    pub(super) fn is_full(&self) -> bool {
        self.bodies.len() + self.records.len() * AROUND >= BYTES || self.records.len() >= RECORDS
    }

    /// How many records wait.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many of them nobody waits for.
    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }

    /// Adds a record that somebody waits for.
    pub(super) fn awaited(&mut self, time: Timestamp, body: &[u8]) -> Turn {
        let turn = self.next;
        self.next = Turn(turn.0.saturating_add(1));
        self.push(time, body, Claim::Awaited(turn));
        turn
    }

    /// Adds a record.
    pub(super) fn push(&mut self, time: Timestamp, body: &[u8], claim: Claim) {
        self.bodies.extend_from_slice(body);
        self.accepted += usize::from(claim == Claim::Accepted);
        self.records.push(Record { end: self.bodies.len(), time, claim });
    }

    /// The bodies.
    pub(super) fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.records.iter().map(move |record| {
            let body = self.bodies.get(begin..record.end).unwrap_or_default();
            begin = record.end;
            body
        })
    }

    /// All of it is written.
    pub(super) fn written(&mut self) {
        self.records.clear();
        self.accepted = 0;
        self.bodies.clear();
        self.bodies.shrink_to(2 * BYTES);
        self.open = self.next;
    }

    /// Only the first `written` records are; of the others those stay that are accepted. Gives back when those happened that
    /// somebody waits for.
    pub(super) fn partly_written(&mut self, written: usize, cause: &io::Error) -> Vec<Timestamp> {
        let told = std::mem::take(&mut self.failed);
        let mut kept = Self { next: self.next, open: self.next, failed: told, ..Self::default() };
        let mut failed = Vec::new();
        for (index, (record, body)) in self.records.iter().zip(self.bodies()).enumerate() {
            match record.claim {
                _ if index < written => {}
                Claim::Accepted => kept.push(record.time, body, Claim::Accepted),
                Claim::Awaited(turn) => {
                    failed.push(record.time);
                    kept.failed.insert(turn, again(cause));
                }
                Claim::Own => {}
            }
        }
        *self = kept;
        failed
    }

    /// Only the first `written` records are, and the others are tried again at once.
    pub(super) fn written_first(&mut self, written: usize) {
        self.keep_only(|index| index >= written);
    }

    /// Only the first `written` records are, and the others wait on, but for the log's own, which are made again.
    pub(super) fn written_in_part(&mut self, written: usize) {
        let claims: Vec<_> = self.records.iter().map(|record| record.claim).collect();
        self.keep_only(|index| index >= written && claims.get(index) != Some(&Claim::Own));
    }

    /// The record with this turn is not wanted any more; when it happened, if it was not written.
    pub(super) fn withdraw(&mut self, turn: Turn) -> Option<Timestamp> {
        let place = self.records.iter().position(|record| record.claim == Claim::Awaited(turn))?;
        let time = self.records.get(place).map(|record| record.time);
        self.keep_only(|index| index != place);
        time
    }

    /// Nobody waits for the record with this turn any more: it is accepted.
    pub(super) fn leave(&mut self, turn: Turn) {
        if let Some(record) = self.records.iter_mut().find(|record| record.claim == Claim::Awaited(turn)) {
            record.claim = Claim::Accepted;
            self.accepted += 1;
        }
    }

    fn keep_only(&mut self, keeps: impl Fn(usize) -> bool) {
        let told = std::mem::take(&mut self.failed);
        let mut kept = Self { next: self.next, open: self.next, failed: told, ..Self::default() };
        for (index, (record, body)) in self.records.iter().zip(self.bodies()).enumerate() {
            if keeps(index) {
                if let Claim::Awaited(turn) = record.claim {
                    kept.open = kept.open.min(turn);
                }
                kept.push(record.time, body, record.claim);
            }
        }
        *self = kept;
    }

    /// Whether the record with this turn is neither written nor has failed.
    pub(super) fn waits(&self, turn: Turn) -> bool {
        turn >= self.open
    }

    /// Why the record with this turn was not written, told once.
    pub(super) fn failure(&mut self, turn: Turn) -> Option<io::Error> {
        self.failed.remove(&turn)
    }
}

/// The same error for one more record.
pub(super) fn again(cause: &io::Error) -> io::Error {
    cause.raw_os_error().map_or_else(|| io::Error::new(cause.kind(), cause.to_string()), io::Error::from_raw_os_error)
}
