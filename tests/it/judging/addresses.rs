//! Addresses as proxies write them: with a port, in brackets, and what is no address.

use rolegate::demo::world::workspace::{BOARDROOM, BOB};
use serde_json::Value;

use crate::connections::addresses::{newest, office_only, told, trusting};
use crate::support::gate::login;
use crate::support::{Connection, GateBuilder};

fn named(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn from(who: &str, forwarded_for: &str) -> Vec<(&'static str, String)> {
    let mut headers = login(who);
    headers.push(("X-Forwarded-For", forwarded_for.to_owned()));
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_that_a_proxy_writes_behind_an_address_is_no_part_of_it() {
    let gate = trusting(GateBuilder::rocketchat().await).start();
    let target = format!("/api/v1/users.info?userId={BOB}");
    for (written, client) in [
        ("203.0.113.7:51234", "203.0.113.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[::ffff:203.0.113.7]:443", "203.0.113.7"),
        ("unknown, 203.0.113.7:1, 10.0.0.5:2", "203.0.113.7"),
    ] {
        assert_eq!(gate.get(&target, &from("bob", written)).await.status, 200);
        assert_eq!(gate.last_decision()["context"]["client"], client, "{written}");
        let seen = told(&newest(&gate, "/api/v1/users.info"));
        assert!(seen.contains(&named("x-real-ip", client)), "{written}: {seen:?}");
        assert!(seen.iter().any(|(name, value)| name == "x-forwarded-for" && value.starts_with(client)), "{written}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_address_is_unknown_is_nobody_elses_address_to_anybody() {
    let gate = trusting(GateBuilder::rocketchat().await).start();
    for (written, sent_on) in [
        ("unknown", "unknown, 127.0.0.1"),
        ("203.0.113.7, unknown, 10.0.0.5", "unknown, 10.0.0.5, 127.0.0.1"),
        ("203.0.113.7, , 10.0.0.5", "unknown, 10.0.0.5, 127.0.0.1"),
        ("10.0.0.9, unix:", "unknown, 127.0.0.1"),
        ("203.0.113.7:99999", "unknown, 127.0.0.1"),
        ("\"203.0.113.7\"", "unknown, 127.0.0.1"),
        ("", "unknown, 127.0.0.1"),
    ] {
        // The short way and the general one (`TE` is for that), what is judged and what is not.
        for (path, general) in [("/api/v1/users.info", false), ("/api/v1/users.info", true), ("/echo", false), ("/echo", true)] {
            let mut headers = from("bob", written);
            headers.push(("X-Real-IP", "6.6.6.6".into()));
            if general {
                headers.push(("TE", "trailers".into()));
            }
            let target = format!("{path}?userId={BOB}");
            assert_eq!(gate.get(&target, &headers).await.status, 200, "{written} {path}");
            let expected = [named("x-forwarded-for", sent_on), named("x-forwarded-proto", "http")];
            assert_eq!(told(&newest(&gate, path)), expected, "{written} {path} {general}");
        }
        assert_eq!(gate.last_decision()["context"]["client"], Value::Null, "{written}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_network_contains_a_client_whose_address_is_unknown() {
    let builder = trusting(GateBuilder::rocketchat().await);
    let folder = builder.folder.path().join("policies");
    office_only(&folder);
    let everywhere = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
    let gate = builder
        .with(|config| {
            config.policies.directory = Some(folder);
            config.networks = vec![("office".into(), everywhere.to_vec())];
        })
        .start();
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    assert_eq!(gate.get(&target, &from("carol", "198.51.100.9:1")).await.status, 200);
    for written in ["unknown", "198.51.100.9, 10.0.0.300", "198.51.100.9:http", "10.0.0.5, "] {
        assert_eq!(gate.get(&target, &from("carol", written)).await.status, 403, "{written}");
        let record = gate.last_decision();
        assert_eq!(record["policies"], serde_json::json!(["office-only"]), "{written}");
    }
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_whose_address_is_unknown_do_not_share_one_bound_of_lookups() {
    let builder = trusting(GateBuilder::rocketchat().await).with(|config| config.limits.lookups_per_address = 1);
    let gate = builder.start();
    let held = gate.sample.hold("/api/v1/me");
    let target = format!("/api/v1/users.info?userId={BOB}");
    let mut waiting: Vec<Connection> = Vec::new();
    for who in ["alice", "bob", "carol"] {
        let mut connection = gate.connect().await;
        let fields = from(who, "unknown").into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).await;
        waiting.push(connection);
    }
    held.until_waiting(3).await;
    held.release();
    for mut connection in waiting {
        assert_eq!(connection.answer("GET").await.status, 200);
    }
}
