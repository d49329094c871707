//! How many lookups there are at once, over which connections they go, and what happens when the upstream is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rolegate::demo::{Behaviour, Sample};

use super::{INFO, ME, about_bob, seen};
use crate::support::gate::{bearer, login};
use crate::support::{Connection, Gate, GateBuilder, until};
use rolegate::demo::world::account::{ACCOUNT, ROOM};

const UNAVAILABLE: &str =
    r#"{"success":false,"error":"Service unavailable [error-service-unavailable]","errorType":"error-service-unavailable"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn more_lookups_than_allowed_at_once_are_refused_and_those_under_way_are_not_disturbed() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.limits.lookups = 1).start();
    let hold = gate.sample.hold(ME);
    let address = gate.address();
    let bob = tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &login("bob")).await });
    hold.until_waiting(1).await;
    let refused = gate.get(&about_bob(), &login("eve")).await;
    assert_eq!((refused.status, refused.text().as_str()), (503, UNAVAILABLE));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(gate.last_decision()["reason"], "overloaded");
    assert_eq!(gate.sample.count(ME), 1);
    let again = tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &login("bob")).await });
    hold.release();
    assert_eq!(bob.await.unwrap().status, 200);
    assert_eq!(again.await.unwrap().status, 200, "waiting for the lookup of another takes no place");
    assert_eq!(gate.get(&about_bob(), &login("eve")).await.status, 200, "the place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_the_lookups() {
    let gate = GateBuilder::rocketchat()
        .await
        .with(|config| {
            config.limits.lookups_per_address = 1;
            config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .start();
    let from = |name: &str, address: &str| {
        let mut headers = login(name);
        headers.push(("X-Forwarded-For", address.to_owned()));
        headers
    };
    let hold = gate.sample.hold(ME);
    let address = gate.address();
    let bob = from("bob", "192.0.2.1");
    let first = tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &bob).await });
    hold.until_waiting(1).await;
    let neighbour = gate.get(&about_bob(), &from("eve", "192.0.2.1")).await;
    assert_eq!((neighbour.status, gate.last_decision()["reason"].as_str()), (503, Some("overloaded")));
    let carol = from("carol", "192.0.2.2");
    let other = tokio::spawn(async move { Connection::open(address).await.get(&about_bob(), &carol).await });
    hold.until_waiting(2).await;
    hold.release();
    assert_eq!((first.await.unwrap().status, other.await.unwrap().status), (200, 200));
}

/// The headers of one of the sample's many ordinary users.
fn member(number: usize) -> Vec<(&'static str, String)> {
    vec![("X-User-Id", format!("crowd{number:012}")), ("X-Auth-Token", format!("member{number:03}-token"))]
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_share_pooled_connections_and_survive_the_server_hanging_up() {
    let gate = Gate::rocketchat().await;
    gate.sample.with(|world| world.workspace.crowd(50));
    let mut connection = gate.connect().await;
    for number in 1..=50 {
        assert_eq!(connection.get(&about_bob(), &member(number)).await.status, 200);
    }
    let connections = gate.sample.connections();
    // The engine now and then takes a new one although there is one in the pool.
    assert!(connections < 50, "for 50 lookups and 50 requests: {connections}");
    gate.sample.hang_up();
    assert_eq!(connection.get(&about_bob(), &login("carol")).await.status, 200);
    assert_eq!(gate.sample.count(ME), 51);
}

/// Asks as one new member after the other, each time with a pooled connection at hand that will break as `breaking` says,
/// until one of them was tried twice; the answer to that one. The engine may not take the pooled connection at once, and
/// a new one that breaks is not tried again.
async fn tried_twice(gate: &Gate, breaking: impl Fn() -> Behaviour) -> u16 {
    gate.sample.with(|world| world.workspace.crowd(100));
    let mut connection = gate.connect().await;
    for number in (1..100).step_by(2) {
        gate.sample.calm();
        assert_eq!(connection.get(&about_bob(), &member(number)).await.status, 200);
        gate.sample.behave(ME, breaking());
        gate.sample.forget();
        let answer = connection.get(&about_bob(), &member(number + 1)).await;
        match gate.sample.count(ME) {
            1 => assert_eq!(answer.status, 503, "a new connection that breaks is a failure"),
            2 => return answer.status,
            more => panic!("tried {more} times"),
        }
    }
    panic!("no pooled connection was ever used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_breaks_is_worth_one_more_try_on_a_new_one() {
    let gate = Arc::new(Gate::rocketchat().await);
    // The server closes when it has read the request: no look at the connection beforehand could have told.
    let once = || {
        let (first, weak) = (AtomicBool::new(true), Arc::downgrade(&gate));
        Behaviour::call(move |_| {
            if first.swap(false, Ordering::SeqCst) {
                weak.upgrade().unwrap().sample.hang_up();
            }
        })
    };
    assert_eq!(tried_twice(&gate, once).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_again_is_not_tried_a_third_time() {
    let gate = Gate::rocketchat().await;
    assert_eq!(tried_twice(&gate, || Behaviour::Close).await, 503);
    assert_eq!(gate.last_decision()["reason"], "facts_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_found_by_its_name() {
    let gate = GateBuilder::rocketchat()
        .await
        .upstream(|upstream| upstream.url = format!("http://localhost:{}", upstream.url.port).parse().unwrap())
        .start();
    // The name is resolved in the background; until then the caller cannot be looked up.
    let mut connection = gate.connect().await;
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while connection.get(&about_bob(), &login("bob")).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "{}", gate.last_decision());
    }
    assert_eq!(seen(&gate, ME)[0].header("host"), Some(gate.address().to_string().as_str()), "the client's, as it is sent on");
    assert_eq!(gate.sample.count(INFO), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_an_address_is_an_upstream_that_is_not_there() {
    let gate = GateBuilder::rocketchat()
        .await
        .upstream(|upstream| upstream.url = "http://nowhere.invalid:3000".parse().unwrap())
        .start();
    let answer = gate.get(&about_bob(), &login("bob")).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, UNAVAILABLE));
    assert_eq!(gate.last_decision()["reason"], "facts_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_told_in_its_own_words_and_recorded() {
    let mut gate = Gate::rocketchat().await;
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    drop(std::mem::replace(&mut gate.sample, Sample::rocketchat().await.unwrap()));

    let unknown = gate.get(&about_bob(), &login("eve")).await;
    assert_eq!((unknown.status, unknown.text().as_str()), (503, UNAVAILABLE));
    assert_eq!(unknown.header("pragma"), Some("no-cache"));
    let record = gate.last_decision();
    assert_eq!((record["decision"].as_str(), record["reason"].as_str()), (Some("deny"), Some("facts_unavailable")));
    assert_eq!(unknown.header("x-request-id"), record["id"].as_str());

    let known = gate.get(&about_bob(), &login("bob")).await;
    assert_eq!((known.status, known.text().as_str()), (502, UNAVAILABLE));
    for (name, value) in [("content-type", "application/json"), ("cache-control", "no-store"), ("pragma", "no-cache")] {
        assert_eq!(known.header(name), Some(value), "{name}");
    }
    let record = gate.last_decision();
    assert_eq!((record["decision"].as_str(), known.header("x-request-id")), (Some("permit"), record["id"].as_str()));
    assert_eq!(gate.outcome(&record["id"]).await["status"], 502);
    assert_eq!(gate.metric("rolegate_upstream_errors_total{kind=\"connect\",provider=\"rocketchat\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_server_that_is_down_is_told_in_docusigns_words() {
    let gone = {
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.local_addr().unwrap()
    };
    let gate = GateBuilder::docusign()
        .await
        .upstream(|upstream| upstream.account = Some(format!("http://{gone}").parse().unwrap()))
        .start();
    let answer = gate.get(&format!("/restapi/v2/accounts/{ACCOUNT}/rooms/{ROOM}/users"), &bearer("bob")).await;
    assert_eq!((answer.status, answer.json()["errorCode"].as_str()), (503, Some("ROLEGATE_UNAVAILABLE")));
    assert_eq!(answer.json()["referenceId"], gate.last_decision()["id"]);
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_answer_a_permitted_request_is_a_504_and_one_that_breaks_off_a_502() {
    let gate = GateBuilder::rocketchat()
        .await
        .upstream(|upstream| {
            upstream.first_byte_timeout = Duration::from_millis(300);
            upstream.read_timeout = Duration::from_millis(300);
        })
        .start();
    let _hold = gate.sample.hold(INFO);
    let late = gate.get(&about_bob(), &login("bob")).await;
    assert_eq!((late.status, late.text().as_str()), (504, UNAVAILABLE));
    gate.sample.behave(INFO, Behaviour::Close);
    let broken = gate.get(&about_bob(), &login("bob")).await;
    assert_eq!((broken.status, broken.text().as_str()), (502, UNAVAILABLE));
    let mut statuses = Vec::new();
    for record in gate.records_of("decision") {
        assert_eq!(record["decision"], "permit");
        statuses.push(gate.outcome(&record["id"]).await["status"].as_u64().unwrap());
    }
    assert_eq!(statuses, [504, 502]);
    until("both to be counted", || (gate.records_of("outcome").len() == 2).then_some(())).await;
}
