//! The process log: which lines are written, and the thread that writes them, so that nothing else waits for their reader.
//!
//! The reader of standard error may be gone, its disk full, or nobody reads from the pipe. A line that cannot be written is
//! dropped and counted; the thread that has something to say goes on in any case.

mod asked;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::metrics;
use crate::model::escape::escape_but;
use asked::Asked;

/// How many lines may wait to be written, and how many bytes they may have together.
const MOST_LINES: usize = 4096;
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// How long the end of the process waits for the last lines.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a standard error that does not block is tried again, and an order to a queue that is full.
const AGAIN: Duration = Duration::from_millis(10);

/// The process log; when it is dropped, the lines that wait are written, unless that takes longer than a second.
#[derive(Debug)]
#[must_use]
pub struct Log {
    lines: Lines,
}

impl Log {
    /// Begins to write what `RUST_LOG` asks for to standard error: text to a terminal, JSON elsewhere. From now on a panic is a
    /// line, too. Only the first call in a process has an effect.
    pub fn begin() -> Self {
        let lines = Lines::to(standard_error(), Arc::new(metrics::log_line_dropped));
        let Asked { allowed, complaints } = Asked::by(std::env::var_os("RUST_LOG").as_deref());
        let text = tracing_subscriber::fmt::layer().with_writer(lines.clone()).log_internal_errors(false);
        let format = if io::stderr().is_terminal() { text.boxed() } else { text.json().flatten_event(true).boxed() };
        if tracing_subscriber::registry().with(format).with(allowed).try_init().is_ok() {
            std::panic::set_hook(Box::new(tell));
        }
        for complaint in complaints {
            tracing::warn!("RUST_LOG: {complaint}");
        }
        Self { lines }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush(FAREWELL);
    }
}

/// Makes a line of a panic. The hook of the standard library would write to standard error itself, and wait for its reader.
fn tell(panic: &PanicHookInfo<'_>) {
    metrics::panicked();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    let thread = thread::current();
    tracing::error!(place, thread = thread.name(), backtrace, "panicked: {}", text.unwrap_or("without a text"));
}

/// Standard error by a descriptor of its own: the one of the standard library is behind a lock, which a write that does not
/// return would hold.
fn standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(owned) => Box::new(File::from(owned)),
        // There is none; every line is dropped.
        Err(_) => Box::new(&mut [] as &'static mut [u8]),
    }
}

/// The lines that wait to be written; clones share them.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Message>,
    /// How many bytes wait.
    bytes: Arc<AtomicUsize>,
    /// Counts a line that was not written.
    dropped: Arc<dyn Fn() + Send + Sync>,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it was written or dropped.
    Told(SyncSender<()>),
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Lines {
    /// Lines that a thread of their own writes to `out`; `dropped` is called for each that was not written.
    fn to(out: impl Write + Send + 'static, dropped: Arc<dyn Fn() + Send + Sync>) -> Self {
        let (queue, messages) = sync_channel(MOST_LINES);
        let lines = Self { queue, bytes: Arc::default(), dropped: Arc::clone(&dropped) };
        let bytes = Arc::clone(&lines.bytes);
        // Without the thread its end of the queue is gone, and every line is dropped and counted.
        let _ = thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&messages, &bytes, &*dropped, out));
        lines
    }

    /// Takes a line, or drops it when too many wait. Never waits.
    fn put(&self, line: &[u8]) {
        let waiting = self.bytes.fetch_add(line.len(), Ordering::AcqRel);
        if waiting.saturating_add(line.len()) > MOST_BYTES || self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::AcqRel);
            (self.dropped)();
        }
    }

    /// Waits until the lines so far were written or dropped, at most as long as `within` says; whether they were.
    fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let (told, hears) = sync_channel(1);
        while let Err(error) = self.queue.try_send(Message::Told(told.clone())) {
            if matches!(error, TrySendError::Disconnected(_)) || Instant::now() >= deadline {
                return false;
            }
            thread::sleep(AGAIN);
        }
        hears.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// Whether the subscriber itself writes `c`: it ends lines and colours them, and escapes the colours of others.
fn is_own(c: char) -> bool {
    matches!(c, '\n' | '\t' | '\u{1b}')
}

/// Takes one line with each write, as the subscriber makes them.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match str::from_utf8(line).map(|text| escape_but(text, is_own)) {
            Ok(Cow::Owned(escaped)) => self.put(escaped.as_bytes()),
            _ => self.put(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Writes lines as they come until nobody can bring one.
fn write_lines(messages: &Receiver<Message>, bytes: &AtomicUsize, dropped: &dyn Fn(), mut out: impl Write) {
    let mut torn = false;
    for message in messages {
        match message {
            Message::Line(line) => {
                // Half a line that a failure left shall not run into the next one.
                let ended = !torn || write(&mut out, b"\n") == 1;
                let written = if ended { write(&mut out, &line) } else { 0 };
                torn = if ended { written > 0 && written < line.len() } else { torn };
                if written < line.len() {
                    dropped();
                }
                bytes.fetch_sub(line.len(), Ordering::AcqRel);
            }
            // Who asked may have lost patience.
            Message::Told(told) => drop(told.try_send(())),
        }
    }
}

/// How many of `bytes` were written.
fn write(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program that has the same pipe or terminal made it one that does not block.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, pipe};

    use parking_lot::Mutex;

    use super::*;

    /// Lines to `out`, and how many were dropped.
    fn lines(out: impl Write + Send + 'static) -> (Lines, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let dropped = move || {
            counted.fetch_add(1, Ordering::AcqRel);
        };
        (Lines::to(out, Arc::new(dropped)), count)
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_not_seen_or_moves_a_cursor_is_written_out() {
        let (mut reader, writer) = pipe().unwrap();
        let (mut lines, dropped) = lines(writer);
        let line = "\u{1b}[31mERROR\u{1b}[0m why=a\u{9b}2J\u{2028}b\u{202e}c\u{7f}\n";
        assert_eq!(lines.write(line.as_bytes()).unwrap(), line.len());
        assert!(lines.flush(SOON));
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\u{1b}[31mERROR\u{1b}[0m why=a\\u009b2J\\u2028b\\u202ec\\u007f\n");
        assert_eq!(dropped.load(Ordering::Acquire), 0);
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (mut reader, writer) = pipe().unwrap();
        let (lines, dropped) = lines(writer);
        for number in 0..100 {
            lines.put(format!("line {number}\n").as_bytes());
        }
        assert!(lines.flush(SOON));
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, (0..100).map(|number| format!("line {number}\n")).collect::<String>());
        assert_eq!(dropped.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_pipe_that_nobody_reads_takes_no_time_of_those_who_have_something_to_say() {
        let (mut reader, writer) = pipe().unwrap();
        let (lines, dropped) = lines(writer);
        let line = vec![b'a'; 1024];
        let began = Instant::now();
        for _ in 0..20_000 {
            lines.put(&line);
        }
        assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
        let lost = dropped.load(Ordering::Acquire);
        assert!((15_000..20_000).contains(&lost), "{lost} of 20000 lines were dropped");
        assert!(lines.bytes.load(Ordering::Acquire) <= MOST_BYTES + line.len());
        assert!(!lines.flush(Duration::from_millis(50)), "nobody has read them");
        // Once somebody reads, what waited comes, and so does what is said from then on.
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        });
        assert!(lines.flush(SOON));
        lines.put(b"the last");
        assert!(lines.flush(SOON));
        drop(lines);
        let text = reading.join().unwrap();
        assert_eq!(text.len(), (20_000 - lost) * line.len() + "the last".len());
        assert!(text.ends_with(b"the last"));
    }

    /// Takes as many bytes as it is told, or fails.
    struct Scripted {
        script: VecDeque<Result<usize, io::ErrorKind>>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self.script.pop_front().unwrap_or(Ok(usize::MAX))?;
            let taken = &bytes[..most.min(bytes.len())];
            self.text.lock().extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_dropped_and_counted_and_the_next_line_is_a_line() {
        use io::ErrorKind::{BrokenPipe, Interrupted, StorageFull, WouldBlock};
        for (script, written, lost) in [
            (vec![], "one\ntwo\nthree\n", 0),
            (vec![Err(Interrupted), Err(WouldBlock), Ok(1), Ok(2)], "one\ntwo\nthree\n", 0),
            (vec![Err(StorageFull)], "two\nthree\n", 1),
            (vec![Ok(2), Err(StorageFull)], "on\ntwo\nthree\n", 1),
            (vec![Ok(2), Err(StorageFull), Err(StorageFull)], "on\nthree\n", 2),
            (vec![Ok(2), Ok(0), Ok(1), Ok(1), Err(StorageFull)], "on\nt\nthree\n", 2),
            (vec![Err(BrokenPipe); 3], "", 3),
        ] {
            let text = Arc::new(Mutex::new(Vec::new()));
            let (lines, dropped) = lines(Scripted { script: script.clone().into(), text: Arc::clone(&text) });
            for line in ["one\n", "two\n", "three\n"] {
                lines.put(line.as_bytes());
            }
            assert!(lines.flush(SOON));
            assert_eq!(String::from_utf8_lossy(&text.lock()), written, "{script:?}");
            assert_eq!(dropped.load(Ordering::Acquire), lost, "{script:?}");
        }
    }
}
