//! What forgiving servers make of a target: every form that one server, or a row of them, could read it as.

use std::collections::HashSet;

use percent_encoding::percent_decode;

use super::{hex, origin_form};

/// How often a lenient reading decodes: a server behind a server may decode again.
const DECODINGS: usize = 3;
/// The most forms of one target that are looked at; one with more is nobody's honest target.
const MOST_FORMS: usize = 1024;
/// The most bytes that these forms may have together.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What servers make of one target, step by step: each step is a form that the next server may start from.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// Every form met so far.
    seen: HashSet<Vec<u8>>,
    /// Those that are still to be looked at before anything is decoded once more.
    open: Vec<Vec<u8>>,
    /// Bytes of all forms that were made.
    bytes: usize,
}

impl Readings {
    /// Whether `found` holds for one of the paths in lower case, or there are too many to tell.
    pub(super) fn any(mut self, target: &[u8], found: &dyn Fn(&str) -> bool) -> bool {
        // An authority may be cut off before or after the rest is decoded, and what is decoded may turn out to have one.
        let (origin, absolute) = origin_form(target);
        let cut_off = absolute.map(|_| origin).into_iter().chain(loose_form(target)).map(<[u8]>::to_vec);
        // A path without its first slash is given one, before or after it is decoded.
        let rooted = (!target.starts_with(b"/")).then(|| [b"/", target].concat());
        for form in std::iter::once(target.to_vec()).chain(cut_off).chain(rooted) {
            self.note(form);
        }
        for _ in 0..=DECODINGS {
            let mut level = Vec::new();
            while let Some(form) = self.open.pop() {
                if self.resolve(&form, found) || self.seen.len() > MOST_FORMS || self.bytes > MOST_BYTES {
                    return true;
                }
                level.push(form);
            }
            for form in level.iter().filter(|form| form.contains(&b'%')) {
                self.note(percent_decode(&wide(form)).collect());
            }
            if self.open.is_empty() {
                break;
            }
        }
        false
    }

    /// Keeps a form, unless it is known.
    fn note(&mut self, form: Vec<u8>) {
        let bare: Vec<u8> = form.into_iter().filter(|byte| !byte.is_ascii_control()).collect();
        // An overlong slash parts two segments to one server and is a letter within one to the next.
        let short = (!bare.is_ascii()).then(|| shortest(&bare));
        for form in std::iter::once(bare).chain(short) {
            self.bytes += form.len();
            if !self.seen.contains(&form) {
                self.seen.insert(form.clone());
                self.open.push(form);
            }
        }
    }

    /// Everything that `form` is resolved to without decoding it: looked at, and kept, since a server may hand it on so.
    fn resolve(&mut self, form: &[u8], found: &dyn Fn(&str) -> bool) -> bool {
        let authorities = behind_authority(form);
        let forms = std::iter::once(origin_form(form).0).chain(loose_form(form)).chain(authorities.iter().map(Vec::as_slice));
        forms.into_iter().any(|origin| self.resolve_origin(origin, found))
    }

    fn resolve_origin(&mut self, origin: &[u8], found: &dyn Fn(&str) -> bool) -> bool {
        let cut = |at: &[u8]| origin.split(|byte| at.contains(byte)).next().unwrap_or_default();
        // Only what can make a difference is tried both ways: nearly every target has none of it.
        let either = |matters: bool| if matters { &[true, false][..] } else { &[true][..] };
        let after = |first: &[u8], second: &[u8]| {
            origin.windows(2).any(|two| matches!(two, [a, b] if first.contains(a) && second.contains(b)))
        };
        let dots: &[Dots] = match (origin.starts_with(b".") || after(b"/\\ ", b"."), after(b"/\\.", b"%")) {
            (_, true) => &[Dots::Encoded, Dots::Plain, Dots::Letters],
            (true, false) => &[Dots::Plain, Dots::Letters],
            (false, false) => &[Dots::Letters],
        };
        let parameters = either(origin.contains(&b';'));
        let merge = either(after(b"/\\", b"/\\ ;"));
        let spaces = either(origin.contains(&b' '));
        // A backslash parts two segments to one server and is a letter within one to the next.
        let separators: &[&[u8]] = if origin.contains(&b'\\') { &[b"/\\", b"/"] } else { &[b"/"] };
        let fragment = origin.contains(&b'#');
        let mut ways = Vec::new();
        for &separators in separators {
            for &dots in dots {
                for &drop_parameters in parameters {
                    for &drop_spaces in spaces {
                        ways.extend(merge.iter().map(|&merge_first| Lenience {
                            separators,
                            dots,
                            drop_parameters,
                            drop_spaces,
                            merge_first,
                        }));
                    }
                }
            }
        }
        [Some(cut(b"?")), fragment.then(|| cut(b"?#")), Some(origin)].into_iter().flatten().any(|path| {
            ways.iter().any(|way| {
                let path = way.resolve(path);
                found(&path) || {
                    self.note(path.into_bytes());
                    false
                }
            })
        })
    }
}

/// The paths that a server could find in a target that it reads as a reference, as the URL standard does against its own
/// address: `//host/path`, and `scheme:` before any number of slashes, with or without an authority behind them.
fn behind_authority(target: &[u8]) -> Vec<Vec<u8>> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    if let [b'/', second, ..] = target
        && !is_slash(second)
        && second.is_ascii_graphic()
    {
        return Vec::new();
    }
    let target: Vec<u8> = target.iter().copied().filter(|byte| !byte.is_ascii_control() && *byte != b' ').collect();
    let scheme = target.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte));
    let scheme = scheme.filter(|at| target.get(*at) == Some(&b':'));
    let rest = scheme.and_then(|at| target.get(at + 1..)).unwrap_or(&target);
    let slashes = rest.iter().take_while(|byte| is_slash(byte)).count();
    let mut paths = Vec::new();
    if scheme.is_some() && slashes != 2 {
        paths.push(rest.to_vec());
    }
    if scheme.is_some() || slashes >= 2 {
        let path = rest.iter().skip(slashes).skip_while(|byte| !b"/\\?#".contains(byte));
        paths.push(path.copied().collect());
    }
    paths
}

/// The path and query of a target whose scheme is followed by any number of slashes, as browsers' parsers read it.
fn loose_form(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let scheme = target.get(..colon)?;
    if scheme.is_empty() || !scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) {
        return None;
    }
    let rest = target.get(colon + 1..)?;
    let rest = rest.get(rest.iter().position(|byte| !b"/\\".contains(byte))?..)?;
    rest.get(rest.iter().position(|byte| b"/\\".contains(byte))?..)
}

/// `%u0061` as Windows' HTTP driver reads it, in the form of the standard; what is not ASCII stays as it is.
fn wide(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        match rest {
            [b'%', b'u' | b'U', b'0', b'0', high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                kept.extend_from_slice(&[b'%', *high, *low]);
                rest = after;
            }
            _ => {
                kept.push(*byte);
                rest = after;
            }
        }
    }
    kept
}

/// UTF-8 that is longer than it need be, which some decoders take for the ASCII it would spell (RFC 3629 §10).
fn shortest(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [0xc0 | 0xc1, low @ 0x80..=0xbf, after @ ..] => ((byte & 1) << 6 | low & 0x3f, after),
            [0xe0, high @ (0x80 | 0x81), low @ 0x80..=0xbf, after @ ..]
            | [0xf0, 0x80, high @ (0x80 | 0x81), low @ 0x80..=0xbf, after @ ..] => ((high & 1) << 6 | low & 0x3f, after),
            _ => (*byte, after),
        };
        kept.push(byte);
        rest = after;
    }
    kept
}

/// Which segments are dot segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    /// None.
    Letters,
    /// `.` and `..`.
    Plain,
    /// Those, and the ones that hold `%2e`, as the URL standard has it.
    Encoded,
}

/// One way of reading a path without decoding it.
#[derive(Clone, Copy)]
struct Lenience<'a> {
    /// What parts two segments.
    separators: &'a [u8],
    dots: Dots,
    /// Whether what follows a `;` in a segment is no part of it.
    drop_parameters: bool,
    /// Whether spaces are no part of a segment.
    drop_spaces: bool,
    /// One that merges slashes may do so before it resolves dots or after, and so may one that takes a backslash for a slash.
    merge_first: bool,
}

impl Lenience<'_> {
    /// `path` in lower case, as a server that reads it this way would hand it on.
    fn resolve(self, path: &[u8]) -> String {
        let mut segments: Vec<Vec<u8>> = Vec::new();
        for segment in path.split(|byte| self.separators.contains(byte)) {
            let mut segment: Vec<u8> = segment
                .iter()
                .copied()
                .filter(|byte| !(byte.is_ascii_control() || (self.drop_spaces && *byte == b' ')))
                .map(|byte| byte.to_ascii_lowercase())
                .collect();
            if self.drop_parameters
                && let Some(at) = segment.iter().position(|byte| *byte == b';')
            {
                segment.truncate(at);
            }
            match (self.dots, segment.as_slice()) {
                (_, b"") if self.merge_first => {}
                (Dots::Plain, b".") | (Dots::Encoded, b"." | b"%2e") => {}
                (Dots::Plain, b"..") | (Dots::Encoded, b".." | b"%2e." | b".%2e" | b"%2e%2e") => {
                    segments.pop();
                }
                _ => segments.push(segment),
            }
        }
        let mut text = String::new();
        for segment in segments.into_iter().filter(|segment| !segment.is_empty()) {
            text.push('/');
            text.push_str(&String::from_utf8_lossy(&segment).replace('\\', "/"));
        }
        text
    }
}
