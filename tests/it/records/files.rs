//! The chain over rotated files and restarts, what tampering looks like, and what happens when there is nowhere to write.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rolegate::audit::{OnFailure, Sink};
use rolegate::demo::world::workspace::BOARDROOM;
use serde_json::{Value, json};

use super::{INFO, about_bob, files};
use crate::support::gate::{login, records};
use crate::support::{Connection, Gate, GateBuilder, PATIENCE, Program, until};

/// `rolegate audit verify` over `files`: its exit code and what it said.
fn verify(files: &[PathBuf]) -> (i32, String) {
    let mut program = Program::new(&["audit", "verify"]);
    program.0.args(files);
    let ended = program.run();
    (ended.code, format!("{}{}", ended.out, ended.err))
}

/// A log of about ten lines, of a gate that has ended.
async fn ended_log() -> (Gate, PathBuf) {
    let mut gate = Gate::rocketchat().await;
    for name in ["bob", "eve", "carol"] {
        gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login(name)).await;
    }
    end(&mut gate).await;
    let file = gate.audit();
    (gate, file)
}

/// Ends the gate and waits until it has let go of its log.
async fn end(gate: &mut Gate) {
    let log = Arc::downgrade(&gate.running.as_ref().unwrap().gate().audit);
    assert!(gate.stop().await);
    until("the log to be closed", || (log.strong_count() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_rotated_under_traffic_are_one_chain() {
    let mut gate = GateBuilder::rocketchat().await.with(|config| config.audit.rotate_bytes = 8 * 1024).start();
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let address = gate.address();
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                for _ in 0..20 {
                    assert_eq!(connection.get(&about_bob(), &login("bob")).await.status, 200);
                    assert_eq!(connection.get(INFO, &login("eve")).await.status, 400);
                }
            })
        })
        .collect();
    for task in asking {
        task.await.unwrap();
    }
    end(&mut gate).await;
    let files = files(gate.folder.path());
    assert!(files.len() > 10, "{}", files.len());
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 8 * 1024), "none is written past its size");
    let all: Vec<Value> = files.iter().flat_map(|file| records(file)).collect();
    assert_eq!(all.iter().filter(|record| record["kind"] == "decision").count(), 320);
    assert_eq!(all.iter().filter(|record| record["kind"] == "outcome").count(), 160);
    let sequence: Vec<u64> = all.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (1..=all.len() as u64).collect::<Vec<_>>());
    let (code, told) = verify(&files);
    assert!(code == 0 && told.contains(&format!("{} records", all.len())), "{code}: {told}");

    let mut missing = files.clone();
    let gone = missing.remove(3);
    let (code, told) = verify(&missing);
    assert!(code == 7 && told.contains(&format!("{}:1:", missing[3].display())), "without {}: {told}", gone.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_any_line_but_the_last_is_found_and_its_line_named() {
    let (_gate, file) = ended_log().await;
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() >= 7, "{whole}");
    assert_eq!(verify(std::slice::from_ref(&file)).0, 0);
    for number in 1..lines.len() {
        let mut bytes = whole.clone().into_bytes();
        let start: usize = lines[..number - 1].iter().map(|line| line.len() + 1).sum();
        let middle = start + lines[number - 1].find("\"kind\":\"").unwrap() + 8;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        let (code, told) = verify(std::slice::from_ref(&file));
        assert!(code == 7 && told.contains(&format!("{}:{number}:", file.display())), "line {number}: {code} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_swapped_and_forged_lines_are_found_and_their_line_named() {
    let (_gate, file) = ended_log().await;
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let count = lines.len();
    let tampered = |lines: &[String]| {
        fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let (code, told) = verify(std::slice::from_ref(&file));
        let line =
            told.split(&format!("{}:", file.display())).nth(1).and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        (code, line.unwrap_or(0))
    };
    let owned = || lines.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();
    for dropped in 1..count - 1 {
        let mut lines = owned();
        lines.remove(dropped);
        assert_eq!(tampered(&lines), (7, dropped + 1), "line {} is gone", dropped + 1);
    }
    for swapped in 1..count - 1 {
        let mut lines = owned();
        lines.swap(swapped, swapped + 1);
        assert_eq!(tampered(&lines), (7, swapped + 1), "line {} was swapped with the next", swapped + 1);
    }
    // Somebody who renumbers what is left still cannot make the hashes fit.
    let mut lines = owned();
    lines.remove(2);
    for (index, line) in lines.iter_mut().enumerate() {
        let seq: Value = serde_json::from_str(line).unwrap();
        *line = line.replacen(&format!("\"seq\":{}", seq["seq"]), &format!("\"seq\":{}", index + 1), 1);
    }
    assert_eq!(tampered(&lines).0, 7);
    // A verdict turned round.
    let mut lines = owned();
    let denied = lines.iter().position(|line| line.contains("\"decision\":\"deny\"")).unwrap();
    lines[denied] = lines[denied].replace("\"deny\"", "\"permit\"");
    assert_eq!(tampered(&lines), (7, denied + 1));
    assert_eq!(tampered(&owned()).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_the_chain_and_mends_a_torn_end() {
    let (gate, file) = ended_log().await;
    let before = records(&file);
    let kinds = |records: &[Value]| records.iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!((kinds(&before).first().unwrap().as_str(), kinds(&before).last().unwrap().as_str()), ("start", "stop"));
    let start = &before[0];
    assert!(start["version"].is_string() && start["policy_revision"].is_string() && start["modes"].is_array(), "{start}");
    assert_eq!(before.last().unwrap()["cut_connections"], 0);

    let path = file.clone();
    let mut again = GateBuilder::rocketchat().await.with(|config| config.audit.sink = Sink::File(path)).start();
    assert_eq!(again.get(&about_bob(), &login("bob")).await.status, 200);
    end(&mut again).await;
    let after = records(&file);
    assert_eq!(kinds(&after[before.len()..]), ["start", "decision", "outcome", "stop"]);
    assert_eq!(after[before.len()]["seq"].as_u64(), Some(before.len() as u64 + 1));

    // The process was killed in the middle of a line.
    let torn = r#"{"v":1,"seq":999,"time":"2026"#;
    fs::write(&file, format!("{}{torn}", fs::read_to_string(&file).unwrap())).unwrap();
    let path = file.clone();
    let mut third = GateBuilder::rocketchat().await.with(|config| config.audit.sink = Sink::File(path)).start();
    end(&mut third).await;
    let last = records(&file);
    assert_eq!(kinds(&last[after.len()..]), ["recovered", "start", "stop"]);
    assert_eq!((&last[after.len()]["bytes"], &last[after.len()]["text"]), (&json!(torn.len()), &json!(torn)));
    assert_eq!(verify(&[file]).0, 0);
    drop(gate);
}

/// Puts a directory where the log was, so that nobody can write there, and gives back where the log is now.
async fn obstruct(gate: &Gate) -> PathBuf {
    let aside = gate.folder.path().join("taken.away");
    fs::rename(gate.audit(), &aside).unwrap();
    fs::create_dir(gate.audit()).unwrap();
    // The log looks for its file once a second, and whenever it is asked whether it is ready.
    assert_eq!(gate.admin_get("/readyz").await.status, 503);
    aside
}

fn reopen(gate: &Gate) {
    fs::remove_dir(gate.audit()).unwrap();
}

fn losses(path: &Path) -> Vec<Value> {
    records(path).into_iter().filter(|record| record["kind"] == "loss").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_record_nothing_is_forwarded() {
    let gate = Gate::rocketchat().await;
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    gate.outcome(&gate.last_decision()["id"]).await;
    let aside = obstruct(&gate).await;
    let held = records(&aside).len() as u64;
    let unavailable =
        r#"{"success":false,"error":"Service unavailable [error-service-unavailable]","errorType":"error-service-unavailable"}"#;
    let mut connection = gate.connect().await;
    for (target, headers) in [(about_bob(), login("bob")), (about_bob(), vec![]), (INFO.to_owned(), login("bob"))] {
        let refused = connection.get(&target, &headers).await;
        assert_eq!((refused.status, refused.text().as_str()), (503, unavailable), "{target}");
        assert_eq!(refused.header("retry-after"), Some("5"));
        assert!(refused.header("x-request-id").is_some());
    }
    assert_eq!(gate.sample.count(INFO), 1, "nothing went on to the server");
    assert_eq!(gate.metric("rolegate_audit_failures_total").await, 3.0);
    let denied = "rolegate_decisions_total{action=\"users.info\",decision=\"deny\",door=\"rest\",mode=\"enforce\",provider=\"rocketchat\",reason=\"audit_unavailable\"}";
    assert_eq!(gate.metric(denied).await, 3.0);
    assert_eq!(connection.get("/api/v1/users.list", &login("bob")).await.status, 200, "what is not guarded goes on");

    reopen(&gate);
    assert_eq!(connection.get(&about_bob(), &login("bob")).await.status, 200);
    assert_eq!(gate.admin_get("/readyz").await.status, 200);
    let told = losses(&gate.audit());
    assert_eq!(told.len(), 1, "the old file was moved, and lost nothing: {told:?}");
    assert_eq!((&told[0]["removed"], &told[0]["records"], &told[0]["on_failure"]), (&json!(false), &json!(3), &json!("deny")));
    let first = &records(&gate.audit())[0];
    assert_eq!((&first["kind"], &first["cause"], first["records"].as_u64()), (&json!("rotated"), &json!("moved"), Some(held)));
    assert_eq!(verify(&[aside, gate.audit()]).0, 0, "and the chain goes on where it was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_says_so_requests_go_on_and_the_loss_is_told_later() {
    let gate = GateBuilder::rocketchat().await.with(|config| config.audit.on_failure = OnFailure::Allow).start();
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    gate.outcome(&gate.last_decision()["id"]).await;
    let aside = obstruct(&gate).await;
    assert_eq!(gate.get(&about_bob(), &login("bob")).await.status, 200);
    assert_eq!(gate.sample.count(INFO), 2, "forwarded without a record");
    assert_eq!(gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("eve")).await.status, 403, "a verdict stays one");
    // The decision of bob, its outcome, and the denial of eve.
    let deadline = Instant::now() + PATIENCE;
    while gate.metric("rolegate_audit_failures_total").await < 3.0 {
        assert!(Instant::now() < deadline, "a record is missing that is not counted");
    }
    reopen(&gate);
    assert_eq!(gate.admin_get("/readyz").await.status, 200, "an idle gate finds its way back by being asked");
    let told = until("the loss to be told", || losses(&gate.audit()).pop()).await;
    assert_eq!((&told["records"], &told["on_failure"]), (&json!(3), &json!("allow")));
    assert!(told["since"].is_string() && told["cause"].is_string(), "{told}");
    assert_eq!(verify(&[aside, gate.audit()]).0, 0);
}
