//! Where in a JSON document a value stands: RFC 6901, checked when it is read, with `*` for every element of a list.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_json::Value as Json;

use super::template::{Template, TemplateError};

/// A JSON pointer (RFC 6901). One of its tokens may be `*`: every element of the list that stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<Token>,
}

/// A JSON pointer whose tokens may hold placeholders: `/users/{caller.id}`.
///
/// A filled value is always one key of an object or one index of a list, whatever characters it has, as if it had been
/// escaped; it never adds a token and is never `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerTemplate {
    tokens: Vec<TokenTemplate>,
}

/// Why a text is no pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It neither is empty nor begins with `/`.
    #[error("a pointer begins with `/`")]
    NoSlash,
    /// A `~` that is not `~0` or `~1`.
    #[error("`~` stands only in `~0` (a tilde) and `~1` (a slash)")]
    Escape,
    /// More than one `*`.
    #[error("`*` stands at most once in a pointer")]
    Wildcards,
    /// A token's placeholders cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Key(String),
    Each,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TokenTemplate {
    Key(Template),
    Each,
}

impl Pointer {
    /// What stands there in `document`; nothing when a token leads nowhere.
    ///
    /// With `*` the answer is the list of what the rest of the pointer finds in each element, elements without it and
    /// nulls left out.
    #[must_use]
    pub fn resolve<'a>(&self, document: &'a Json) -> Option<Cow<'a, Json>> {
        let mut tokens = self.tokens.iter();
        let mut here = document;
        for token in tokens.by_ref() {
            match token {
                Token::Key(key) => here = child(here, key)?,
                Token::Each => {
                    let rest: Vec<&Token> = tokens.collect();
                    let found = here.as_array()?.iter().filter_map(|element| descend(element, &rest));
                    return Some(Cow::Owned(Json::Array(found.filter(|value| !value.is_null()).cloned().collect())));
                }
            }
        }
        Some(Cow::Borrowed(here))
    }

    /// Whether it holds `*`, so that it always finds a list.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.tokens.contains(&Token::Each)
    }
}

impl PointerTemplate {
    /// The pointer with every placeholder filled from `value_of`; nothing when one has no value or an empty one.
    #[must_use]
    pub fn fill<'v>(&self, value_of: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<Pointer> {
        let tokens = self.tokens.iter().map(|token| match token {
            TokenTemplate::Key(template) => template.fill(&value_of).map(Token::Key),
            TokenTemplate::Each => Some(Token::Each),
        });
        tokens.collect::<Option<Vec<Token>>>().map(|tokens| Pointer { tokens })
    }

    /// The names of its placeholders, in order, repeats included.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().flat_map(|token| match token {
            TokenTemplate::Key(template) => template.placeholders().collect::<Vec<_>>(),
            TokenTemplate::Each => Vec::new(),
        })
    }

    /// Whether it holds `*`, so that it always finds a list.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.tokens.contains(&TokenTemplate::Each)
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let tokens: Vec<Token> = split(text)?.map(|token| token.map_or(Token::Each, Token::Key)).collect();
        Ok(Self { tokens })
    }
}

impl FromStr for PointerTemplate {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let tokens = split(text)?.map(|token| match token {
            Some(key) => Ok(TokenTemplate::Key(key.parse()?)),
            None => Ok(TokenTemplate::Each),
        });
        Ok(Self { tokens: tokens.collect::<Result<_, PointerError>>()? })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.tokens {
            match token {
                Token::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1"))?,
                Token::Each => f.write_str("/*")?,
            }
        }
        Ok(())
    }
}

/// The unescaped tokens of `text`; `None` stands for `*`.
fn split(text: &str) -> Result<impl Iterator<Item = Option<String>>, PointerError> {
    let tokens = match text.strip_prefix('/') {
        Some(rest) => rest.split('/').map(unescape).collect::<Result<Vec<_>, _>>()?,
        None if text.is_empty() => Vec::new(),
        None => return Err(PointerError::NoSlash),
    };
    if tokens.iter().filter(|token| *token == "*").count() > 1 {
        return Err(PointerError::Wildcards);
    }
    Ok(tokens.into_iter().map(|token| (token != "*").then_some(token)))
}

fn unescape(token: &str) -> Result<String, PointerError> {
    let mut plain = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        match character {
            '~' => match characters.next() {
                Some('0') => plain.push('~'),
                Some('1') => plain.push('/'),
                _ => return Err(PointerError::Escape),
            },
            other => plain.push(other),
        }
    }
    Ok(plain)
}

fn descend<'a>(from: &'a Json, tokens: &[&Token]) -> Option<&'a Json> {
    tokens.iter().try_fold(from, |here, token| match token {
        Token::Key(key) => child(here, key),
        Token::Each => None,
    })
}

fn child<'a>(of: &'a Json, key: &str) -> Option<&'a Json> {
    match of {
        Json::Object(members) => members.get(key),
        Json::Array(elements) => {
            let canonical = key == "0" || (!key.starts_with(['0', '+']) && !key.is_empty());
            canonical.then(|| key.parse().ok()).flatten().and_then(|index: usize| elements.get(index))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn find(pointer: &str, document: &Json) -> Option<Json> {
        pointer.parse::<Pointer>().unwrap().resolve(document).map(Cow::into_owned)
    }

    #[test]
    fn the_examples_of_rfc_6901_are_found() {
        let document = json!({"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, " ": 7});
        assert_eq!(find("", &document), Some(document.clone()));
        assert_eq!(find("/foo/0", &document), Some(json!("bar")));
        assert_eq!(find("/", &document), Some(json!(0)));
        assert_eq!(find("/a~1b", &document), Some(json!(1)));
        assert_eq!(find("/m~0n", &document), Some(json!(8)));
        for nowhere in ["/foo/2", "/foo/01", "/foo/+1", "/foo/-", "/foo/", "/bar", "/foo/0/x"] {
            assert_eq!(find(nowhere, &document), None, "{nowhere}");
        }
    }

    #[test]
    fn a_star_finds_every_element_that_has_the_rest() {
        let document = json!({"accounts": [{"id": "a"}, {"other": 1}, {"id": null}, {"id": "b"}], "none": [], "text": "x"});
        assert_eq!(find("/accounts/*/id", &document), Some(json!(["a", "b"])));
        assert_eq!(find("/none/*/id", &document), Some(json!([])));
        assert_eq!(find("/text/*", &document), None, "only a list has elements");
        assert!("/accounts/*/id".parse::<Pointer>().unwrap().has_wildcard());
    }

    #[test]
    fn what_is_no_pointer_is_refused_when_it_is_read() {
        assert_eq!("a".parse::<Pointer>(), Err(PointerError::NoSlash));
        assert_eq!("/a~2".parse::<Pointer>(), Err(PointerError::Escape));
        assert_eq!("/a~".parse::<Pointer>(), Err(PointerError::Escape));
        assert_eq!("/*/a/*".parse::<Pointer>(), Err(PointerError::Wildcards));
        assert!(matches!("/{a".parse::<PointerTemplate>(), Err(PointerError::Template(_))));
    }

    #[test]
    fn a_pointer_with_a_placeholder_that_is_empty_points_nowhere() {
        let template: PointerTemplate = "/users/{caller.id}".parse().unwrap();
        assert_eq!(template.placeholders().collect::<Vec<_>>(), ["caller.id"]);
        assert_eq!(template.fill(|_| None), None);
        assert_eq!(template.fill(|_| Some("".into())), None);
    }

    proptest! {
        #[test]
        fn a_filled_value_is_one_key_whatever_it_holds(id in "[a*~/{}.0-9]{1,8}", other in "[a*~/{}]{1,4}") {
            prop_assume!(id != other);
            let template: PointerTemplate = "/users/{caller.id}".parse().unwrap();
            let pointer = template.fill(|_| Some(id.as_str().into())).unwrap();
            let document = json!({"users": {id.clone(): 1, other: 2}});
            prop_assert_eq!(pointer.resolve(&document).map(Cow::into_owned), Some(json!(1)));
            prop_assert!(!pointer.has_wildcard());
        }

        #[test]
        fn what_is_printed_is_read_back(text in "(/[a-c~/*]{0,3}){0,4}") {
            if let Ok(pointer) = text.parse::<Pointer>() {
                prop_assert_eq!(pointer.to_string().parse::<Pointer>().unwrap(), pointer);
            }
        }
    }
}
