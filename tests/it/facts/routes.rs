//! A lookup whose route the server lacks is told, and is not taken for "no".

use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::demo::{Behaviour, Sample};
use serde_json::{Value, json};

use crate::support::gate::login;
use crate::support::{Connection, Gate, Process, Program, until};

const INFO: &str = "/api/v1/rooms.info";
const LOOKUP: &str = "GET /api/v1/rooms.info?roomId={room}";

/// As newer servers answer what is no route, and as proxies do.
fn nowhere(body: &str) -> Behaviour {
    Behaviour::Answer { status: 404, headers: vec![("content-type".into(), "text/plain".into())], body: body.to_owned().into() }
}

async fn upstream(admin: std::net::SocketAddr) -> Value {
    let status: Value = serde_json::from_str(&Connection::open(admin).await.get("/status", &[]).await.text()).unwrap();
    status["upstreams"][0].clone()
}

async fn missing(admin: std::net::SocketAddr) -> Value {
    upstream(admin).await["missing_routes"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_whose_route_is_missing_is_unavailable_and_in_the_status_until_it_is_there() {
    let gate = Gate::rocketchat().await;
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    assert_eq!(missing(gate.admin()).await, json!([]));
    for body in ["404 Not Found", "<html>nginx</html>"] {
        gate.sample.behave(INFO, nowhere(body));
        assert_eq!(gate.get(&target, &login("eve")).await.status, 503, "{body}");
        let record = gate.last_decision();
        assert_eq!(record["reason"], "facts_unavailable");
        assert_eq!(record["detail"], format!("the server has no route `{LOOKUP}`"));
        assert_eq!(missing(gate.admin()).await, json!([LOOKUP]));
    }
    gate.sample.calm();
    assert_eq!(gate.get(&target, &login("eve")).await.status, 403, "an outsider, as the server says");
    assert_eq!(missing(gate.admin()).await, json!([]));
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_route_is_told_at_the_start_before_anybody_asks() {
    let sample = Sample::rocketchat().await.unwrap();
    sample.behave(INFO, nowhere("404 Not Found"));
    let process = Process::before(sample.url(), &[]).await;
    until("the log to name the route", || process.log().contains(LOOKUP).then_some(())).await;
    assert_eq!(missing(process.admin).await, json!([LOOKUP]));
    assert!(process.log().contains("the server has no such route"), "{}", process.log());
    let asked = sample.seen();
    assert!(asked.iter().all(|seen| seen.header("x-auth-token").is_none() && seen.header("authorization").is_none()));
}

/// What answers at the caller lookup of a server whose paths begin with `/chat`: a router, a page for all paths, a redirect.
fn beside_the_server() -> [(&'static str, Behaviour); 3] {
    let answer = |status, kind: &str, value: &str, body: &'static str| Behaviour::Answer {
        status,
        headers: vec![(kind.to_owned(), value.to_owned())],
        body: body.into(),
    };
    [
        ("answers 404", answer(404, "content-type", "text/plain", "404 page not found")),
        ("answers 200 with a page", answer(200, "content-type", "text/html", "<!doctype html>")),
        ("leads to `/chat/`", answer(302, "location", "/chat/", "")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_not_where_it_is_looked_for_is_told_in_log_and_status_until_it_is() {
    for (why, behaviour) in beside_the_server() {
        let sample = Sample::rocketchat().await.unwrap();
        sample.behave("/api/v1/me", behaviour);
        let process = Process::before(sample.url(), &[]).await;
        let line = until("a line", || process.log().lines().find(|line| line.contains(why)).map(str::to_owned)).await;
        assert!(line.contains("\"WARN\"") && line.contains("path_prefix"), "{line}");
        let told = upstream(process.admin).await["misplaced"].clone();
        assert!(told["why"].as_str().unwrap().contains(why) && told["hint"].as_str().unwrap().contains("path_prefix"), "{told}");
        let shown = Program::new(&["status", "--admin", &process.admin.to_string()]).run();
        assert!(shown.code == 1 && shown.out.contains("look at ") && shown.out.contains("path_prefix"), "{}", shown.out);
        // The same is told once, and the server may only have been about to start.
        sample.calm();
        until("its return", || process.log().contains("the API answers where it is looked for").then_some(())).await;
        assert_eq!(upstream(process.admin).await["misplaced"], Value::Null);
        assert_eq!(process.log().matches("THE API IS NOT WHERE").count(), 1, "{}", process.log());
        assert_eq!(Program::new(&["status", "--admin", &process.admin.to_string()]).run().code, 0);
    }
}
