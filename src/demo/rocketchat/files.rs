//! One uploaded file, with conditional requests and ranges (RFC 9110 §13, §14).

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::demo::answer;

const REPORT: &[u8] = b"Quarterly report of the sample workspace.\nNothing happened, and it was recorded.\n";
const ETAG: &str = "\"report-1\"";
const MODIFIED: &str = "Tue, 27 Aug 2024 09:07:03 GMT";

/// The file, a part of it, or that it did not change.
pub(super) fn report(headers: &HeaderMap) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut response = if unchanged(header("if-none-match"), header("if-modified-since")) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        // A range of another version of the file is no range.
        let current = header("if-range").is_none_or(|version| version == ETAG || version == MODIFIED);
        match header("range").filter(|_| current).and_then(range) {
            Some(Part::Bytes(first, last)) => {
                let part = REPORT.get(first..=last).unwrap_or_default();
                let mut response = (StatusCode::PARTIAL_CONTENT, Bytes::from_static(part)).into_response();
                answer::set(response.headers_mut(), "content-range", format!("bytes {first}-{last}/{}", REPORT.len()));
                response
            }
            Some(Part::Nothing) => {
                let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                answer::set(response.headers_mut(), "content-range", format!("bytes */{}", REPORT.len()));
                response
            }
            None => Bytes::from_static(REPORT).into_response(),
        }
    };
    let fields = response.headers_mut();
    answer::set(fields, "content-type", "text/plain; charset=utf-8");
    answer::set(fields, "etag", ETAG);
    answer::set(fields, "last-modified", MODIFIED);
    answer::set(fields, "accept-ranges", "bytes");
    response
}

fn unchanged(none_match: Option<&str>, modified_since: Option<&str>) -> bool {
    match none_match {
        Some(tags) => tags.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == ETAG),
        None => modified_since == Some(MODIFIED),
    }
}

/// What a range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// From the first to the last of these, both included.
    Bytes(usize, usize),
    /// Nothing that is there.
    Nothing,
}

/// One range of bytes; `None` for several or another unit, which may be ignored.
fn range(header: &str) -> Option<Part> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let end = REPORT.len() - 1;
    let part = match (first, last) {
        ("", count) => match count.parse::<usize>().ok()? {
            0 => Part::Nothing,
            count => Part::Bytes(REPORT.len().saturating_sub(count), end),
        },
        (first, last) => {
            let first: usize = first.parse().ok()?;
            let last = if last.is_empty() { end } else { last.parse::<usize>().ok()?.min(end) };
            match first > end {
                true => Part::Nothing,
                false if last < first => return None,
                false => Part::Bytes(first, last),
            }
        }
    };
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_file_and_strange_ones_are_ignored() {
        let end = REPORT.len() - 1;
        for (header, expected) in [
            ("bytes=0-3", Some(Part::Bytes(0, 3))),
            ("bytes=5-", Some(Part::Bytes(5, end))),
            ("bytes=-4", Some(Part::Bytes(end - 3, end))),
            ("bytes=-9999", Some(Part::Bytes(0, end))),
            ("bytes=0-9999", Some(Part::Bytes(0, end))),
            ("bytes=9999-", Some(Part::Nothing)),
            ("bytes=-0", Some(Part::Nothing)),
            ("bytes=5-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(range(header), expected, "{header}");
        }
    }
}
