//! Reads a request path as Rocket.Chat's routers do: the mount compares it as spelled, the API behind it resolves and decodes.

use percent_encoding::percent_decode_str;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::demo) struct Place {
    /// Whether the API takes it; everything else is the web application's.
    pub(in crate::demo) api: bool,
    /// The path that routes are compared with; outside the API it is as spelled.
    pub(in crate::demo) path: String,
}

/// Reads the path part of a target.
pub(in crate::demo) fn read(raw: &str) -> Place {
    match raw == "/api" || raw.starts_with("/api/") {
        true => Place { api: true, path: decode(&resolve(raw)) },
        false => Place { api: false, path: raw.to_owned() },
    }
}

/// Resolves `.` and `..` as a URL parser does: a backslash separates too, `%2e` is a dot, empty segments stay.
fn resolve(raw: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = raw.split(['/', '\\']).skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.into_iter().enumerate() {
        let dots = segment.to_ascii_lowercase().replace("%2e", ".");
        match dots.as_str() {
            "." | ".." => {
                if dots == ".." {
                    kept.pop();
                }
                if index == last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// JavaScript's `decodeURI`: reserved characters and the percent sign itself stay encoded, what is malformed stays as it is.
fn decode(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        kept.push_str(before);
        // The longest run of escapes, so that characters of several bytes are decoded as one.
        let run = escapes(from);
        let (escaped, after) = from.split_at(run.max(1));
        kept.push_str(&decode_run(escaped));
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// How many bytes at the start of `text` are whole escapes whose meaning is not reserved, or the first one if that one is.
fn escapes(text: &str) -> usize {
    let escape = |from: usize| {
        let hex = text.get(from..from + 3)?.strip_prefix('%')?;
        u8::from_str_radix(hex, 16).ok().filter(|_| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let mut end = 0;
    while let Some(byte) = escape(end) {
        if b";/?:@&=+$,#%".contains(&byte) {
            return if end == 0 { 3 } else { end };
        }
        end += 3;
    }
    end
}

fn decode_run(run: &str) -> String {
    let reserved = run.len() == 3
        && percent_decode_str(run).next().is_some_and(|byte| b";/?:@&=+$,#%".contains(&byte) && run.starts_with('%'));
    match percent_decode_str(run).decode_utf8() {
        Ok(text) if !reserved => text.into_owned(),
        _ => run.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reaches(raw: &str) -> bool {
        read(raw) == Place { api: true, path: "/api/v1/users.info".into() }
    }

    #[test]
    fn every_spelling_that_reaches_the_real_route_reaches_this_one() {
        for raw in [
            "/api/v1/users.info",
            "/api/v1/users%2einfo",
            "/api/v1/users%2Einfo",
            "/api/v1/%75sers.info",
            "/api/%76%31/users.info",
            "/api/v1/./users.info",
            "/api/v1/x/../users.info",
            "/api/v1/%2e%2e/v1/users.info",
            "/api/v1/.%2e/v1/users.info",
            "/api/v1\\users.info",
        ] {
            assert!(reaches(raw), "{raw} is read as {:?}", read(raw));
        }
    }

    #[test]
    fn what_the_real_router_answers_404_to_is_another_path_of_the_api() {
        for raw in [
            "/api/v1/Users.info",
            "/api/V1/users.info",
            "/api/v1/users.info/",
            "/api/v1/users.info/.",
            "/api/v1//users.info",
            "/api//v1/users.info",
            "/api/v1/users.info%2f",
            "/api/v1%2fusers.info",
            "/api/v1/users%252einfo",
            "/api/v1/users.info;x=1",
            "/api/v1/users.info%3Bx=1",
            "/api/v1/users.info%00",
            "/api/v1/users.info%20",
            "/api/v1/users.info.json",
            "/api/users.info",
            "/api/v1/users.info%",
            "/api/v1/users.info%ff",
        ] {
            assert!(read(raw).api && !reaches(raw), "{raw}");
        }
    }

    #[test]
    fn the_mount_does_not_decode() {
        for raw in ["//api/v1/users.info", "/%61pi/v1/users.info", "/x/../api/v1/users.info", "/API/v1/users.info", "/apis", "*"]
        {
            assert_eq!(read(raw), Place { api: false, path: raw.into() });
        }
    }

    #[test]
    fn characters_of_several_bytes_are_decoded_and_reserved_ones_are_not() {
        assert_eq!(read("/api/v1/caf%C3%A9%2Fx%41").path, "/api/v1/café%2FxA");
        assert_eq!(read("/api/%2525").path, "/api/%2525");
    }

    proptest! {
        #[test]
        fn any_path_is_read_without_a_panic(path in "/api/[ -~]{0,40}", other in "\\PC{0,20}") {
            prop_assert!(read(&path).path.starts_with('/'));
            read(&other);
        }
    }
}
