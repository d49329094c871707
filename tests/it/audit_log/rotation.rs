//! Rotation by the usual tool, by the admin listener and by size, and the files that are kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rolegate::audit::Keep;
use rolegate::demo::Sample;
use serde_json::json;

use super::{audit, files, of_kind};
use crate::support::gate::{login, records};
use crate::support::{Connection, GateBuilder, Process, until};

const INFO: &str = "/api/v1/users.info?username=bob";

/// The program before `sample` with this `[audit]` section, its log in the folder `log`.
async fn serving(sample: &Sample, section: &str) -> Process {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\n[audit]\npath = \"log/audit.jsonl\"\n{section}\n",
        sample.url()
    );
    fs::write(folder.path().join("rolegate.toml"), text).unwrap();
    Process::run(folder, &["run", "--config", "rolegate.toml"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_moved_and_reopened_by_sighup_under_traffic_loses_nothing() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = serving(&sample, "").await;
    let log = process.folder.path().join("log");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop, asked) = (process.address, Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(connection.get(INFO, &login("bob")).await.status, 200);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 1..=3 {
        let before = asked.load(Ordering::SeqCst);
        until("requests to be answered", || (asked.load(Ordering::SeqCst) > before + 20).then_some(())).await;
        fs::rename(log.join("audit.jsonl"), log.join(format!("audit.jsonl.{round}"))).unwrap();
        process.signal("-HUP");
        let reopened = || fs::metadata(log.join("audit.jsonl")).is_ok_and(|file| file.len() > 0).then_some(());
        until("a new file", reopened).await;
    }
    stop.store(true, Ordering::SeqCst);
    for task in asking {
        task.await.unwrap();
    }
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let files = files(&log);
    assert_eq!(files.len(), 4);
    assert_eq!(of_kind(&files, &["decision"]).len(), asked.load(Ordering::SeqCst));
    assert_eq!(of_kind(&files, &["loss"]), Vec::<serde_json::Value>::new());
    for file in &files[1..] {
        assert_eq!(of_kind(std::slice::from_ref(file), &["rotated"])[0]["cause"], "moved");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let errors: Vec<String> = process.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert_eq!(errors, Vec::<String>::new());
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let (code, told, _) = audit(&log, &[&["verify"], &names[..]].concat());
    assert!(code == 0 && told.contains("unbroken from the beginning"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_removed_is_still_a_loss() {
    let sample = Sample::rocketchat().await.unwrap();
    let process = serving(&sample, "").await;
    let file = process.folder.path().join("log/audit.jsonl");
    assert_eq!(process.connect().await.get(INFO, &login("bob")).await.status, 200);
    fs::remove_file(&file).unwrap();
    process.signal("-HUP");
    let told = || records(&file).into_iter().find(|record| record["kind"] == "loss");
    assert_eq!(until("a loss record", told).await["removed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_rotates_by_the_admin_listener_and_old_files_go() {
    let keep = Keep { files: Some(2), age: None };
    let mut gate = GateBuilder::rocketchat().await.with(|config| config.audit.keep = keep).start();
    let mut admin = Connection::open(gate.admin()).await;
    for round in 1..=4 {
        assert_eq!(gate.get(INFO, &login("bob")).await.status, 200);
        let answer = admin.request("POST", "/audit/rotate", &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let rotated = answer.json()["rotated"].as_str().unwrap().to_owned();
        assert!(fs::metadata(&rotated).is_ok() && rotated.contains("audit.00000000"), "{rotated}");
        assert_eq!(answer.json()["removed"], json!(i32::from(round > 2)));
    }
    let web_page = [("Origin", "https://evil.example".to_owned())];
    assert_eq!(Connection::open(gate.admin()).await.request("POST", "/audit/rotate", &web_page, b"").await.status, 403);
    assert_eq!(Connection::open(gate.admin()).await.get("/audit/rotate", &[]).await.status, 405);
    assert!(gate.stop().await);
    let files = files(gate.folder.path());
    assert_eq!(files.len(), 3);
    let expired = of_kind(&files, &["expired"]);
    assert_eq!(expired.last().unwrap()["last"].as_u64(), records(&files[0])[0]["seq"].as_u64().map(|seq| seq - 1));
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let (code, told, _) = audit(gate.folder.path(), &[&["verify", "--format", "json"], &names[..]].concat());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["before"]), (0, &json!({ "expired": expired.last().unwrap()["seq"] })), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_configuration_keeps_no_more_files_than_it_says() {
    let sample = Sample::rocketchat().await.unwrap();
    let process = serving(&sample, "rotate_bytes = \"2KiB\"\nkeep = 3\nkeep_age = \"90d\"").await;
    let log = process.folder.path().join("log");
    let mut connection = process.connect().await;
    for _ in 0..30 {
        assert_eq!(connection.get(INFO, &login("bob")).await.status, 200);
    }
    let numbers = || until("the log to remove what is too much", || (fs::read_dir(&log).ok()?.count() == 4).then_some(()));
    // It does so as soon as files have their size, and when it is rotated by hand.
    numbers().await;
    assert_eq!(Connection::open(process.admin).await.request("POST", "/audit/rotate", &[], b"").await.status, 200);
    numbers().await;
    assert!(of_kind(&files(&log), &["expired"]).len() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_rotates_the_log_of_a_running_rolegate_and_of_one_that_has_ended() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut process = serving(&sample, "").await;
    let folder = process.folder.path().to_owned();
    let admin = process.admin.to_string();
    let (code, out, err) = audit(&folder, &["rotate", "--admin", &admin]);
    assert!(code == 0 && out.starts_with("rotated to ") && out.contains("audit.00000000000000000001.jsonl"), "{out}{err}");
    let (code, _, err) = audit(&folder, &["rotate", "log/audit.jsonl"]);
    assert!(code == 74 && err.contains("another process") && err.contains("without FILE"), "{code}: {err}");
    process.terminate();
    assert_eq!(process.exit().await, 0);
    let (code, _, err) = audit(&folder, &["rotate", "--admin", &admin]);
    assert!(code == 1 && err.contains(&admin), "{code}: {err}");
    let (code, out, _) = audit(&folder, &["rotate", "--format", "json", "log/audit.jsonl"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["rotated"]), (0, &json!("log/audit.00000000000000000002.jsonl")));
    let (code, _, err) = audit(&folder, &["rotate", "log/nope.jsonl"]);
    assert!(code == 2 && err.contains("there is no such file"), "{code}: {err}");
    assert!(!folder.join("log/nope.jsonl").exists());
    let files = files(&folder.join("log"));
    assert_eq!((files.len(), of_kind(&files, &["rotated"]).len()), (3, 2));
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(audit(&folder, &[&["verify"], &names[..]].concat()).0, 0);
}
