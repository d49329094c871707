//! Connections to one upstream that the fast path keeps for the next request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use super::peer::KEPT;
use super::wire::Wire;

/// How many idle connections are kept for one upstream; more are closed.
const MOST: usize = 4096;
/// The room for an answer's beginning that a kept connection holds, in bytes: as it came, and as much for how it goes.
const ROOM: usize = 4096;

/// Idle connections, the one used last at the end: it is the likeliest to be still open.
#[derive(Debug, Default)]
pub(super) struct Kept {
    idle: Mutex<VecDeque<Idle>>,
}

/// A connection to an upstream, with room for what is read of it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: Wire,
    /// What was read and is not used yet.
    pub(super) received: Vec<u8>,
    /// Room for the beginning of an answer as it is sent on.
    pub(super) room: Vec<u8>,
}

#[derive(Debug)]
struct Idle {
    line: Line,
    address: SocketAddr,
    since: Instant,
}

impl Line {
    /// A new connection.
    pub(super) fn new(stream: Wire) -> Self {
        Self { stream, received: Vec::with_capacity(ROOM), room: Vec::new() }
    }
}

impl Kept {
    /// A connection to `address` that the upstream has not closed as far as is known.
    pub(super) fn take(&self, address: SocketAddr, now: Instant) -> Option<Line> {
        loop {
            let mut idle = self.idle.lock().pop_back()?;
            // A name that now leads elsewhere, or a server that is about to close what it has kept for so long.
            if idle.address != address || now.saturating_duration_since(idle.since) >= KEPT {
                continue;
            }
            // Whatever is there to be read is no answer: nothing was asked.
            let mut byte = [0; 1];
            if idle.line.stream.read(&mut byte).now_or_never().is_none() {
                return Some(idle.line);
            }
        }
    }

    /// Keeps a connection on which an answer was read to its end and not beyond.
    pub(super) fn put(&self, mut line: Line, address: SocketAddr, since: Instant) {
        // A long answer's room is not kept for the short ones.
        line.received.shrink_to(ROOM);
        line.room.shrink_to(ROOM);
        let mut idle = self.idle.lock();
        if idle.len() < MOST {
            idle.push_back(Idle { line, address, since });
        }
    }

    /// Closes what was kept too long.
    pub(super) fn sweep(&self) {
        let old: Vec<Idle> = {
            let mut idle = self.idle.lock();
            let old = idle.iter().take_while(|idle| idle.since.elapsed() >= KEPT).count();
            idle.drain(..old).collect()
        };
        drop(old);
    }
}
