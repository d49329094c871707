//! The connections of operators and monitoring: bounded in number and in time, so that they take nothing from clients.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::admin::Admin;
use super::chunks::Chunks;
use super::convert;
use super::entrance::BROKEN_CHUNKS;
use super::errors::{LATE, Unaccepted};
use super::fence::{Fence, Handover};
use super::gate::Gate;
use super::head::{self, Fields, Framing, Head, Reading};
use super::wire::{self, Wire};
use crate::rules::refusal::Refusal;

/// How many connections there may be at once.
const MOST: usize = 64;
/// How long to wait when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// What is read of a head at once.
const READ_AT_ONCE: usize = 2048;
/// How long a refusal may take to be sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// Accepts the connections of operators.
#[derive(Debug)]
pub(super) struct Operators {
    app: Arc<Admin>,
    gate: Arc<Gate>,
    places: Arc<Places>,
}

/// Why no head came.
enum Missing {
    Closed,
    Refused(&'static str),
}

impl Operators {
    /// Lets `app` answer.
    pub(super) fn new(app: Admin, gate: Arc<Gate>) -> Self {
        Self { app: Arc::new(app), gate, places: Arc::default() }
    }

    /// Accepts until the process ends, also while it drains.
    pub(super) async fn accept(self: Arc<Self>, listener: Arc<TcpListener>) {
        let mut unaccepted = Unaccepted::of("an operator's connection");
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = self.places.take() else { continue };
                    let this = Arc::clone(&self);
                    tokio::spawn(async move { this.serve(stream, peer, place).await });
                }
                Err(error) => {
                    unaccepted.tell(&error);
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }

    /// One request after the other. Each has as long as a client's for its head, its content and the taking of its answer.
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, mut place: Place) {
        let patience = self.gate.config.limits.header_deadline;
        let (_never, shutdown) = watch::channel(false);
        if let Err(error) = wire::bound(&stream, patience, None) {
            tracing::debug!(%error, "an operator who takes nothing of an answer is kept");
        }
        let (mut stream, mut buffer, mut room) = (Wire::tcp(stream, peer), Vec::new(), Fields::default());
        loop {
            let wanted = place.waits();
            let came = tokio::select! {
                came = timeout(patience, self.head(&mut stream, &mut buffer, &mut room)) => came,
                // Somebody else came, and this one had not asked for anything.
                () = wanted.notified() => return,
            };
            place.is_busy();
            let head = match came {
                Ok(Ok(head)) => head,
                Ok(Err(Missing::Refused(why))) => return dismiss(stream, 400, why, head_only(&buffer)).await,
                Err(_) if !buffer.is_empty() => {
                    return dismiss(stream, LATE, "the request did not come in time", head_only(&buffer)).await;
                }
                Ok(Err(Missing::Closed)) | Err(_) => return,
            };
            let bytes = std::mem::take(&mut buffer);
            let handover = Arc::new(Handover::default());
            // What the engine says goes out: operators know no other words.
            handover.see();
            let fence = match head.framing {
                Framing::Length(content) => Fence::around(stream, bytes, (head.length as u64).saturating_add(content), handover),
                Framing::Chunked => {
                    let mut chunks = Chunks::default();
                    let chunked = chunks.take(bytes.get(head.length..).unwrap_or_default());
                    if chunks.is_broken() {
                        return dismiss(stream, 400, BROKEN_CHUNKS, false).await;
                    }
                    Fence::chunked(stream, bytes, head.length + chunked, chunks, handover)
                }
            };
            let mut session = ServerSession::new_http1(Box::new(fence));
            session.set_keepalive(Some(patience.as_secs().max(1)));
            session.set_read_timeout(Some(patience));
            let Some(reused) = self.app.process_new_http(session, &shutdown).await else { return };
            let Ok(fence) = reused.consume().0.into_any().downcast::<Fence>() else { return };
            let Some((inner, rest)) = fence.into_parts() else { return };
            (stream, buffer) = (inner, rest);
        }
    }

    /// Reads until `buffer` begins with a whole head.
    async fn head(&self, stream: &mut Wire, buffer: &mut Vec<u8>, room: &mut Fields) -> Result<Head, Missing> {
        let limits = &self.gate.config.limits;
        loop {
            while buffer.starts_with(b"\r\n") {
                buffer.drain(..2);
            }
            match head::read(buffer, limits.header_bytes, limits.header_fields, room) {
                Reading::Complete(head) => return Ok(head),
                Reading::Refused(malformed) => return Err(Missing::Refused(malformed.why)),
                Reading::Incomplete => {}
            }
            buffer.reserve(READ_AT_ONCE);
            if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
                return Err(Missing::Closed);
            }
        }
    }
}

/// Whether what came of a request asks for a head only, which is answered without a content.
fn head_only(came: &[u8]) -> bool {
    came.starts_with(b"HEAD ")
}

/// Answers what is no request, and closes.
async fn dismiss(mut stream: Wire, status: u16, why: &str, head_only: bool) {
    let refusal = Refusal { status, body: json!({ "error": why }).to_string(), headers: Vec::new() };
    let answer = convert::refusal_bytes(&refusal, "", false, head_only);
    let farewell = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        Ok::<(), io::Error>(())
    };
    // The other side may be gone, or take nothing; either way this is the end.
    drop(timeout(FAREWELL, farewell).await);
}

/// The places for connections. When all are taken, the one that has waited longest for a request makes room, so that
/// connections on which nothing is asked for do not keep monitoring out.
#[derive(Debug, Default)]
struct Places {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// How many were ever taken: the number of the next one.
    next: u64,
    /// Those that wait for a request, in the order in which they began to.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// The place of one connection; it is free when this is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    /// A place, if there is one or can be one.
    fn take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state.lock();
        if state.taken >= MOST {
            let (_, oldest) = state.waiting.pop_first()?;
            oldest.notify_one();
        }
        state.taken += 1;
        state.next += 1;
        Some(Place { places: Arc::clone(self), number: state.next })
    }
}

impl Place {
    /// From now on its connection waits for a request; it is told when it has to make room.
    fn waits(&mut self) -> Arc<Notify> {
        let mut state = self.places.state.lock();
        state.waiting.remove(&self.number);
        state.next += 1;
        self.number = state.next;
        let wanted = Arc::default();
        state.waiting.insert(self.number, Arc::clone(&wanted));
        wanted
    }

    /// From now on its connection is asked for something.
    fn is_busy(&self) {
        self.places.state.lock().waiting.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state.lock();
        state.taken -= 1;
        state.waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_one_that_waited_longest_makes_room_and_those_that_are_busy_do_not() {
        let places = Arc::new(Places::default());
        let mut taken: Vec<(Place, Arc<Notify>)> = Vec::new();
        for _ in 0..MOST {
            let mut place = places.take().unwrap();
            let wanted = place.waits();
            taken.push((place, wanted));
        }
        // The first is asked for something, the second has begun to wait again: the third has waited longest.
        taken[0].0.is_busy();
        taken[1].1 = taken[1].0.waits();
        let newcomer = places.take().unwrap();
        let told: Vec<usize> = (0..MOST).filter(|index| taken[*index].1.notified().now_or_never().is_some()).collect();
        assert_eq!(told, [2]);
        drop(taken.remove(2));
        newcomer.is_busy();
        taken.iter().for_each(|(place, _)| place.is_busy());
        assert!(places.take().is_none(), "all are busy");
        drop(newcomer);
        assert!(places.take().is_some());
        drop(taken);
        let state = places.state.lock();
        assert_eq!((state.taken, state.waiting.len()), (0, 0));
    }
}
