//! The words of a provider's file: of what a stranger wrote, these may be recorded, and little else.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::percent_decode;

/// The most bytes of a stranger's own words that are recorded of one target or in one detail: tokens are longer.
pub const MOST_UNKNOWN: usize = 20;
/// The most digits in such a word: tokens have more.
const MOST_DIGITS: usize = 4;
/// The most digits in one that has letters of both cases.
const MOST_DIGITS_AMONG_LETTERS: usize = 1;
/// What stands in a record for what is not told.
pub const CUT: &str = "...";
/// How often a word is decoded before it is compared.
const DECODINGS: usize = 3;

/// Every word that a provider's file declares in paths, methods and names of parameters, and the paths below which whatever
/// follows is a credential.
#[derive(Debug, Default)]
pub struct Vocabulary {
    words: HashSet<String>,
    secrets: Vec<Vec<String>>,
}

impl Vocabulary {
    /// The words of `declared`, which may be whole paths, and the paths `secrets`.
    #[must_use]
    pub fn of<'d>(declared: impl Iterator<Item = &'d str>, secrets: &[String]) -> Self {
        let mut words = HashSet::new();
        for segment in declared.flat_map(|text| text.split('/')).chain(["http:", "https:"]) {
            words.extend(segment.split('.').chain([segment]).map(str::to_ascii_lowercase));
        }
        let secrets = secrets.iter().map(|path| path.split('/').skip(1).map(str::to_ascii_lowercase).collect()).collect();
        Self { words, secrets }
    }

    /// A stranger's `word` as it may be told: if it is a declared one, or so short that it is no token.
    #[must_use]
    pub fn told<'w>(&self, word: &'w str) -> Cow<'w, str> {
        if self.knows(word.as_bytes()) || is_brief(word.as_bytes()) { word.into() } else { CUT.into() }
    }

    fn knows(&self, word: &[u8]) -> bool {
        self.words.contains(&plain(word))
    }
}

/// A `word` that no file can know, as it may be told: if it is so short that it is no token.
#[must_use]
pub fn brief(word: &str) -> &str {
    if is_brief(word.as_bytes()) { word } else { CUT }
}

fn is_brief(word: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| word.iter().any(is);
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    word.len() <= MOST_UNKNOWN && digits <= if mixed { MOST_DIGITS_AMONG_LETTERS } else { MOST_DIGITS }
}

/// `word` in lower case, decoded as often as servers do.
fn plain(word: &[u8]) -> String {
    let mut word = word.to_ascii_lowercase();
    for _ in 0..DECODINGS {
        if !word.contains(&b'%') {
            break;
        }
        word = percent_decode(&word).collect::<Vec<u8>>().to_ascii_lowercase();
    }
    String::from_utf8_lossy(&word).into_owned()
}

/// What is told of one target: every declared word, and of all others together at most [`MOST_UNKNOWN`] bytes.
#[derive(Debug)]
pub struct Telling<'v> {
    vocabulary: &'v Vocabulary,
    left: usize,
    /// The segments so far, in plain spelling.
    passed: Vec<String>,
    /// Whether whatever follows in the path is a credential.
    secret: bool,
}

impl<'v> Telling<'v> {
    /// Nothing is told yet.
    #[must_use]
    pub fn new(vocabulary: &'v Vocabulary) -> Self {
        Self { vocabulary, left: MOST_UNKNOWN, passed: Vec::new(), secret: false }
    }

    /// Writes a `path` onto `told`, segment by segment.
    pub fn path(&mut self, told: &mut Vec<u8>, path: &[u8]) {
        let mut rest = path;
        while let Some((at, length)) = separator(rest) {
            self.segment(told, rest.get(..at).unwrap_or_default());
            told.extend_from_slice(rest.get(at..at + length).unwrap_or_default());
            rest = rest.get(at + length..).unwrap_or_default();
        }
        self.segment(told, rest);
    }

    fn segment(&mut self, told: &mut Vec<u8>, segment: &[u8]) {
        if self.secret && !segment.is_empty() {
            return told.extend_from_slice(CUT.as_bytes());
        }
        if self.vocabulary.knows(segment) {
            told.extend_from_slice(segment);
        } else {
            self.word(told, segment);
        }
        let plain = plain(segment);
        if !matches!(plain.as_str(), "" | ".") {
            self.passed.push(plain);
            self.secret = self.vocabulary.secrets.iter().any(|secret| self.passed.ends_with(secret));
        }
    }

    /// Writes a word onto `told`: the declared parts with which it begins, between dots, and what follows them if it may all be
    /// told.
    pub fn word(&mut self, told: &mut Vec<u8>, word: &[u8]) {
        let known = word.split(|byte| *byte == b'.').take_while(|part| !part.is_empty() && self.vocabulary.knows(part));
        let (declared, rest) = word.split_at(known.map(|part| part.len() + 1).sum::<usize>().saturating_sub(1));
        told.extend_from_slice(declared);
        if rest.len() <= self.left && is_brief(rest) {
            self.left -= rest.len();
            told.extend_from_slice(rest);
        } else {
            told.extend_from_slice(CUT.as_bytes());
        }
    }
}

/// The first separator of two segments, for the server that sees most of them: its place and its length.
fn separator(path: &[u8]) -> Option<(usize, usize)> {
    path.iter().enumerate().find_map(|(at, byte)| match byte {
        b'/' | b'\\' => Some((at, 1)),
        b'%' => {
            let three = path.get(at..at + 3)?;
            (three.eq_ignore_ascii_case(b"%2f") || three.eq_ignore_ascii_case(b"%5c")).then_some((at, 3))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary::of(
            ["/api/v1/users.listByStatus", "getRoomRoles", "rid"].into_iter(),
            &["/hooks".into(), "/api/app/private".into()],
        )
    }

    fn told(path: &str) -> String {
        let vocabulary = vocabulary();
        let mut text = Vec::new();
        Telling::new(&vocabulary).path(&mut text, path.as_bytes());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn declared_words_are_told_in_any_spelling_and_long_unknown_ones_are_not() {
        for (path, text) in [
            ("/api/v1/users.listByStatus", "/api/v1/users.listByStatus"),
            ("/API/%761/users%2ElistByStatus", "/API/%761/users%2ElistByStatus"),
            ("/api%2Fv1\\users.LISTBYSTATUS.json", "/api%2Fv1\\users.LISTBYSTATUS.json"),
            ("/api/v1/no.such.route", "/api/v1/no.such.route"),
            ("/api/v1/users.autocompleteEverybodyAtOnce", "/api/v1/users..."),
            ("/api/v1/x/../users", "/api/v1/x/../users"),
            ("/api/v1/users.SixteenLetters.v1.SixteenLetters", "/api/v1/users..."),
            ("/api/v1/org.matrix.msc3575", "/api/v1/org.matrix.msc3575"),
            ("/api/v1/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0", "/api/v1/..."),
            ("/api/v1/a1b2c3d4e5", "/api/v1/..."),
            ("/abcdefghij/klmnopqrstuvwxyz", "/abcdefghij/..."),
            ("/hooks/a/b", "/hooks/.../..."),
            ("/x/%48ooks//./a/b", "/x/%48ooks//.../.../..."),
            ("/api/app/private/api/v1", "/api/app/private/.../..."),
            ("/api/app/public/a", "/api/app/public/a"),
        ] {
            assert_eq!(told(path), text, "{path}");
        }
        assert_eq!(vocabulary().told("getRoomRoles"), "getRoomRoles");
        assert_eq!(vocabulary().told("loadHistory"), "loadHistory");
        assert_eq!(vocabulary().told("0123456789"), CUT);
        assert_eq!(brief("a\u{1F408}"), "a\u{1F408}");
    }

    proptest! {
        #[test]
        fn no_secret_of_24_characters_is_told_wherever_it_stands(
            before in "(/(api|v1|hooks|x|users|%2e)){0,4}",
            secret in "[A-Za-z0-9._~!$'()*+,=:@-]{24,60}",
            after in "(/(api|v1|x)){0,2}",
        ) {
            let text = told(&format!("{before}/{secret}{after}"));
            prop_assert!(!text.contains(&secret), "{}", text);
        }
    }
}
