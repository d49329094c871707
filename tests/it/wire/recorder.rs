//! An upstream that notes the bytes of every request and answers each alike; rolegate's own lookups go to a sample server.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rolegate::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::Gate;
use crate::support::gate::GateBuilder;

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

impl Seen {
    /// The first line without its end.
    pub fn line(&self) -> &[u8] {
        self.head.split(|byte| *byte == b'\r').next().unwrap()
    }

    /// Every value of the field `name`.
    pub fn values(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1.trim().to_owned()).collect()
    }
}

/// The upstream; it is closed when dropped.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    broken: Arc<Mutex<usize>>,
    answer: Arc<Mutex<String>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    /// One that answers so until it is told otherwise.
    pub async fn before(sample: SocketAddr, answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, broken) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let answer = Arc::new(Mutex::new(answer.to_owned()));
        let (journal, cut, told) = (Arc::clone(&seen), Arc::clone(&broken), Arc::clone(&answer));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (journal, cut, told) = (Arc::clone(&journal), Arc::clone(&cut), Arc::clone(&told));
                tokio::spawn(async move {
                    // The gate may leave between two requests, or within one that it was refused to finish.
                    if serve(stream, sample, &told, &journal).await == Err(Cut::Within) {
                        *cut.lock() += 1;
                    }
                });
            }
        });
        Self { address, seen, broken, answer, accepting }
    }

    /// A gate of Rocket.Chat before such an upstream.
    pub async fn gate(change: impl FnOnce(&mut Config)) -> (Gate, Self) {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", change).await
    }

    /// A gate of Rocket.Chat before one that answers so.
    pub async fn answering(answer: &str, change: impl FnOnce(&mut Config)) -> (Gate, Self) {
        let builder = GateBuilder::rocketchat().await;
        let recorder = Self::before(builder.sample.url().trim_start_matches("http://").parse().unwrap(), answer).await;
        let url = format!("http://{}", recorder.address).parse().unwrap();
        (builder.upstream(|settings| settings.url = url).with(change).start(), recorder)
    }

    /// From now on it answers so.
    pub fn answer(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock());
    }

    /// What came to its end, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// How many requests broke off.
    pub fn broken(&self) -> usize {
        *self.broken.lock()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Where a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    Between,
    Within,
}

async fn serve(mut stream: TcpStream, sample: SocketAddr, told: &Mutex<String>, journal: &Mutex<Vec<Seen>>) -> Result<(), Cut> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(|_| if head.is_empty() { Cut::Between } else { Cut::Within })?);
        }
        let mut seen = Seen { head, body: Vec::new() };
        if seen.values("user-agent").iter().any(|agent| agent.starts_with("rolegate/")) {
            let mut inner = TcpStream::connect(sample).await.unwrap();
            inner.write_all(&[&seen.head[..seen.head.len() - 2], b"connection: close\r\n\r\n"].concat()).await.unwrap();
            // The gate's own patience may be over.
            let _ = tokio::io::copy(&mut inner, &mut stream).await;
            let _ = stream.shutdown().await;
            return Ok(());
        }
        if let Some(length) = seen.values("content-length").first() {
            seen.body.resize(length.parse().unwrap(), 0);
            stream.read_exact(&mut seen.body).await.map_err(|_| Cut::Within)?;
        } else if !seen.values("transfer-encoding").is_empty() {
            while !seen.body.ends_with(b"0\r\n\r\n") {
                seen.body.push(stream.read_u8().await.map_err(|_| Cut::Within)?);
            }
        }
        let only_head = seen.head.starts_with(b"HEAD ");
        journal.lock().push(seen);
        let answer = told.lock().clone();
        let answer = if only_head { answer.split_inclusive("\r\n\r\n").next().unwrap_or_default() } else { &answer };
        stream.write_all(answer.as_bytes()).await.map_err(|_| Cut::Between)?;
    }
}
