//! Lookups go to the virtual host that requests go to.

use rolegate::demo::world::account::{ACCOUNT, ROOM};
use rolegate::demo::world::workspace::BOARDROOM;

use crate::support::gate::{bearer, login};
use crate::support::{Connection, Gate, GateBuilder};

fn hosts(gate: &Gate) -> Vec<String> {
    let mut hosts: Vec<String> =
        gate.sample.seen().iter().map(|seen| seen.header("host").unwrap_or_default().to_owned()).collect();
    hosts.dedup();
    hosts
}

/// Asks for the roles of a room at `host`.
async fn ask(gate: &Gate, host: &str) -> u16 {
    let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
    let login: String = login("bob").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{login}\r\n");
    let mut connection = Connection::open(gate.address()).await;
    connection.send(request.as_bytes()).await;
    connection.answer("GET").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_carries_the_host_that_the_request_is_forwarded_with() {
    let gate = Gate::rocketchat().await;
    assert_eq!(ask(&gate, "chat.example.org").await, 200);
    assert_eq!(hosts(&gate), ["chat.example.org"], "every lookup and the request itself");
    assert_eq!(gate.sample.count("/api/v1/me"), 1);
    gate.sample.forget();
    assert_eq!(ask(&gate, "chat.example.org").await, 200);
    assert_eq!(gate.sample.count("/api/v1/me"), 0, "known");
    assert_eq!(ask(&gate, "other.example.org").await, 200);
    assert_eq!(gate.sample.count("/api/v1/me"), 1, "what one server says of a caller says nothing about another");
    gate.sample.forget();
    assert_eq!(ask(&gate, "other.example.org").await, 200);
    assert_eq!(hosts(&gate), ["other.example.org"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_host_is_the_one_that_lookups_carry_however_clients_spell_it() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.host = Some("chat.example.org".into())).start();
    assert_eq!(ask(&gate, "CHAT.example.org").await, 200);
    assert_eq!(ask(&gate, "chat.example.org:8080").await, 200);
    assert_eq!(gate.sample.count("/api/v1/me"), 1, "one server, one caller");
    let of_lookups: Vec<String> = gate
        .sample
        .seen()
        .iter()
        .filter(|seen| seen.path != "/api/v1/rooms.roles")
        .map(|seen| seen.header("host").unwrap().to_owned())
        .collect();
    assert!(of_lookups.iter().all(|host| host == "chat.example.org"), "{of_lookups:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_by_its_own_host_is_asked_by_it() {
    let gate = Gate::docusign().await;
    let target = format!("/restapi/v2/accounts/{ACCOUNT}/rooms/{ROOM}/users");
    assert_eq!(gate.get(&target, &bearer("carol")).await.status, 200);
    let own = gate.sample.url().trim_start_matches("http://").to_owned();
    assert_eq!(hosts(&gate), [own]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_a_host_refuses_is_forgotten_there() {
    let gate = Gate::rocketchat().await;
    assert_eq!(ask(&gate, "chat.example.org").await, 200);
    gate.sample.with(|world| world.workspace.revoke("bob-token"));
    assert_eq!(ask(&gate, "chat.example.org").await, 401, "the server's own answer");
    assert_eq!(ask(&gate, "chat.example.org").await, 401);
    assert_eq!(gate.last_decision()["reason"], "credential_refused", "asked again, and refused by the gate");
}
