//! An upstream's answer on its way to the client: its head read strictly and written anew, its content in the framing it came.

use std::io::Write as _;
use std::mem::MaybeUninit;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;

use super::chunks::Chunks;

/// The most fields of an answer, as many as the engine takes.
const MOST_FIELDS: usize = 256;
/// The longest head of an answer, in bytes.
pub(super) const LONGEST_HEAD: usize = 64 * 1024;

/// Fields that concern one connection only (RFC 9110 §7.6.1); framing is written anew.
const HOP_BY_HOP: &[&str] =
    &["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// The field that names the decision on a judged request, in the answer and upstream.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// What the bytes of an answer are so far.
#[derive(Debug)]
pub(super) enum Reading {
    /// The beginning of a head.
    Incomplete,
    /// A whole head.
    Complete(Answer),
    /// No head that has one reading; why.
    Broken(&'static str),
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its length in bytes.
    pub(super) length: usize,
    /// What is sent to the client for it, up to the connection's own fields and the empty line.
    pub(super) head: Vec<u8>,
    /// What follows it.
    pub(super) content: Content,
    /// Whether the upstream keeps the connection.
    pub(super) kept: bool,
}

/// How an answer's content ends (RFC 9112 §6.3).
#[derive(Debug)]
pub(super) enum Content {
    /// After this many bytes.
    Length {
        /// How many are still to come.
        left: u64,
        /// How many came.
        came: u64,
    },
    /// With its last chunk.
    Chunks(Chunks),
    /// With the connection.
    Open {
        /// How many bytes came.
        came: u64,
    },
}

impl Answer {
    /// Whether another answer to the same request follows (RFC 9110 §15.2).
    pub(super) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }
}

impl Content {
    /// How many of `bytes` belong to it, or nothing when they cannot.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let count = u64::try_from(bytes.len()).ok()?;
        match self {
            Self::Length { left, came } => {
                let part = count.min(*left);
                *left -= part;
                *came += part;
                usize::try_from(part).ok()
            }
            Self::Chunks(chunks) => {
                let taken = chunks.take(bytes);
                (!chunks.is_broken()).then_some(taken)
            }
            Self::Open { came } => {
                *came += count;
                Some(bytes.len())
            }
        }
    }

    /// Whether nothing of it is to come.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length { left, .. } => *left == 0,
            Self::Chunks(chunks) => chunks.is_done(),
            Self::Open { .. } => false,
        }
    }

    /// How many bytes of content came, without framing.
    pub(super) fn came(&self) -> u64 {
        match self {
            Self::Length { came, .. } | Self::Open { came } => *came,
            Self::Chunks(chunks) => chunks.content(),
        }
    }
}

/// How an answer's content is framed, which its fields have to say in one way (RFC 9112 §6.3): its length, and whether it is
/// chunked. `old` is the answer of an HTTP/1.0 server, which knows no chunks.
///
/// # Errors
/// What has more than one reading.
pub(super) fn framing<'a>(
    mut lengths: impl Iterator<Item = &'a [u8]>,
    mut codings: impl Iterator<Item = &'a [u8]>,
    old: bool,
) -> Result<(Option<u64>, bool), &'static str> {
    let stated = match lengths.next() {
        None => None,
        // One length that is said twice is one length (RFC 9110 §8.6); the engine takes it for that, too.
        Some(one) if lengths.all(|other| other == one) => Some(decimal(one).ok_or("the answer's length is no plain number")?),
        Some(_) => return Err("the answer has several lengths"),
    };
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && stated.is_none() && !old => true,
        (Some(_), _) => return Err("the answer's framing has more than one reading"),
    };
    Ok((stated, chunked))
}

/// Reads the head at the beginning of `bytes`, the answer to a request of which only the head was wanted when `head_only`; takes
/// `room` for what is sent of it. The answer to a judged request is given its decision's `id`.
pub(super) fn read(bytes: &[u8], head_only: bool, id: Option<&str>, room: &mut Vec<u8>) -> Reading {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Reading::Incomplete,
        Ok(httparse::Status::Partial) => return Reading::Broken("the head of the answer is too large"),
        Err(_) => return Reading::Broken("the head of the answer is malformed"),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Reading::Broken("the head of the answer is malformed");
    };
    let values = |name: &'static str| {
        response.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let tokens = || values("connection").flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let listed = |wanted: &str| tokens().any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()));
    // Nearly every answer names nothing but `keep-alive` or `close` there, which are no fields to be left out.
    let names_fields =
        tokens().any(|token| ![&b"keep-alive"[..], b"close"].iter().any(|usual| token.eq_ignore_ascii_case(usual)));
    let bodiless = head_only || (100..200).contains(&status) || matches!(status, 204 | 304);
    let (stated, chunked) = match framing(values("content-length"), values("transfer-encoding"), version == 0) {
        Ok(framing) => framing,
        Err(why) => return Reading::Broken(why),
    };
    let content = match (bodiless, chunked, stated) {
        (true, _, _) => Content::Length { left: 0, came: 0 },
        (false, true, _) => Content::Chunks(Chunks::default()),
        (false, false, Some(length)) => Content::Length { left: length, came: 0 },
        (false, false, None) => Content::Open { came: 0 },
    };
    let kept = version == 1 && !listed("close") && !matches!(content, Content::Open { .. });
    let reason = response.reason.unwrap_or_default();
    // With room for the beginning of the content, which goes out with it.
    let mut head = std::mem::take(room);
    head.clear();
    head.reserve(bytes.len() + 160);
    // Three digits that begin with a nought are no status (RFC 9110 §15), and the engine takes them for none.
    let Ok(code) = StatusCode::from_u16(status) else { return Reading::Broken("the answer's status is none") };
    for part in ["HTTP/1.1 ", code.as_str(), " ", reason, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    let id = id.filter(|_| !(100..200).contains(&status));
    let replaced = |name: &str| id.is_some() && name.eq_ignore_ascii_case(REQUEST_ID);
    let left_out = |name: &str| hop_by_hop(name) || replaced(name) || names_fields && listed(name);
    let mut dated = (100..200).contains(&status);
    for field in response.headers.iter().filter(|field| !left_out(field.name)) {
        dated |= field.name.eq_ignore_ascii_case("date");
        for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    if !dated {
        // A proxy gives a date to an answer that came without one (RFC 9110 §6.6.1).
        for part in [b"Date: ", get_cached_date().as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    if let Some(id) = id {
        for part in [REQUEST_ID, ": ", id, "\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
    }
    if chunked && !matches!(status, 100..=199 | 204) {
        head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    } else if let Some(length) = stated
        && !matches!(status, 100..=199 | 204)
    {
        head.extend_from_slice(b"Content-Length: ");
        match values("content-length").next().filter(|text| !text.starts_with(b"0")) {
            Some(text) => head.extend_from_slice(text),
            // Writing to memory cannot fail.
            None => drop(write!(head, "{length}")),
        }
        head.extend_from_slice(b"\r\n");
    }
    Reading::Complete(Answer { status, length, head, content, kept })
}

/// Takes the fields out of `response` that concern the connection to the upstream (RFC 9110 §7.6.1): the engine passes on all
/// but `Connection`. What a change of protocols needs stays in its answer; the framing is the engine's own.
pub(super) fn leave_out_hop_by_hop(response: &mut ResponseHeader) {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let needed = |name: &str| switches && ["connection", "upgrade"].contains(&name);
    let framing = |name: &str| ["content-length", "transfer-encoding"].contains(&name);
    let listed = response.headers.get_all("connection").iter().filter_map(|value| value.to_str().ok());
    let listed: Vec<String> = listed.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    for name in HOP_BY_HOP.iter().copied().chain(listed.iter().map(String::as_str)) {
        if !framing(name) && !needed(name) {
            response.remove_header(name);
        }
    }
}

fn hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|known| known.len() == name.len() && known.eq_ignore_ascii_case(name))
}

/// Digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str, head_only: bool) -> Answer {
        match read(text.as_bytes(), head_only, None, &mut b"left over".to_vec()) {
            Reading::Complete(answer) => answer,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn the_head_is_written_anew_without_what_concerns_one_connection() {
        let text = "HTTP/1.1 200 Fine\r\nServer: x\r\nDate: today\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok";
        let answer = complete(text, false);
        assert_eq!(
            String::from_utf8(answer.head).unwrap(),
            "HTTP/1.1 200 Fine\r\nServer: x\r\nDate: today\r\nContent-Length: 2\r\n"
        );
        assert_eq!((answer.status, answer.length, answer.kept), (200, text.len() - 2, true));
    }

    #[test]
    fn the_answer_to_a_judged_request_names_the_decision_and_no_other_id() {
        let told = |status: u16, id| {
            let text = format!("HTTP/1.1 {status} X\r\nX-Request-Id: theirs\r\nDate: b\r\n\r\n");
            match read(text.as_bytes(), false, id, &mut Vec::new()) {
                Reading::Complete(answer) => String::from_utf8(answer.head).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(told(200, Some("ours")), "HTTP/1.1 200 X\r\nDate: b\r\nx-request-id: ours\r\n");
        assert_eq!(told(200, None), "HTTP/1.1 200 X\r\nX-Request-Id: theirs\r\nDate: b\r\n");
        assert_eq!(told(103, Some("ours")), "HTTP/1.1 103 X\r\nX-Request-Id: theirs\r\nDate: b\r\n");
    }

    #[test]
    fn an_answer_without_a_date_is_given_one_and_an_interim_one_is_not() {
        let head = |text: &str| String::from_utf8(complete(text, false).head).unwrap();
        let dated = head("HTTP/1.1 204 X\r\nA: b\r\n\r\n");
        assert!(dated.starts_with("HTTP/1.1 204 X\r\nA: b\r\nDate: ") && dated.ends_with(" GMT\r\n"), "{dated}");
        assert_eq!(head("HTTP/1.1 103 X\r\n\r\n"), "HTTP/1.1 103 X\r\n");
    }

    #[test]
    fn content_ends_as_the_head_says() {
        let content = |fields: &str, status: u16, head_only| {
            let answer = complete(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"), head_only);
            (format!("{:?}", answer.content).split([' ', '(']).next().unwrap().to_owned(), answer.content.is_done(), answer.kept)
        };
        assert_eq!(content("Content-Length: 2\r\n", 200, false), ("Length".into(), false, true));
        assert_eq!(content("Content-Length: 2\r\n", 200, true), ("Length".into(), true, true));
        assert_eq!(content("Content-Length: 2\r\n", 304, false), ("Length".into(), true, true));
        assert_eq!(content("", 204, false), ("Length".into(), true, true));
        assert_eq!(content("Transfer-Encoding: Chunked\r\n", 200, false), ("Chunks".into(), false, true));
        assert_eq!(content("", 200, false), ("Open".into(), false, false));
        assert_eq!(content("Content-Length: 0\r\nConnection: close\r\n", 200, false), ("Length".into(), true, false));
    }

    #[test]
    fn a_length_said_twice_is_one_length_and_many_fields_are_no_fault() {
        let fields = format!("Content-Length: 2\r\n{}Content-Length: 2\r\n", "A: b\r\n".repeat(MOST_FIELDS - 2));
        let answer = complete(&format!("HTTP/1.1 200 X\r\n{fields}\r\n"), false);
        assert_eq!(String::from_utf8(answer.head).unwrap().matches("Content-Length: 2\r\n").count(), 1);
        assert!(matches!(answer.content, Content::Length { left: 2, .. }));
    }

    #[test]
    fn what_has_more_than_one_reading_is_broken() {
        for fields in [
            "Content-Length: 2\r\nContent-Length: 3\r\n",
            "Content-Length: +2\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "A b: c\r\n",
        ] {
            let text = format!("HTTP/1.1 200 X\r\n{fields}\r\n");
            assert!(matches!(read(text.as_bytes(), false, None, &mut Vec::new()), Reading::Broken(_)), "{fields:?}");
        }
        assert!(matches!(
            read(b"HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", false, None, &mut Vec::new()),
            Reading::Broken(_)
        ));
        for status in ["000", "099", "20", "2000"] {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            assert!(matches!(read(text.as_bytes(), false, None, &mut Vec::new()), Reading::Broken(_)), "{status}");
        }
        assert!(matches!(read(b"HTTP/1.1 200 X\r\nA: ", false, None, &mut Vec::new()), Reading::Incomplete));
        let long = format!("HTTP/1.1 200 X\r\nA: {}", "a".repeat(LONGEST_HEAD));
        assert!(matches!(read(long.as_bytes(), false, None, &mut Vec::new()), Reading::Broken(_)));
    }
}
