//! What is believed of where a request came from.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn trusted() -> Vec<IpNet> {
    vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]
}

/// What is believed of a request from `PEER` with these lines of `X-Forwarded-For`.
fn read(lines: &[&[u8]]) -> Origin {
    origin(|name| if name == "x-forwarded-for" { lines.to_vec() } else { Vec::new() }, PEER, false, &trusted())
}

#[test]
fn an_element_is_an_address_alone_in_brackets_or_with_a_port() {
    for (text, expected) in [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7\t", "203.0.113.7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        ("203.0.113.7:0", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
    ] {
        assert_eq!(address(text.as_bytes()), Some(expected.parse().unwrap()), "{text}");
    }
    for text in [
        "",
        " ",
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.7:",
        "203.0.113.7:65536",
        "203.0.113.7:http",
        "203.0.113.07",
        "203.0.113.7 10.0.0.1",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]443",
        "[203.0.113.7]",
        "[203.0.113.7]:80",
        "\"203.0.113.7\"",
        "for=203.0.113.7",
        "203.0.113.7/32",
        "0x7f000001",
        "2130706433",
        "unix:",
        "localhost",
        "203.0.113.7;",
        "fe80::1%eth0",
        "203.0.113.7\u{a0}",
    ] {
        assert_eq!(address(text.as_bytes()), None, "{text}");
    }
    assert_eq!(address(b"203.0.113.7\xff"), None);
}

#[test]
fn what_is_no_address_hides_whoever_stands_left_of_it() {
    for (lines, expected, sent) in [
        (&[&b"198.51.100.1, \xff"[..]][..], None, "unknown, 10.0.0.1"),
        (&[b"198.51.100.1", b""], None, "unknown, 10.0.0.1"),
        (&[b"198.51.100.1,"], None, "unknown, 10.0.0.1"),
        (&[b"198.51.100.1, unknown, 10.0.0.7"], None, "unknown, 10.0.0.7, 10.0.0.1"),
        (&[b"unknown, 198.51.100.1:99"], Some("198.51.100.1"), "198.51.100.1, 10.0.0.1"),
        (&[b"198.51.100.1, fd00::7, [fd00::8]:443"], Some("198.51.100.1"), "198.51.100.1, fd00::7, fd00::8, 10.0.0.1"),
        (&[b"fd00::7, 10.0.0.9"], Some("fd00::7"), "fd00::7, 10.0.0.9, 10.0.0.1"),
        (&[], None, "unknown, 10.0.0.1"),
    ] {
        let read = read(lines);
        assert_eq!(read.client, expected.map(|text| text.parse().unwrap()), "{lines:?}");
        assert_eq!(read.forwarded_for, sent, "{lines:?}");
        assert_eq!(read.client_text().map(str::parse::<IpAddr>), read.client.map(Ok), "{lines:?}");
    }
}

/// An element as it is written, with the address that it means.
fn element() -> impl Strategy<Value = (String, Option<IpAddr>)> {
    let v4 = prop_oneof![any::<u32>(), Just(0x0a00_0005), Just(0x0aff_0009)].prop_map(Ipv4Addr::from_bits);
    let v6 = prop_oneof![any::<u128>(), (0..9_u128).prop_map(|low| 0xfd00 << 112 | low)].prop_map(Ipv6Addr::from_bits);
    let known = (v4, v6, any::<u16>(), 0..7_u8).prop_map(|(v4, v6, port, form)| match form {
        0 => (v4.to_string(), IpAddr::V4(v4)),
        1 => (format!("{v4}:{port}"), v4.into()),
        2 => (format!("::ffff:{v4}"), v4.into()),
        3 => (format!("[::ffff:{v4}]:{port}"), v4.into()),
        4 => (v6.to_string(), v6.into()),
        5 => (format!("[{v6}]"), v6.into()),
        _ => (format!("[{v6}]:{port}"), v6.into()),
    });
    let known = known.prop_map(|(text, address)| (text, Some(address.to_canonical())));
    let unknown =
        prop_oneof!["unknown", "_[a-z]{1,9}", "[a-z]{1,9}:[0-9]{1,3}", "", "[0-9]{1,3}([.][0-9]{1,3}){0,2}", "\"[^,]{0,9}"];
    prop_oneof![4 => known, 1 => unknown.prop_map(|text| (text, None))]
}

proptest! {
    #[test]
    fn of_any_lines_the_client_is_the_rightmost_stranger_or_unknown(
        elements in prop::collection::vec((element(), any::<bool>(), 0..3_usize), 0..7),
    ) {
        let mut lines = vec![String::new()];
        for (index, ((text, _), new_line, spaces)) in elements.iter().enumerate() {
            let line = if index > 0 && *new_line { lines.push(String::new()); lines.last_mut() } else { lines.last_mut() };
            let line = line.unwrap();
            if index > 0 && !new_line {
                line.push(',');
            }
            line.push_str(&" ".repeat(*spaces));
            line.push_str(text);
        }
        let lines: Vec<&[u8]> = if elements.is_empty() { Vec::new() } else { lines.iter().map(|line| line.as_bytes()).collect() };
        let read = read(&lines);

        let trusted = trusted();
        let inside = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
        let decisive = elements.iter().rev().map(|((_, address), ..)| *address);
        let decisive: Vec<Option<IpAddr>> = decisive.collect();
        let expected = match decisive.iter().position(|address| !address.as_ref().is_some_and(inside)) {
            Some(at) => decisive[at],
            None => decisive.last().copied().flatten(),
        };
        prop_assert_eq!(read.client, expected);
        // A gate behind this one reads the same of what it is told.
        let again = read_from(&read.forwarded_for);
        prop_assert_eq!(again, expected);
        let named = read.client_text().map(|text| text.parse::<IpAddr>().unwrap());
        prop_assert_eq!(named, expected, "no other address is told as the client's");
    }
}

/// Any bytes, and addresses in which some bytes are others, more or fewer.
fn any_element() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(any::<u8>(), 0..3));
    let edited = (element(), prop::collection::vec(edit, 0..3)).prop_map(|((text, _), edits)| {
        let mut text = text.into_bytes();
        for (at, length, instead) in edits {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + length);
            text.splice(at..end, instead);
        }
        text
    });
    let digits = "[0-9a-f.:\\[\\]% \t]{0,40}".prop_map(String::into_bytes);
    prop_oneof![4 => edited, 1 => digits, 1 => prop::collection::vec(any::<u8>(), 0..40), 1 => "\\PC{0,40}".prop_map(String::into_bytes)]
}

/// The address that is written in `text`, found by taking away what may stand around one.
fn written(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim_matches(|c: char| c.is_ascii_whitespace());
    let plain = text.parse::<IpAddr>().ok();
    let without_port = || {
        let (host, port) = text.rsplit_once(':')?;
        port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok())??;
        Some(host)
    };
    let bracketed = |host: &str| host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let v4 = || without_port()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    plain.or_else(v4).or_else(|| bracketed(text)).or_else(|| bracketed(without_port()?)).map(|address| address.to_canonical())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn of_any_element_the_client_is_the_address_that_is_written_there_or_unknown(
        element in any_element().prop_filter("one element", |element| !element.contains(&b',')),
        inside in any::<bool>(),
    ) {
        let expected = written(&element);
        // One trusted proxy may stand behind it.
        let line = if inside { [&element[..], b", 10.0.0.7"].concat() } else { element };
        let read = read(&[&line]);
        prop_assert_eq!(read.client, expected);
        let begins = expected.map_or_else(|| UNKNOWN.to_owned(), |address| address.to_string());
        prop_assert_eq!(read.forwarded_for.split(", ").next(), Some(begins.as_str()));
    }
}

/// The client of a request from this gate that is told `forwarded_for`; the next gate trusts this one.
fn read_from(forwarded_for: &str) -> Option<IpAddr> {
    read(&[forwarded_for.as_bytes()]).client
}
