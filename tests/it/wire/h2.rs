//! The same over h2, by a client that sends any field as it is told.

use std::time::Duration;

use rolegate::config::Config;
use rolegate::demo::world::workspace::{BOARDROOM, CAROL};
use rolegate::model::Mode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::decisions;
use super::recorder::Recorder;
use crate::connections::tls::NAME;
use crate::support::gate::login;
use crate::support::{Authority, Gate, PATIENCE};

/// A gate that speaks h2, the upstream behind it, and what its certificate is read from.
pub(super) async fn gate(change: impl FnOnce(&mut Config)) -> (Gate, Recorder, Authority, TempDir) {
    gate_before("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", change).await
}

/// The same before an upstream that answers so.
async fn gate_before(answer: &'static str, change: impl FnOnce(&mut Config)) -> (Gate, Recorder, Authority, TempDir) {
    let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let files = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    authority.place(NAME, &files);
    let (gate, upstream) = Recorder::answering(answer, |config| {
        config.listen.tls = Some(files);
        change(config);
    })
    .await;
    (gate, upstream, authority, folder)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An h2 connection on which nothing is checked.
pub(super) struct Raw {
    stream: Box<dyn Stream>,
    next: u32,
}

/// What came on one stream: the first byte of the head, and the content.
#[derive(Debug)]
pub(super) struct Told {
    first: u8,
    pub(super) body: Vec<u8>,
}

impl Told {
    /// The status, of those that have a place in the static table (RFC 7541, appendix A).
    pub(super) fn status(&self) -> u16 {
        match self.first {
            0x88 => 200,
            0x8c => 400,
            _ => 0,
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal that no table keeps (RFC 7541 §6.2.2).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| {
        let mut coded = Vec::new();
        match text.len() {
            length @ ..127 => coded.push(u8::try_from(length).unwrap()),
            length => {
                let mut more = length - 127;
                coded.push(127);
                while more >= 128 {
                    coded.push(u8::try_from(more % 128 + 128).unwrap());
                    more /= 128;
                }
                coded.push(u8::try_from(more).unwrap());
            }
        }
        [coded.as_slice(), text].concat()
    };
    [&[0][..], &text(name), &text(value)].concat()
}

impl Raw {
    pub(super) async fn open(gate: &Gate, authority: &Authority) -> Self {
        let tcp = TcpStream::connect(gate.address()).await.unwrap();
        let mut stream = authority.connector(b"h2").connect(NAME.try_into().unwrap(), tcp).await.unwrap();
        stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat()).await.unwrap();
        Self { stream: Box::new(stream), next: 1 }
    }

    /// Sends a request of these fields, and reads its answer; nothing when the stream or the connection is given up.
    pub(super) async fn ask(&mut self, fields: &[(&[u8], &[u8])]) -> Option<Told> {
        self.post(fields, None).await
    }

    /// The same with a content, which is not the last that the stream has where it is empty.
    pub(super) async fn post(&mut self, fields: &[(&[u8], &[u8])], content: Option<&[u8]>) -> Option<Told> {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
        self.send(&block, content).await
    }

    async fn send(&mut self, block: &[u8], content: Option<&[u8]>) -> Option<Told> {
        let stream = self.next;
        self.next += 2;
        let mut parts = block.chunks(16_384).peekable();
        let (mut kind, mut flags) = (1, u8::from(content.is_none()));
        while let Some(part) = parts.next() {
            flags |= if parts.peek().is_none() { 4 } else { 0 };
            self.stream.write_all(&frame(kind, flags, stream, part)).await.unwrap();
            (kind, flags) = (9, 0);
        }
        if let Some(content) = content {
            self.stream.write_all(&frame(0, u8::from(!content.is_empty()), stream, content)).await.unwrap();
        }
        let mut told = Told { first: 0, body: Vec::new() };
        loop {
            let mut head = [0; 9];
            tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut head)).await.expect("nothing came").ok()?;
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            self.stream.read_exact(&mut payload).await.ok()?;
            let (kind, flags, of) = (head[3], head[4], u32::from_be_bytes(head[5..9].try_into().unwrap()));
            match kind {
                4 if flags == 0 => self.stream.write_all(&frame(4, 1, 0, &[])).await.unwrap(),
                0 if of == stream => {
                    told.body.extend_from_slice(&payload);
                    // The room of the connection is given back.
                    let came = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    if !payload.is_empty() {
                        self.stream.write_all(&frame(8, 0, 0, &came)).await.unwrap();
                    }
                }
                1 if of == stream => told.first = payload[0],
                3 if of == stream => return None,
                7 => return None,
                _ => continue,
            }
            if of == stream && matches!(kind, 0 | 1) && flags & 1 != 0 {
                return Some(told);
            }
        }
    }

    /// `GET target`, logged in as carol.
    async fn get(&mut self, target: &[u8]) -> Option<Told> {
        let carol = login("carol");
        self.ask(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", target),
            (b":authority", NAME.as_bytes()),
            (b"x-user-id", carol[0].1.as_bytes()),
            (b"x-auth-token", carol[1].1.as_bytes()),
        ])
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_that_people_reported_pass_over_h2_too() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let (gate, upstream, authority, _folder) = gate(|config| config.upstreams[0].mode = mode).await;
        let mut connection = Raw::open(&gate, &authority).await;
        let judged = format!("/api/v1/users.info?userId={CAROL}&fields={{\"userRooms\":1}}");
        for target in ["/api/v1/users.list?query={\"username\":\"x\"}", "/avatar/`a`b`", "/sync?filter={\"room\":{}}", &judged] {
            let told = connection.get(target.as_bytes()).await.unwrap_or_else(|| panic!("{target}"));
            assert_eq!((told.status(), told.body.as_slice()), (200, &b"ok"[..]), "{target}");
            let seen = upstream.seen().pop().unwrap();
            let line = String::from_utf8(seen.line().to_vec()).unwrap();
            if target == judged && mode == Mode::Enforce {
                assert!(line.contains("fields=%7B%22userRooms%22%3A1%7D"), "{line}");
            } else {
                assert_eq!(line, format!("GET {target} HTTP/1.1"));
            }
            assert!(!String::from_utf8(seen.head).unwrap().contains("x-rolegate"), "{target}");
        }
        assert_eq!(decisions(&gate), 1);
        assert!(!gate.last_decision()["target"].as_str().unwrap().contains("%7B"), "as it was received");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_in_a_target_over_h2_comes_through_or_is_refused_in_the_contracts_form() {
    let (gate, upstream, authority, _folder) = gate(|_| {}).await;
    let mut connection = Raw::open(&gate, &authority).await;
    let mut refused = 0;
    for byte in 0..=0xff_u8 {
        for (before, after) in [("/open/a", "b"), ("/open?a=", "&b")] {
            let target = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            let told = format!("{byte:#x} in {before}_{after}");
            let arrivals = upstream.seen().len();
            let answer = connection.get(&target).await.unwrap_or_else(|| panic!("no answer: {told}"));
            let arrived = upstream.seen().split_off(arrivals);
            if (0x21..0x7f).contains(&byte) {
                assert_eq!(answer.status(), 200, "{told}");
                let whole = target.split(|byte| *byte == b'#').next().unwrap();
                assert_eq!(arrived[0].line(), [b"GET ", whole, b" HTTP/1.1"].concat(), "{told}");
            } else {
                refused += 1;
                assert_eq!((answer.status(), &answer.json()["success"]), (400, &false.into()), "{told}");
                assert!(arrived.is_empty(), "{told}");
                assert_eq!(decisions(&gate), refused, "{told}");
            }
        }
    }
    assert_eq!(gate.last_decision()["reason"], "framing_invalid");
    assert_eq!(connection.get("/\u{e9}?\u{e9}\"".as_bytes()).await.unwrap().status(), 200);
    assert_eq!(upstream.seen().pop().unwrap().line(), "GET /\u{e9}?\u{e9}\" HTTP/1.1".as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_would_refuse_over_h2_is_refused_in_the_contracts_form() {
    let (gate, upstream, authority, _folder) = gate(|_| {}).await;
    let mut connection = Raw::open(&gate, &authority).await;
    let (get, https, path, name) = (
        (&b":method"[..], &b"GET"[..]),
        (&b":scheme"[..], &b"https"[..]),
        (&b":path"[..], &b"/open"[..]),
        (&b":authority"[..], NAME.as_bytes()),
    );
    let host = |host: &'static str| (&b"host"[..], host.as_bytes());
    let authority = |host: &'static str| (&b":authority"[..], host.as_bytes());
    let mut refused = 0;
    for fields in [
        vec![get, https, path],
        vec![get, https, path, name, host("other.example.org")],
        vec![get, https, path, host("a"), host("a")],
        vec![get, https, path, authority("u@chat.example.org")],
        vec![get, https, path, authority("a..b")],
        vec![get, https, path, authority("a b")],
        vec![get, https, path, authority("[::1")],
        vec![get, https, path, authority("a:99999")],
        vec![get, https, path, authority("")],
        vec![get, https, name, (b":path", b"http://chat.example.org/open")],
        vec![get, https, name, (b":path", b"open")],
        vec![get, https, name, (b":path", b"*")],
        vec![(b":method", b"CONNECT"), authority("chat.example.org:443")],
        vec![(b":method", b"TRACE"), https, path, name],
    ] {
        let answer = connection.ask(&fields).await.unwrap_or_else(|| panic!("{fields:?}"));
        refused += 1;
        assert_eq!((answer.status(), &answer.json()["success"]), (400, &false.into()), "{fields:?}");
        assert_eq!(decisions(&gate), refused, "{fields:?}");
        assert_eq!(gate.last_decision()["reason"], "framing_invalid", "{fields:?}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(connection.get(b"/open").await.unwrap().status(), 200, "the connection lives on");
    assert_eq!(connection.ask(&[get, https, path, host("chat.example.org.")]).await.unwrap().status(), 200);
    // What has no reading at all has no answer (RFC 9113 §8.1.1, §4.3).
    assert!(connection.ask(&[get, get, https, path, name]).await.is_none());
    assert_eq!(connection.get(b"/open").await.unwrap().status(), 200, "only its stream is reset");
    assert!(connection.send(&[0x80], None).await.is_none());
    assert!(tokio::time::timeout(Duration::from_secs(10), connection.stream.read_to_end(&mut Vec::new())).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_head_over_h2_has_no_content() {
    let (carol, eve) = (login("carol"), login("eve"));
    let room = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    for (answer, arrivals) in [("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 4), ("HTTP/1.1 2xx\r\n\r\n", 4)] {
        let (gate, upstream, authority, _folder) =
            gate_before(answer, |config| config.upstreams[0].host = Some(NAME.to_owned())).await;
        for (target, host, who) in [
            ("/open", NAME, None),
            (room.as_str(), NAME, Some(&carol)),
            (&room, NAME, Some(&eve)),
            (&room, NAME, None),
            ("/api/v1//me", NAME, Some(&eve)),
            ("/open", "other.example.org", None),
            ("/open", "a..b", None),
            ("/a b", NAME, None),
        ] {
            let told = format!("{target} of {host}, {answer:?}");
            let ask = async |method: &str| {
                let mut fields: Vec<(&[u8], &[u8])> = vec![
                    (b":method", method.as_bytes()),
                    (b":scheme", b"https"),
                    (b":path", target.as_bytes()),
                    (b":authority", host.as_bytes()),
                ];
                if let Some(who) = who {
                    fields.extend([(&b"x-user-id"[..], who[0].1.as_bytes()), (b"x-auth-token", who[1].1.as_bytes())]);
                }
                // On a connection of its own the same status is the same byte.
                let mut connection = Raw::open(&gate, &authority).await;
                connection.ask(&fields).await.unwrap_or_else(|| panic!("{method} {told}"))
            };
            let (head, get) = (ask("HEAD").await, ask("GET").await);
            assert!(!get.body.is_empty(), "{told}");
            assert_eq!((head.first, head.body.len()), (get.first, 0), "{told}");
        }
        assert_eq!(upstream.seen().len(), arrivals, "{answer:?}: a HEAD and a GET, open and permitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_say_what_only_the_entrance_says() {
    let (gate, upstream, authority, _folder) = gate(|_| {}).await;
    let mut connection = Raw::open(&gate, &authority).await;
    let base: [(&[u8], &[u8]); 3] = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.as_bytes())];
    let forged: [(&[u8], &[u8]); 2] = [(b"x-rolegate-received", b"%2Fopen"), (b"x-rolegate-refused", b"because")];
    let guarded = [&base[..], &forged, &[(b":path", b"/api/v1/rooms.roles?rid=a")]].concat();
    // Pseudo fields come first.
    let ordered = |mut fields: Vec<(&'static [u8], &'static [u8])>| {
        fields.sort_by_key(|field| !field.0.starts_with(b":"));
        fields
    };
    let answer = connection.ask(&ordered(guarded)).await.unwrap();
    assert_eq!(answer.json()["message"], "You must be logged in to do this.");
    let open = [&base[..], &forged, &[(b":path", b"/open")]].concat();
    assert_eq!(connection.ask(&ordered(open)).await.unwrap().status(), 200);
    let seen = upstream.seen().pop().unwrap();
    assert!(seen.values("x-rolegate-received").is_empty() && seen.values("x-rolegate-refused").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_that_came_apart_go_on_as_one() {
    let (gate, upstream, authority, _folder) = gate(|_| {}).await;
    let mut connection = Raw::open(&gate, &authority).await;
    let base: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/open"), (b":authority", NAME.as_bytes())];
    for (crumbs, whole) in [
        (vec!["rc_uid=a"], "rc_uid=a"),
        (vec!["rc_uid=a", "rc_token=b"], "rc_uid=a; rc_token=b"),
        (vec!["a=1; b=2", "c=\"3\"", "d="], "a=1; b=2; c=\"3\"; d="),
    ] {
        let cookies = crumbs.iter().map(|crumb| (&b"cookie"[..], crumb.as_bytes()));
        let fields: Vec<(&[u8], &[u8])> = base.into_iter().chain(cookies).collect();
        assert_eq!(connection.ask(&fields).await.unwrap().status(), 200);
        assert_eq!(upstream.seen().pop().unwrap().values("cookie"), [whole]);
    }
}
