//! Where chunked content ends (RFC 9112 §7.1), so that what comes behind it is another request's.

/// The longest line of chunk framing, in bytes: a size with its extension; and the longest section of trailer fields.
const LONGEST_LINE: usize = 4096;

/// Follows chunked content byte by byte; it changes nothing, and the engine reads the same bytes after it. It is stricter than
/// the engine is and most servers are: a line that one of them ends where another reads on is where a request could hide.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
    content: u64,
    line: usize,
    size: u64,
    digits: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    #[default]
    Size,
    /// Behind them, before a semicolon or the end of the line.
    Padding,
    /// Behind them, in an extension.
    Extension,
    /// After the carriage return of a size line.
    SizeEnd,
    /// In the data of a chunk.
    Data,
    /// After a chunk's data.
    DataEnd,
    /// After the carriage return behind a chunk's data.
    DataEndFeed,
    /// At the beginning of a trailer field.
    Trailer,
    /// In its name.
    TrailerName,
    /// In its value.
    TrailerValue,
    /// After its carriage return.
    TrailerFeed,
    /// After the carriage return of the last, empty line.
    LastFeed,
    /// At its end.
    Done,
    /// Not chunked content: whoever reads it must refuse it.
    Broken,
}

impl Chunks {
    /// How many of `bytes` belong to the content. All of them once the framing is broken: where it ends is then unknown, and
    /// nothing behind it may be read as a request.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            match self.state {
                State::Done => return taken,
                State::Broken => return bytes.len(),
                State::Data => {
                    let rest = u64::try_from(bytes.len() - taken).unwrap_or(u64::MAX);
                    let part = self.size.min(rest);
                    self.size -= part;
                    self.content += part;
                    taken += usize::try_from(part).unwrap_or(bytes.len());
                    if self.size == 0 {
                        self.state = State::DataEnd;
                    }
                }
                _ => {
                    self.state = self.next(*byte);
                    taken += 1;
                }
            }
        }
        taken
    }

    /// How many bytes of data were taken, without their framing.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    /// Whether this is no chunked content.
    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the content has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn next(&mut self, byte: u8) -> State {
        self.line += 1;
        if self.line > LONGEST_LINE {
            return State::Broken;
        }
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size | State::Padding, b';') if self.digits > 0 => State::Extension,
            (State::Size | State::Padding, b' ' | b'\t') if self.digits > 0 => State::Padding,
            (State::Size, byte) => match char::from(byte).to_digit(16) {
                Some(digit) if self.digits < 15 => {
                    self.digits += 1;
                    self.size = self.size * 16 + u64::from(digit);
                    State::Size
                }
                _ => State::Broken,
            },
            (State::Padding | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if is_text(byte) => State::Extension,
            (State::SizeEnd, b'\n') => {
                (self.line, self.digits) = (0, 0);
                if self.size == 0 { State::Trailer } else { State::Data }
            }
            (State::DataEnd, b'\r') => State::DataEndFeed,
            (State::DataEndFeed, b'\n') => {
                self.line = 0;
                State::Size
            }
            (State::Trailer, b'\r') => State::LastFeed,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::Trailer | State::TrailerName, byte) if is_token(byte) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerFeed,
            (State::TrailerValue, byte) if is_text(byte) => State::TrailerValue,
            (State::TrailerFeed, b'\n') => State::Trailer,
            (State::LastFeed, b'\n') => State::Done,
            _ => State::Broken,
        }
    }
}

/// What a field's value and a quoted string may hold (RFC 9110 §5.5, §5.6.4): no control character but the tab.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// What a field's name is made of (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How much of `text` is content, fed in pieces of `step` bytes, and whether it ended.
    fn taken(text: &[u8], step: usize) -> (usize, bool) {
        let mut chunks = Chunks::default();
        let mut taken = 0;
        for piece in text.chunks(step) {
            let part = chunks.take(piece);
            taken += part;
            if part < piece.len() {
                break;
            }
        }
        (taken, chunks.is_done())
    }

    #[test]
    fn content_ends_behind_its_last_empty_line_however_it_comes() {
        for content in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A;x=y\r\n0123456789\r\n00\r\nX: y\r\nZ: \r\nEmpty:\r\n\r\n",
            "1 \r\na\r\n0\r\n\r\n",
            "1\t; a = \"\u{e9} ;\" ; b\r\na\r\n0;last\r\n\r\n",
        ] {
            let text = format!("{content}GET / HTTP/1.1");
            for step in 1..text.len() {
                assert_eq!(taken(text.as_bytes(), step), (content.len(), true), "{content:?} by {step}");
            }
        }
    }

    #[test]
    fn broken_framing_leaves_nothing_behind_it() {
        for text in [
            "x\r\n",
            "\r\n",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\rhello",
            "0\r\nX: y\n\r\n",
            "fffffffffffffffff\r\n",
            "-1\r\n",
            "0x5\r\nhello",
            "5;a\nhello",
            "5;a=\"\n\"\r\nhello",
            "5;a=\0\r\nhello",
            "5;a\x7f\r\nhello",
            "5;a\rb\r\nhello",
            "5 hello\r\nhello",
            "5\r\nhello\r\n\r\n0\r\n\r\n",
            "0\r\nno field\r\n\r\n",
            "0\r\n: value\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nX: y\r\n folded\r\n\r\n",
            "0\r\nX: \x01\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n\n",
        ] {
            let text = format!("{text}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(taken(text.as_bytes(), 7), (text.len(), false), "{text:?}");
        }
    }

    /// The next line of `rest`, without its end; nothing while it has none.
    fn line<'t>(rest: &mut &'t str) -> Result<Option<&'t str>, ()> {
        let Some((line, behind)) = rest.split_once("\r\n") else { return Ok(None) };
        *rest = behind;
        // Within a line there is no control character but the tab.
        if line.chars().any(|letter| letter.is_ascii_control() && letter != '\t') { Err(()) } else { Ok(Some(line)) }
    }

    /// What is behind the content at the beginning of `text`, read line by line (RFC 9112 §7.1); nothing while it has no end, and
    /// an error when it is none.
    fn behind(text: &str) -> Result<Option<&str>, ()> {
        let mut rest = text;
        loop {
            let Some(size) = line(&mut rest)? else { return Ok(None) };
            let extensions = size.trim_start_matches(|letter: char| letter.is_ascii_hexdigit());
            let (digits, extensions) = (&size[..size.len() - extensions.len()], extensions.trim_start_matches([' ', '\t']));
            if !(1..=15).contains(&digits.len()) || !(extensions.is_empty() || extensions.starts_with(';')) {
                return Err(());
            }
            match usize::from_str_radix(digits, 16).unwrap() {
                0 => break,
                length if rest.len() < length + 2 => {
                    let end = rest.get(length..).unwrap_or_default();
                    return if "\r\n".starts_with(end) { Ok(None) } else { Err(()) };
                }
                length => rest = rest[length..].strip_prefix("\r\n").ok_or(())?,
            }
        }
        loop {
            match line(&mut rest)? {
                None => return Ok(None),
                Some("") => return Ok(Some(rest)),
                Some(trailer) => {
                    let (name, _) = trailer.split_once(':').ok_or(())?;
                    if name.is_empty()
                        || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter))
                    {
                        return Err(());
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_do_not_matter(bytes in "[0-3a\r\nG;]{0,40}", step in 1_usize..9) {
            prop_assert_eq!(taken(bytes.as_bytes(), step), taken(bytes.as_bytes(), 100));
        }

        #[test]
        fn a_simple_reader_reads_the_same(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["0", "1", "3", "a", "G", "\r\n", "\r", "\n", ";", ":", " ", "\t", "1\r\n", "0\r\n", "\r\n\r\n", "\0"]),
                0..14,
            ),
            step in 1_usize..9,
        ) {
            let text = pieces.concat();
            let mut chunks = Chunks::default();
            let length: usize = text.as_bytes().chunks(step).map(|piece| chunks.take(piece)).sum();
            match behind(&text) {
                Ok(Some(rest)) => prop_assert!(chunks.is_done() && length == text.len() - rest.len(), "{:?}", text),
                Ok(None) => prop_assert!(!chunks.is_done(), "{:?}", text),
                Err(()) => prop_assert!(chunks.is_broken(), "{:?}", text),
            }
        }

        #[test]
        fn what_is_chunked_content_is_taken_to_its_end_and_no_beginning_of_it_is_broken(
            parts in prop::collection::vec(("[ -~\r\n]{1,20}", "(|[ \t]{0,2};[ -~\t]{0,8})", "0{0,3}", any::<bool>()), 0..5),
            trailers in prop::collection::vec("[A-Za-z!~-]{1,5}:[ -~\t]{0,8}", 0..3),
        ) {
            let mut text = String::new();
            for (data, extensions, zeros, large) in &parts {
                let size = if *large { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
                text += &format!("{zeros}{size}{extensions}\r\n{data}\r\n");
            }
            text += &format!("0\r\n{}\r\n", trailers.iter().map(|trailer| format!("{trailer}\r\n")).collect::<String>());
            prop_assert_eq!(behind(&text), Ok(Some("")), "{:?}", text);
            let mut chunks = Chunks::default();
            for byte in text.as_bytes() {
                prop_assert!(!chunks.is_done() && chunks.take(&[*byte]) == 1 && !chunks.is_broken(), "{:?}", text);
            }
            prop_assert!(chunks.is_done(), "{:?}", text);
            prop_assert_eq!(chunks.content(), parts.iter().map(|part| part.0.len() as u64).sum::<u64>());
        }
    }
}
