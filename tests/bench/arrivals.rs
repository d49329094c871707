//! A load that comes when it comes: requests arrive at random moments at a given rate, whether earlier ones are answered or not.
//!
//! A closed loop asks when it was answered, and wrk's pauses end on whole milliseconds, so that its requests come in bursts whose
//! last one waits for all others: both measure themselves. Here each connection has a clock of its own that ticks at random
//! (a Poisson process), and a latency is counted from the tick, so that what waits behind a slow answer is slow itself.

use std::env;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// As many callers as the closed loop has.
const CALLERS: u64 = 1000;
/// An answer that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(10);

/// What is asked, and by whom.
#[derive(Clone)]
struct Asked {
    port: u16,
    target: String,
    token: String,
    run: String,
}

/// What became of the requests of one connection.
#[derive(Default)]
struct Told {
    latencies: Vec<Duration>,
    refused: usize,
    failed: usize,
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let of = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
    let asked = Asked { port: of("PORT")?.parse()?, target: of("TARGET")?, token: of("TOKEN")?, run: of("RUN")? };
    let (connections, rate): (u64, f64) = (of("CONNECTIONS")?.parse()?, of("RATE")?.parse()?);
    let seconds = Duration::from_secs(of("SECONDS")?.parse()?);
    let began = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|number| {
            let asked = asked.clone();
            thread::spawn(move || connection(&asked, number, rate / connections as f64, began, seconds))
        })
        .collect();
    let mut all = Told::default();
    for thread in threads {
        let told = thread.join().map_err(|_| "a connection's thread panicked")?;
        all.latencies.extend(told.latencies);
        all.refused += told.refused;
        all.failed += told.failed;
    }
    let lasted = began.elapsed();
    all.latencies.sort_unstable();
    let percentile = |percent: usize| all.latencies.get(all.latencies.len() * percent / 100).map_or(0, Duration::as_micros);
    println!(
        r#"JSON {{"requests":{},"microseconds":{},"p50":{},"p99":{},"refused":{},"failed":{}}}"#,
        all.latencies.len(),
        lasted.as_micros(),
        percentile(50),
        percentile(99),
        all.refused,
        all.failed,
    );
    Ok(())
}

/// One connection's requests, `rate` of them a second on the average.
fn connection(asked: &Asked, number: u64, rate: f64, began: Instant, seconds: Duration) -> Told {
    let mut told = Told::default();
    let mut chance = Chance(number);
    let mut stream = None;
    let mut received = Vec::new();
    let mut due = began;
    loop {
        due += Duration::from_secs_f64(-chance.next().ln() / rate);
        if due - began >= seconds {
            return told;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let caller = (chance.next() * CALLERS as f64) as u64 + 1;
        match exchange(asked, caller, &mut stream, &mut received) {
            Ok(status) => {
                told.latencies.push(due.elapsed());
                told.refused += usize::from(status >= 400);
            }
            Err(_) => {
                told.failed += 1;
                stream = None;
            }
        }
    }
}

/// Asks once, and reads the whole answer; its status.
fn exchange(asked: &Asked, caller: u64, stream: &mut Option<TcpStream>, received: &mut Vec<u8>) -> Result<u16> {
    let stream = match stream {
        Some(stream) => stream,
        None => {
            let new = TcpStream::connect(("127.0.0.1", asked.port))?;
            new.set_nodelay(true)?;
            new.set_read_timeout(Some(LONGEST))?;
            stream.insert(new)
        }
    };
    let Asked { port, target, token, run } = asked;
    let target = target.replace("{n}", &(caller % 97).to_string());
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-Token: {token}{run}{caller:034}\r\n\
         X-User-Id: u{caller:016}\r\nAccept: application/json\r\nUser-Agent: bench/1\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    received.clear();
    loop {
        let mut part = [0; 8192];
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(part.get(..count).unwrap_or_default());
        if let Some(status) = answered(received)? {
            return Ok(status);
        }
    }
}

/// The status of an answer that is there to its end.
fn answered(bytes: &[u8]) -> Result<Option<u16>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut fields);
    let parsed = answer.parse(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let length = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidData, "the answer says no length"))?;
    Ok(answer.code.filter(|_| bytes.len() >= head + length))
}

/// Numbers between 0 and 1 (Vigna's splitmix64), the same for each run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Never nought, of which there is no logarithm.
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON / 4.0
    }
}
