//! Where each policy of a file stands, and where its words stand: Cedar's own tree does not tell the place of every literal.

use crate::model::Place;
use crate::policy::compile::Source;

/// One policy's text: its words up to the semicolon, comments and blanks left out.
#[derive(Debug, Clone)]
pub(super) struct Statement<'a> {
    source: &'a Source,
    words: Vec<Word<'a>>,
    /// The line it begins on, from 1.
    pub(super) line: usize,
}

/// A name, a number, a quoted string with its quotes, `::`, or one other character.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    offset: usize,
}

/// The statements of a file in their order.
///
/// Strings, comments and semicolons are recognised as Cedar does, so the n-th statement is Cedar's `policy<n>` whenever Cedar
/// accepts the file.
pub(super) fn statements(source: &Source) -> Vec<Statement<'_>> {
    let text = source.text.as_str();
    let mut found = Vec::new();
    let mut words = Vec::new();
    let (mut offset, mut line, mut first_line) = (0, 1, 1);
    while let Some((length, is_word)) = text.get(offset..).and_then(lexeme) {
        let lexeme = text.get(offset..offset + length).unwrap_or_default();
        if is_word {
            if words.is_empty() {
                first_line = line;
            }
            words.push(Word { text: lexeme, offset });
            if lexeme == ";" {
                found.push(Statement { source, words: std::mem::take(&mut words), line: first_line });
            }
        }
        line += lexeme.matches('\n').count();
        offset += length;
    }
    if !words.is_empty() {
        found.push(Statement { source, words, line: first_line });
    }
    found
}

/// The length of what `rest` begins with, and whether it has a meaning.
fn lexeme(rest: &str) -> Option<(usize, bool)> {
    let first = rest.chars().next()?;
    let run = |belongs: fn(char) -> bool| rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
    Some(match first {
        _ if first.is_whitespace() => (run(char::is_whitespace), false),
        '/' if rest.starts_with("//") => (rest.find(['\n', '\r']).unwrap_or(rest.len()), false),
        '"' => (string_length(rest), true),
        ':' if rest.starts_with("::") => (2, true),
        _ if first == '_' || first.is_ascii_alphanumeric() => {
            (run(|letter| letter == '_' || letter.is_ascii_alphanumeric()), true)
        }
        _ => (first.len_utf8(), true),
    })
}

/// The length of the string at the start of `rest`, both quotes included; the rest of the file when it is never closed.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (index, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

impl<'a> Statement<'a> {
    /// The file it stands in.
    pub(super) fn file(&self) -> &'a str {
        &self.source.file
    }

    /// How many words it has.
    pub(super) fn length(&self) -> usize {
        self.words.len()
    }

    /// Where it begins, annotations included.
    pub(super) fn place(&self) -> Place {
        self.words.first().map_or_else(|| Place::file(self.file()), |word| self.at(word.offset))
    }

    /// The place of a byte of the file.
    pub(super) fn at(&self, offset: usize) -> Place {
        Place::at(self.file(), &self.source.text, offset)
    }

    /// Where the annotation `key` stands; the policy's place when it has none.
    pub(super) fn annotation(&self, key: &str) -> Place {
        self.find(|words| matches!(words, [at, word, ..] if at.text == "@" && word.text == key)).unwrap_or_else(|| self.place())
    }

    /// Where a template slot stands; the policy's place when it has none.
    pub(super) fn slot(&self) -> Place {
        self.find(|words| words.first().is_some_and(|word| word.text == "?")).unwrap_or_else(|| self.place())
    }

    /// Where the string `value` stands on its own, being neither an annotation's value nor part of an entity's name.
    pub(super) fn string(&self, value: &str) -> Option<Place> {
        let quoted = format!("{value:?}");
        let begins = |pair: &[Word<'_>]| matches!(pair, [before, word] if before.text != "::" && word.text == quoted);
        let head = self.words.iter().position(|word| matches!(word.text, "permit" | "forbid")).unwrap_or(0);
        let pair = self.words.get(head..)?.windows(2).find(|pair| begins(pair))?;
        pair.last().map(|word| self.at(word.offset))
    }

    /// Where `has` asks for the attribute `name`, quoted or not, or for a path that ends in it; the policy's place when it is not
    /// found.
    pub(super) fn tested(&self, name: &str) -> Place {
        let quoted = format!("{name:?}");
        let is = |word: &Word<'_>| word.text == name || word.text == quoted;
        let has = self.words.iter().position(|word| word.text == "has").unwrap_or(0);
        let pairs = self.words.get(has..).unwrap_or_default().windows(2);
        let found = |before: &str| {
            pairs
                .clone()
                .find_map(|pair| pair.last().filter(|last| is(last) && pair.first().is_some_and(|first| first.text == before)))
        };
        found("has").or_else(|| found(".")).map_or_else(|| self.place(), |word| self.at(word.offset))
    }

    /// Everywhere the entity stands that Cedar prints as `entity`.
    pub(super) fn entity(&self, entity: &str) -> Vec<Place> {
        let mut places = Vec::new();
        let mut path: Vec<&Word<'a>> = Vec::new();
        for word in &self.words {
            let continues = path.last().is_some_and(|last| (last.text == "::") != (word.text == "::"));
            if !continues {
                path.clear();
            }
            path.push(word);
            if word.text.starts_with('"') && path.iter().map(|word| word.text).collect::<String>() == entity {
                places.extend(path.first().map(|first| self.at(first.offset)));
            }
        }
        places
    }

    fn find(&self, matches: impl Fn(&[Word<'_>]) -> bool) -> Option<Place> {
        let index = (0..self.words.len()).find(|index| self.words.get(*index..).is_some_and(&matches))?;
        self.words.get(index).map(|word| self.at(word.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_and_comments_end_no_policy() {
        let text = "// one; two\n@id(\"a;\\\";b\")\npermit (principal, action, resource); // ;\n\nforbid (x);";
        let source = Source { file: "f".into(), text: text.into() };
        let found = statements(&source);
        assert_eq!(found.iter().map(|statement| statement.line).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(found[0].annotation("id").to_string(), "f:2:1");
        assert_eq!(found[1].place().to_string(), "f:5:1");
        assert_eq!(found[1].annotation("id").to_string(), "f:5:1", "where it would stand");
    }

    #[test]
    fn literals_are_found_where_they_stand() {
        let text = "@id(\"office\")\npermit (principal in N :: Role::\"office\", action, resource)\nwhen { f(\"office\") };";
        let source = Source { file: "f".into(), text: text.into() };
        let found = statements(&source);
        assert_eq!(found[0].string("office").unwrap().to_string(), "f:3:10");
        assert_eq!(found[0].string("other"), None);
        let places: Vec<_> = found[0].entity("N::Role::\"office\"").iter().map(ToString::to_string).collect();
        assert_eq!(places, ["f:2:22"]);
    }

    proptest::proptest! {
        #[test]
        fn every_text_is_read_to_its_end(text in "\\PC{0,60}|[/\"\\\\; a:\n]{0,40}") {
            let source = Source { file: "f".into(), text };
            for statement in statements(&source) {
                proptest::prop_assert!(statement.length() > 0);
                proptest::prop_assert!(statement.place().line == statement.line);
            }
        }
    }
}
