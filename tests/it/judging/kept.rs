//! An upstream that keeps every request whole, body included, and answers lookups for somebody who may do anything.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rolegate::demo::Sample;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::GateBuilder;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line and the fields.
    pub head: String,
    /// What came behind it, without the sizes of chunks.
    pub body: Vec<u8>,
}

impl Request {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The value of the field `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The upstream; it is closed when dropped.
pub struct Upstream {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    // The gate may leave at any time; that ends the connection.
                    let _ = serve(stream, &kept).await;
                });
            }
        });
        Self { address, requests, accepting }
    }

    /// A gate before it, as before a server of `provider`.
    pub async fn gate(&self, provider: &str) -> GateBuilder {
        let url = format!("http://{}", self.address).parse().unwrap();
        GateBuilder::before(provider, Sample::rocketchat().await.unwrap()).upstream(|upstream| upstream.url = url)
    }

    /// Every request but the gate's own lookups, in order.
    pub fn requests(&self) -> Vec<Request> {
        let all = self.requests.lock().clone();
        all.into_iter()
            .filter(|request| !request.header("user-agent").is_some_and(|agent| agent.starts_with("rolegate/")))
            .collect()
    }

    /// The targets of the gate's own lookups, in order.
    pub fn lookups(&self) -> Vec<String> {
        let all = self.requests.lock().clone();
        let own = |request: &&Request| request.header("user-agent").is_some_and(|agent| agent.starts_with("rolegate/"));
        all.iter().filter(own).map(|request| request.target().to_owned()).collect()
    }

    /// The newest request.
    pub fn newest(&self) -> Request {
        self.requests().pop().expect("nothing arrived")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, kept: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let mut request = Request { head, body: Vec::new() };
        if request.header("transfer-encoding").is_some() {
            loop {
                let line = until(&mut stream, &mut buffer, |buffer| buffer.windows(2).position(|two| two == b"\r\n")).await?;
                let size = usize::from_str_radix(std::str::from_utf8(&buffer[..line]).unwrap(), 16).unwrap();
                let whole = line + 2 + size + 2;
                until(&mut stream, &mut buffer, |buffer| (buffer.len() >= whole).then_some(0)).await?;
                request.body.extend_from_slice(&buffer[line + 2..line + 2 + size]);
                buffer.drain(..whole);
                if size == 0 {
                    break;
                }
            }
        } else {
            let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            until(&mut stream, &mut buffer, |buffer| (buffer.len() >= length).then_some(0)).await?;
            request.body = buffer.drain(..length).collect();
        }
        let answer = answer(request.target()).to_string();
        let bodiless = request.head.starts_with("HEAD ");
        kept.lock().push(request);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await?;
        if !bodiless {
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

/// Reads until `found` finds something.
async fn until(stream: &mut TcpStream, buffer: &mut Vec<u8>, found: impl Fn(&[u8]) -> Option<usize>) -> std::io::Result<usize> {
    loop {
        if let Some(at) = found(buffer) {
            return Ok(at);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The roles of the workspace that this upstream stands for, with names that somebody typed.
pub const ROLES: [&str; 8] =
    ["Helpdesk Team", "R&D", "50% Teilzeit", "Owner's club", "Betriebsrat/BR", "Team #1", "ro\u{a0}om\u{3000}ü", "admin"];

fn answer(target: &str) -> Value {
    let path = target.split('?').next().unwrap();
    match path {
        "/api/v1/me" => json!({ "_id": "somebodyXPnMktTFb", "username": "somebody", "roles": ["admin"], "success": true }),
        "/api/v1/permissions.listAll" => {
            let held = ["access-permissions", "view-c-room", "view-other-user-channels", "view-members-list-all-rooms"];
            let rows: Vec<Value> = held.iter().map(|name| json!({ "_id": name, "roles": ["admin"] })).collect();
            json!({ "update": rows, "remove": [], "success": true })
        }
        "/api/v1/roles.list" => {
            let rows: Vec<Value> = ROLES.iter().map(|name| json!({ "_id": name, "name": name, "scope": "Users" })).collect();
            json!({ "roles": rows, "success": true })
        }
        "/api/v1/subscriptions.getOne" => {
            json!({ "subscription": { "_id": "s1", "rid": "r1", "roles": ["owner"] }, "success": true })
        }
        "/_matrix/client/v3/account/whoami" => json!({ "user_id": "@carol:hs" }),
        _ if path.contains("/state/m.room.member/") => json!({ "membership": "join" }),
        _ if path.starts_with("/_synapse/admin/v1/users/") && path.ends_with("/admin") => json!({ "admin": true }),
        _ => json!({ "received": target }),
    }
}
