//! A client that sends exactly the bytes it is given and shows exactly the bytes it is sent.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// A plain connection.
pub struct Connection {
    pub stream: TcpStream,
    pub host: String,
    buffer: Vec<u8>,
}

/// An answer, its body read to the end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the header `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, host: address.to_string(), buffer: Vec::new() }
    }

    /// `GET target`; the connection stays open.
    pub async fn get(&mut self, target: &str, headers: &[(&str, String)]) -> Answer {
        self.request("GET", target, headers, b"").await
    }

    /// Any request; a `Host` is added unless `headers` has one, a `Content-Length` when there is a body.
    pub async fn request(&mut self, method: &str, target: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await;
        self.send(body).await;
        self.answer(method).await
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads one answer to a request of `method`.
    pub async fn answer(&mut self, method: &str) -> Answer {
        timeout(PATIENCE, self.read_answer(method)).await.expect("no answer in time")
    }

    /// Whether the other side closes the connection, now or within a while, without sending more.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0; 1];
        matches!(timeout(PATIENCE, self.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }

    /// Reads only a head; what follows stays in the buffer for [`Connection::bytes`].
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "closed within a head: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8(head).unwrap();
        let mut lines = text.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer { status, headers, body: Vec::new() }
    }

    /// Exactly `count` bytes of what comes next.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "closed after {} of {count} bytes", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    async fn read_answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        if method == "HEAD" || answer.status == 204 || answer.status == 304 || answer.status < 200 {
            return answer;
        }
        if answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let size = usize::from_str_radix(self.line().await.split(';').next().unwrap().trim(), 16).unwrap();
                let chunk = self.bytes(size).await;
                self.bytes(2).await;
                if size == 0 {
                    return answer;
                }
                answer.body.extend(chunk);
            }
        }
        match answer.header("content-length").map(|value| value.parse().unwrap()) {
            Some(length) => answer.body = self.bytes(length).await,
            None => {
                while self.fill().await {}
                answer.body = std::mem::take(&mut self.buffer);
            }
        }
        answer
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line).unwrap().trim().to_owned();
            }
            assert!(self.fill().await, "closed within a line");
        }
    }

    /// Reads more; nothing when the other side closed.
    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let count = timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("nothing came in time").unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }
}
