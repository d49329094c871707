//! An upstream that forgives everything: whatever some server would read as a guarded action's route is one to it, and counted.
//!
//! It decodes again and again, merges slashes, resolves dots, takes a backslash for a slash, cuts path parameters, fragments
//! and suffixes, ignores case, takes the path of an absolute form, obeys rerouting headers in any spelling, and follows every
//! reading of a message's length that it can find. Only rolegate's own lookups are answered with facts.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rolegate::demo::world::account::ACCOUNT;
use rolegate::demo::world::homeserver::COUNCIL;
use rolegate::demo::world::workspace::{BOARDROOM, CAROL, EVE};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What an answer to a guarded action's route holds, in its head and in its body.
pub const GUARDED: &str = "GUARDED";

const ROUTES: [&str; 4] =
    ["/api/v1/audit/rooms.members", "/api/v1/roles.getusersinrole", "/api/v1/rooms.roles", "/api/v1/users.info"];

/// The upstream, and what reached it.
pub struct Lenient {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request that reached it, lookups apart.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    /// Some reading of it is a guarded action's route.
    pub guarded: bool,
}

impl Lenient {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let journal = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&journal)));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

/// A head as no strict server would read it.
struct Head {
    method: String,
    target: Vec<u8>,
    version: String,
    /// Names in one spelling; those that were spelt so come first.
    fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The first head of `bytes` and where it ends.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
        let mut end = start;
        let mut lines: Vec<Vec<u8>> = Vec::new();
        loop {
            let length = bytes[end..].iter().position(|byte| *byte == b'\n')?;
            let line = bytes[end..end + length].strip_suffix(b"\r").unwrap_or(&bytes[end..end + length]);
            end += length + 1;
            match line {
                [] => break,
                [b' ' | b'\t', ..] if lines.len() > 1 => lines.last_mut().unwrap().extend_from_slice(line),
                _ => lines.push(line.to_vec()),
            }
        }
        let words: Vec<&[u8]> = lines[0].split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
        let version = words.last().filter(|word| word.starts_with(b"HTTP/"));
        let target = words[1.min(words.len())..words.len() - usize::from(version.is_some())].concat();
        let fields = lines[1..].iter().map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let spelt = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            let name = spelt.trim().replace(['_', '.'], "-");
            let odd = spelt != name;
            (name, line[(colon + 1).min(line.len())..].trim_ascii().to_vec(), odd)
        });
        let mut fields: Vec<_> = fields.collect();
        fields.sort_by_key(|(.., odd)| *odd);
        let head = Self {
            method: String::from_utf8_lossy(words[0]).to_ascii_uppercase(),
            version: version.map_or_else(String::new, |word| String::from_utf8_lossy(word).into_owned()),
            target,
            fields: fields.into_iter().map(|(name, value, _)| (name, value)).collect(),
        };
        Some((head, end))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &str) -> String {
        self.all(name).next().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// Whether any reading of it is a guarded action's route.
    fn guarded(&self) -> bool {
        let overrides = ["x-http-method-override", "x-http-method", "x-method-override"];
        let mut methods = vec![self.method.clone()];
        methods.extend(
            overrides.iter().flat_map(|name| self.all(name)).map(|value| String::from_utf8_lossy(value).to_ascii_uppercase()),
        );
        let rerouted = ["x-original-url", "x-rewrite-url"].into_iter().flat_map(|name| self.all(name));
        let targets: Vec<&[u8]> = std::iter::once(self.target.as_slice()).chain(rerouted).collect();
        let leads = |to: fn(&str) -> bool| targets.iter().any(|target| leads(target, to));
        let asks = |except: &[&str]| methods.iter().any(|method| !except.contains(&method.as_str()));
        // A state event is set by PUT at the path at which it is read.
        let reads = methods.iter().any(|method| method == "GET" || method == "HEAD");
        (asks(&["OPTIONS"]) && leads(|path| ROUTES.contains(&path)))
            || (asks(&["OPTIONS", "POST"]) && leads(is_roster))
            || (reads && leads(is_of_room))
    }

    /// A question of rolegate's own: nothing that a client sends is passed on without `X-Forwarded-Proto`.
    fn is_lookup(&self) -> bool {
        self.text("user-agent").starts_with("rolegate/") && self.all("x-forwarded-proto").next().is_none()
    }

    /// Every length that a server could give to the content that begins `rest`; the standard's own choice comes first.
    fn lengths(&self, rest: &[u8]) -> Vec<Option<usize>> {
        let mut lengths = Vec::new();
        let codings: Vec<String> =
            self.all("transfer-encoding").map(|value| String::from_utf8_lossy(value).to_ascii_lowercase()).collect();
        if codings.iter().any(|coding| coding.contains("chunked")) {
            lengths.push(chunked(rest));
        }
        for value in self.all("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
            let text = String::from_utf8_lossy(value).trim().trim_start_matches('+').to_owned();
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            lengths.push(Some(digits.parse().unwrap_or(0)));
            if let Some(digits) = text.strip_prefix("0x") {
                lengths.push(Some(usize::from_str_radix(digits, 16).unwrap_or(0)));
            }
        }
        if lengths.is_empty() || codings.iter().any(|coding| coding != "chunked") {
            lengths.push(Some(0));
        }
        lengths
    }
}

/// Where chunked content ends, however its sizes are written; nothing while it has not come to its end.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let line = |at: usize| Some(at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1);
    loop {
        let next = line(at)?;
        let text = String::from_utf8_lossy(&bytes[at..next]).trim().trim_start_matches('+').to_ascii_lowercase();
        let digits: String = text.trim_start_matches("0x").chars().take_while(char::is_ascii_hexdigit).collect();
        let size = usize::from_str_radix(&digits, 16).unwrap_or(0);
        at = next;
        if size == 0 {
            loop {
                let end = line(at)?;
                let empty = bytes[at..end].trim_ascii().is_empty();
                at = end;
                if empty {
                    return Some(at);
                }
            }
        }
        at = line(at.checked_add(size)?)?;
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        while let Some((head, end)) = Head::read(&bytes) {
            let lengths = head.lengths(&bytes[end..]);
            let Some(Some(length)) = lengths.first().copied() else { break };
            if bytes.len() - end < length {
                break;
            }
            // What another reading of the length would take for the next request.
            let hidden = lengths
                .iter()
                .flatten()
                .filter_map(|length| Head::read(bytes.get(end + length..)?))
                .any(|(head, _)| head.guarded());
            let body = if head.is_lookup() {
                lookup(&head)
            } else {
                let guarded = head.guarded() || (lengths.len() > 1 && hidden);
                let line = format!("{} {} {}", head.method, String::from_utf8_lossy(&head.target), head.version);
                seen.lock().push(Seen { line, guarded });
                Some(if guarded { json!({ "answer": GUARDED }) } else { json!({ "answer": "open" }) })
            };
            bytes.drain(..end + length);
            let close = head.version == "HTTP/1.0" || head.text("connection").eq_ignore_ascii_case("close");
            if answer(&mut stream, &head, body).await.is_err() || close {
                return;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
}

async fn answer(stream: &mut TcpStream, head: &Head, body: Option<Value>) -> std::io::Result<()> {
    let status = match &body {
        None => "401 Unauthorized",
        Some(body) if body["success"] == false => "400 Bad Request",
        Some(_) => "200 OK",
    };
    let body = body.unwrap_or_default().to_string();
    let mark = if body.contains(GUARDED) { "X-Answer: GUARDED\r\n" } else { "" };
    let length = body.len();
    let shown = if head.method == "HEAD" { "" } else { &body };
    let text = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{mark}Content-Length: {length}\r\n\r\n{shown}");
    stream.write_all(text.as_bytes()).await
}

/// The facts: carol is in the boardroom and in the council, bob is on the roster, eve is nowhere.
fn lookup(head: &Head) -> Option<Value> {
    let token = head.text("x-auth-token") + head.text("authorization").trim_start_matches("Bearer ");
    let name = ["eve", "carol", "bob"].into_iter().find(|name| token.starts_with(&format!("{name}-")))?;
    let target = String::from_utf8_lossy(&head.target).into_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let id = if name == "carol" { CAROL } else { EVE };
    let email = format!("{name}@example.org");
    let member = name == "carol" && query.contains(BOARDROOM);
    Some(match path {
        "/api/v1/me" => json!({ "_id": id, "username": name, "roles": ["user"], "success": true }),
        "/api/v1/permissions.listAll" => {
            let row = |id: &str, roles: &[&str]| json!({ "_id": id, "roles": roles });
            json!({ "update": [row("view-c-room", &["user"]), row("access-permissions", &["admin"])], "remove": [] })
        }
        "/api/v1/roles.list" => {
            json!({ "roles": [{ "_id": "admin", "scope": "Users" }, { "_id": "owner", "scope": "Subscriptions" }] })
        }
        "/api/v1/subscriptions.getOne" if member => json!({ "subscription": { "roles": ["moderator"] }, "success": true }),
        "/api/v1/subscriptions.getOne" => json!({ "subscription": null, "success": true }),
        // What it shows to a caller is access, and it lets nobody look into the boardroom who is not in it.
        "/api/v1/rooms.info" => json!({ "success": false, "error": "not-allowed", "errorType": "Not Allowed" }),
        "/oauth/userinfo" => json!({ "sub": name, "name": name, "email": email, "accounts": [{ "account_id": ACCOUNT }] }),
        path if is_roster(path) && name == "bob" => json!({ "users": [{ "email": email, "roleId": 1, "roleName": "Agent" }] }),
        path if is_roster(path) => json!({ "users": [] }),
        path if path.ends_with("/users") => json!({ "userSummaries": [] }),
        "/_matrix/client/v3/account/whoami" => json!({ "user_id": format!("@{name}:example.org"), "device_id": "PHONE" }),
        path if path.starts_with("/_synapse/admin/v1/users/") => json!({ "admin": false }),
        path if path.starts_with("/_matrix/") => {
            let council = COUNCIL.trim_start_matches('!').split(':').next().unwrap();
            let asks = path.contains(&format!("21{council}%3A")) && path.contains("/state/m.room.member/");
            if name == "carol" && asks { json!({ "membership": "join" }) } else { json!({ "success": false }) }
        }
        _ => json!({}),
    })
}

/// Whether it is one of a Matrix room's routes that show members or state, by whatever prefix.
fn is_of_room(path: &str) -> bool {
    let room = path.strip_prefix("/_matrix/client/").and_then(|rest| rest.split_once("rooms/"));
    room.is_some_and(|(_, room)| room.split('/').skip(1).any(|part| ["members", "joined_members", "state"].contains(&part)))
}

fn is_roster(path: &str) -> bool {
    let parts: Vec<&str> = path.strip_prefix("/restapi").unwrap_or(path).split('/').collect();
    matches!(parts.as_slice(), ["", "v2", "accounts", _, "rooms", _, "users"])
}

/// Whether any way to read `target` leads `to` where it should not.
fn leads(target: &[u8], to: fn(&str) -> bool) -> bool {
    let mut text = target.to_vec();
    for _ in 0..4 {
        let scheme =
            text.windows(3).position(|three| three == b"://").filter(|at| text[..*at].iter().all(u8::is_ascii_alphanumeric));
        let path = scheme.map_or(text.as_slice(), |at| {
            let rest = &text[at + 3..];
            &rest[rest.iter().position(|byte| b"/\\".contains(byte)).unwrap_or(rest.len())..]
        });
        let cut = |at: &[u8]| path.split(|byte| at.contains(byte)).next().unwrap_or_default().to_vec();
        if [cut(b"?#"), cut(b"?"), cut(b"#"), path.to_vec()].iter().any(|path| plain(path).iter().any(|path| to(path))) {
            return true;
        }
        text = decoded(&text);
    }
    false
}

/// The path with all that servers forgive taken away; with and without the end of a name that picks a format.
fn plain(path: &[u8]) -> [String; 2] {
    let mut kept: Vec<String> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        let bare = segment.split(|byte| matches!(byte, b';' | 0)).next().unwrap_or_default();
        let bare: Vec<u8> = bare.iter().copied().filter(|byte| !byte.is_ascii_control() && *byte != b' ').collect();
        let text = String::from_utf8_lossy(&bare).to_ascii_lowercase();
        match text.as_str() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            text => kept.push(text.trim_end_matches('.').to_owned()),
        }
    }
    let whole = format!("/{}", kept.join("/"));
    let ends = [".json", ".html", ".css", "~", "-", "%"];
    let short = ends.iter().find_map(|end| whole.strip_suffix(end)).unwrap_or(&whole).to_owned();
    [whole, short]
}

/// Decoded once, with the forms that no standard allows: IIS's `%uXXXX`, and UTF-8 that is longer than it need be.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digits = |from: usize, count: usize| {
        let digits = std::str::from_utf8(text.get(from..from + count)?).ok()?;
        u32::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let (byte, length) = match (text[at], digits(at + 1, 2), digits(at + 2, 4)) {
            (b'%', Some(byte), _) => (byte, 3),
            (b'%', None, Some(wide)) if text.get(at + 1) == Some(&b'u') => (wide, 6),
            (byte, ..) => (u32::from(byte), 1),
        };
        bytes.push(u8::try_from(byte).unwrap_or(b'?'));
        at += length;
    }
    let mut short = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let follows = |count: usize| after.get(..count).is_some_and(|bytes| bytes.iter().all(|byte| byte & 0xc0 == 0x80));
        let (byte, skip) = match first {
            0xc0 | 0xc1 if follows(1) => ((first & 1) << 6 | after[0] & 0x3f, 1),
            0xe0 if follows(2) && after[0] < 0x82 => ((after[0] & 1) << 6 | after[1] & 0x3f, 2),
            0xf0 if follows(3) && after[0] == 0x80 && after[1] < 0x82 => ((after[1] & 1) << 6 | after[2] & 0x3f, 3),
            byte => (*byte, 0),
        };
        short.push(byte);
        rest = &after[skip..];
    }
    short
}
