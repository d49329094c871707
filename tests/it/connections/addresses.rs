//! Where a request came from: what is believed, what is told on.

use std::path::Path;

use rolegate::demo::Seen;
use rolegate::demo::world::workspace::{BOARDROOM, BOB};
use rolegate::rules::source::BUILT_IN;

use crate::support::gate::login;
use crate::support::{Gate, GateBuilder};

const SPELLINGS: [&str; 12] = [
    "X-Forwarded-For",
    "x_forwarded_for",
    "X.Forwarded-For",
    "X-Forwarded_For",
    "X-Real-IP",
    "X_Real_IP",
    "X-Forwarded-Proto",
    "x_forwarded_proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "Forwarded",
    "forwarded",
];

pub fn trusting(builder: GateBuilder) -> GateBuilder {
    builder.with(|config| {
        config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    })
}

pub fn newest(gate: &Gate, path: &str) -> Seen {
    gate.sample.seen().into_iter().rfind(|seen| seen.path == path).unwrap()
}

/// What a server could take for the origin of `seen`, sorted by name.
pub fn told(seen: &Seen) -> Vec<(String, String)> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    let mut fields: Vec<_> =
        seen.headers.iter().map(field).filter(|(name, _)| name.contains("forwarded") || name.contains("real")).collect();
    fields.sort();
    fields
}

fn fields(of: [&str; 3]) -> Vec<(String, String)> {
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"];
    names.iter().zip(of).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_untrusted_peer_says_of_its_origin_goes_nowhere() {
    let gate = Gate::rocketchat().await;
    let mut headers = login("bob");
    headers.extend(SPELLINGS.map(|name| (name, "10.9.8.7".to_owned())));
    headers.push(("X-Request-Id", "mine".into()));
    for target in ["/echo", "/api/v1/echo.headers", &format!("/api/v1/users.info?userId={BOB}")] {
        assert_eq!(gate.get(target, &headers).await.status, 200);
        let path = target.split('?').next().unwrap();
        assert_eq!(told(&newest(&gate, path)), fields(["127.0.0.1", "http", "127.0.0.1"]), "{target}");
    }
    let record = gate.last_decision();
    assert_eq!((&record["context"]["client"], &record["correlation"]), (&"127.0.0.1".into(), &serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_trusted_chain_the_rightmost_stranger_is_the_client() {
    let gate = trusting(GateBuilder::rocketchat().await).start();
    let target = format!("/api/v1/users.info?userId={BOB}");
    for (chain, client, sent_on) in [
        (vec!["1.2.3.4, 203.0.113.7, 10.0.0.5"], "203.0.113.7", "203.0.113.7, 10.0.0.5, 127.0.0.1"),
        (vec!["1.2.3.4", "203.0.113.7", "10.0.0.5"], "203.0.113.7", "203.0.113.7, 10.0.0.5, 127.0.0.1"),
        (vec!["2001:db8::1"], "2001:db8::1", "2001:db8::1, 127.0.0.1"),
        (vec!["::ffff:203.0.113.7"], "203.0.113.7", "203.0.113.7, 127.0.0.1"),
        (vec!["10.0.0.9,10.0.0.5"], "10.0.0.9", "10.0.0.9, 10.0.0.5, 127.0.0.1"),
        (vec!["203.0.113.7:51234, 10.0.0.5:80"], "203.0.113.7", "203.0.113.7, 10.0.0.5, 127.0.0.1"),
        (vec!["[2001:db8::1]:443"], "2001:db8::1", "2001:db8::1, 127.0.0.1"),
    ] {
        let mut headers = login("bob");
        headers.extend(chain.iter().map(|value| ("X-Forwarded-For", (*value).to_owned())));
        headers.extend([
            ("x_forwarded_for", "6.6.6.6".into()),
            ("X-Real-IP", "6.6.6.6".into()),
            ("X-Forwarded-Proto", "https".into()),
        ]);
        for target in [target.as_str(), "/echo"] {
            assert_eq!(gate.get(target, &headers).await.status, 200);
            let path = target.split('?').next().unwrap();
            assert_eq!(told(&newest(&gate, path)), fields([sent_on, "https", client]), "{chain:?} {target}");
        }
        assert_eq!(gate.last_decision()["context"]["client"], client, "{chain:?}");
    }
}

/// What proxies say of a client in fields other than `X-Forwarded-For`, and in that one without an address.
fn without_an_address() -> Vec<Vec<(&'static str, String)>> {
    let rows: [&[(&str, &str)]; 8] = [
        &[],
        &[("Forwarded", "for=127.0.0.9")],
        &[("X-Real-IP", "127.0.0.9")],
        &[("x_forwarded_for", "127.0.0.9")],
        &[("X-Forwarded-For", "")],
        &[("X-Forwarded-For", "unknown")],
        &[("X-Forwarded-For", "127.0.0.9,")],
        &[("X-Forwarded-For", "127.0.0.9"), ("X-Forwarded-For", "")],
    ];
    rows.into_iter().map(|row| row.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_whom_a_trusted_proxy_writes_no_address_is_in_no_network() {
    for fast_path in [true, false] {
        let builder = trusting(GateBuilder::rocketchat().await);
        let folder = builder.folder.path().join("policies");
        office_only(&folder);
        let gate = builder
            .with(|config| {
                config.listen.fast_path = fast_path;
                config.policies.directory = Some(folder);
                // The proxy stands in the office, its clients do not.
                config.networks = vec![("office".into(), vec!["127.0.0.0/8".parse().unwrap()])];
            })
            .start();
        let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
        for said in without_an_address() {
            let headers: Vec<_> = login("carol").into_iter().chain(said.clone()).collect();
            assert_eq!(gate.get(&target, &headers).await.status, 403, "{said:?}");
            let record = gate.last_decision();
            assert_eq!(record["context"]["client"], serde_json::Value::Null, "{said:?}");
            assert_eq!(record["context"].get("networks"), None, "{said:?}");
            assert_eq!(gate.get("/echo", &headers).await.status, 200, "{said:?}");
            let expected = [("x-forwarded-for", "unknown, 127.0.0.1"), ("x-forwarded-proto", "http")];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(told(&newest(&gate, "/echo")), expected, "{said:?}");
        }
        assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 0);
        let from_the_office: Vec<_> = login("carol").into_iter().chain([("X-Forwarded-For", "127.0.0.9".to_owned())]).collect();
        assert_eq!(gate.get(&target, &from_the_office).await.status, 200, "a trusted machine that asks through another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_trusted_proxy_is_recorded_when_it_is_well_formed_and_never_sent_on() {
    let gate = trusting(GateBuilder::rocketchat().await).start();
    let (longest, longer) = ("a".repeat(64), "a".repeat(65));
    for (sent, recorded) in
        [("Az.09_-", true), (&longest, true), (&longer, false), ("a b", false), ("a\"b", false), ("", false), ("\u{e9}", false)]
    {
        let mut headers = login("bob");
        headers.push(("X-Request-Id", sent.to_owned()));
        assert_eq!(gate.get(&format!("/api/v1/users.info?userId={BOB}"), &headers).await.status, 200);
        let record = gate.last_decision();
        assert_eq!(record["correlation"].as_str(), recorded.then_some(sent), "{sent}");
        assert_eq!(newest(&gate, "/api/v1/users.info").header("x-request-id"), record["id"].as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_decides_by_the_network_of_the_client_that_a_trusted_proxy_names() {
    let builder = trusting(GateBuilder::rocketchat().await);
    let folder = builder.folder.path().join("policies");
    office_only(&folder);
    let gate = builder
        .with(|config| {
            config.policies.directory = Some(folder);
            config.networks = vec![("office".into(), vec!["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()])];
        })
        .start();
    for (client, status) in [("198.51.100.9", 200), ("2001:db8::7", 200), ("::ffff:198.51.100.9", 200), ("203.0.113.7", 403)] {
        let mut headers = login("carol");
        headers.push(("X-Forwarded-For", format!("198.51.100.1, {client}")));
        let answer = gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &headers).await;
        assert_eq!(answer.status, status, "{client}");
    }
    let record = gate.last_decision();
    assert_eq!((&record["reason"], &record["policies"]), (&"policy_forbidden".into(), &serde_json::json!(["office-only"])));
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 3);
}

/// The built-in policies, and one that asks where the caller is.
pub fn office_only(folder: &Path) {
    for (path, text) in BUILT_IN {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // The cases that come with the policies know of no office.
        if !path.ends_with("cases.toml") {
            std::fs::write(path, text).unwrap();
        }
    }
    let policy = r#"@id("office-only")
        forbid (principal, action == RocketChat::Action::"rooms.roles", resource)
        unless { context.networks.contains("office") };"#;
    std::fs::write(folder.join("rocketchat/office.cedar"), policy).unwrap();
}
