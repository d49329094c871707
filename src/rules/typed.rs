//! From the text of a TOML file to a typed value: every key that is unknown or of another kind is told, not only the first.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::provider::nearest;
use crate::model::{Fault, Faults, Place};

/// How many faults of one file are told: who has so many mends these first.
const MANY: usize = 50;

/// One step on the way from the root of a file to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// A key that leads to a value of a file, with where both stand.
struct Node {
    steps: Vec<Step>,
    key: Range<usize>,
    value: Range<usize>,
}

/// Reads `text` as a `T`. What is faulty is left out and the rest is read on, so that a value may come with faults; there is none
/// where the text is no TOML or nothing can be left out.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> (Option<T>, Faults) {
    let mut faults = Faults::default();
    let (mut root, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(MANY) {
        faults.push(syntax(file, text, &root, error));
    }
    if !errors.is_empty() {
        // One missing quote makes an error of each line below it: the first one is the cause.
        faults.0.truncate(if errors.iter().all(|error| error.message() == "duplicate key") { MANY } else { 1 });
        return (None, faults);
    }
    let mut gone = Vec::new();
    loop {
        let error = match T::deserialize(toml::Deserializer::from(root.clone())) {
            Ok(value) => return (Some(value), faults),
            Err(error) => error,
        };
        let mut found = error.span().and_then(|span| node(&root, &span));
        // Serde takes a list for a table whose values stand in their order.
        let message = error.message();
        let listed = missing(message).is_none()
            && !message.starts_with("unknown ")
            && found.as_ref().is_some_and(|found| is_list_header(text, found));
        if let Some(found) = found.as_mut().filter(|_| listed) {
            found.steps.pop();
        }
        // What was left out is not missed.
        let missed = missing(error.message()).is_some_and(|name| gone.contains(&(error.span(), name.to_owned())));
        if !missed {
            faults.push(typed(file, text, &error, found.as_ref(), listed));
        }
        let Some(found) = found.filter(|_| faults.0.len() < MANY) else { return (None, faults) };
        if let Some((Step::Key(key), above)) = found.steps.split_last() {
            gone.push((span(&root, above), key.clone()));
        }
        if !remove(root.get_mut(), &found.steps) {
            return (None, faults);
        }
    }
}

/// Whether `node` is a table below a header such as `[[upstream]]`.
fn is_list_header(text: &str, node: &Node) -> bool {
    matches!(node.steps.last(), Some(Step::Index(_))) && text.get(node.value.start..).is_some_and(|rest| rest.starts_with("[["))
}

/// Where the table that `steps` lead to stands.
fn span(root: &Spanned<DeTable<'_>>, steps: &[Step]) -> Option<Range<usize>> {
    let mut nodes = Vec::new();
    collect(root.get_ref(), &mut Vec::new(), &mut nodes);
    if steps.is_empty() { Some(root.span()) } else { nodes.into_iter().find(|node| node.steps == steps).map(|node| node.value) }
}

/// Of serde's "missing field `x`" the name.
fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The keys of a file with the place of each value, as `upstream.0.url`; those of a text that is no TOML are not known.
pub(crate) fn places(file: &str, text: &str) -> Vec<(String, Place)> {
    let Ok(root) = DeTable::parse(text) else { return Vec::new() };
    let mut nodes = Vec::new();
    collect(root.get_ref(), &mut Vec::new(), &mut nodes);
    let dotted = |steps: &[Step]| {
        let words = steps.iter().map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Index(index) => index.to_string(),
        });
        words.collect::<Vec<_>>().join(".")
    };
    nodes.iter().map(|node| (dotted(&node.steps), Place::at(file, text, node.value.start))).collect()
}

fn collect(table: &DeTable<'_>, above: &mut Vec<Step>, nodes: &mut Vec<Node>) {
    for (key, value) in table {
        above.push(Step::Key(key.get_ref().to_string()));
        nodes.push(Node { steps: above.clone(), key: key.span(), value: value.span() });
        below(value, &key.span(), above, nodes);
        above.pop();
    }
}

fn below(value: &Spanned<DeValue<'_>>, key: &Range<usize>, above: &mut Vec<Step>, nodes: &mut Vec<Node>) {
    match value.get_ref() {
        DeValue::Table(table) => collect(table, above, nodes),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                above.push(Step::Index(index));
                nodes.push(Node { steps: above.clone(), key: key.clone(), value: item.span() });
                below(item, key, above, nodes);
                above.pop();
            }
        }
        _ => {}
    }
}

/// What stands at `span`: the key or the value that covers it most closely.
fn node(root: &Spanned<DeTable<'_>>, span: &Range<usize>) -> Option<Node> {
    let mut nodes = Vec::new();
    collect(root.get_ref(), &mut Vec::new(), &mut nodes);
    let covers = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let size = |node: &Node| {
        let of = |range: &Range<usize>| if covers(range) { range.len() } else { usize::MAX };
        of(&node.key).min(of(&node.value))
    };
    // Of a key and the list of tables behind it the deepest is meant.
    nodes
        .into_iter()
        .filter(|node| covers(&node.key) || covers(&node.value))
        .min_by_key(|node| (size(node), std::cmp::Reverse(node.steps.len())))
}

fn remove(table: &mut DeTable<'_>, steps: &[Step]) -> bool {
    match steps {
        [Step::Key(key)] => table.remove(key.as_str()).is_some(),
        [Step::Key(key), rest @ ..] => table.get_mut(key.as_str()).is_some_and(|value| remove_below(value.get_mut(), rest)),
        _ => false,
    }
}

fn remove_below(value: &mut DeValue<'_>, steps: &[Step]) -> bool {
    match (value, steps) {
        (DeValue::Table(table), steps) => remove(table, steps),
        (DeValue::Array(array), [Step::Index(gone)]) => {
            let kept = std::mem::replace(array, DeArray::new()).into_iter().enumerate().filter(|(index, _)| index != gone);
            *array = kept.map(|(_, item)| item).collect::<DeArray<'_>>();
            true
        }
        (DeValue::Array(array), [Step::Index(index), rest @ ..]) => {
            array.get_mut(*index).is_some_and(|item| remove_below(item.get_mut(), rest))
        }
        _ => false,
    }
}

/// A fault of the text itself.
fn syntax(file: &str, text: &str, root: &Spanned<DeTable<'_>>, error: &toml::de::Error) -> Fault {
    let place = |span: &Range<usize>| Place::at(file, text, span.start);
    let Some(span) = error.span() else { return Fault::new(Place::file(file), error.message()) };
    let message = error.message().replace('\n', "; ");
    if message != "duplicate key" {
        let line = text.get(..span.start).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
        let hint = (line.contains('=') && message.starts_with("string values must be quoted"))
            .then(|| "text stands in quotes: `key = \"value\"`".to_owned());
        return Fault { hint, ..Fault::new(place(&span), message) };
    }
    let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'', '[', ']', ' ']);
    let mut nodes = Vec::new();
    collect(root.get_ref(), &mut Vec::new(), &mut nodes);
    let named = |node: &&Node| node.key.end <= span.start && node.steps.last() == Some(&Step::Key(key.to_owned()));
    let first = nodes.iter().filter(named).max_by_key(|node| node.key.start);
    let header = || text.get(..span.start)?.find(&format!("[{key}]")).map(|at| at + 1..at + 1 + key.len());
    let first = first.map(|first| first.key.clone()).or_else(header);
    let hint = first.map(|first| format!("it is first set at {}; keep one of the two", place(&first)));
    Fault { hint, ..Fault::new(place(&span), format!("`{key}` is set twice")) }
}

/// A fault of a key or a value.
fn typed(file: &str, text: &str, error: &toml::de::Error, found: Option<&Node>, listed: bool) -> Fault {
    let place = error.span().map_or_else(|| Place::file(file), |span| Place::at(file, text, span.start));
    let message = error.message().replace('\n', "; ");
    let keys: Vec<&str> = found
        .iter()
        .flat_map(|found| &found.steps)
        .filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
        .collect();
    let path = keys.join(".");
    let wrong = if listed { Some(("a list".to_owned(), "a table".to_owned())) } else { unexpected(&message) };
    if let Some((got, wanted)) = wrong {
        let header = found.is_some_and(|found| text.get(found.value.start..).is_some_and(|rest| rest.starts_with('[')));
        let name = keys.last().copied().unwrap_or_default();
        let hint = match (got.as_str(), wanted.as_str()) {
            ("a table", "a list") if header => Some(format!("write `[[{path}]]`")),
            ("a list", "a table") if header => Some(format!("write `[{path}]`")),
            (_, "a string") => (got != "a list" && got != "a table").then(|| QUOTED.to_owned()),
            ("a string", "a whole number" | "a whole number from 0" | "`true` or `false`") => {
                Some(format!("write it without quotes: `{name} = …`"))
            }
            _ => None,
        };
        return Fault { hint, ..Fault::new(place, format!("`{path}`: expected {wanted}, found {got}")) };
    }
    if let Some(name) = missing(&message) {
        return Fault::new(place, format!("`{name}` is missing")).hint(format!("add `{name} = …` here"));
    }
    // A value that may have several forms says so in its own words, and not where it stands.
    let message = if ["expected ", "unknown variant "].iter().any(|own| message.starts_with(own)) {
        format!("`{path}`: {message}")
    } else {
        message
    };
    // So the parser says of what should be one of several words.
    let message = if message.starts_with("wanted ") { format!("`{path}`: expected a word in quotes") } else { message };
    let hint = suggestion(error.message()).map(|known| format!("did you mean `{known}`?"));
    Fault { hint, ..Fault::new(place, message) }
}

const QUOTED: &str = "write it in quotes; a duration or a size has a unit, as in \"30s\" or \"64KiB\"";

/// Of serde's "invalid type: integer `1`, expected a string" what was found and what was wanted, in the words of TOML and without
/// a text that may be a secret.
fn unexpected(message: &str) -> Option<(String, String)> {
    let (_, rest) = message.split_once("invalid type: ").or_else(|| message.split_once("invalid value: "))?;
    let (got, wanted) = rest.rsplit_once(", expected ")?;
    let number = got.strip_prefix("integer ").or_else(|| got.strip_prefix("floating point "));
    let got = match got {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        _ if got.starts_with("string ") => "a string".to_owned(),
        _ => number.or_else(|| got.strip_prefix("boolean ")).unwrap_or(got).to_owned(),
    };
    let wanted = match wanted {
        "a sequence" => "a list",
        "a map" => "a table",
        "a boolean" => "`true` or `false`",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        _ if wanted.starts_with("struct ") => "a table",
        other => other,
    };
    Some((got, wanted.to_owned()))
}

/// Of serde's "unknown field `x`, expected one of `a`, `b`", the expected name nearest to the typed one.
pub(super) fn suggestion(message: &str) -> Option<String> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let typed = quoted.next()?;
    nearest(typed, quoted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        name: String,
        count: Option<usize>,
        on: Option<bool>,
        part: Vec<Part>,
        whole: Part,
        free: BTreeMap<String, Vec<Spanned<String>>>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Part {
        text: Option<Spanned<String>>,
        kind: Option<Kind>,
        needed: Option<Needed>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Integer,
        Text,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read from the file")]
    struct Needed {
        key: String,
    }

    fn told(text: &str) -> Vec<String> {
        let (_, faults) = read::<File>("f", text);
        let faults = faults.or(()).err().unwrap_or_default();
        faults.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_of_a_file_is_told_with_its_place_and_a_way_out() {
        let text = "nam = \"a\"\ncount = \"4\"\non = 1\n[[part]]\nkind = \"int\"\ntext = 30\n[[part]]\ntxt = \"a\"\n[[part]]\nneeded = {}\n\
                    [whole]\ntext = [\"a\"]\nneeded = { key = \"a\", other = 1 }\n[free]\na = [\"b\", 1]\nc = 2\n";
        assert_eq!(
            told(text),
            [
                "f:1:1: unknown field `nam`, expected one of `name`, `count`, `on`, `part`, `whole`, `free`\n  hint: did you mean `name`?",
                "f:2:9: `count`: expected a whole number from 0, found a string\n  hint: write it without quotes: `count = …`",
                "f:3:6: `on`: expected `true` or `false`, found `1`",
                "f:5:8: `part.kind`: unknown variant `int`, expected `integer` or `text`\n  hint: did you mean `integer`?",
                &format!("f:6:8: `part.text`: expected a string, found `30`\n  hint: {QUOTED}"),
                "f:8:1: unknown field `txt`, expected one of `text`, `kind`, `needed`\n  hint: did you mean `text`?",
                "f:10:10: `key` is missing\n  hint: add `key = …` here",
                "f:12:8: `whole.text`: expected a string, found a list",
                "f:13:23: unknown field `other`, expected `key`",
                &format!("f:15:11: `free.a`: expected a string, found `1`\n  hint: {QUOTED}"),
                "f:16:5: `free.c`: expected a list, found `2`",
            ]
        );
    }

    #[test]
    fn a_header_with_too_few_or_too_many_brackets_is_told_with_the_right_one() {
        assert_eq!(
            told("[part]\nkind = \"text\"\n"),
            ["f:1:1: `part`: expected a list, found a table\n  hint: write `[[part]]`"]
        );
        assert_eq!(
            told("[[whole]]\nkind = \"text\"\n"),
            ["f:1:1: `whole`: expected a table, found a list\n  hint: write `[whole]`"]
        );
    }

    #[test]
    fn a_text_where_none_belongs_is_not_repeated() {
        assert_eq!(told("count = \"hunter2\"\n").join("").find("hunter2"), None);
        assert_eq!(told("[[part]]\nkind = 1\n"), ["f:2:8: `part.kind`: expected a word in quotes"]);
        assert_eq!(told("[[part]]\nneeded = \"hunter2\"\n"), ["f:2:10: `part.needed`: expected a table, found a string"]);
    }

    #[test]
    fn a_key_that_is_set_twice_is_told_with_the_place_of_the_first() {
        assert_eq!(
            told("[whole]\ntext = \"a\"\nkind = \"text\"\ntext = \"b\"\n"),
            ["f:4:1: `text` is set twice\n  hint: it is first set at f:2:1; keep one of the two"]
        );
        assert_eq!(
            told("[whole]\ntext = \"a\"\n[free]\n[whole]\n"),
            ["f:4:2: `whole` is set twice\n  hint: it is first set at f:1:2; keep one of the two"]
        );
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_once_where_it_begins_to_be_none() {
        assert_eq!(told("name = \"a\ncount = 1\non = \"b\n").len(), 1);
        let unquoted = told("name = http://host\n");
        assert_eq!(unquoted.len(), 1, "{unquoted:?}");
        assert!(unquoted[0].starts_with("f:1:8: ") && unquoted[0].contains("in quotes"), "{unquoted:?}");
    }

    #[test]
    fn every_key_has_a_place() {
        let text = "name = \"a\"\n[[part]]\ntext = \"b\"\n[[part]]\ntext = \"c\"\n[free]\na = [\"x\", \"y\"]\n";
        let places: BTreeMap<String, String> =
            places("f", text).into_iter().map(|(key, place)| (key, place.to_string())).collect();
        for (key, place) in [("name", "f:1:8"), ("part.0.text", "f:3:8"), ("part.1.text", "f:5:8"), ("free.a.1", "f:7:11")] {
            assert_eq!(places.get(key).map(String::as_str), Some(place), "{key}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_read_without_an_end(text in "([a-z]{1,5}|name|count|part|free)( = |\\.)(\"[a-z]{0,3}\"|[0-9]{1,3}|\\[\\[part\\]\\]|\\{\\}|true)\n{0,2}|\\PC{0,30}") {
            let (value, faults) = read::<File>("f", &text);
            proptest::prop_assert!(value.is_some() || !faults.0.is_empty());
        }
    }
}
