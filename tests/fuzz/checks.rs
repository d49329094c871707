//! What must hold of any input whatever: libFuzzer asks with what it thinks of (`fuzz_targets/`), the tests with every seed and
//! every input that once failed (`tests/it/fuzz_seeds.rs`).
//!
//! Whoever includes this file names the URL type: `use url::Url`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rolegate::audit::{self, Entry, Object};
use rolegate::config::{Origin, Upstream};
use rolegate::model::{Body, Faults, Place, RawRequest, Reason, Record, Value};
use rolegate::pipeline::rehearse::rehearse;
use rolegate::pipeline::{Denial, Evaluation, Open, Permit, Site, evaluate_request, revocable};
use rolegate::rules::param::{self, Param};
use rolegate::rules::router::Pattern;
use rolegate::rules::source::SourceFile;
use rolegate::rules::target::{self, Reading};
use rolegate::rules::{Known, KnownSubject, Rules, Ruleset, Sources, Then};

use super::Url;

/// A small provider that uses the whole format; inputs take the place of one of its files.
const SMALL: [(&str, &str); 3] = [
    ("provider.toml", include_str!("small/provider.toml")),
    ("policy.cedar", include_str!("small/policy.cedar")),
    ("cases.toml", include_str!("small/cases.toml")),
];
/// A log as the product wrote it.
const LOG: &[u8] = include_bytes!("log.jsonl");
/// The host that requests are addressed to.
const HOST: &str = "chat.example.org";
/// Fields that lead some server to another target than the request line's, and what is only spelt like one of them.
const REROUTING: [&str; 5] = ["x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override"];
/// The longest text of a record that a request can fill, its mark of omission included.
const LONGEST_SHOWN: usize = 512 + '…'.len_utf8();

static SHIPPED: LazyLock<Ruleset> =
    LazyLock::new(|| Ruleset::load(&Sources::built_in(), &[]).unwrap_or_else(|faults| panic!("{faults}")));

/// The shipped rules before an upstream each, and Rocket.Chat's under a path of its own, too, where sockets are open and closed.
static SITES: LazyLock<Vec<Site>> = LazyLock::new(|| {
    let open = |provider: &str, prefix: &str| site(SHIPPED.provider(provider).unwrap(), prefix, Then::Forward);
    let closed = site(SHIPPED.provider("rocketchat").unwrap(), "/chat", Then::Deny);
    vec![open("rocketchat", ""), open("rocketchat", "/chat"), open("docusign-rooms", ""), closed]
});

/// Somebody who may do everything, and somebody who is answered with less than was asked for.
static CALLERS: LazyLock<[Known; 2]> = LazyLock::new(|| {
    let permissions =
        ["view-members-list-all-rooms", "access-permissions", "view-other-user-channels", "view-c-room"].map(str::to_owned);
    let known = |permissions: &[String]| Known {
        subject: Some(KnownSubject {
            id: "u1".into(),
            name: "user".into(),
            roles: vec!["user".into()],
            permissions: permissions.to_vec(),
        }),
        facts: [("room".to_owned(), Record::from_iter([("member", Value::Boolean(true)), ("in_account", Value::Boolean(true))]))]
            .into(),
        ..Known::default()
    };
    [known(&permissions), known(&[])]
});

fn site(rules: &Arc<Rules>, prefix: &str, websockets: Then) -> Site {
    let origin = Origin { tls: false, host: "upstream".into(), port: 80 };
    let mut upstream = Upstream::new(&rules.provider.name, origin);
    upstream.path_prefix = prefix.to_owned();
    upstream.websockets = websockets;
    Site::new(Arc::new(upstream), Arc::clone(rules), Arc::from([]))
}

fn request<'a>(method: &'a str, target: &'a [u8], headers: Vec<(&'a str, &'a [u8])>) -> RawRequest<'a> {
    RawRequest {
        method,
        target,
        host: Some(HOST),
        headers,
        body: Body::Absent,
        content: None,
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        correlation: None,
    }
}

/// The headers of a good login at `site`.
fn login(site: &Site) -> Vec<(&str, &'static [u8])> {
    let value = |name: &str| -> &'static [u8] { if name == "authorization" { b"Bearer token" } else { b"token" } };
    site.rules.provider.credentials[0].iter().map(|name| (&**name, value(name))).collect()
}

/// Any bytes as a request's target: what is sent is judged as what was received, and nothing guarded passes unjudged.
pub fn target(data: &[u8]) {
    for site in SITES.iter() {
        let reading = site.read(data, Some(HOST));
        let standard = standard_paths(data);
        match &reading {
            Reading::Outside => {
                let inside = standard.iter().find(|path| site.guarded.iter().any(|space| within(path, space)));
                assert_eq!(inside, None, "{} is outside, and read by the URL standard inside", shown(data));
            }
            Reading::Inside(canonical) => {
                let path = site.read(canonical.path.as_bytes(), Some(HOST));
                let expected = target::Canonical { path: canonical.path, query: None };
                assert_eq!(path, Reading::Inside(expected), "{}: the path alone reads otherwise", shown(data));
            }
            // Where sockets are closed, and nothing else that the shipped files do not guard.
            Reading::Declared(_) => assert_eq!(site.upstream.websockets, Then::Deny, "{} is declared", shown(data)),
            Reading::Ambiguous(_) => {}
        }
        for (method, known) in [("GET", &CALLERS[0]), ("GET", &CALLERS[1]), ("HEAD", &CALLERS[0])] {
            let evaluation = evaluate_request(site.clone(), &request(method, data, login(site)), known);
            match (&reading, &evaluation) {
                (Reading::Outside, Evaluation::Open(Open::Outside)) | (Reading::Inside(_), Evaluation::Permit(_)) => {}
                (Reading::Ambiguous(_), Evaluation::Denial(denial)) if denial.reason() == Reason::TargetAmbiguous => {}
                (Reading::Inside(_), Evaluation::Denial(denial)) if denial.reason() != Reason::HeaderAmbiguous => {}
                (Reading::Inside(_), Evaluation::Open(Open::Route | Open::Unlisted)) => {}
                (Reading::Declared(_), Evaluation::Denial(_)) => {}
                (reading, other) => panic!("{}: {reading:?}, and yet {}", shown(data), named(other)),
            }
            match &evaluation {
                Evaluation::Open(_) => {
                    let door = |path: &&String| is_door(site, path);
                    assert_eq!(standard.iter().find(door), None, "{} is open and leads to an action", shown(data));
                    let socket = |path: &&String| site.upstream.websockets == Then::Deny && is_socket(site, path);
                    assert_eq!(standard.iter().find(socket), None, "{} is open and leads to a closed socket", shown(data));
                }
                Evaluation::Denial(denial) => told(denial),
                Evaluation::Permit(permit) => sent(site, permit, data, known),
            }
        }
    }
}

fn named(evaluation: &Evaluation) -> String {
    match evaluation {
        Evaluation::Open(open) => format!("open: {open:?}"),
        Evaluation::Denial(denial) => format!("denied: {}, {}", denial.reason(), denial.detail()),
        Evaluation::Permit(permit) => format!("permitted: {} {}", permit.method(), permit.target()),
    }
}

/// What a permit sends reads as it was judged.
fn sent(site: &Site, permit: &Permit, received: &[u8], known: &Known) {
    recorded(permit);
    let sent = permit.target();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/?=&".contains(&byte);
    assert!(sent.bytes().all(plain), "{}: {sent:?} is sent", shown(received));
    let again = match evaluate_request(site.clone(), &request(permit.method(), sent.as_bytes(), login(site)), known) {
        Evaluation::Permit(again) => again,
        other => panic!("{}: {sent} is sent, and is {}", shown(received), named(&other)),
    };
    assert_eq!(again.target(), sent, "{}", shown(received));
    assert_eq!(again.method(), permit.method(), "{}", shown(received));
    assert_eq!(again.trail().action(), permit.trail().action(), "{}", shown(received));
    let (mut judged, read) = (params(permit), params(&again));
    for obligation in permit.obligations() {
        if let rolegate::model::Obligation::Without(name) = obligation {
            judged.remove(name);
        }
    }
    assert_eq!(judged, read, "{}: {sent} reads otherwise than what was judged", shown(received));
    let standard = Url::parse("http://upstream").and_then(|base| base.join(sent)).unwrap();
    assert_eq!(&sent[..sent.find('?').unwrap_or(sent.len())], standard.path(), "{}", shown(received));
    for (name, value) in standard.query_pairs() {
        let as_text = judged.get(&*name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        assert_eq!(as_text.as_deref(), Some(&*value), "{}: `{name}` of {sent} by the URL standard", shown(received));
    }
}

fn params(permit: &Permit) -> serde_json::Map<String, serde_json::Value> {
    permit.trail().context()["params"].as_object().cloned().unwrap_or_default()
}

/// A denial has words that its client can read, and its record holds nothing that a terminal would act on.
fn told(denial: &Denial) {
    let refusal = denial.refusal();
    assert!((400..600).contains(&refusal.status), "{}", refusal.status);
    let body: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&refusal.body);
    assert!(body.is_ok(), "{}: {}", denial.reason(), refusal.body);
    for (name, value) in &refusal.headers {
        assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{name}: {value}");
    }
    recorded(denial);
}

fn recorded(entry: &impl Entry) {
    let fields = serde_json::Value::Object(Object::read(|fields| entry.fields(fields)).unwrap());
    for name in ["target", "method", "detail"] {
        let text = fields[name].as_str().unwrap_or_default();
        assert!(text.len() <= LONGEST_SHOWN, "`{name}` of the record: {text}");
        assert!(text.chars().all(|c| matches!(c, ' '..='~' | '…')), "`{name}` of the record: {text:?}");
    }
}

/// The path of `target` as the URL standard reads it behind a host, and what decoding makes of that path, once and again.
fn standard_paths(target: &[u8]) -> Vec<String> {
    let base = Url::parse("http://upstream/").unwrap();
    let Ok(mut url) = base.join(&String::from_utf8_lossy(target)) else { return Vec::new() };
    let mut paths = vec![url.path().to_owned()];
    for _ in 0..2 {
        let decoded = percent_decoded(url.path());
        url.set_path(&decoded);
        paths.extend([decoded, url.path().to_owned()]);
    }
    paths
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high * 16 + low);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn within(path: &str, space: &str) -> bool {
    path.strip_prefix(space).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `path` is that of an action, asked for with GET.
fn is_door(site: &Site, path: &str) -> bool {
    let Some(path) = path.strip_prefix(&site.upstream.path_prefix) else { return false };
    let fits = |pattern: &Pattern| {
        let shape = pattern.path(|_| "*".to_owned());
        let mut pairs = (shape.split('/'), path.split('/'));
        pairs.0.clone().count() == pairs.1.clone().count()
            && pairs.0.all(|literal| pairs.1.next().is_some_and(|part| part == literal || literal == "*" && !part.is_empty()))
    };
    site.rules.provider.actions.iter().flat_map(|action| &action.doors).any(|pattern| fits(pattern))
}

/// Whether Meteor takes sockets at `path`, or what stands in for them.
fn is_socket(site: &Site, path: &str) -> bool {
    let path = path.strip_prefix(&site.upstream.path_prefix);
    path.is_some_and(|path| {
        ["/websocket", "/sockjs"].iter().any(|socket| within(path, socket)) && !path.starts_with("/websocket/")
    })
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Any bytes as a query: what is accepted is written so that it is read back, by rolegate and by the URL standard.
pub fn query(data: &[u8]) {
    let pairs = target::pairs(data);
    if let Ok(pairs) = &pairs {
        let written: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{}={}", target::encode(name), target::encode(value))).collect();
        assert_eq!(target::pairs(written.join("&").as_bytes()).as_ref(), Ok(pairs), "{}", shown(data));
        if !data.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f | b'#')) {
            let text = String::from_utf8_lossy(data);
            let url = Url::parse(&format!("http://upstream/?{text}")).unwrap();
            let standard: Vec<(String, String)> =
                url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            assert_eq!(&standard, pairs, "{} by the URL standard", shown(data));
        }
    }
    for site in SITES.iter() {
        for action in &site.rules.provider.actions {
            for (_, value) in pairs.iter().flatten() {
                action.params.iter().for_each(|param| read_back(param, value));
            }
            for door in &action.doors {
                let path = format!("{}{}", site.upstream.path_prefix, door.path(|_| "1".to_owned()));
                let target = [path.as_bytes(), b"?", data].concat();
                match evaluate_request(site.clone(), &request("GET", &target, login(site)), &CALLERS[0]) {
                    Evaluation::Open(open) => panic!("{}: {open:?}", shown(&target)),
                    Evaluation::Denial(denial) => told(&denial),
                    Evaluation::Permit(permit) => {
                        sent(site, &permit, &target, &CALLERS[0]);
                        accepted(&permit, pairs.as_deref().unwrap(), &action.params);
                    }
                }
            }
        }
    }
}

/// A value that was accepted is accepted as it is written, and is then the same.
fn read_back(param: &Param, text: &str) {
    if let Ok(Some(value)) = param.read(text) {
        assert_eq!(param.read(&value.to_string()), Ok(Some(value)), "`{}` of {text:?}", param.name);
    }
}

/// Every name that was sent is declared and sent once, and every value that goes on is one that was sent.
fn accepted(permit: &Permit, given: &[(String, String)], declared: &[Param]) {
    let params = params(permit);
    for (index, (name, value)) in given.iter().enumerate() {
        let param = declared.iter().find(|param| param.name == *name && param.place == param::Place::Query);
        let param = param.unwrap_or_else(|| panic!("{name:?} is permitted and not declared"));
        assert!(given.iter().skip(index + 1).all(|(other, _)| other != name), "{name:?} is permitted twice");
        let read = param.read(value).unwrap().map(|value| serde_json::to_value(value).unwrap());
        assert_eq!(params.get(name), read.as_ref(), "{name:?}");
    }
    let foreign = declared.iter().filter(|param| param.place == param::Place::Query && params.contains_key(&param.name));
    for param in foreign {
        assert!(given.iter().any(|(name, _)| *name == param.name), "`{}` goes on and was not sent", param.name);
    }
}

/// Any bytes as the body of a method call: what is sent runs what was judged, and no declared method runs unjudged.
pub fn call(data: &[u8]) {
    let site = &SITES[0];
    let judge = |kind: &[u8], content: &[u8]| {
        let mut headers = login(site);
        headers.push(("content-type", kind));
        let request = RawRequest {
            body: Body::Sized(content.len() as u64),
            content: Some(content),
            ..request("POST", b"/api/v1/method.call/ping", headers)
        };
        evaluate_request(site.clone(), &request, &CALLERS[0])
    };
    for kind in [&b"application/json"[..], b"application/x-www-form-urlencoded"] {
        match judge(kind, data) {
            Evaluation::Open(open) => {
                assert_eq!(open, Open::Method, "{}", shown(data));
                let method = method(data).unwrap_or_default();
                assert!(site.rules.provider.method(&method).is_none(), "{}: `{method}` is open", shown(data));
            }
            Evaluation::Denial(denial) => told(&denial),
            Evaluation::Permit(permit) => {
                recorded(&*permit);
                let content = permit.content().unwrap();
                let again = match judge(b"application/json", content.as_bytes()) {
                    Evaluation::Permit(again) => again,
                    other => panic!("{}: {content} is sent, and is {}", shown(data), named(&other)),
                };
                assert_eq!(again.content(), Some(content), "{}", shown(data));
                assert_eq!(again.trail().action(), permit.trail().action(), "{}", shown(data));
                assert_eq!(params(&again), params(&permit), "{}", shown(data));
                let runs = method(content.as_bytes()).and_then(|method| site.rules.provider.method(&method));
                assert_eq!(runs.map(|action| action.id.as_str()), Some(permit.trail().action()), "{}: {content}", shown(data));
            }
        }
    }
}

/// The method that a forgiving reader finds in a body: of two names that are alike, the last counts.
fn method(content: &[u8]) -> Option<String> {
    let outer = serde_json::from_slice::<serde_json::Value>(content).ok();
    let message = match &outer {
        Some(outer) => outer["message"].as_str()?.to_owned(),
        None => target::pairs(content).ok()?.into_iter().rfind(|(name, _)| name == "message")?.1,
    };
    let inner: serde_json::Value = serde_json::from_str(&message).ok()?;
    inner["method"].as_str().map(str::to_owned)
}

/// Any header fields, a line each: a permit carries one credential, as it was sent, and only when nothing else could be meant.
pub fn headers(data: &[u8]) {
    let lines: Vec<(String, &[u8])> = data.split(|byte| *byte == b'\n').map(header).collect();
    let requests: [(&Site, &[u8]); 2] =
        [(&SITES[0], b"/api/v1/rooms.roles?rid=r1"), (&SITES[2], b"/restapi/v2/accounts/a1/rooms/1/users")];
    for (site, target) in requests {
        let known: &[Vec<Arc<str>>] = &site.rules.provider.credentials;
        let sent: Vec<(&str, &[u8])> = lines.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let judge = |sent: &[(&str, &[u8])]| evaluate_request(site.clone(), &request("GET", target, sent.to_vec()), &CALLERS[0]);
        let permit = match judge(&sent) {
            Evaluation::Open(open) => panic!("{}: {open:?}", shown(data)),
            Evaluation::Denial(denial) => {
                use Reason::{CredentialAmbiguous, CredentialMissing, HeaderAmbiguous};
                let reason = denial.reason();
                assert!(
                    matches!(reason, CredentialAmbiguous | CredentialMissing | HeaderAmbiguous),
                    "{reason}: {}",
                    denial.detail()
                );
                told(&denial);
                continue;
            }
            Evaluation::Permit(permit) => permit,
        };
        recorded(&*permit);
        let credential = permit.credential();
        let names: Vec<Arc<str>> = credential.headers.iter().map(|(name, _)| Arc::clone(name)).collect();
        assert!(known.contains(&names), "{}: {names:?} is no credential", shown(data));
        for (name, value) in &credential.headers {
            let values: Vec<&[u8]> = sent.iter().filter(|(field, _)| *field == &**name).map(|(_, value)| *value).collect();
            assert_eq!(values, [value.reveal().as_bytes()], "{}: `{name}` was not sent once as it goes on", shown(data));
            let value = values[0];
            assert!(!value.is_empty() && !value.contains(&b','), "{}: `{name}` could be several", shown(data));
            assert!(value.iter().all(|byte| matches!(byte, b' '..=b'~')), "{}: `{name}` is not plain", shown(data));
            if **name == *"authorization" {
                let words: Vec<&[u8]> = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
                assert!(words.len() == 2 && words[0].eq_ignore_ascii_case(b"bearer"), "{}", shown(data));
            }
        }
        for (name, value) in &sent {
            let plain = name.replace(['_', '.'], "-");
            let names_credential = |text: &str| known.iter().flatten().any(|known| **known == *text);
            assert!(!names_credential(&plain) || plain == *name, "{}: `{name}` passes", shown(data));
            assert!(!REROUTING.contains(&plain.as_str()), "{}: `{name}` passes", shown(data));
            if *name == "connection" {
                let value = String::from_utf8_lossy(value).to_ascii_lowercase();
                let named = value.split(',').find(|token| names_credential(token.trim()));
                assert_eq!(named, None, "{}: the next hop would drop the credential", shown(data));
            }
        }
        let with = |name: &'static str, value: &'static [u8]| {
            let mut sent = sent.clone();
            sent.push((name, value));
            match judge(&sent) {
                Evaluation::Denial(denial) => denial.reason(),
                other => panic!("{} and `{name}`: {}", shown(data), named(&other)),
            }
        };
        for name in ["x-auth-token", "x-user-id", "authorization"] {
            if names.iter().any(|own| **own == *name) {
                assert_eq!(with(name, b"Bearer another"), Reason::CredentialAmbiguous);
            }
        }
        assert_eq!(with("x-original-url", b"/"), Reason::HeaderAmbiguous);
        assert_eq!(with("connection", b"close, Authorization"), Reason::HeaderAmbiguous);
        if known.iter().flatten().any(|name| **name == *"x-user-id") {
            assert_eq!(with("x_user.id", b""), Reason::HeaderAmbiguous, "another spelling");
        }
        let revocable = revocable(&request("GET", target, sent.clone()), site);
        assert_eq!(revocable.as_ref(), Some(credential), "{}", shown(data));
    }
}

/// `Name: value`, as the engine hands it over: the name in lower case, the value without the space around it.
fn header(line: &[u8]) -> (String, &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let value = line.get(colon + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase(), value.trim_ascii())
}

/// Whether the small provider is accepted as it stands: with a fault of its own, no input would get far in its place.
pub fn small_is_accepted() -> bool {
    matches!(load("", ""), (_, Ok(_)))
}

/// The small provider with `text` in the place of the file `replaced`.
fn load(replaced: &str, text: &str) -> (Sources, Result<Ruleset, Faults>) {
    let file = |(name, own): (&str, &str)| SourceFile {
        provider: "small".into(),
        name: name.into(),
        path: format!("policies/small/{name}"),
        text: if name == replaced { text.into() } else { own.into() },
    };
    let sources = Sources { files: SMALL.map(file).into(), revision: "fuzz".into() };
    let loaded = Ruleset::load(&sources, &["office".to_owned()]);
    (sources, loaded)
}

/// Any text as each of a provider's files: what is wrong has a place inside the file, and what is accepted can be used.
pub fn provider_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Each costs a compilation: a text is tried as what it looks like, and as everything when it looks like nothing.
    let looks = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let replaced: &[&str] = match (looks(&["[[case"]), looks(&["permit", "forbid"]), looks(&["refusals", "guarded"])) {
        (true, false, _) => &["cases.toml"],
        (false, true, false) => &["policy.cedar"],
        (false, false, true) => &["provider.toml"],
        _ => &["provider.toml", "policy.cedar", "cases.toml"],
    };
    for replaced in replaced {
        let (sources, loaded) = load(replaced, text);
        match loaded {
            Err(faults) => {
                assert!(!faults.0.is_empty(), "{replaced} is refused for no reason: {text:?}");
                for fault in &faults.0 {
                    assert!(!fault.message.is_empty(), "{fault:?}: {text:?}");
                    let file = sources.files.iter().find(|file| file.path == fault.place.file);
                    let file = file.unwrap_or_else(|| panic!("{fault} is in no file: {text:?}"));
                    assert!(is_inside(&fault.place, &file.text), "{fault} is outside of {replaced}: {text:?}");
                }
            }
            Ok(ruleset) => ruleset.providers().for_each(used),
        }
    }
}

/// The place is the whole file, a whole line of it, or a character of it, the end included.
fn is_inside(place: &Place, text: &str) -> bool {
    match (place.line, place.column) {
        (0, column) => column == 0,
        (line, column) => text.split('\n').nth(line - 1).is_some_and(|line| column <= line.chars().count() + 1),
    }
}

/// Rules that were accepted judge without a panic, and have words for whatever they refuse.
fn used(rules: &Arc<Rules>) {
    drop(rehearse(rules, ""));
    let site = site(rules, "", Then::Forward);
    for action in &rules.provider.actions {
        let query: Vec<String> = action.params.iter().map(|param| format!("{}=1", target::encode(&param.name))).collect();
        for door in &action.doors {
            for query in ["", &query.join("&")] {
                let target = format!("{}?{query}", door.path(|_| "1".to_owned()));
                let request = request(&door.method, target.as_bytes(), login(&site));
                match evaluate_request(site.clone(), &request, &CALLERS[0]) {
                    Evaluation::Permit(permit) => recorded(&*permit),
                    Evaluation::Denial(denial) => {
                        assert_ne!(denial.refusal().body, "{}", "no words for {}", denial.reason());
                    }
                    Evaluation::Open(_) => {}
                }
            }
        }
    }
}

/// Any bytes worked into an audit log: whatever was changed before the last line is noticed, where it was changed.
///
/// The first byte says how, the next four where and how much, the rest is put in.
pub fn audit_line(data: &[u8]) {
    let Some((&[how, a, b, c, d], bytes)) = data.split_first_chunk() else { return };
    let at = usize::from(u16::from_be_bytes([a, b])) % (LOG.len() + 1);
    let end = (at + usize::from(u16::from_be_bytes([c, d]))).min(LOG.len());
    let lines: Vec<&[u8]> = LOG.split_inclusive(|byte| *byte == b'\n').collect();
    let changed = match how % 6 {
        0 => [LOG, bytes].concat(),
        1 => [&LOG[..at], bytes, &LOG[at..]].concat(),
        2 => [&LOG[..at], bytes, &LOG[end..]].concat(),
        3 => [&LOG[..at], &LOG[at..end], bytes, &LOG[at..]].concat(),
        // Whole lines in another order; each further byte picks one.
        4 => [a, b, c, d].iter().chain(bytes).flat_map(|pick| lines[usize::from(*pick) % lines.len()]).copied().collect(),
        _ => {
            let mut changed = LOG.to_vec();
            let rest = changed.get_mut(at..).unwrap_or_default();
            rest.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
            changed
        }
    };
    let found = verified(&[&changed]);
    let left: Vec<&[u8]> = changed.split_inclusive(|byte| *byte == b'\n').collect();
    match &found {
        Ok(verified) => {
            assert_eq!(verified.records as usize, left.len(), "{}", shown(data));
            if let [before @ .., last] = &left[..] {
                let first = verified.first as usize - 1;
                let original = lines.get(first..).unwrap_or_default();
                assert!(before.is_empty() || original.starts_with(before), "{}: a changed log is whole", shown(data));
                assert!(last.ends_with(b"\n"), "{}: a torn log is whole", shown(data));
            }
        }
        Err((file, line, why)) => {
            assert!(!why.is_empty() && *file == 0, "{}", shown(data));
            assert!((1..=left.len()).contains(line), "{}: line {line} of {} is named", shown(data), left.len());
            // From the line where the log begins, as many lines as are the original's.
            let first = lines.iter().position(|line| Some(line) == left.first()).unwrap_or_default();
            let intact = left.iter().zip(&lines[first..]).take_while(|(left, line)| left == line).count();
            assert!(*line >= intact, "{}: line {line} is named, {intact} are intact: {why}", shown(data));
            assert!(*line <= intact + 2, "{}: line {line} is named, only {intact} are intact: {why}", shown(data));
        }
    }
    if let Some((half, _)) = left.split_at_checked(left.len() / 2) {
        let (first, second) = changed.split_at(half.iter().map(|line| line.len()).sum());
        let place = |found: &Result<audit::Verified, (usize, usize, String)>| match found {
            Ok(verified) => Ok(verified.clone()),
            Err((file, line, why)) => Err((file * half.len() + line, why.clone())),
        };
        assert_eq!(place(&found), place(&verified(&[first, second])), "{}: over two files", shown(data));
    }
}

/// Writes each of `files` to a file, and verifies them in this order; a fault with the file's index and the line.
fn verified(files: &[&[u8]]) -> Result<audit::Verified, (usize, usize, String)> {
    let folder = std::env::temp_dir();
    let name = |index: usize| folder.join(format!("rolegate-fuzz-{}-{index}.jsonl", std::process::id()));
    let paths: Vec<PathBuf> = (0..files.len()).map(name).collect();
    for (path, bytes) in paths.iter().zip(files) {
        std::fs::write(path, bytes).unwrap();
    }
    let found = audit::verify(&paths);
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    found.map_err(|unverified| {
        let broken = match unverified {
            audit::Unverified::Broken(broken) => broken,
            other => panic!("{other}"),
        };
        let file = paths.iter().position(|path| *path == broken.file).unwrap();
        (file, broken.line as usize, broken.why)
    })
}
