//! Methods on a guarded path: HEAD is a GET, a preflight asks nothing, and everything else is refused.

use rolegate::demo::world::account::ACCOUNT;
use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::model::Reason;

use super::{NO_PERMISSION, assert_denied, assert_refusal, assert_refusal_headers};
use crate::support::Gate;
use crate::support::gate::{bearer, login};

const NOT_ALLOWED: &str =
    r#"{"success":false,"error":"Method not allowed [error-method-not-allowed]","errorType":"error-method-not-allowed"}"#;
const GUARDED: [&str; 4] =
    ["/api/v1/audit/rooms.members", "/api/v1/roles.getUsersInRole", "/api/v1/rooms.roles", "/api/v1/users.info"];

fn room() -> String {
    format!("/api/v1/rooms.roles?rid={BOARDROOM}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_judged_like_a_get_and_sent_as_a_head() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let answer = connection.request("HEAD", &room(), &login("carol"), b"").await;
    assert_eq!(answer.status, 200);
    let record = gate.last_decision();
    assert_eq!((&record["decision"], &record["method"]), (&"permit".into(), &"HEAD".into()), "{record}");
    let seen: Vec<_> = gate.sample.seen().into_iter().filter(|seen| seen.path == "/api/v1/rooms.roles").collect();
    assert_eq!(seen.iter().map(|seen| seen.method.as_str()).collect::<Vec<_>>(), ["HEAD"]);
    assert_eq!(connection.get(&room(), &login("carol")).await.status, 200, "the connection is in step");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_has_the_head_of_the_refused_get_and_no_body() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    for (target, who, status, reason) in [
        (room(), "eve", 403, Reason::PolicyDenied),
        ("/api/v1/rooms.roles".to_owned(), "eve", 400, Reason::ParamMissing),
        (room().replace("rooms.roles", "Rooms.Roles"), "eve", 400, Reason::TargetAmbiguous),
    ] {
        let head = connection.request("HEAD", &target, &login(who), b"").await;
        let record = assert_denied(&gate, reason);
        let get = connection.get(&target, &login(who)).await;
        assert_eq!((head.status, get.status), (status, status));
        assert_refusal_headers(&head, get.body.len(), record["id"].as_str().unwrap());
    }
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_goes_on_without_credentials_and_without_a_record() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    for path in GUARDED {
        let mut headers = login("carol");
        headers.extend([
            ("Origin", "https://app.example.org".to_owned()),
            ("Access-Control-Request-Method", "GET".to_owned()),
            ("Access-Control-Request-Headers", "x-auth-token".to_owned()),
            ("Authorization", "Bearer carol-oauth".to_owned()),
            ("Cookie", "rc_token=carol-token".to_owned()),
        ]);
        connection.request("OPTIONS", &format!("{path}?rid=a"), &headers, b"").await;
        let seen = gate.sample.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.target), ("OPTIONS", format!("{path}?rid=a")));
        assert_eq!(seen.headers["origin"], "https://app.example.org");
        assert_eq!(seen.headers["access-control-request-headers"], "x-auth-token");
        for name in ["x-user-id", "x-auth-token", "authorization", "cookie"] {
            assert!(!seen.headers.contains_key(name), "{name} went on");
        }
    }
    assert_eq!(gate.sample.seen().len(), GUARDED.len(), "and nothing was looked up");
    assert!(gate.records_of("decision").is_empty() && gate.records_of("outcome").is_empty());
    let page = gate.admin_get("/metrics").await.text();
    let counted = |line: &&str| line.starts_with("rolegate_requests_total{action=\"none\"") && line.ends_with(" 4");
    assert_eq!(page.lines().filter(counted).count(), 1, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_options_is_refused() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let origin = ("Origin", "https://app.example.org".to_owned());
    let method = ("Access-Control-Request-Method", "GET".to_owned());
    for (headers, body) in [
        (vec![], &b""[..]),
        (vec![origin.clone()], b""),
        (vec![method.clone()], b""),
        (vec![origin.clone(), method.clone()], b"{}"),
    ] {
        let answer = connection.request("OPTIONS", &room(), &headers, body).await;
        let record = assert_denied(&gate, Reason::MethodNotDeclared);
        assert_refusal(&answer, 405, NOT_ALLOWED, record["id"].as_str().unwrap());
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_method_reaches_a_guarded_path() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    for path in GUARDED {
        for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get", "Get", "QUERY"] {
            let body: &[u8] = if method.starts_with('P') { b"{\"rid\":\"a\"}" } else { b"" };
            let answer = connection.request(method, &format!("{path}?rid=a"), &login("alice"), body).await;
            let record = assert_denied(&gate, Reason::MethodNotDeclared);
            assert_eq!(record["method"], method);
            assert_refusal(&answer, 405, NOT_ALLOWED, record["id"].as_str().unwrap());
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_method_beside_a_guarded_one_goes_on_and_is_named_in_allow() {
    let gate = Gate::docusign().await;
    let mut connection = gate.connect().await;
    for prefix in ["", "/restapi"] {
        let target = format!("{prefix}/v2/accounts/{ACCOUNT}/rooms/1234/users");
        // The upstream may answer before it has read the body, and such a connection ends.
        gate.connect().await.request("POST", &target, &bearer("bob"), b"{\"email\":\"a@example.org\"}").await;
        assert_eq!(gate.sample.seen().pop().unwrap().method, "POST");
        assert!(gate.records_of("decision").is_empty(), "the upstream judges that");
    }
    let before = gate.sample.seen().len();
    let answer = connection.request("PUT", &format!("/v2/accounts/{ACCOUNT}/rooms/1234/users"), &bearer("bob"), b"{}").await;
    let record = assert_denied(&gate, Reason::MethodNotDeclared);
    let id = record["id"].as_str().unwrap();
    let body =
        format!(r#"{{"errorCode":"ROLEGATE_METHOD_NOT_ALLOWED","message":"The method is not allowed.","referenceId":"{id}"}}"#);
    assert_refusal(&answer, 405, &body, id);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST"));
    assert_eq!(gate.sample.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_refused_everywhere() {
    let gate = Gate::rocketchat().await;
    for target in [room(), "/home".to_owned()] {
        assert_eq!(gate.connect().await.request("TRACE", &target, &login("carol"), b"").await.status, 400);
        assert_denied(&gate, Reason::FramingInvalid);
    }
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_cannot_name_another_method_or_target() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    for (name, value) in [
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "POST"),
        ("X-Method-Override", "POST"),
        ("X-Original-URL", "/api/v1/users.info?userId=a"),
        ("X-Rewrite-URL", "/api/v1/users.info?userId=a"),
        ("X_Original_URL", "/home"),
        ("X_Auth_Token", "bob-token"),
        ("X.User.Id", "bob"),
        ("Connection", "close, X-Auth-Token"),
        ("Connection", "authorization"),
    ] {
        let mut headers = login("eve");
        headers.push((name, value.to_owned()));
        // On an open route of the guarded space, too: the header could lead to a guarded one.
        for target in [room(), "/api/v1/channels.list".to_owned()] {
            assert_eq!(connection.get(&target, &headers).await.status, 400, "{name}: {value}");
            assert_denied(&gate, Reason::HeaderAmbiguous);
            connection = gate.connect().await;
        }
    }
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_refused_request_is_no_request() {
    let gate = Gate::rocketchat().await;
    let hidden = b"GET /hidden HTTP/1.1\r\nHost: chat\r\n\r\n";
    for (method, who, status) in [("GET", "eve", 403), ("POST", "eve", 405), ("DELETE", "carol", 405)] {
        let mut connection = gate.connect().await;
        assert_eq!(connection.request(method, &room(), &login(who), hidden).await.status, status);
        let next = connection.get(&room(), &login("eve")).await;
        assert_eq!((next.status, next.text().as_str()), (403, NO_PERMISSION), "the answer to the next request");
    }
    assert_eq!(gate.sample.count("/hidden"), 0);
}
