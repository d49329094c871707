//! Upstreams that do not answer, and a configuration that is not the one on disk, are told wherever an operator looks.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::demo::{Behaviour, Sample};
use serde_json::{Value, json};

use crate::support::gate::login;
use crate::support::{Connection, Gate, GateBuilder, PATIENCE, Process, Program, until};

const UP: &str = r#"rolegate_upstream_up{provider="rocketchat"}"#;
const GUARDED: &str = "/api/v1/rooms.roles?rid=GENERAL";
const SILENT: &str = "THE UPSTREAM DOES NOT ANSWER";

/// The first server of `/status`, once `wanted` holds for it.
async fn server(gate: &Gate, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let server = gate.admin_get("/status").await.json()["upstreams"][0]["servers"][0].clone();
        if wanted(&server) {
            return server;
        }
        assert!(tokio::time::Instant::now() < deadline, "still waiting: {server}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lines of the process log that hold `text`.
fn lines(program: &Process, text: &str) -> Vec<Value> {
    program.log().lines().filter(|line| line.contains(text)).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_at_the_start_is_told_and_so_is_its_return() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", place.local_addr().unwrap());
    let address = place.local_addr().unwrap();
    drop(place);
    let program = Process::before(&url, &[]).await;
    let told = until("a line about it", || lines(&program, SILENT).pop()).await;
    assert_eq!((&told["level"], &told["url"], &told["upstream"]), (&json!("WARN"), &json!(url), &json!("127.0.0.1")));
    assert!(told["why"].as_str().unwrap().contains("refused"), "{told}");
    // It is no reason to take the gate away from clients.
    let mut admin = Connection::open(program.admin).await;
    assert_eq!(admin.get("/readyz", &[]).await.status, 200);
    assert!(admin.get("/metrics", &[]).await.text().contains(&format!("{UP} 0\n")));
    let shown = Program::new(&["status", "--admin", &program.admin.to_string()]).run();
    assert_eq!(shown.code, 1);
    assert!(shown.out.contains(&format!("{url} DOES NOT ANSWER: ")), "{}", shown.out);
    assert!(shown.out.contains(&format!("look at   {url} does not answer: ")), "{}", shown.out);

    // A hundred requests that fail meanwhile make no further line.
    let mut clients = program.connect().await;
    for _ in 0..100 {
        assert_eq!(clients.get("/api/info", &[]).await.status, 502);
        clients = program.connect().await;
    }
    let _back = TcpListener::bind(address).unwrap();
    let again = until("its return", || lines(&program, "the upstream answers again").pop()).await;
    assert!(again["failed"].as_u64().unwrap() >= 100, "{again}");
    assert_eq!(lines(&program, SILENT).len(), 1);
    until("the metric", || {
        let page = Program::new(&["status", "--admin", &program.admin.to_string()]).run();
        (page.code == 0).then_some(())
    })
    .await;
    assert!(Connection::open(program.admin).await.get("/metrics", &[]).await.text().contains(&format!("{UP} 1\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_shows_at_once_that_the_upstream_went_away() {
    let mut gate = Gate::rocketchat().await;
    gate.until_metric(UP, 1.0).await;
    let since = server(&gate, |server| server["up"] == true).await["since"].clone();
    assert!(since.is_string());
    let sample = std::mem::replace(&mut gate.sample, Sample::docusign().await.unwrap());
    drop(sample);
    assert!(gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await.status >= 502);
    let began = tokio::time::Instant::now();
    let gone = server(&gate, |server| server["up"] == false).await;
    assert!(began.elapsed() < Duration::from_secs(8), "a look every ten seconds would have found it too");
    assert!(gone["why"].as_str().unwrap().starts_with("no connection: "), "{gone}");
    assert_ne!(gone["since"], since);
    gate.until_metric(UP, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_at_an_upstream_that_is_up_leave_one_line() {
    let sample = Sample::rocketchat().await.unwrap();
    let program = Process::before(sample.url(), &[]).await;
    sample.behave("/api/info", Behaviour::Close);
    for _ in 0..30 {
        assert_eq!(program.connect().await.get("/api/info", &[]).await.status, 502);
    }
    let told = until("a line", || lines(&program, "requests to the upstream failed").pop()).await;
    assert_eq!((&told["level"], &told["kind"]), (&json!("WARN"), &json!("broken")));
    for _ in 0..30 {
        assert_eq!(program.connect().await.get("/api/info", &[]).await.status, 502);
    }
    assert_eq!(lines(&program, "requests to the upstream failed").len(), 1);
    assert_eq!(lines(&program, SILENT).len(), 0, "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_connections_and_says_nothing_is_down_until_it_answers() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| {
        upstream.url = format!("http://{address}").parse().unwrap();
        (upstream.first_byte_timeout, upstream.read_timeout) = (Duration::from_millis(200), Duration::from_millis(200));
    });
    let gate = gate.start();
    // The kernel takes the connections of a listener that nobody serves.
    gate.until_metric(UP, 1.0).await;
    assert_eq!(gate.get("/api/info", &[]).await.status, 504);
    let told = server(&gate, |server| server["up"] == false).await;
    assert_eq!(told["why"], "no answer in time");
    gate.until_metric(UP, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_its_own_upstream_says_so_and_does_not_ask_itself() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let gate = GateBuilder::rocketchat().await.with(|config| {
        config.listen.addresses = vec![address];
        config.upstreams[0].url = format!("http://{address}").parse().unwrap();
    });
    let gate = gate.start();
    let told = server(&gate, |server| server["up"] == false).await;
    assert!(told["why"].as_str().unwrap().starts_with("it is this rolegate itself"), "{told}");
    assert!(gate.metric("rolegate_connections").await < 3.0);
    // What is sent there would come back: on the fast path, through the engine, and as a lookup.
    for (method, target, status) in [("GET", "/api/info", 502), ("POST", "/api/info", 502), ("GET", GUARDED, 503)] {
        let answer = gate.connect().await.request(method, target, &login("carol"), b"").await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    }
    assert!(gate.metric("rolegate_connections").await < 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_plain_port_and_an_unknown_name_are_told_for_what_they_are() {
    for (url, why) in [("https", "no TLS: "), ("unknown", "`no-such-host.invalid` has no address")] {
        let builder = GateBuilder::rocketchat().await;
        let plain = builder.sample.url().trim_start_matches("http://").to_owned();
        let url = if url == "https" { format!("https://{plain}") } else { "http://no-such-host.invalid".to_owned() };
        let gate = builder.upstream(|upstream| upstream.url = url.parse().unwrap()).start();
        let told = server(&gate, |server| server["up"] == false).await;
        assert!(told["why"].as_str().unwrap().starts_with(why), "{told}");
        assert_eq!(told["url"], url);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_was_edited_is_told_in_log_metric_and_status_until_it_is_as_before() {
    let sample = Sample::rocketchat().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[admin]\ntoken_file = \"admin.token\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"{}\"\nmode = \"observe\"\n",
        sample.url()
    );
    let file = folder.path().join("rolegate.toml");
    fs::write(&file, &config).unwrap();
    fs::write(folder.path().join("admin.token"), "0123456789abcdef").unwrap();
    let program = Process::run(folder, &["run", "--config", "rolegate.toml"]).await;
    let admin = program.admin.to_string();
    let metric = |value: &'static str| {
        let admin = program.admin;
        async move {
            let line = format!("\nrolegate_config_matches_disk {value}\n");
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while !Connection::open(admin).await.get("/metrics", &[]).await.text().contains(&line) {
                assert!(tokio::time::Instant::now() < deadline, "still waiting: {line}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    metric("1").await;
    const TOLD: &str = "rolegate.toml differs from what runs; restart to use it";
    assert_eq!(lines(&program, TOLD).len(), 0);
    fs::write(&file, config.replace("observe", "enforce")).unwrap();
    metric("0").await;
    until("a line about it", || (lines(&program, TOLD).len() == 1).then_some(())).await;
    // Who sends the signal is told again.
    program.signal("-HUP");
    until("a line for the signal", || (lines(&program, TOLD).len() == 2).then_some(())).await;
    let reloaded = Connection::open(program.admin).await.request("POST", "/reload", &[], b"").await.json();
    assert_eq!(reloaded["config"], json!({ "matches_disk": false, "differing": ["rolegate.toml"], "fault": null }));
    let shown = Program::new(&["status", "--admin", &admin]).run();
    assert_eq!(shown.code, 1);
    assert!(shown.out.contains(&format!("look at   {TOLD}")), "{}", shown.out);
    assert!(shown.out.contains("NOTHING IS ENFORCED"), "{}", shown.out);
    fs::write(&file, &config).unwrap();
    metric("1").await;
    assert_eq!(Program::new(&["status", "--admin", &admin]).run().code, 0);
    // One that a restart would fail with is told as that: with faults, gone, or a folder.
    for (break_it, why) in [
        ((|file| fs::write(file, "[[upstream]]\nmode = 1\n").unwrap()) as fn(&Path), "rolegate.toml:"),
        (|file| fs::remove_file(file).unwrap(), "No such file"),
        (|file| fs::create_dir(file).unwrap(), "irectory"),
    ] {
        break_it(&file);
        let before = lines(&program, "a restart would fail").len();
        program.signal("-HUP");
        let told = until("a line about it", || {
            lines(&program, "a restart would fail").into_iter().skip(before).find(|line| line.to_string().contains(why))
        });
        assert_eq!(told.await["level"], "ERROR");
        let shown = Program::new(&["status", "--admin", &admin]).run();
        assert!(shown.code == 1 && shown.out.contains("differs from what runs, and a restart would fail: "), "{}", shown.out);
        assert!(!shown.out.contains("restart to use it"), "{}", shown.out);
    }
    fs::remove_dir(&file).unwrap();
    fs::write(&file, &config).unwrap();
    metric("1").await;
    // What it names and is read at the start only counts too.
    fs::write(program.folder.path().join("admin.token"), "fedcba9876543210").unwrap();
    metric("0").await;
    until("a line about the token", || lines(&program, "admin.token differs from what runs").pop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_at_the_admin_listener_names_every_path_and_no_other() {
    let gate = Gate::rocketchat().await;
    let page = gate.admin_get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/plain")));
    let listed: Vec<(String, String)> = page
        .text()
        .lines()
        .filter(|line| line.starts_with("GET ") || line.starts_with("POST "))
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
        })
        .collect();
    assert_eq!(listed.len(), 7);
    for (method, path) in listed {
        let status = Connection::open(gate.admin()).await.request(&method, &path, &[], b"").await.status;
        assert!(![404, 405].contains(&status), "{method} {path}: {status}");
    }
    assert_eq!(Connection::open(gate.admin()).await.request("POST", "/", &[], b"").await.status, 405);
}
