//! What a record shows of a target and a method: printable, cut when long, and without what could be a secret.

use std::borrow::Cow;

use super::Site;
use crate::rules::Action;
use crate::rules::vocabulary::{CUT, Telling};

/// The most of a target or a detail that is recorded, in bytes.
pub(super) const LONGEST_SHOWN: usize = 512;

/// Whether `bytes` may be shown as they are, as nearly every target may.
fn is_printable(bytes: &[u8], longest: usize) -> bool {
    bytes.len() <= longest && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// `bytes` with everything that is not printable ASCII percent-encoded, at most `longest` bytes in all.
pub(super) fn shown(bytes: &[u8], longest: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len().min(longest) + CUT.len());
    for byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        if text.len() > longest {
            text.truncate(longest.saturating_sub(CUT.len()));
            text.push_str(CUT);
            break;
        }
    }
    text
}

/// A target without what stands before an `@` in its first part: `http://user:password@host/`.
fn without_password(target: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'@', target).is_none() {
        return target.into();
    }
    let begins = target.windows(2).position(|two| two == b"//").map_or(0, |at| at + 2);
    let authority = target.get(begins..).unwrap_or_default().split(|byte| b"/\\?#".contains(byte)).next().unwrap_or_default();
    match authority.iter().rposition(|byte| *byte == b'@') {
        Some(at) if begins > 0 || !target.starts_with(b"/") => {
            let before = target.get(..begins).unwrap_or_default();
            [before, b"...", target.get(begins + at..).unwrap_or_default()].concat().into()
        }
        _ => target.into(),
    }
}

/// A target as received, for `site`. The path of an action is shown but for its secrets; of every other one only the words
/// that the provider's file declares and a few bytes more. A value behind the path stands only where `action` declares its
/// name.
///
/// What one server takes for a part of the path is a query to the next, so whatever could separate them does here.
pub(super) fn target(target: &[u8], site: &Site, action: Option<&Action>) -> String {
    let target = &without_password(target);
    let declared = |name: &[u8]| {
        action.is_some_and(|action| {
            let params = action.params.iter().filter(|param| !param.secret).map(|param| &param.name);
            params.chain(&action.ignored).any(|declared| declared.as_bytes() == name)
        })
    };
    let mut telling = Telling::new(&site.rules.provider.vocabulary);
    let (end, begins) = path_end(target);
    let path = target.get(..end).unwrap_or_default();
    let mut cut = Vec::with_capacity(target.len() + 8);
    match action {
        Some(action) if action.has_secret() => cut.extend_from_slice(without_secrets(path, site, action).as_bytes()),
        Some(_) => cut.extend_from_slice(path),
        None => telling.path(&mut cut, path),
    }
    cut.extend_from_slice(target.get(end..begins).unwrap_or_default());
    let query = target.get(begins..).unwrap_or_default();
    for pair in query.split_inclusive(|byte| b"?&;#".contains(byte)) {
        let (pair, separator) = match pair.split_last() {
            Some((last, pair)) if b"?&;#".contains(last) => (pair, Some(*last)),
            _ => (pair, None),
        };
        let equals = pair.iter().position(|byte| *byte == b'=');
        if declared(pair.get(..equals.unwrap_or(pair.len())).unwrap_or_default()) {
            cut.extend_from_slice(pair);
        } else {
            undeclared(&mut telling, &mut cut, pair);
        }
        cut.extend(separator);
    }
    if !is_printable(&cut, LONGEST_SHOWN) {
        return shown(&cut, LONGEST_SHOWN);
    }
    String::from_utf8(cut).unwrap_or_default()
}

/// The path of an action without the segments that hold a credential.
fn without_secrets(path: &[u8], site: &Site, action: &Action) -> String {
    let text = String::from_utf8_lossy(path);
    let below = text.strip_prefix(&site.upstream.path_prefix).unwrap_or(&text);
    let secret = |name: &str| action.param(name).is_some_and(|param| param.secret);
    match action.doors.iter().find_map(|door| door.with(below, |name| secret(name).then(|| CUT.to_owned()))) {
        Some(path) => format!("{}{path}", site.upstream.path_prefix),
        None => CUT.to_owned(),
    }
}

/// What may be shown of a pair whose name nobody declares: the name may be a secret itself (`?t0ken`), or hold one
/// (`?token%3Dsecret`).
fn undeclared(telling: &mut Telling<'_>, onto: &mut Vec<u8>, pair: &[u8]) {
    let escaped = pair.windows(3).position(|three| three.eq_ignore_ascii_case(b"%3d"));
    let equals = escaped.into_iter().chain(pair.iter().position(|byte| *byte == b'=')).min();
    telling.word(onto, pair.get(..equals.unwrap_or(pair.len())).unwrap_or_default());
    if equals.is_some() {
        onto.extend_from_slice(b"=...");
    }
}

/// Where the path of `target` ends for the server that sees the earliest end, at a `?`, `;` or `#`, encoded ones too, and where
/// what is behind that begins.
fn path_end(target: &[u8]) -> (usize, usize) {
    let plain = target.iter().position(|byte| b"?;#".contains(byte)).map(|at| (at, at + 1));
    let ends = |at: &usize| {
        let three = target.get(*at..at + 3).unwrap_or_default();
        [b"%3f", b"%3b", b"%23"].iter().any(|end| three.eq_ignore_ascii_case(*end))
    };
    let encoded = memchr::memchr_iter(b'%', target).find(ends).map(|at| (at, at + 3));
    plain.into_iter().chain(encoded).min().unwrap_or((target.len(), target.len()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Origin, Upstream};
    use crate::rules::{Ruleset, Sources};

    fn shown_target(target: &[u8]) -> String {
        let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap();
        let upstream = Upstream::new("rocketchat", Origin { tls: false, host: "upstream".into(), port: 80 });
        let site = Site::new(Arc::new(upstream), Arc::clone(ruleset.provider("rocketchat").unwrap()), Arc::from([]));
        super::target(target, &site, None)
    }

    #[test]
    fn values_of_undeclared_names_are_not_shown() {
        for (target, shown) in [
            ("/api/v1/x?access_token=secret&a", "/api/v1/x?access_token=...&a"),
            ("/a;token=secret/b", "/a;token=..."),
            ("/a%3Ftoken=secret", "/a%3Ftoken=..."),
            ("/a%3fb%3Dc=secret", "/a%3fb=..."),
            ("/a?token%3dsecret&%74oken=secret", "/a?token=...&%74oken=..."),
            ("/a?0123456789012345678901234567890123456789&b=c", "/a?...&b=..."),
            ("/a#token=secret", "/a#token=..."),
            ("/a?b=c?token=secret&d;e=f", "/a?b=...?token=...&d;e=..."),
            ("/a?&&=", "/a?&&=..."),
            ("/a?", "/a?"),
            ("/api/v1/method.callAnon/eyJhbGciOiJIUzI1NiJ9", "/api/v1/method.callAnon/..."),
            ("/api/v1/rooms.roles?rid=a", "/api/v1/rooms.roles?rid=..."),
        ] {
            assert_eq!(shown_target(target.as_bytes()), shown);
        }
    }

    #[test]
    fn a_password_before_a_host_is_not_shown() {
        assert_eq!(shown_target(b"http://u:hunter2@x/a?b"), "http://...@x/a?b");
        assert_eq!(shown_target(b"//u:hunter2@x/a"), "//...@x/a");
        assert_eq!(shown_target(b"u:hunter2@x"), "...@x");
        assert_eq!(shown_target(b"http://user:hunter2@hunter3@x/a"), "http://...@x/a");
        assert_eq!(shown_target(b"//user:hunter2@hunter3@x/a"), "//...@x/a");
        assert_eq!(shown_target(b"/a/@b"), "/a/@b");
    }

    #[test]
    fn a_target_is_shown_escaped_and_cut() {
        assert_eq!(shown_target(b"/a\n\xff\"b"), "/a%0A%FF\"b");
        for target in [b"/".repeat(5000), b"/".repeat(513), b"/api".repeat(400)] {
            let text = shown_target(&target);
            assert_eq!(text.len(), LONGEST_SHOWN);
            assert!(text.ends_with("..."), "{text}");
        }
        assert_eq!(shown_target(&b"/".repeat(512)), "/".repeat(512), "what fits is not cut");
    }
}
