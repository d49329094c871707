//! A lookup whose route the server lacks is told, and is not taken for "no".

use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::demo::{Behaviour, Sample};
use serde_json::{Value, json};

use crate::support::gate::login;
use crate::support::{Connection, Gate, Process, until};

const INFO: &str = "/api/v1/rooms.info";
const LOOKUP: &str = "GET /api/v1/rooms.info?roomId={room}";

/// As newer servers answer what is no route, and as proxies do.
fn nowhere(body: &str) -> Behaviour {
    Behaviour::Answer { status: 404, headers: vec![("content-type".into(), "text/plain".into())], body: body.to_owned().into() }
}

async fn missing(admin: std::net::SocketAddr) -> Value {
    let status: Value = serde_json::from_str(&Connection::open(admin).await.get("/status", &[]).await.text()).unwrap();
    status["upstreams"][0]["missing_routes"].clone()
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
