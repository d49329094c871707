//! The one reading of a request target: routing and forwarding both use it, and a target with a second reading has none.

mod readings;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use readings::Readings;

/// The most `name=value` pairs of a query that is read.
const MOST_PAIRS: usize = 100;

/// What stays as it is when a segment or a value is written: the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a target reads, given the guarded spaces and the single paths that are declared beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<'a> {
    /// No reading of it leads into a guarded space or to a declared path.
    Outside,
    /// Its one reading leads into a guarded space.
    Inside(Canonical<'a>),
    /// Its one reading leads to no guarded space, but to a path that is declared all the same.
    Declared(Canonical<'a>),
    /// It could be read as one inside a guarded space, but not in one way only; what is wrong is told.
    Ambiguous(&'static str),
}

/// A target inside a guarded space: an absolute path whose segments have one reading each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// The path as received, which is its canonical form.
    pub path: &'a str,
    /// What stands behind the first `?`, unread.
    pub query: Option<&'a [u8]>,
}

/// Reads `target` against the `guarded` spaces (`/api`), for a request addressed to `host`.
#[must_use]
pub fn read<'a>(target: &'a [u8], host: Option<&str>, guarded: &[String]) -> Reading<'a> {
    read_beside(target, host, guarded, &|_| false)
}

/// Reads `target` against the `guarded` spaces and against the paths for which `declared` holds, which is asked in the
/// spelling of the target and in lower case.
#[must_use]
pub fn read_beside<'a>(target: &'a [u8], host: Option<&str>, guarded: &[String], declared: &dyn Fn(&str) -> bool) -> Reading<'a> {
    if !leads_inside(target, guarded, declared) {
        return Reading::Outside;
    }
    let (origin, absolute) = origin_form(target);
    if let Some(authority) = absolute
        && !host.is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority))
    {
        return Reading::Ambiguous("the target names another authority");
    }
    if absolute.is_some() {
        return Reading::Ambiguous("the target is in absolute form");
    }
    let split = origin.iter().position(|byte| *byte == b'?');
    let (path, query) = match split {
        Some(at) => (origin.get(..at).unwrap_or_default(), origin.get(at + 1..)),
        None => (origin, None),
    };
    if query.is_some_and(|query| query.iter().any(|byte| *byte == b'#' || byte.is_ascii_control() || *byte == b' ')) {
        return Reading::Ambiguous("the query holds a fragment, a space or a control character");
    }
    match canonical_path(path) {
        Err(why) => Reading::Ambiguous(why),
        Ok(path) if guarded.iter().any(|space| within(path, space)) => Reading::Inside(Canonical { path, query }),
        Ok(path) if declared(path) => Reading::Declared(Canonical { path, query }),
        Ok(_) => Reading::Ambiguous("the path leads into a guarded space only as a forgiving server reads it"),
    }
}

/// The path and query of a target, and the authority if it is in absolute form (RFC 9112 §3.2.2).
fn origin_form(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    // No scheme begins with a slash, whatever comes behind it.
    if target.starts_with(b"/") {
        return (target, None);
    }
    let Some(colon) = target.windows(3).position(|three| three == b"://") else { return (target, None) };
    let scheme = target.get(..colon).unwrap_or_default();
    if scheme.is_empty() || !scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) {
        return (target, None);
    }
    let rest = target.get(colon + 3..).unwrap_or_default();
    let end = rest.iter().position(|byte| b"/\\?#".contains(byte)).unwrap_or(rest.len());
    (rest.get(end..).unwrap_or_default(), Some(rest.get(..end).unwrap_or_default()))
}

/// Whether any server, or row of servers, that decodes, merges slashes, resolves dots, drops path parameters, ignores case or
/// takes the target for a reference would be led by `target` into a guarded space, or to a path for which `declared` holds.
/// Wide on purpose: a false yes costs an odd target, a false no costs the gate.
fn leads_inside(target: &[u8], guarded: &[String], declared: &dyn Fn(&str) -> bool) -> bool {
    // As nearly every target of a guarded space begins; nothing needs to be made of it.
    let plain = |space: &String| {
        target.strip_prefix(space.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?')))
    };
    if guarded.iter().any(plain) {
        return true;
    }
    let spaces: Vec<String> = guarded.iter().map(|space| space.to_ascii_lowercase()).collect();
    Readings::default().any(target, &|path| spaces.iter().any(|space| within(path, space)) || declared(path))
}

/// Whether `found` holds for any path in lower case that a forgiving server, or a row of them, could make of `path`.
#[must_use]
pub fn some_reading(path: &str, found: impl Fn(&str) -> bool) -> bool {
    Readings::default().any(path.as_bytes(), &found)
}

/// Whether `path` is `space` or lies below it.
pub(super) fn within(path: &str, space: &str) -> bool {
    path.strip_prefix(space).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path itself, if it has one reading.
fn canonical_path(path: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(path).map_err(|_| "the path is not ASCII")?;
    if !text.starts_with('/') {
        return Err("the path does not begin with a slash");
    }
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
                    return Err("the path holds a broken percent sequence");
                };
                if let Some(why) = hidden(high * 16 + low) {
                    return Err(why);
                }
            }
            b'\\' => return Err("the path holds a backslash"),
            b'#' => return Err("the path holds a fragment"),
            b';' => return Err("the path holds a path parameter"),
            0..=b' ' | 0x7f => return Err("the path holds a space or a control character"),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                return Err("the path holds a character that must be encoded");
            }
            0x80.. => return Err("the path is not ASCII"),
            _ => {}
        }
    }
    for segment in text.split('/').skip(1) {
        match segment {
            "." | ".." => return Err("the path holds a dot segment"),
            _ if segment.starts_with("%20") || segment.ends_with("%20") => {
                return Err("the path holds a segment that begins or ends with a space");
            }
            _ => {}
        }
    }
    if percent_decode(path).decode_utf8().is_err() {
        return Err("the path is not UTF-8 once it is decoded");
    }
    if text.contains("//") { Err("the path holds an empty segment") } else { Ok(text) }
}

/// What an encoded `byte` hides, wherever it stands.
fn hidden(byte: u8) -> Option<&'static str> {
    match byte {
        0..=0x1f | 0x7f => Some("the path holds an encoded control character"),
        _ => None,
    }
}

/// Whether `path` holds an encoding that only a declared encoded segment may hold: of what parts a target, or of what needs
/// none (RFC 3986 §2.3).
#[must_use]
pub fn needs_declaration(path: &str) -> bool {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let encoded = match rest.get(at + 1..at + 3) {
            Some([high, low]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        match encoded {
            Some(b'/' | b'\\' | b'%' | b'?' | b'#' | b';' | b'-' | b'.' | b'_' | b'~') | None => return true,
            Some(byte) if byte.is_ascii_alphanumeric() => return true,
            Some(_) => rest = rest.get(at + 3..).unwrap_or_default(),
        }
    }
    false
}

/// The text of an encoded path segment, decoded once; nothing when it would lead a server elsewhere that decodes the path
/// as a whole.
#[must_use]
pub fn segment(raw: &str) -> Option<String> {
    let decoded = percent_decode(raw.as_bytes()).decode_utf8().ok()?.into_owned();
    let dots = decoded.split(['/', '\\']).any(|part| matches!(part, "." | ".."));
    (!dots && !decoded.is_empty() && !decoded.chars().any(char::is_control)).then_some(decoded)
}

/// `text` as a path segment or a query value: every reserved character encoded, in one spelling.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Writes [`encode`]d `text` behind `written`.
pub fn encode_onto(written: &mut String, text: &str) {
    written.extend(utf8_percent_encode(text, RESERVED));
}

/// What is wrong with a query as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryFault {
    /// A second `?`: one server cuts there, another does not.
    SecondMark,
    /// A byte that is not ASCII and not encoded: UTF-8 to one server, Latin-1 to the next.
    Unencoded,
    /// More pairs than are read.
    TooMany,
    /// A name or value with a broken percent sequence, or not UTF-8; the name as far as it can be read.
    Broken(String),
}

/// The decoded pairs of `query`, in order. `+` is a space, as every form decoder of the upstreams reads it.
///
/// # Errors
/// The first fault of the query as a whole.
pub fn pairs(query: &[u8]) -> Result<Vec<(String, String)>, QueryFault> {
    if query.contains(&b'?') {
        return Err(QueryFault::SecondMark);
    }
    if !query.is_ascii() {
        return Err(QueryFault::Unencoded);
    }
    let mut pairs = Vec::new();
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == MOST_PAIRS {
            return Err(QueryFault::TooMany);
        }
        let at = pair.iter().position(|byte| *byte == b'=');
        let name = pair.get(..at.unwrap_or(pair.len())).unwrap_or_default();
        let value = at.and_then(|at| pair.get(at + 1..)).unwrap_or_default();
        let readable = || String::from_utf8_lossy(name).chars().take(64).collect::<String>();
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else { return Err(QueryFault::Broken(readable())) };
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The names in `query`, decoded where they can be: what a query says that cannot be read as a whole.
#[must_use]
pub fn names(query: &[u8]) -> Vec<String> {
    let name = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        decoded(name).unwrap_or_else(|| String::from_utf8_lossy(name).into_owned())
    };
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(name).collect()
}

/// Form-decodes `text`; nothing when a percent sequence is broken or the result is not UTF-8.
fn decoded(text: &[u8]) -> Option<String> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return str::from_utf8(text).ok().map(str::to_owned);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => rest.next().and_then(hex)? * 16 + rest.next().and_then(hex)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guarded() -> Vec<String> {
        vec!["/api".into(), "/restapi/v2/accounts".into()]
    }

    fn reading(target: &str) -> Reading<'_> {
        read(target.as_bytes(), Some("chat.example.org"), &guarded())
    }

    #[test]
    fn a_plain_target_inside_is_read_as_it_stands() {
        assert_eq!(
            reading("/api/v1/rooms.roles?rid=a"),
            Reading::Inside(Canonical { path: "/api/v1/rooms.roles", query: Some(b"rid=a") })
        );
        assert!(matches!(reading("/api"), Reading::Inside(_)));
        assert!(matches!(reading("/restapi/v2/accounts/a/rooms/1/users"), Reading::Inside(_)));
        assert!(matches!(reading("/api/v1/method.call/rooms%3Aget"), Reading::Inside(_)));
    }

    #[test]
    fn what_only_a_declared_segment_may_hold_is_every_encoding_that_a_server_might_take_for_structure_or_for_plain_text() {
        for byte in 0..=u8::MAX {
            let needs = byte.is_ascii_alphanumeric() || b"/\\%?#;-._~".contains(&byte);
            for path in [format!("/a%{byte:02x}"), format!("/a%{byte:02X}b"), format!("/%20%{byte:02x}")] {
                assert_eq!(needs_declaration(&path), needs, "{path}");
            }
        }
        for broken in ["/%", "/%2", "/%zz", "/%20%4"] {
            assert!(needs_declaration(broken), "{broken}");
        }
    }

    #[test]
    fn a_short_target_with_very_many_readings_is_ambiguous_and_soon_found_to_be() {
        let looked = std::cell::Cell::new(0);
        let target = "/#%25252f%20..\\\\%2f.%23%c0%af%25c0%25ae;\\%20//./%5c%25c0%25ae?//%25252f %c0%af%u002f%u002f%252e;?/..#.%5c\
                      %25c0%25ae// ..%252523\\";
        let ambiguous = Readings::default().any(target.as_bytes(), &|_| {
            looked.set(looked.get() + 1);
            false
        });
        assert!(ambiguous && target.len() < 150, "{} looked at", looked.get());
        assert!(looked.get() < 60_000, "{} looked at", looked.get());
    }

    #[test]
    fn what_no_server_reads_as_guarded_is_outside() {
        for target in [
            "/",
            "/apix",
            "/avatar/a%2fb",
            "/file-upload/x/a%20b;c",
            "*",
            "/websocket",
            "/?next=/api",
            "/home#/api",
            "/caf%C3%A9",
            "/%u00",
            "http://api/x",
            "api.example:443",
            "//api.example/x",
        ] {
            assert_eq!(reading(target), Reading::Outside, "{target}");
        }
    }

    #[test]
    fn every_spelling_that_some_server_reads_as_guarded_is_ambiguous() {
        for target in [
            "/api/v1/users%2einfo",
            "/api/v1/%75sers.info",
            "/api/%76%31/users.info",
            "/api/v1/./users.info",
            "/api/v1/x/../users.info",
            "/api/v1/%2e%2e/v1/users.info",
            "/api/v1/.%2e/v1/users.info",
            "/api/v1\\users.info",
            "/api\\v1\\users.info",
            "/api/v1/users.info#frag?userId=a",
            "/api/v1/users.info?a=b#c",
            "http://evil/api/v1/users.info",
            "http://chat.example.org/api/v1/users.info",
            "h%74tp:/%2fevil/api/v1/users.info",
            "//api/v1/users.info",
            "/%61pi/v1/users.info",
            "/%2561pi/v1/users.info",
            "/x/../api/v1/users.info",
            "/x/..%2fapi/v1/users.info",
            "/./api/v1/users.info",
            "/API/v1/users.info",
            "/api;x=1/v1/users.info",
            "/api/v1//users.info",
            "/api/v1/users.info%00",
            "/api/v1/users.info%",
            "/api/v1/users.info%2",
            "/api/v1/%0a",
            "/api/v1/users info",
            "api/v1/users.info",
            "/api/v1/users%c0%aeinfo",
            "/api/v1/users.info%ff",
            "/api%c0%afv1/users.info",
            "/api%e0%80%afv1/users.info",
            "/api%f0%80%80%afv1/users.info",
            "/x/%c0%ae%c0%ae/api/v1/users.info",
            "/%25c1%25a1pi/v1/users.info",
            "/%u0061pi/v1/users.info",
            "/../api//../v1/users.info",
            "http://h%74tp:%2f%2fx/ap%69/v1/users.info",
            "http:///x/api/v1/users.info",
            "http:/x/api/v1/users.info",
            "http:x/api/v1/users.info",
            "http://x%2fapi/v1/users.info",
            "/%\n61pi/v1/users.info",
            "/api/v1/users.info/%20",
            "/api/v1/users.info%20",
            "/%25u0061pi/v1/users.info",
            "//evil/api/v1/users.info",
            "/%2fevil/api/v1/users.info",
            "/%25\r61pi/v1/users.info",
            "/x%e0%80%afy/%2e%2e/api/v1/users.info",
            "/x\\y/../api/v1/users.info",
            "/x%5cy/../api\\v1/users.info",
            "/%25%0d61pi/v1/users.info",
            "/\\evil/api/v1/users.info",
            "/\t/evil/api/v1/users.info",
            "http:/api/v1/users.info",
            "http:api/v1/users.info",
            "http:////evil/api/v1/users.info",
            "http:\\\\evil\\api\\v1\\users.info",
            "h\nttp://evil/api/v1/users.info",
            "/x%2F%61pi/../ap%69/v1/users.info",
            "/j/%252e%2e/ap%69%2fv1%2F..%20/../%72oles.getUsersInRole",
            "%2fevil%2fapi/v1/users.info",
            "\u{f}%2fevil/api/v1/users.info",
        ] {
            // An encoding that only a declared segment may hold is the router's to refuse.
            let refused = match reading(target) {
                Reading::Ambiguous(_) => true,
                Reading::Inside(canonical) => needs_declaration(canonical.path),
                Reading::Outside | Reading::Declared(_) => false,
            };
            assert!(refused, "{target}: {:?}", reading(target));
        }
    }

    #[test]
    fn a_long_target_that_leads_elsewhere_passes() {
        // As single sign-on sends them: signed text in base64, percent-encoded, and a place to go back to.
        let signed: String = (0..9_000).map(|index| ["A", "b", "7", "%2B", "%2F", "q", "%3D", "Z"][index * 7 % 8]).collect();
        let back = "https%3A%2F%2Fchat.example.org%2Fhome%3Fa%3D1%26b%3Dx%20y%3Bz";
        for target in [
            format!("/_saml/validate/x?SAMLResponse={signed}&RelayState={back}"),
            format!("/file-upload/a1/{}.pdf?token={signed}", "my%20file%2C%20v1.2%20".repeat(20)),
            format!("/home?next={back}&then={back}&state={signed}"),
        ] {
            assert_eq!(reading(&target), Reading::Outside, "{} bytes: {}", target.len(), &target[..60]);
        }
    }

    #[test]
    fn a_query_is_read_strictly() {
        assert_eq!(pairs(b"a=1&b=x+y%2B&&c").unwrap(), [("a", "1"), ("b", "x y+"), ("c", "")].map(|(n, v)| (n.into(), v.into())));
        assert_eq!(pairs(b"rid=secret?&rid=public"), Err(QueryFault::SecondMark));
        assert_eq!(pairs("rid=é".as_bytes()), Err(QueryFault::Unencoded), "UTF-8 to one server, Latin-1 to the next");
        assert_eq!(pairs(b"rid=%zz"), Err(QueryFault::Broken("rid".into())));
        assert_eq!(pairs(b"rid=%ff"), Err(QueryFault::Broken("rid".into())));
        assert_eq!(pairs(&b"a&".repeat(101)), Err(QueryFault::TooMany));
    }

    proptest! {
        #[test]
        fn no_target_panics_and_a_canonical_one_is_sent_as_it_was_judged(target in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Reading::Inside(canonical) = read(&target, None, &guarded()) {
                prop_assert!(target.starts_with(canonical.path.as_bytes()));
            }
        }

        #[test]
        fn canonicalisation_is_idempotent(tail in "[/a-zA-Z.%;\\\\#?0-9]{0,20}") {
            let target = format!("/api{tail}");
            if let Reading::Inside(canonical) = reading(&target) {
                let again = read(canonical.path.as_bytes(), None, &guarded());
                prop_assert_eq!(again, Reading::Inside(Canonical { path: canonical.path, query: None }));
            }
        }

        #[test]
        fn an_encoded_value_is_read_back(text in "\\PC{0,30}") {
            let query = format!("a={}", encode(&text));
            prop_assert_eq!(pairs(query.as_bytes()).unwrap(), vec![("a".to_owned(), text)]);
        }
    }
}
