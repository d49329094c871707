//! Every answer to a judged request names its decision.

use std::time::Duration;

use rolegate::demo::world::workspace::{BOARDROOM, CAROL};
use rolegate::model::Mode;
use serde_json::Value;

use super::recorder::Recorder;
use crate::support::gate::login;
use crate::support::{Answer, Gate};

const ROLES: &str = "/api/v1/rooms.roles";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nx-request-id: twice\r\nContent-Length: 2\r\n\r\nok";

fn ids(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().filter(|(name, _)| name == "x-request-id").map(|(_, value)| value.as_str()).collect()
}

fn last(gate: &Gate) -> Value {
    gate.last_decision()["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_judged_request_carries_the_id_of_its_decision_and_no_other() {
    let call = r#"{"message":"{\"msg\":\"method\",\"id\":\"1\",\"method\":\"getRoomRoles\",\"params\":[\"RID\"]}"}"#;
    let call = call.replace("RID", BOARDROOM);
    // More than the engine keeps of a body.
    let long = call.clone() + &" ".repeat(70_000);
    // What the engine does not take is shown to it in other words.
    let odd = format!("/api/v1/users.info?userId={CAROL}&fields={{\"userRooms\":1}}");
    for (fast, mode) in [(true, Mode::Enforce), (false, Mode::Enforce), (true, Mode::Observe)] {
        let (gate, upstream) =
            Recorder::answering(ANSWER, |config| (config.listen.fast_path, config.upstreams[0].mode) = (fast, mode)).await;
        let mut connection = gate.connect().await;
        for who in ["carol", "eve"] {
            let mut json = login(who);
            json.push(("Content-Type", "application/json".to_owned()));
            for (method, target, fields, body) in [
                ("GET", format!("{ROLES}?rid={BOARDROOM}"), login(who), ""),
                ("HEAD", format!("{ROLES}?rid={BOARDROOM}"), login(who), ""),
                ("GET", format!("{ROLES}?rid[]=a"), login(who), ""),
                ("POST", "/api/v1/method.call/getRoomRoles".to_owned(), json.clone(), call.as_str()),
                ("POST", "/api/v1/method.call/getRoomRoles".to_owned(), json, long.as_str()),
                ("GET", format!("{ROLES}?rid={BOARDROOM}"), login(who), "{}"),
                ("GET", odd.clone(), login(who), ""),
                ("DELETE", ROLES.to_owned(), login(who), ""),
            ] {
                let answer = connection.request(method, &target, &fields, body.as_bytes()).await;
                assert_eq!(ids(&answer), [last(&gate).as_str().unwrap()], "{who} {method} {target} {fast} {mode:?}");
                if answer.header("connection") == Some("close") {
                    connection = gate.connect().await;
                }
            }
        }
        let mut old = gate.connect().await;
        let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        old.send(format!("GET {ROLES}?rid={BOARDROOM} HTTP/1.0\r\nHost: x\r\n{fields}\r\n").as_bytes()).await;
        assert_eq!(ids(&old.answer("GET").await), [last(&gate).as_str().unwrap()]);
        assert!(upstream.seen().len() >= 6, "{}", upstream.seen().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_what_is_not_judged_keeps_the_ids_it_has() {
    for fast in [true, false] {
        let (gate, _upstream) = Recorder::answering(ANSWER, |config| config.listen.fast_path = fast).await;
        for target in ["/avatar/carol", "/api/v1/users.listByStatus"] {
            assert_eq!(ids(&gate.get(target, &login("carol")).await), ["theirs", "twice"], "{target} {fast}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_upstream_names_the_decision_too() {
    for (fast, mode) in [(true, Mode::Enforce), (false, Mode::Enforce), (true, Mode::Observe)] {
        for (told, status) in [("HTTP/1.1 2xx\r\n\r\n", 502), ("", 504)] {
            let (gate, _upstream) = Recorder::answering(told, |config| {
                let settings = &mut config.upstreams[0];
                (config.listen.fast_path, settings.mode) = (fast, mode);
                (settings.read_timeout, settings.first_byte_timeout) = (Duration::from_millis(200), Duration::from_millis(200));
            })
            .await;
            for method in ["GET", "HEAD"] {
                let target = format!("{ROLES}?rid={BOARDROOM}");
                let answer = gate.connect().await.request(method, &target, &login("carol"), b"").await;
                assert_eq!(answer.status, status, "{method} {fast} {mode:?}");
                assert_eq!(ids(&answer), [last(&gate).as_str().unwrap()], "{method} {status} {fast} {mode:?}");
            }
        }
    }
}
