//! Reads a request path as ASP.NET behind Windows' HTTP driver does, the most lenient reading that the real server could have.

use percent_encoding::percent_decode_str;

/// The path with backslashes turned, dot segments resolved and each segment decoded once; an encoded slash stays encoded.
pub(in crate::demo) fn read(raw: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    for segment in raw.split(['/', '\\']).skip(1) {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        match decoded.as_ref() {
            "." => {}
            ".." => {
                kept.pop();
            }
            text if text.contains(['/', '\\']) => kept.push(segment.to_owned()),
            text => kept.push(text.to_owned()),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_resolved() {
        for (raw, read_as) in [
            ("/v2/accounts/a/rooms/1/users", "/v2/accounts/a/rooms/1/users"),
            ("/v2/accounts/a/rooms/%31/%75sers", "/v2/accounts/a/rooms/1/users"),
            ("/x/../v2/./accounts", "/v2/accounts"),
            ("/x/%2e%2e/v2", "/v2"),
            ("/v2\\accounts", "/v2/accounts"),
            ("/rooms/1%2f2", "/rooms/1%2f2"),
            ("/rooms/%2531", "/rooms/%31"),
            ("*", "/"),
        ] {
            assert_eq!(read(raw), read_as, "{raw}");
        }
    }
}
