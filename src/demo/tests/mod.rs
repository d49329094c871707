//! The sample servers as a client meets them, byte for byte.

mod docusign;
mod matrix;
mod plain;
mod rocketchat;
mod server;

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Sample;

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// Fails the test rather than waiting for ever.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("nothing happened in ten seconds")
}

/// Sends `METHOD target` with header lines on a connection of its own; `None` when the connection ends without an answer.
async fn send(sample: &Sample, line: &str, headers: &[&str], body: &str) -> Option<Answer> {
    let mut request = format!("{line} HTTP/1.1\r\nhost: chat.example.org\r\nconnection: close\r\n");
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str(&format!("\r\n{body}"));
    let mut stream = TcpStream::connect(sample.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // A cut connection may end with a reset.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let raw = &bytes[end + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked && !raw.is_empty() { unchunk(raw) } else { raw.to_vec() };
    Some(Answer { status, head, body })
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw = &raw[end + 2 + size + 2..];
    }
}

async fn get(sample: &Sample, target: &str, headers: &[&str]) -> Answer {
    send(sample, &format!("GET {target}"), headers, "").await.expect("an answer")
}

/// A GET of the Rocket.Chat sample with somebody's session.
async fn as_person(sample: &Sample, name: &str, target: &str) -> Answer {
    let id = sample.with(|world| world.workspace.people.iter().find(|person| person.username == name).unwrap().id.clone());
    get(sample, target, &[&format!("x-user-id: {id}"), &format!("x-auth-token: {name}-token")]).await
}
