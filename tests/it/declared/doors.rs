//! Doors that an operator closes: over every transport and in every spelling by which the server offers the same.

use rolegate::config::Upstream;
use rolegate::pipeline::{Evaluation, rehearse};
use rolegate::rules::{Known, Ruleset, Sources, Then};
use serde_json::json;

use super::{assert_refused, gate_with};
use crate::support::gate::login;
use crate::support::policies::Policies;
use crate::support::{Gate, GateBuilder};

fn no_sockets(upstream: &mut Upstream) {
    upstream.websockets = Then::Deny;
}

/// Every transport that Meteor's SockJS offers, and the raw socket (`sockjs` 0.3.24, `stream_server.js`).
const TRANSPORTS: [(&str, &str); 22] = [
    ("GET", "/websocket"),
    ("GET", "/websocket/"),
    ("GET", "/websocket?x=1"),
    ("GET", "/sockjs"),
    ("GET", "/sockjs/"),
    ("GET", "/sockjs/info"),
    ("GET", "/sockjs/info?cb=abc"),
    ("OPTIONS", "/sockjs/info"),
    ("GET", "/sockjs/websocket"),
    ("GET", "/sockjs/123/abcdefgh/websocket"),
    ("POST", "/sockjs/123/abcdefgh/xhr"),
    ("OPTIONS", "/sockjs/123/abcdefgh/xhr"),
    ("POST", "/sockjs/123/abcdefgh/xhr_send"),
    ("POST", "/sockjs/123/abcdefgh/xhr_streaming"),
    ("GET", "/sockjs/123/abcdefgh/eventsource"),
    ("GET", "/sockjs/123/abcdefgh/htmlfile?c=f"),
    ("GET", "/sockjs/123/abcdefgh/jsonp?c=f"),
    ("POST", "/sockjs/123/abcdefgh/jsonp_send"),
    ("GET", "/sockjs/iframe.html"),
    ("GET", "/sockjs/iframe-a.1-b.html?t=1"),
    ("POST", "/sockjs/chunking_test"),
    ("PUT", "/sockjs/1/2/xhr_send"),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_websockets_closes_every_transport_that_stands_in_for_them() {
    let gate = GateBuilder::rocketchat().await.upstream(no_sockets).start();
    for (method, target) in TRANSPORTS {
        let before = gate.records_of("decision").len();
        let answer = gate.connect().await.request(method, target, &login("alice"), b"").await;
        assert_eq!(answer.status, 403, "{method} {target}");
        assert_refused(&gate, before, &format!("{method} {target}"), &["route_unlisted"]);
        assert_eq!(answer.header("x-request-id"), gate.last_decision()["id"].as_str());
    }
    // A preflight of a closed door opens nothing either.
    let before = gate.records_of("decision").len();
    let preflight = [("Origin", "http://x".to_owned()), ("Access-Control-Request-Method", "POST".to_owned())];
    gate.connect().await.request("OPTIONS", "/sockjs/1/2/xhr", &preflight, b"").await;
    assert_refused(&gate, before, "a preflight", &["route_unlisted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_websockets_are_closed_in_every_spelling_and_their_neighbours_stay_open() {
    let gate = GateBuilder::rocketchat().await.upstream(no_sockets).start();
    let host = gate.address();
    for target in [
        "/SockJS/1/2/xhr",
        "/sockjs//1/2/xhr",
        "//sockjs/1/2/xhr",
        "//evil/sockjs/1/2/xhr",
        "/%73ockjs/1/2/xhr",
        "/%2573ockjs/1/2/xhr",
        "/sockjs%2f1%2f2%2fxhr",
        "/x/../sockjs/1/2/xhr",
        "/x/%2e%2e/sockjs/1/2/xhr",
        "/./sockjs/1/2/xhr",
        "/\\sockjs\\1\\2\\xhr",
        "/sockjs;a/1/2/xhr",
        "/sockjs/1/2/xhr/",
        "/sockjs/1/2/x%68r",
        "/sockjs/1/2/xhr#x",
        "/websocket#x",
        "/WEBSOCKET",
        "/%77ebsocket",
        "/x/../websocket",
        &format!("http://{host}/sockjs/1/2/xhr"),
        &format!("http://{host}/websocket"),
    ] {
        let before = gate.records_of("decision").len();
        let answer = gate.connect().await.request("POST", target, &login("alice"), b"").await;
        assert!(matches!(answer.status, 400 | 403), "{target}: {}", answer.status);
        assert_refused(&gate, before, target, &["route_unlisted", "target_ambiguous"]);
    }
    for target in ["/sockjsx", "/websockets", "/home?next=/sockjs/1/2/xhr", "/packages/sockjs.js", "/x/sockjs"] {
        gate.get(target, &[]).await;
        let seen = gate.sample.seen();
        assert!(format!("{:?}", seen.last()).contains(target.split('?').next().unwrap()), "{target}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_websockets_are_closed_below_a_path_prefix_and_open_ones_pass() {
    let prefixed = |upstream: &mut Upstream| {
        no_sockets(upstream);
        upstream.path_prefix = "/chat".into();
    };
    let gate = GateBuilder::rocketchat().await.upstream(prefixed).start();
    for target in ["/chat/sockjs/1/2/xhr", "/chat/websocket", "/CHAT/sockjs/1/2/xhr", "/chat/%73ockjs/info"] {
        let before = gate.records_of("decision").len();
        gate.connect().await.request("POST", target, &[], b"").await;
        assert_refused(&gate, before, target, &["route_unlisted", "target_ambiguous"]);
    }
    let open = Gate::rocketchat().await;
    for (method, target) in TRANSPORTS.into_iter().filter(|(_, target)| target.starts_with("/sockjs")) {
        open.connect().await.request(method, target, &[], b"").await;
        let path = target.split('?').next().unwrap();
        assert!(open.sample.count(path) > 0, "{target} passes where nobody closed it");
    }
    assert!(open.records_of("decision").is_empty());
}

/// The shipped provider file with the route `rest` closed.
fn closing(rest: &str) -> String {
    let text = Policies::built_in("provider.toml");
    let (before, after) = text.split_once(rest).unwrap_or_else(|| panic!("`{rest}` is not declared"));
    format!("{before}{rest}{}", after.replacen("then = \"forward\"", "then = \"deny\"", 1))
}

fn call(name: &str) -> Vec<u8> {
    let message = json!({ "msg": "method", "id": "1", "method": name, "params": [] }).to_string();
    json!({ "message": message }).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_route_is_closed_under_its_other_names_and_as_a_method() {
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("policies");
    Policies::write(&folder).put("provider.toml", &closing("\"GET /api/v1/im.history\""));
    let gate = builder.with(|config| config.policies.directory = Some(folder)).start();
    let json_type = [login("alice"), vec![("Content-Type", "application/json".to_owned())]].concat();
    for (method, target, body) in [
        ("GET", "/api/v1/im.history?roomId=a", Vec::new()),
        ("GET", "/api/v1/dm.history?roomId=a", Vec::new()),
        ("HEAD", "/api/v1/dm.history?roomId=a", Vec::new()),
        ("POST", "/api/v1/method.call/loadHistory", call("loadHistory")),
        ("POST", "/api/v1/method.callAnon/loadHistory", call("loadHistory")),
        ("POST", "/api/v1/method.call/rooms%3Aget", call("loadMissedMessages")),
    ] {
        let before = gate.records_of("decision").len();
        gate.connect().await.request(method, target, &json_type, &body).await;
        assert_refused(&gate, before, &format!("{method} {target}"), &["route_unlisted"]);
    }
    gate.connect().await.request("POST", "/api/v1/method.call/x", &json_type, &call("rooms/get")).await;
    assert_eq!(gate.sample.count("/api/v1/method.call/x"), 1, "another method stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_the_rest_closes_it_for_every_method_and_suffix() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.unlisted = Then::Deny).start();
    for (method, target) in [
        ("GET", "/api/v1/teams.listAll"),
        ("HEAD", "/api/v1/teams.listAll"),
        ("OPTIONS", "/api/v1/teams.listAll"),
        ("PATCH", "/api/v1/teams.listAll"),
        ("PURGE", "/api/v1/teams.listAll"),
        ("GET", "/api/v1/teams.listAll/"),
        ("GET", "/api/v1/teams.listAll.json"),
        ("GET", "/api/v1/teams.listAll?_method=POST"),
        ("GET", "/api/experimental/x"),
        ("GET", "/api"),
    ] {
        let before = gate.records_of("decision").len();
        gate.connect().await.request(method, target, &login("alice"), b"").await;
        assert_refused(&gate, before, &format!("{method} {target}"), &["route_unlisted", "target_ambiguous"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_methods_are_closed_at_both_tunnels_however_the_body_comes() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.unlisted_methods = Then::Deny).start();
    let typed = |kind: &str| [login("alice"), vec![("Content-Type", kind.to_owned())]].concat();
    let message = r#"{"msg":"method","id":"1","method":"browseChannels","params":[]}"#;
    let form = format!("message={}", rolegate::rules::target::encode(message));
    for tunnel in ["method.call", "method.callAnon"] {
        for (kind, body) in
            [("application/json", call("browseChannels")), ("application/x-www-form-urlencoded", form.clone().into_bytes())]
        {
            let before = gate.records_of("decision").len();
            let target = format!("/api/v1/{tunnel}/getRoomRoles");
            gate.connect().await.request("POST", &target, &typed(kind), &body).await;
            assert_refused(&gate, before, &format!("{target} as {kind}"), &["route_unlisted"]);
        }
    }
}

#[test]
fn what_would_make_a_tunnel_or_show_a_credential_is_refused_wherever_it_leads() {
    let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    for rules in ruleset.providers() {
        for (method, target) in [("CONNECT", "chat.example.org:443"), ("CONNECT", "/websocket"), ("TRACE", "/home")] {
            let evaluation = rehearse::evaluate(rules, method, target, &Known::default());
            let Evaluation::Denial(denial) = evaluation else { panic!("{method} {target} passes") };
            assert_eq!(denial.reason().as_str(), "framing_invalid", "{method} {target}");
        }
    }
}

#[test]
fn every_known_route_of_the_shipped_files_can_be_closed_wherever_it_lies() {
    let mut sources = Sources::built_in();
    for file in sources.files.iter_mut().filter(|file| file.name == "provider.toml") {
        file.text = file.text.replace("then = \"forward\"", "then = \"deny\"");
    }
    let ruleset = Ruleset::load(&sources, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let mut tried = 0;
    for rules in ruleset.providers() {
        for pattern in rules.provider.routes.iter().flat_map(|route| &route.doors) {
            let (method, target) = (&pattern.method, pattern.path(|_| "x".to_owned()));
            tried += 1;
            match rehearse::evaluate(rules, method, &target, &Known::default()) {
                Evaluation::Denial(denial) => assert_eq!(denial.reason().as_str(), "route_unlisted", "{method} {target}"),
                other => panic!("{method} {target} passes although it is closed: {other:?}"),
            }
        }
    }
    assert!(tried > 200, "only {tried} routes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_closed_where_a_provider_declares_it_inside_a_guarded_space() {
    let text =
        Policies::built_in("provider.toml").replace("paths = [\"/websocket\",", "paths = [\"/api/v1/events\", \"/websocket\",");
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("policies");
    Policies::write(&folder).put("provider.toml", &text);
    let gate = builder.with(|config| config.policies.directory = Some(folder)).upstream(no_sockets).start();
    for target in ["/api/v1/events", "/api/v1/Events", "/api/v1/events?x=y"] {
        let before = gate.records_of("decision").len();
        assert_eq!(gate.get(target, &login("alice")).await.status, 403, "{target}");
        assert_refused(&gate, before, target, &["route_unlisted"]);
    }
    let open = gate_with("", "", |_| {}).await;
    open.get("/api/v1/events", &login("alice")).await;
    assert_eq!(open.sample.count("/api/v1/events"), 1);
}

#[test]
fn what_a_closed_door_leaves_open_is_told() {
    let ruleset = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    let of = |name: &str| &ruleset.provider(name).unwrap().provider;
    let chat = of("rocketchat");
    assert_eq!(chat.left_open(Then::Forward, Then::Forward), None);
    assert_eq!(chat.left_open(Then::Deny, Then::Deny), None);
    let told = chat.left_open(Then::Forward, Then::Deny).unwrap();
    assert!(told.contains("`unlisted_methods = \"deny\"`") && told.contains("over `/websocket`"), "{told}");
    assert_eq!(of("matrix").left_open(Then::Deny, Then::Deny), None, "it says that it has none");

    let mut sources = Sources::built_in();
    for file in sources.files.iter_mut().filter(|file| file.provider == "rocketchat" && file.name == "provider.toml") {
        file.text = closing("\"GET /api/v1/im.history\"")
            .replace("[sockets]\npaths = [\"/websocket\", \"/sockjs\", \"/sockjs/{rest*}\"]\n", "");
    }
    let ruleset = Ruleset::load(&sources, &[]).unwrap();
    let told = ruleset.provider("rocketchat").unwrap().provider.left_open(Then::Deny, Then::Forward).unwrap();
    assert!(told.contains("has no `[sockets]`"), "{told}");
}

#[test]
fn a_declaration_that_could_not_be_carried_out_is_a_fault() {
    let faults = |more: &str| {
        let mut sources = Sources::built_in();
        for file in sources.files.iter_mut().filter(|file| file.provider == "rocketchat" && file.name == "provider.toml") {
            file.text.push_str(more);
        }
        Ruleset::load(&sources, &[]).expect_err(more).to_string()
    };
    let route = |rest: &str, more: &str| format!("\n[[route]]\nrest = \"{rest}\"\nreveals = \"x\"\nthen = \"deny\"\n{more}\n");
    for (more, told) in [
        (route("GET /x/{rest*}/y", ""), "so it ends a path"),
        (route("GET /x/{*}", ""), "is no path segment"),
        (route("GET /x", "method = [\"getRoomRoles\"]"), "the method `getRoomRoles` is the action `rooms.roles`'s"),
        (
            "\n[[action]]\nid = \"x\"\nsummary = \"x\"\nresource = { type = \"Workspace\", param = [] }\nrest = \"GET /x/{rest*}\"\n\
             [action.params.rest]\nin = \"path\"\ntype = \"string\"\nrequired = true\n"
                .to_owned(),
            "is for `[[route]]` and `[sockets]`",
        ),
        (
            "\n[[action]]\nid = \"x\"\nsummary = \"x\"\nresource = { type = \"Room\", param = \"key\" }\nrest = \"GET /x/{key}\"\n\
             [action.params.key]\nin = \"path\"\ntype = \"string\"\nrequired = true\nsecret = true\n"
                .to_owned(),
            "`key` is secret, and a resource stands in every record",
        ),
    ] {
        let found = faults(&more);
        assert!(found.contains(told) && found.contains("provider.toml:"), "{found}");
    }
}
