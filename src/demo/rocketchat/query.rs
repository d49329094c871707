//! Reads a query string as the server's `qs` does, lenient where that is lenient.

use percent_encoding::percent_decode_str;

/// More pairs than this are refused.
const PAIRS: usize = 1000;
/// More items of one name than this are refused.
const ITEMS: usize = 500;

/// What was given under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// `a=x`.
    Text(String),
    /// `a=x&a=y`, `a[]=x`, `a[0]=x`.
    List(Vec<String>),
    /// `a[b]=x` and everything deeper.
    Object,
}

/// The names in order of their first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, Given)>);

/// The query is over a limit of the parser.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Query {
    /// Reads what follows the first `?`; a second one ends it.
    pub(super) fn read(raw: Option<&str>) -> Result<Self, TooMuch> {
        let text = raw.unwrap_or_default().split('?').next().unwrap_or_default();
        let text = text.replace("%5B", "[").replace("%5b", "[").replace("%5D", "]").replace("%5d", "]");
        let mut query = Self::default();
        for (index, pair) in text.split('&').enumerate() {
            if index >= PAIRS {
                return Err(TooMuch);
            }
            // The name ends before the first `=`, but a bracket's `]=` counts before an `=` inside the bracket.
            let split = pair.find("]=").map(|at| at + 1).or_else(|| pair.find('='));
            let (name, value) = split.map_or((pair, ""), |at| {
                let (name, rest) = pair.split_at(at);
                (name, rest.strip_prefix('=').unwrap_or(rest))
            });
            if let Some((name, form)) = form(&decode(name)) {
                query.add(name, form, decode(value))?;
            }
        }
        Ok(query)
    }

    /// What stands under `name`.
    pub(super) fn given(&self, name: &str) -> Option<&Given> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, given)| given)
    }

    /// Every name once.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn add(&mut self, name: String, form: Form, value: String) -> Result<(), TooMuch> {
        let Some((_, given)) = self.0.iter_mut().find(|(known, _)| *known == name) else {
            let given = match form {
                Form::Plain => Given::Text(value),
                Form::Item => Given::List(vec![value]),
                Form::Nested => Given::Object,
            };
            self.0.push((name, given));
            return Ok(());
        };
        match (&mut *given, form) {
            (Given::Object, _) | (_, Form::Nested) => *given = Given::Object,
            (Given::Text(first), _) => *given = Given::List(vec![std::mem::take(first), value]),
            (Given::List(items), _) if items.len() >= ITEMS => return Err(TooMuch),
            (Given::List(items), _) => items.push(value),
        }
        Ok(())
    }
}

/// How a name was spelled.
enum Form {
    Plain,
    Item,
    Nested,
}

/// The name without its brackets; `None` when the parser drops the pair, as it does for names that every object inherits.
fn form(name: &str) -> Option<(String, Form)> {
    let mut groups = Vec::new();
    let mut rest = name;
    let mut parent = None;
    while let Some((before, inner, after)) = bracket(rest) {
        parent.get_or_insert(before);
        groups.push(inner);
        rest = after;
    }
    let parent = parent.unwrap_or(name);
    let (parent, groups) = match (parent, groups.split_first()) {
        // `[a]=x` is `a=x`.
        ("", Some((first, others))) => (*first, others),
        _ => (parent, groups.as_slice()),
    };
    if parent.is_empty() || inherited(parent) || groups.iter().any(|group| inherited(group)) {
        return None;
    }
    let item = |group: &str| group.is_empty() || group.parse::<usize>().is_ok_and(|index| index <= ITEMS);
    let form = match groups {
        [] => Form::Plain,
        [group] if item(group) => Form::Item,
        _ => Form::Nested,
    };
    Some((parent.to_owned(), form))
}

/// The first `[…]` without brackets inside: what is before, in and after it.
fn bracket(text: &str) -> Option<(&str, &str, &str)> {
    let close = text.match_indices(']').find_map(|(close, _)| {
        let open = text.get(..close)?.rfind(['[', ']'])?;
        text.get(open..close)?.starts_with('[').then_some((open, close))
    });
    let (open, close) = close?;
    Some((text.get(..open)?, text.get(open + 1..close)?, text.get(close + 1..)?))
}

fn inherited(name: &str) -> bool {
    [
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
    ]
    .contains(&name)
}

/// A plus is a space; a text with one malformed escape keeps all of them.
fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    let whole = spaced
        .match_indices('%')
        .all(|(at, _)| spaced.get(at + 1..at + 3).is_some_and(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit())));
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) if whole => decoded.into_owned(),
        _ => spaced,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &str) -> Vec<(String, Given)> {
        Query::read(Some(raw)).unwrap().0
    }

    fn text(name: &str, value: &str) -> (String, Given) {
        (name.into(), Given::Text(value.into()))
    }

    fn list(name: &str, values: &[&str]) -> (String, Given) {
        (name.into(), Given::List(values.iter().map(|value| (*value).to_owned()).collect()))
    }

    #[test]
    fn a_second_question_mark_ends_the_query() {
        assert_eq!(read("userId=a?username=b"), [text("userId", "a")]);
        assert_eq!(read("rid=SECRET?&rid=public"), [text("rid", "SECRET")]);
    }

    #[test]
    fn brackets_make_lists_and_objects() {
        for raw in ["rid[]=a", "rid[0]=a", "rid%5B%5D=a", "rid%5b0%5d=a"] {
            assert_eq!(read(raw), [list("rid", &["a"])], "{raw}");
        }
        assert_eq!(read("[rid]=a"), [text("rid", "a")]);
        assert_eq!(read("rid[$ne]=a"), [("rid".into(), Given::Object)]);
        assert_eq!(read("rid[a=b]=c"), [("rid".into(), Given::Object)]);
        assert_eq!(read("rid[=a"), [text("rid[", "a")]);
        assert_eq!(read("rid[][x]=a"), [("rid".into(), Given::Object)]);
    }

    #[test]
    fn a_repeated_name_is_a_list_however_it_is_spelled() {
        assert_eq!(read("a=1&b=2&a=3"), [list("a", &["1", "3"]), text("b", "2")]);
        assert_eq!(read("rid=a&rid[]=b"), [list("rid", &["a", "b"])]);
    }

    #[test]
    fn names_that_objects_inherit_and_empty_names_vanish() {
        assert_eq!(read("rid=a&__proto__=x&constructor[y]=z&toString=1&rid2[__proto__]=x&=x&&"), [text("rid", "a")]);
    }

    #[test]
    fn escapes_are_decoded_once_and_only_when_all_are_whole() {
        assert_eq!(read("a=x+y%2Bz"), [text("a", "x y+z")]);
        assert_eq!(read("a=%2541"), [text("a", "%41")]);
        assert_eq!(read("a=%41%zz+"), [text("a", "%41%zz ")]);
        assert_eq!(read("a=b;c=d"), [text("a", "b;c=d")]);
        assert_eq!(read("a"), [text("a", "")]);
    }

    #[test]
    fn over_a_thousand_pairs_or_five_hundred_items_are_too_much() {
        let pairs = |count: usize| (0..count).map(|index| format!("a{index}=1")).collect::<Vec<_>>().join("&");
        assert!(Query::read(Some(&pairs(1000))).is_ok());
        assert_eq!(Query::read(Some(&pairs(1001))), Err(TooMuch));
        assert!(Query::read(Some(&vec!["a=1"; 500].join("&"))).is_ok());
        assert_eq!(Query::read(Some(&vec!["a=1"; 501].join("&"))), Err(TooMuch));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(raw in "[a\\[\\]=&%+?é0-9]{0,30}") {
            let _ = Query::read(Some(&raw));
        }
    }
}
