//! What reaches the upstream and what reaches the client, whole and on both paths, held against `frozen.toml`.

use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::recorder::{Recorder, Seen};
use crate::support::{Gate, PATIENCE};

/// A refused request behind the one that is looked at: what comes before its answer is the other one's, all of it.
const END: &str = "GET /api/v1/%2e HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n";
const ANSWER_OF_END: &str = "HTTP/1.1 400 Bad Request\r\n";

#[derive(Deserialize)]
struct Table {
    exchange: Vec<Exchange>,
}

/// Texts whose lines end with `\n` instead of `\r\n`.
#[derive(Deserialize)]
struct Exchange {
    what: String,
    request: String,
    #[serde(default = "plain")]
    answer: String,
    /// What arrives at the upstream; nothing where it is refused.
    arrives: String,
    gets: String,
    /// What the client gets on the general path, where that is something else: the engine adds fields of its own.
    general: Option<String>,
}

fn plain() -> String {
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".to_owned()
}

fn wire(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Bytes as the table has them: without what is another one each time.
fn steady(bytes: &[u8], gate: &Gate, upstream: &Recorder) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let text = text.replace(&gate.address().to_string(), "GATE").replace(&upstream.address.to_string(), "UPSTREAM");
    let lines = text.split_inclusive('\n').map(|line| match line.split_once(": ") {
        Some((name, value)) if name.eq_ignore_ascii_case("x-request-id") && value.trim_end().len() == 26 => {
            format!("{name}: ID\n")
        }
        Some((name, _)) if name.eq_ignore_ascii_case("date") => format!("{name}: DATE\n"),
        _ => line.to_owned(),
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_an_exchange_is_the_frozen_one_on_both_paths() {
    let table: Table = toml::from_str(include_str!("frozen.toml")).unwrap();
    let mut other = String::new();
    for fast in [true, false] {
        let (gate, upstream) = Recorder::gate(|config| config.listen.fast_path = fast).await;
        for exchange in &table.exchange {
            upstream.answer(&wire(&exchange.answer));
            let before = upstream.seen().len();
            let mut connection = gate.connect().await;
            connection.send(format!("{}{END}", wire(&exchange.request)).as_bytes()).await;
            let mut received = Vec::new();
            tokio::time::timeout(PATIENCE, connection.stream.read_to_end(&mut received)).await.unwrap().unwrap();
            let received = steady(&received, &gate, &upstream);
            let gets = received.rsplit_once(&ANSWER_OF_END.replace("\r\n", "\n")).map_or(&*received, |(gets, _)| gets);
            let whole = |seen: &Seen| steady(&[&seen.head[..], &seen.body].concat(), &gate, &upstream);
            let arrives: String = upstream.seen()[before..].iter().map(whole).collect();
            let wanted = exchange.general.as_ref().filter(|_| !fast).unwrap_or(&exchange.gets);
            if (arrives.as_str(), gets) != (&*exchange.arrives, wanted.as_str()) {
                other += &format!("# {}, fast: {fast}\narrives = '''\n{arrives}'''\ngets = '''\n{gets}'''\n\n", exchange.what);
            }
        }
    }
    assert!(other.is_empty(), "\n{other}");
}
