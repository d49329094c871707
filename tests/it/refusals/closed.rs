//! What an operator closed, and the spellings by which somebody might reach a guarded path all the same.

use rolegate::demo::world::workspace::{BOARDROOM, BOB};
use rolegate::model::Reason;
use rolegate::rules::Then;
use rolegate::rules::source::BUILT_IN;

use super::{INVALID_TARGET, NO_PERMISSION, assert_denied, assert_no_secret_recorded, assert_refusal};
use crate::support::gate::{bearer, login};
use crate::support::{Gate, GateBuilder};

#[tokio::test(flavor = "multi_thread")]
async fn an_unlisted_route_goes_on_unrecorded_unless_the_operator_closed_the_rest() {
    let open = Gate::rocketchat().await;
    open.get("/api/v1/no.such.route?a=b", &login("eve")).await;
    assert_eq!(open.sample.count("/api/v1/no.such.route"), 1);
    assert!(open.records_of("decision").is_empty());

    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.unlisted = Then::Deny).start();
    let mut connection = gate.connect().await;
    for (method, target) in [
        ("GET", "/api/v1/no.such.route?a=b"),
        ("POST", "/api/v1/no.such.route"),
        ("GET", "/api"),
        ("GET", "/api/"),
        ("DELETE", "/api/v1/users.listByStatus"),
        ("OPTIONS", "/api/v1/no.such.route"),
    ] {
        let answer = connection.request(method, target, &login("eve"), b"").await;
        let record = assert_denied(&gate, Reason::RouteUnlisted);
        assert_refusal(&answer, 403, NO_PERMISSION, record["id"].as_str().unwrap());
        assert_eq!(record["door"], "none");
    }
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
    for target in ["/home", "/avatar/bob", "/api/v1/users.listByStatus", &format!("/api/v1/users.info?userId={BOB}")] {
        connection.get(target, &login("eve")).await;
        let path = target.split('?').next().unwrap();
        assert_eq!(gate.sample.count(path), 1, "{target} is declared, or outside");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_docusign_account_lets_nothing_undeclared_through() {
    let gate = GateBuilder::docusign().await.upstream(|upstream| upstream.unlisted = Then::Deny).start();
    let answer = gate.get("/restapi/v2/accounts/a/no_such_thing", &bearer("bob")).await;
    let record = assert_denied(&gate, Reason::RouteUnlisted);
    let id = record["id"].as_str().unwrap();
    let body = format!(
        r#"{{"errorCode":"ROLEGATE_ACCESS_DENIED","message":"You do not have access to this resource.","referenceId":"{id}"}}"#
    );
    assert_refusal(&answer, 403, &body, id);
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_route_is_closed_in_every_spelling() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let answer = connection.request("POST", "/api/v1/mcp", &login("alice"), b"{\"jsonrpc\":\"2.0\"}").await;
    let record = assert_denied(&gate, Reason::RouteUnlisted);
    assert_refusal(&answer, 403, NO_PERMISSION, record["id"].as_str().unwrap());
    for target in
        ["/api/v1/MCP", "/api/v1/mcp/", "/api/v1/m%63p", "/api/v1/mcp.json", "/api/v1//mcp", "/api/v1/mcp%20", "/api/v1/x/../mcp"]
    {
        let answer = connection.request("POST", target, &login("alice"), b"{}").await;
        let record = assert_denied(&gate, Reason::TargetAmbiguous);
        assert_refusal(&answer, 400, INVALID_TARGET, record["id"].as_str().unwrap());
    }
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = connection.request(method, "/api/v1/mcp", &login("alice"), b"").await;
        assert_denied(&gate, Reason::RouteUnlisted);
        assert_eq!(answer.status, 403, "{method}");
    }
    let answer = connection.request("OPTIONS", "/api/v1/mcp", &login("alice"), b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, GET, HEAD, DELETE")));
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_spelling_of_a_guarded_path_reaches_the_server() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let host = connection.host.clone();
    let mut spellings: Vec<String> = [
        "/api/v1/Rooms.Roles",
        "/api/v1/rooms.roles/",
        "/api/v1/rooms%2eroles",
        "/api/v1/rooms%2Eroles",
        "/api/v1/%72ooms.roles",
        "/api/v1/rooms.roles%00",
        "/api/v1/rooms.roles%20",
        "/api/v1/rooms.roles%3Fx",
        "/api/v1/rooms.roles;x=1",
        "/api/v1/rooms.roles.json",
        "/api/v1/./rooms.roles",
        "/api/v1/x/../rooms.roles",
        "/api/v1/%2e%2e/v1/rooms.roles",
        "/api/v1//rooms.roles",
        "//api/v1/rooms.roles",
        "/api//v1/rooms.roles",
        "/api/v1\\rooms.roles",
        "/api\\v1\\rooms.roles",
        "/api/v1%2Frooms.roles",
        "/api%2Fv1%2Frooms.roles",
        "/api%252Fv1/rooms.roles",
        "/API/v1/rooms.roles",
        "/api/V1/rooms.roles",
        "/%61pi/v1/rooms.roles",
        "/home/../api/v1/rooms.roles",
        "/home/..%2fapi/v1/rooms.roles",
        "/api;x/v1/rooms.roles",
    ]
    .map(|path| format!("{path}?rid={BOARDROOM}"))
    .to_vec();
    spellings.push(format!("http://{host}/api/v1/rooms.roles?rid={BOARDROOM}"));
    spellings.push(format!("/api/v1/rooms.roles?rid=GENERAL?&rid={BOARDROOM}"));
    for target in spellings {
        // The member may, the outsider may not, and nobody gets so far.
        for who in ["carol", "eve"] {
            let answer = connection.get(&target, &login(who)).await;
            assert_eq!(answer.status, 400, "{target}: {}", answer.text());
            let record = assert_denied(&gate, Reason::TargetAmbiguous);
            assert_refusal(&answer, 400, INVALID_TARGET, record["id"].as_str().unwrap());
        }
    }
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_target_is_not_recorded() {
    let gate = Gate::rocketchat().await;
    for target in [
        "/api/v1/rooms%2eroles?token=hunter2".to_owned(),
        "/api/v1/rooms.roles?rid=a?token=hunter2".to_owned(),
        "/api/v1/rooms.roles;token=hunter2".to_owned(),
        "/api/v1/rooms.roles%3Ftoken=hunter2".to_owned(),
        "/api/v1/rooms.roles?rid=a&Authorization=hunter2".to_owned(),
    ] {
        assert_eq!(gate.get(&target, &login("eve")).await.status, 400, "{target}");
        assert!(!gate.last_decision().to_string().contains("hunter2"), "{target}: {}", gate.last_decision());
    }
    assert_no_secret_recorded(&gate, &["hunter2", "eve-token"]);
    assert!(gate.sample.seen().is_empty());
}

/// The proxy engine answers these by itself, before anything of rolegate sees them.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_two_authorities_does_not_arrive() {
    let gate = Gate::rocketchat().await;
    let host = gate.address();
    let room = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let second = ("Host", "chat.example.org".to_owned());
    for (target, headers) in [
        (format!("http://evil.example.org{room}"), vec![]),
        (format!("http://carol:hunter2@{host}{room}"), vec![]),
        (room.clone(), vec![("Host", host.to_string()), second]),
        (room, vec![("Host", format!("carol@{host}"))]),
    ] {
        let mut connection = gate.connect().await;
        let headers = [login("carol"), headers].concat();
        assert_eq!(connection.get(&target, &headers).await.status, 400, "{target}");
        assert!(connection.is_closed().await);
    }
    assert!(gate.sample.seen().is_empty());
    assert_no_secret_recorded(&gate, &["hunter2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_closes_a_known_route_with_one_word() {
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("policies");
    std::fs::create_dir_all(folder.join("rocketchat")).unwrap();
    for (path, text) in BUILT_IN.iter().filter(|(path, _)| path.starts_with("rocketchat/")) {
        let (before, after) = text.split_once("\"GET /api/v1/users.listByStatus\"").unwrap_or((text, ""));
        let closed = after.replacen("then = \"forward\"", "then = \"deny\"", 1);
        let route = if after.is_empty() { "" } else { "\"GET /api/v1/users.listByStatus\"" };
        std::fs::write(folder.join(path), format!("{before}{route}{closed}")).unwrap();
    }
    let gate = builder.with(|config| config.policies.directory = Some(folder)).start();
    let mut connection = gate.connect().await;
    for (method, target, status, reason) in [
        ("GET", "/api/v1/users.listByStatus?count=1", 403, Reason::RouteUnlisted),
        ("HEAD", "/api/v1/users.listByStatus", 403, Reason::RouteUnlisted),
        ("GET", "/api/v1/users.listbystatus", 400, Reason::TargetAmbiguous),
        ("GET", "/api/v1/users.listByStatus/", 400, Reason::TargetAmbiguous),
    ] {
        assert_eq!(connection.request(method, target, &login("alice"), b"").await.status, status, "{target}");
        assert_denied(&gate, reason);
    }
    assert!(gate.sample.seen().is_empty());
    connection.get("/api/v1/users.list", &login("alice")).await;
    assert_eq!(gate.sample.count("/api/v1/users.list"), 1, "its neighbour stays open");
}
