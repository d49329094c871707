//! A closed route of a guarded space: what it closes, and what stays as it was.

use rolegate::config::Upstream;
use rolegate::rules::Then;
use rolegate::rules::source::BUILT_IN;

use super::assert_refused;
use crate::support::gate::login;
use crate::support::policies::Policies;
use crate::support::{Gate, GateBuilder};

const AGENTS: &str = "/api/v1/livechat/users/agent";

/// A gate whose provider file closes the shipped route that lists omnichannel agents.
async fn gate(change: impl FnOnce(&mut Upstream)) -> Gate {
    let (_, shipped) = BUILT_IN.iter().find(|(path, _)| *path == "rocketchat/provider.toml").unwrap();
    let open =
        "rest = \"GET /api/v1/livechat/users/{type}\"\nreveals = \"every omnichannel agent or manager\"\nthen = \"forward\"";
    assert!(shipped.contains(open), "the route is written otherwise now");
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("policies");
    let written = Policies::write(&folder);
    written.put("provider.toml", &shipped.replace(open, &open.replace("forward", "deny")));
    builder.with(|config| config.policies.directory = Some(folder)).upstream(change).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_get_leaves_the_other_operations_of_its_path_as_open_as_what_is_unlisted() {
    let gate = gate(|_| {}).await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        gate.connect().await.request(method, AGENTS, &login("alice"), b"{}").await;
        let seen = gate.sample.seen();
        let last = seen.last().map(|seen| (seen.method.as_str(), seen.target.as_str()));
        assert_eq!(last, Some((method, AGENTS)), "an administrator adds and removes agents as before");
    }
    assert!(gate.records_of("decision").is_empty(), "nothing of it is judged");
    drop(gate);

    let gate = self::gate(|upstream| upstream.unlisted = Then::Deny).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
        let before = gate.records_of("decision").len();
        let answer = gate.connect().await.request(method, AGENTS, &login("alice"), b"{}").await;
        assert_eq!(answer.status, 403, "{method}");
        assert_refused(&gate, before, method, &["route_unlisted"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_could_take_for_the_closed_operation_is_closed_with_it() {
    let gate = gate(|_| {}).await;
    let overridden = ["X-HTTP-Method-Override", "X-HTTP-Method", "X_Method_Override"];
    let overridden = overridden.into_iter().map(|name| ("POST", AGENTS, Some((name, "GET".to_owned()))));
    let plain = [
        ("GET", AGENTS),
        ("HEAD", AGENTS),
        ("OPTIONS", AGENTS),
        ("PROPFIND", AGENTS),
        ("get", AGENTS),
        ("GET", "/api/v1/livechat/users/agent/"),
        ("GET", "/api/v1/Livechat/users/agent"),
        ("POST", "/api/v1/Livechat/users/agent"),
        ("POST", "/api/v1/livechat/users/a%2Fb"),
        ("POST", "/api/v1/livechat//users/agent"),
    ];
    for (method, target, further) in plain.into_iter().map(|(method, target)| (method, target, None)).chain(overridden) {
        let told = format!("{method} {target} {further:?}");
        let before = gate.records_of("decision").len();
        let headers: Vec<_> = login("alice").into_iter().chain(further).collect();
        gate.connect().await.request(method, target, &headers, b"").await;
        assert_refused(&gate, before, &told, &["route_unlisted", "method_not_declared", "target_ambiguous", "header_ambiguous"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_undeclared_methods_of_an_action_are_refused_as_before() {
    let gate = gate(|_| {}).await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let before = gate.records_of("decision").len();
        let answer = gate.connect().await.request(method, "/api/v1/rooms.roles", &login("alice"), b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_refused(&gate, before, method, &["method_not_declared"]);
    }
}
