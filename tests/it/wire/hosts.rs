//! The host that a request is addressed to.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::recorder::Recorder;
use super::refused;
use crate::support::{Answer, Gate};

async fn ask(gate: &Gate, host: &str) -> Answer {
    let mut connection = gate.connect().await;
    connection.send(format!("GET /open HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
    connection.answer("GET").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_host_is_refused_and_what_is_one_goes_through() {
    for fast in [true, false] {
        let (gate, upstream) = Recorder::gate(|config| config.listen.fast_path = fast).await;
        for host in [
            "127.0.0.1:99999",
            "127.0.0.1:80:80",
            "[::1",
            "a..b",
            ".",
            "",
            "..",
            ".a",
            "a..",
            "a:b",
            "a:-1",
            "a:+80",
            "::1",
            "[::1]80",
            "[::1]:",
            "[:::1]",
            "[1.2.3.4]",
            "[::1%eth0]",
            "[v1.a]",
            "a/b",
            "a b",
            "u@a",
            "a,b",
            "[]",
            ":80",
            "a:65536",
            "\u{e9}",
        ] {
            let answer = ask(&gate, host).await;
            if host == "[::1]:" {
                // RFC 3986 §3.2.3 lets the digits of a port be none.
                assert_eq!(answer.status, 200);
                continue;
            }
            assert_eq!(answer.status, 400, "{host}");
            assert_eq!(refused(&gate, &answer, host), "framing_invalid", "{host}");
        }
        assert_eq!(upstream.seen().len(), 1);
        for host in [
            "chat.example.org",
            "chat.example.org.",
            "chat.example.org:8080",
            "chat.example.org.:8080",
            "127.0.0.1:65535",
            "[::1]",
            "A",
            "[2001:db8::7]:443",
            "[::ffff:1.2.3.4]",
            "my_server",
            "xn--fiq228c.example",
            "a-b",
            "1.2.3",
            "localhost:0",
        ] {
            assert_eq!(ask(&gate, host).await.status, 200, "{host}");
            assert_eq!(upstream.seen().pop().unwrap().values("host"), [host], "as it was received");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_the_roots_dot_is_the_same_host() {
    for (configured, fast) in [("chat.example.org", true), ("chat.example.org", false), ("chat.example.org.", true)] {
        let (gate, _upstream) = Recorder::gate(|config| {
            config.upstreams[0].host = Some(configured.to_owned());
            config.listen.fast_path = fast;
        })
        .await;
        for host in ["chat.example.org.", "chat.example.org", "CHAT.example.org.:443", "chat.example.org:443"] {
            assert_eq!(ask(&gate, host).await.status, 200, "{host} for {configured}");
        }
        for host in ["chat.example.org..", "other.example.org.", "example.org.", "org"] {
            let answer = ask(&gate, host).await;
            let (status, reason) = if host.ends_with("..") { (400, "framing_invalid") } else { (421, "host_unknown") };
            assert_eq!((answer.status, refused(&gate, &answer, host).as_str()), (status, reason), "{host} for {configured}");
        }
    }
}

/// An authority as RFC 3986 §3.2 has it, of the names that DNS holds, and whether it is one.
fn authorities() -> impl Strategy<Value = (String, bool)> {
    let label = "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9])?";
    let name = (prop::collection::vec(label, 1..5), any::<bool>())
        .prop_map(|(labels, rooted)| labels.join(".") + if rooted { "." } else { "" });
    let v4 = any::<[u8; 4]>().prop_map(|parts| std::net::Ipv4Addr::from(parts).to_string());
    let v6 = any::<[u16; 8]>().prop_map(|parts| format!("[{}]", std::net::Ipv6Addr::from(parts)));
    let port = prop_oneof![Just(String::new()), Just(":".to_owned()), any::<u16>().prop_map(|port| format!(":{port}"))];
    let whole = (prop_oneof![name, v4, v6], port).prop_map(|(host, port)| host + &port);
    (whole, 0..9_usize, any::<prop::sample::Index>()).prop_map(|(whole, spoilt, at)| {
        let port_at = whole.rfind(':').filter(|at| !whole[*at..].contains(']')).unwrap_or(whole.len());
        let (host, port) = whole.split_at(port_at);
        let within = at.index(host.trim_matches(['[', ']']).len() + 1) + usize::from(host.starts_with('['));
        let insert = |text: &str| format!("{}{text}{}{port}", &host[..within], &host[within..]);
        match spoilt {
            0 => (format!("{host}:{}", 65_536 + u32::try_from(within).unwrap()), false),
            1 => (format!("{host}:80:80"), false),
            2 => (insert("@"), false),
            3 => (insert("/"), false),
            4 => (insert("%"), false),
            5 => (insert("\u{f1}"), false),
            6 => (host.replacen(['.', '['], "..", 1) + port, !host.contains(['.', '['])),
            _ => (whole.clone(), true),
        }
    })
}

#[test]
fn whatever_authority_is_named_it_is_one_of_the_rfcs_or_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (gate, upstream) = runtime.block_on(Recorder::gate(|_| {}));
    let mut runner = TestRunner::new(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() });
    let ran = runner.run(&authorities(), |(host, fits)| {
        let answer = runtime.block_on(ask(&gate, &host));
        prop_assert_eq!(answer.status, if fits { 200 } else { 400 }, "{}", host);
        Ok(())
    });
    ran.unwrap();
    runtime.block_on(async { drop((gate, upstream)) });
}
