//! Strangers' text where people and their tools read it: what would end a line, move a cursor or not be seen is escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether `c` ends a line, moves a cursor, turns the direction of writing or is not seen at all: the controls (C0, DEL, C1),
/// the separators of lines and paragraphs, the marks of direction (UAX #9), what has no width, and the tags.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Writes `c` as JSON does (RFC 8259 §7): `\u` and four digits for each unit of UTF-16.
pub fn escape_onto(written: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to memory cannot fail.
        let _ = write!(written, "\\u{unit:04x}");
    }
}

/// `text` with every character escaped that is [unseen](is_unseen) and that `kept` does not spare.
#[must_use]
pub fn escape_but(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let escaped = |c: char| is_unseen(c) && !kept(c);
    if !text.contains(escaped) {
        return text.into();
    }
    let mut written = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escaped(c) { escape_onto(&mut written, c) } else { written.push(c) }
    }
    written.into()
}

/// `text` as one line of a terminal or a log.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, |_| false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_seen_is_written_out_and_the_rest_stays() {
        for (text, written) in [
            ("Zoë 日本 🐈️ a+b", "Zoë 日本 🐈️ a+b"),
            ("a\nb\tc\u{1b}[31m", "a\\u000ab\\u0009c\\u001b[31m"),
            ("\u{7f}\u{85}\u{9b}2J", "\\u007f\\u0085\\u009b2J"),
            ("\u{2028}\u{2029}\u{202e}\u{2066}", "\\u2028\\u2029\\u202e\\u2066"),
            ("\u{200b}\u{feff}\u{200f}\u{ad}", "\\u200b\\ufeff\\u200f\\u00ad"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(escape(text), written);
        }
        assert_eq!(escape_but("a\n\u{1b}", |c| c == '\n'), "a\n\\u001b");
    }

    proptest! {
        #[test]
        fn nothing_unseen_is_left_and_every_character_can_be_told(text: String) {
            let written = escape(&text);
            prop_assert!(!written.contains(is_unseen));
            let quoted = format!("\"{}\"", written.replace('"', "\\\""));
            if !text.contains('\\') {
                prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
            }
        }
    }
}
