//! Raw requests that try to get around the gate, replayed before an upstream that forgives everything.
//!
//! Each file of `tests/corpus` is one connection's bytes below a few lines that begin with `# `: its class, its origin, and
//! what must become of it:
//!
//! - `refused [reason]`: nothing reaches the upstream, and a record or a count says why;
//! - `guarded`: it is judged, and eve, who sends it, has no permit;
//! - `passes`: it reaches the upstream, and is no guarded action there by any reading;
//! - `permitted`: a control by somebody who may, so that a guarded answer can be seen at all.
//!
//! Whatever the line says, nobody without a permit is ever shown a guarded action's answer.

use std::net::SocketAddr;
use std::path::Path;

use rolegate::demo::Sample;
use rolegate::demo::world::account::ACCOUNT;
use rolegate::demo::world::homeserver::COUNCIL;
use rolegate::demo::world::workspace::{BOARDROOM, BOB, CAROL, EVE, GENERAL};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::lenient::{GUARDED, Lenient, Seen};
use crate::support::{Gate, GateBuilder, PATIENCE};

/// One file.
pub struct Attempt {
    pub name: String,
    pub provider: String,
    expect: String,
    reason: Option<String>,
    /// The client says that it has no more to send.
    closes: bool,
    bytes: Vec<u8>,
}

impl Attempt {
    fn read(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(path).unwrap();
        let (mut provider, mut expect, mut closes) = ("rocketchat".to_owned(), None, false);
        while bytes.starts_with(b"# ") {
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let line = String::from_utf8(bytes.drain(..=end).collect()).unwrap();
            match line.trim_start_matches("# ").trim_end().split_once(": ") {
                Some(("expect", value)) => expect = Some(value.to_owned()),
                Some(("provider", value)) => value.clone_into(&mut provider),
                Some(("then", "close")) => closes = true,
                Some(("class" | "origin", _)) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
        let expect = expect.unwrap_or_else(|| panic!("{name} does not say what it expects"));
        let (expect, reason) = match expect.split_once(' ') {
            Some((expect, reason)) => (expect.to_owned(), Some(reason.to_owned())),
            None => (expect, None),
        };
        assert!(["refused", "guarded", "passes", "permitted"].contains(&expect.as_str()), "{name}: {expect}");
        Self { name, provider, expect, reason, closes, bytes }
    }

    /// The bytes to send: `{host}` and its like are replaced, `{3*ab}` is repeated.
    pub fn filled(&self, host: &str) -> Vec<u8> {
        let inner = format!("GET /api/v1/rooms.roles?rid={BOARDROOM} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (length, chunked_length) = (inner.len().to_string(), (inner.len() + 5).to_string());
        let hex = format!("{:x}", inner.len());
        let mut bytes = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some(open) = rest.iter().position(|byte| *byte == b'{') {
            bytes.extend_from_slice(&rest[..open]);
            rest = &rest[open..];
            let close = rest.iter().position(|byte| *byte == b'}').map_or(0, |at| at + 1);
            let name = String::from_utf8_lossy(rest.get(1..close.saturating_sub(1)).unwrap_or_default()).into_owned();
            let value = match name.as_str() {
                "host" => host,
                "eve" => EVE,
                "carol" => CAROL,
                "bob" => BOB,
                "boardroom" => BOARDROOM,
                "boardroom-tail" => &BOARDROOM[1..],
                "general" => GENERAL,
                "account" => ACCOUNT,
                "council" => COUNCIL,
                "inner" => &inner,
                "inner-length" => &length,
                "inner-hex" => &hex,
                "chunked-inner-length" => &chunked_length,
                other => match other.split_once('*') {
                    Some((times, text)) => &text.replace("\\r\\n", "\r\n").repeat(times.parse().unwrap()),
                    None => &String::from_utf8_lossy(&rest[..close.max(1)]).into_owned(),
                },
            };
            bytes.extend_from_slice(value.as_bytes());
            rest = &rest[close.max(1)..];
        }
        bytes.extend_from_slice(rest);
        bytes
    }

    /// Sends it and reads all that is answered, to the end of the connection.
    pub async fn send(&self, gate: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(gate).await.unwrap();
        // A gate that refuses early may close before it was sent everything.
        let sent = stream.write_all(&self.filled(&gate.to_string())).await;
        if self.closes {
            drop(stream.shutdown().await);
        }
        let mut answers = Vec::new();
        let mut asked = self.closes || sent.is_err();
        let mut chunk = [0; 16 * 1024];
        loop {
            // The last word: what was hidden behind the first request is dealt with before it, and it ends the connection.
            if !asked && is_whole(&answers) {
                asked = true;
                let last = format!("GET {LAST} HTTP/1.1\r\nHost: {gate}\r\nConnection: close\r\n\r\n");
                drop(stream.write_all(last.as_bytes()).await);
            }
            match timeout(PATIENCE, stream.read(&mut chunk)).await {
                Ok(Ok(count)) if count > 0 => answers.extend_from_slice(&chunk[..count]),
                Ok(_) => return answers,
                Err(_) => {
                    answers.extend_from_slice(b"(and no end)");
                    return answers;
                }
            }
        }
    }
}

/// What must never be.
const BROKEN: &str = "A GUARDED ANSWER WITHOUT A PERMIT";

/// The path of the request that ends every attempt.
pub const LAST: &str = "/the-last-word";

/// Whether an answer's head is there; its body is short.
fn is_whole(answers: &[u8]) -> bool {
    answers.windows(4).any(|four| four == b"\r\n\r\n")
}

/// Every kind of upstream that the corpus has attempts for.
pub const PROVIDERS: [&str; 3] = ["rocketchat", "docusign-rooms", "matrix"];

/// A gate before an upstream, with what was seen of either so far.
pub struct Replay {
    pub gate: Gate,
    pub upstream: Lenient,
    records: usize,
    /// How many were rejected before any verdict.
    rejected: f64,
    seen: usize,
}

impl Replay {
    pub async fn before(provider: &str, fast_path: bool) -> Self {
        let upstream = Lenient::start().await;
        let url = || upstream.url().parse().unwrap();
        let builder = match provider {
            "rocketchat" => GateBuilder::rocketchat().await.upstream(|settings| settings.url = url()),
            "matrix" => {
                let sample = Sample::matrix().await.unwrap();
                GateBuilder::before("matrix", sample).upstream(|settings| settings.url = url())
            }
            _ => GateBuilder::docusign().await.upstream(|settings| {
                settings.url = url();
                settings.account = Some(url());
            }),
        };
        let builder = builder.with(|config| config.listen.fast_path = fast_path);
        Self { gate: builder.start(), upstream, records: 0, rejected: 0.0, seen: 0 }
    }

    async fn rejected(&self) -> f64 {
        let page = self.gate.admin_get("/metrics").await.text();
        let counts = page.lines().filter(|line| line.starts_with("rolegate_rejected_total"));
        counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// What is wrong with what became of `attempt`.
    async fn wrong(&mut self, attempt: &Attempt) -> Option<String> {
        let answers = attempt.send(self.gate.address()).await;
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let records: Vec<Value> = self.gate.records_of("decision").split_off(self.records);
        self.records += records.len();
        let seen: Vec<Seen> = self.upstream.seen().split_off(self.seen);
        self.seen += seen.len();
        let seen: Vec<Seen> = seen.into_iter().filter(|seen| !seen.line.contains(LAST)).collect();
        let rejected = self.rejected().await;
        let counted = rejected > self.rejected;
        self.rejected = rejected;

        let told = || {
            let answer = answers.lines().next().unwrap_or("nothing");
            let reasons: Vec<&Value> = records.iter().map(|record| &record["reason"]).collect();
            format!("{answer}; records {reasons:?}; counted {counted}; reached {seen:?}")
        };
        if answers.ends_with("(and no end)") {
            return Some(told());
        }
        let permitted = attempt.expect == "permitted";
        let guarded = seen.iter().filter(|seen| seen.guarded).count();
        if (guarded > 0 || answers.contains(GUARDED)) && !permitted {
            return Some(format!("{BROKEN}: {}", told()));
        }
        let reason = |record: &Value| record["reason"].as_str().unwrap_or_default().to_owned();
        let holds = match attempt.expect.as_str() {
            "refused" => {
                let right = |record: &Value| match &attempt.reason {
                    Some(expected) => reason(record) == *expected,
                    None => !reason(record).is_empty() && reason(record) != "policy_denied",
                };
                seen.is_empty() && (records.iter().any(right) || (records.is_empty() && counted && attempt.reason.is_none()))
            }
            "guarded" => {
                seen.is_empty()
                    && !records.is_empty()
                    && records.iter().all(|record| reason(record) == "policy_denied" || reason(record) == "credential_missing")
                    && reason(&records[0]) == "policy_denied"
            }
            "passes" => !seen.is_empty(),
            _ => guarded == 1 && answers.contains(GUARDED) && records.len() == 1 && records[0]["decision"] == "permit",
        };
        (!holds).then(told)
    }
}

/// Every file, by name.
pub fn attempts() -> Vec<Attempt> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    paths.sort();
    let attempts: Vec<Attempt> = paths.iter().map(|path| Attempt::read(path)).collect();
    for attempt in &attempts {
        assert!(PROVIDERS.contains(&attempt.provider.as_str()), "{}: nobody sends it to `{}`", attempt.name, attempt.provider);
    }
    assert!(attempts.len() >= 200, "only {} files", attempts.len());
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_the_corpus_shows_a_guarded_answer_without_a_permit() {
    let attempts = attempts();
    let mut failures = Vec::new();
    for (provider, fast_path) in PROVIDERS.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let mut replay = Replay::before(provider, fast_path).await;
        for attempt in attempts.iter().filter(|attempt| attempt.provider == provider) {
            if let Some(wrong) = replay.wrong(attempt).await {
                failures.push(format!("{} ({}, fast: {fast_path}): {wrong}", attempt.name, attempt.expect));
            }
        }
        let permitted = attempts.iter().filter(|attempt| attempt.provider == provider && attempt.expect == "permitted").count();
        let guarded = replay.upstream.seen().iter().filter(|seen| seen.guarded).count();
        if guarded != permitted {
            failures.push(format!("{provider}, fast: {fast_path}: {guarded} answers, {permitted} permits"));
        }
    }
    assert!(failures.is_empty(), "{} of {} files:\n{}", failures.len(), attempts.len(), failures.join("\n"));
}
