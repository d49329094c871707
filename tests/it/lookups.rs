//! What is asked of the upstream about a caller, how often, and what a failure means.

mod bounds;
mod drops;
mod failures;
mod matrix;
mod questions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rolegate::demo::Seen;
use rolegate::demo::world::workspace::{BOARDROOM, BOB, TOWN_SQUARE};

use crate::support::gate::login;
use crate::support::{Answer, Connection, Gate, GateBuilder};

const ME: &str = "/api/v1/me";
const PERMISSIONS: &str = "/api/v1/permissions.listAll";
const ROLES: &str = "/api/v1/roles.list";
const SUBSCRIPTION: &str = "/api/v1/subscriptions.getOne";
const INFO: &str = "/api/v1/users.info";

/// A guarded request that needs the caller and the permissions, and no fact.
fn about_bob() -> String {
    format!("{INFO}?userId={BOB}")
}

/// One that needs a fact about the caller and a room, too.
fn roles_of(room: &str) -> String {
    format!("/api/v1/rooms.roles?rid={room}")
}

/// A gate whose bounds of time are far off: what is counted here must not depend on how fast the machine is.
async fn patient() -> Gate {
    let far = Duration::from_secs(60);
    let builder = GateBuilder::rocketchat().await.upstream(|upstream| upstream.connect_timeout = far);
    builder.with(|config| config.facts.lookup_timeout = far).start()
}

/// The built-in policies in a folder of their own, with `from` in a provider file replaced by `to`.
fn policies_with(folder: &Path, provider: &str, from: &str, to: &str) -> std::path::PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let copy = folder.join("policies");
    for name in ["rocketchat", "docusign-rooms"] {
        std::fs::create_dir_all(copy.join(name)).unwrap();
        for file in std::fs::read_dir(built_in.join(name)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.join(name).join(file.file_name())).unwrap();
        }
    }
    let file = copy.join(provider).join("provider.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(file, text.replace(from, to)).unwrap();
    copy
}

/// `count` requests at once, each on a connection of its own, that all wait for what `hold` holds back.
async fn at_once(gate: &Gate, count: usize, target: &str, headers: &[(&'static str, String)]) -> Vec<Answer> {
    open_files(4 * count);
    let hold = gate.sample.hold(ME);
    let asking: Vec<_> = (0..count)
        .map(|_| {
            let (address, target, headers) = (gate.address(), target.to_owned(), headers.to_vec());
            tokio::spawn(async move { Connection::open(address).await.get(&target, &headers).await })
        })
        .collect();
    // Every one of them has been read by the gate, and none has an answer, before the lookup gets one.
    crate::support::until("all requests to arrive", || {
        (gate.running.as_ref()?.gate().open.load(std::sync::atomic::Ordering::Acquire) >= count).then_some(())
    })
    .await;
    hold.until_waiting(1).await;
    assert!(asking.iter().all(|task| !task.is_finished()), "nobody is answered before the lookup is");
    hold.release();
    let mut answers = Vec::new();
    for task in asking {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Lets this process have `wanted` files open, as far as its hard limit goes.
fn open_files(wanted: usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    if soft < wanted {
        let id = std::process::id().to_string();
        let raised = std::process::Command::new("prlimit").args(["--pid", &id, &format!("--nofile={wanted}:")]).status();
        assert!(raised.is_ok_and(|status| status.success()), "the stories need {wanted} open files");
    }
}

/// What reached the upstream at `path`.
fn seen(gate: &Gate, path: &str) -> Vec<Seen> {
    gate.sample.seen().into_iter().filter(|seen| seen.path == path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_with_one_new_credential_cause_one_lookup_of_each_kind() {
    let gate = patient().await;
    let target = "/api/v1/roles.getUsersInRole?role=auditor";
    let answers = at_once(&gate, 1000, target, &login("alice")).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{:?}", answers.iter().find(|answer| answer.status != 200));
    for (path, times) in [(ME, 1), (PERMISSIONS, 1), (ROLES, 1), (SUBSCRIPTION, 0), ("/api/v1/roles.getUsersInRole", 1000)] {
        assert_eq!(gate.sample.count(path), times, "{path}");
    }
    let count = |outcome| format!("rolegate_fact_lookups_total{{fact=\"caller\",outcome=\"{outcome}\",provider=\"rocketchat\"}}");
    assert_eq!(gate.metric(&count("miss")).await, 1.0);
    assert_eq!(gate.metric(&count("coalesced")).await + gate.metric(&count("hit")).await, 999.0);
    assert_eq!(gate.records_of("decision").len(), 1000, "each has a record of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_with_one_refused_credential_cause_one_lookup_and_reach_the_upstream_never() {
    let gate = patient().await;
    let stolen = vec![("X-User-Id", BOB.to_owned()), ("X-Auth-Token", "stolen-and-revoked".to_owned())];
    let answers = at_once(&gate, 1000, &about_bob(), &stolen).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    assert_eq!(answers[0].text(), r#"{"status":"error","message":"You must be logged in to do this."}"#);
    assert_eq!(gate.get(&about_bob(), &stolen).await.status, 401, "it is remembered");
    assert_eq!(gate.sample.seen().len(), 1, "one lookup, and nothing else at all");
    assert_eq!(gate.sample.count(ME), 1);
    assert!(gate.records_of("decision").iter().all(|record| record["reason"] == "credential_refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_about_one_room_ask_about_it_once() {
    let gate = patient().await;
    let answers = at_once(&gate, 1000, &roles_of(TOWN_SQUARE), &login("eve")).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    for path in [ME, PERMISSIONS, SUBSCRIPTION, "/api/v1/rooms.info"] {
        assert_eq!(gate.sample.count(path), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_reaches_the_upstream_never_and_costs_a_known_caller_no_lookup() {
    let gate = Arc::new(Gate::rocketchat().await);
    let mut connection = gate.connect().await;
    assert_eq!(connection.get(&about_bob(), &login("eve")).await.status, 200);
    gate.sample.forget();
    for target in [
        "/api/v1/audit/rooms.members?roomId=GENERAL".to_owned(),
        "/api/v1/roles.getUsersInRole?role=admin".to_owned(),
        format!("{INFO}?userId={BOB}&token=x"),
        format!("/api/v1/rooms%2Eroles?rid={BOARDROOM}"),
    ] {
        assert!(matches!(connection.get(&target, &login("eve")).await.status, 400 | 403), "{target}");
    }
    assert_eq!(connection.get(&about_bob(), &[]).await.status, 401);
    let asked: Vec<String> = gate.sample.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(asked, [ROLES], "the scope of the role that eve asked for is a table, which nobody had asked for");
}
