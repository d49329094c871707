//! What operators see: metrics, health, status, orders.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use rolegate::demo::tour;
use rolegate::demo::world::workspace::{BOARDROOM, BOB, CAROL, EVE};
use rolegate::model::{Mode, Reason};
use serde_json::{Value, json};

use crate::support::gate::login;
use crate::support::{Answer, Connection, Gate, GateBuilder};

/// The metrics of the contract with their labels.
const METRICS: &[(&str, &[&str])] = &[
    ("build_info", &["version"]),
    ("requests_total", &["provider", "door", "action", "code"]),
    ("request_duration_seconds", &["provider", "action"]),
    ("stage_duration_seconds", &["stage"]),
    ("decisions_total", &["provider", "door", "action", "decision", "reason", "mode"]),
    ("fact_lookups_total", &["provider", "fact", "outcome"]),
    ("fact_lookup_duration_seconds", &["provider", "fact"]),
    ("fact_entries", &["fact"]),
    ("fact_evictions_total", &["fact"]),
    ("fact_invalidations_total", &["cause"]),
    ("audit_records_total", &["kind"]),
    ("audit_write_duration_seconds", &[]),
    ("audit_failures_total", &[]),
    ("audit_pending_records", &[]),
    ("audit_suppressed_total", &["reason"]),
    ("policy_info", &["revision"]),
    ("policy_matches_disk", &[]),
    ("config_last_reload_successful", &[]),
    ("config_last_reload_success_timestamp_seconds", &[]),
    ("connections", &[]),
    ("log_lines_dropped_total", &[]),
    ("panics_total", &[]),
    ("slow_clients_total", &["cause"]),
    ("websocket_connections", &[]),
    ("rejected_total", &["cause"]),
    ("upstream_errors_total", &["provider", "kind"]),
    ("upstream_up", &["provider"]),
    ("config_matches_disk", &[]),
    ("certificate_expiry_timestamp_seconds", &[]),
];

const TOKEN: &str = "a-token-of-32-letters-and-digits";

/// Asks everything that the tour asks of a Rocket.Chat workspace.
async fn tour(gate: &Gate) {
    for step in tour::steps().into_iter().filter(|step| step.provider == "rocketchat") {
        gate.get(&step.target, &step.credential).await;
    }
}

/// The series of a page: name and labels.
fn series(page: &str) -> BTreeSet<String> {
    page.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// The name of a series and the names of its labels.
fn labels(series: &str) -> (&str, BTreeSet<&str>) {
    let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else { return (series, BTreeSet::new()) };
    // No value of a closed set holds `",`.
    (name, labels.split("\",").map(|label| label.split('=').next().unwrap()).collect())
}

async fn order(admin: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Connection::open(admin).await.request(method, path, &headers, body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_say_about_the_metrics() {
    let gate = Gate::rocketchat().await;
    tour(&gate).await;
    let answer = gate.admin_get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("no promtool on PATH: install Debian's prometheus package");
    promtool.stdin.take().unwrap().write_all(&answer.body).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!((said.status.code(), text.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_contract_is_there_once_it_was_touched_with_its_labels_and_no_others() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let secure = GateBuilder::rocketchat().await.with(|config| config.facts.capacity = 10);
    let (pem, key) = (secure.folder.path().join("cert.pem"), secure.folder.path().join("key.pem"));
    std::fs::write(&pem, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let secure = secure.with(|config| config.listen.tls = Some((pem, key))).start();
    let gate = GateBuilder::rocketchat().await.with(|config| config.facts.capacity = 10).start();
    tour(&gate).await;
    for index in 0..60 {
        gate.get(&format!("/api/v1/rooms.roles?rid=room{index}"), &login("carol")).await;
    }
    gate.sample.with(|world| world.workspace.revoke("carol-token"));
    assert_eq!(gate.get("/api/v1/users.info?username=bob", &login("carol")).await.status, 401);
    assert_eq!(order(gate.admin(), "POST", "/facts/invalidate", &[], r#"{"all":true}"#).await.status, 200);
    assert_eq!(order(gate.admin(), "POST", "/reload", &[], "").await.status, 200);
    let many: Vec<(&str, String)> = (0..101).map(|_| ("X-Filler", "x".to_owned())).collect();
    assert_eq!(gate.get("/", &many).await.status, 400);
    gate.sample.behave("/api/info", rolegate::demo::Behaviour::Close);
    assert_eq!(gate.get("/api/info", &[]).await.status, 502);

    let page = gate.admin_get("/metrics").await.text() + &secure.admin_get("/metrics").await.text();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in series(&page) {
        let (name, mut labels) = labels(&series);
        if name.starts_with("process_") {
            continue;
        }
        labels.remove("le");
        let name = name.strip_prefix("rolegate_").unwrap_or_else(|| panic!("{name} has another prefix"));
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).filter(|base| base.ends_with("_seconds"));
        let labels = labels.into_iter().map(str::to_owned).collect();
        let before = found.insert(base.unwrap_or(name).to_owned(), BTreeSet::clone(&labels));
        assert!(before.is_none_or(|before| before == labels), "{name} has several sets of labels");
    }
    let expected: BTreeMap<String, BTreeSet<String>> = METRICS
        .iter()
        .map(|(name, labels)| ((*name).to_owned(), labels.iter().map(|label| (*label).to_owned()).collect()))
        .collect();
    assert_eq!(found, expected);
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(page.contains(&format!("\n{name} ")), "{name} is not there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_of_errors_is_there_before_the_first_one_so_that_it_counts_as_an_increase() {
    let page = Gate::rocketchat().await.admin_get("/metrics").await.text();
    let zero = |name: &str, labels: &str| {
        let line = format!("rolegate_{name}{{{labels}}} 0");
        assert!(page.lines().any(|found| found == line), "no `{line}`:\n{page}");
    };
    for kind in ["connect", "timeout", "broken", "resolve"] {
        zero("upstream_errors_total", &format!("kind=\"{kind}\",provider=\"rocketchat\""));
    }
    for cause in ["connections", "connections_per_address", "header_deadline", "header_too_large", "malformed", "tls"] {
        zero("rejected_total", &format!("cause=\"{cause}\""));
    }
    for cause in ["body_deadline", "body_idle", "send_idle"] {
        zero("slow_clients_total", &format!("cause=\"{cause}\""));
    }
    for reason in Reason::ALL {
        zero("audit_suppressed_total", &format!("reason=\"{reason}\""));
    }
    for cause in ["unauthorized", "admin"] {
        zero("fact_invalidations_total", &format!("cause=\"{cause}\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_reach_from_ten_microseconds_to_ten_seconds() {
    let gate = Gate::rocketchat().await;
    tour(&gate).await;
    let page = gate.admin_get("/metrics").await.text();
    let mut bounds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.contains("_bucket{")) {
        let (_, after) = line.split_once("le=\"").unwrap();
        let bound = after.split('"').next().unwrap();
        let name = line.split('{').next().unwrap();
        bounds.entry(name.to_owned()).or_default().push(if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() });
    }
    assert_eq!(bounds.len(), 4, "{bounds:?}");
    for (name, mut bounds) in bounds {
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        assert_eq!((bounds[0], bounds[bounds.len() - 2]), (0.000_01, 10.0), "{name}");
        assert!(bounds[..bounds.len() - 1].windows(2).all(|two| two[1] <= two[0] * 2.6), "{name} is coarse: {bounds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_targets_that_nobody_declared_make_no_new_series() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let mut ask = async |round: usize| {
        for index in 0..250 {
            let word = format!("{:x}", (round * 1000 + index) * 2_654_435_761 % 4_294_967_291);
            for (method, target) in [
                ("GET", format!("/{word}")),
                ("GET", format!("/api/v1/{word}?{word}={word}")),
                ("GET", format!("/api/v1/rooms.roles?rid={word}&{word}=1")),
                ("GET", format!("/api/v1/rooms%2eroles/{word}")),
                ("GET", format!("/api/{word}/%2e%2e/{word}")),
                ("DELETE", format!("/api/v1/rooms.roles?rid={word}")),
                ("GET", format!("/api/v1/rooms.roles?rid={word}")),
                ("GET", format!("/api/v1/users.info?username={word}")),
            ] {
                let mut headers = login("eve");
                headers.push(("User-Agent", word.clone()));
                connection.request(method, &target, &headers, b"").await;
            }
        }
    };
    ask(0).await;
    let before = series(&gate.admin_get("/metrics").await.text());
    ask(1).await;
    let after = series(&gate.admin_get("/metrics").await.text());
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(after.len() < 400, "{} series", after.len());
    for word in [EVE, BOARDROOM, "127.0.0.1", "eve-token", "rid"] {
        assert!(after.iter().all(|series| !series.contains(word)), "`{word}` is in a label");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_always_and_ready_only_while_the_audit_log_can_be_written() {
    let builder = GateBuilder::rocketchat().await;
    let logs = builder.folder.path().join("logs");
    let gate = builder.with(|config| config.audit.sink = rolegate::audit::Sink::File(logs.join("audit.jsonl"))).start();
    let ready = gate.admin_get("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "policies ok\naudit ok\naccepting ok\n"));
    std::fs::rename(&logs, logs.with_file_name("away")).unwrap();
    std::fs::write(&logs, "no folder").unwrap();
    let ready = gate.admin_get("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "policies ok\naudit failed\naccepting ok\n"));
    let alive = gate.admin_get("/livez").await;
    assert_eq!((alive.status, alive.text().as_str()), (200, "ok\n"));
    let refused = gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
    assert_eq!(refused.status, 503);
    std::fs::remove_file(&logs).unwrap();
    std::fs::rename(logs.with_file_name("away"), &logs).unwrap();
    assert_eq!(gate.admin_get("/readyz").await.status, 200, "it finds its way back");
    assert_eq!(gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_ready_without_an_upstream_and_is_not_while_it_drains() {
    let mut gate = Gate::rocketchat().await;
    let hold = gate.sample.hold("/api/v1/rooms.roles");
    let admin = gate.admin();
    let mut connection = gate.connect().await;
    let fields: String = login("carol").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("GET /api/v1/rooms.roles?rid={BOARDROOM} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", connection.host);
    connection.send(head.as_bytes()).await;
    hold.until_waiting(1).await;
    let draining = tokio::spawn(async move { gate.stop().await });
    let mut ready = order(admin, "GET", "/readyz", &[], "").await;
    while ready.status == 200 {
        ready = order(admin, "GET", "/readyz", &[], "").await;
    }
    assert_eq!((ready.status, ready.text().as_str()), (503, "policies ok\naudit ok\naccepting failed\n"));
    assert_eq!(order(admin, "GET", "/livez", &[], "").await.status, 200);
    hold.release();
    let answer = connection.answer("GET").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(draining.await.unwrap());

    let vacant = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.url.port = vacant.port()).start();
    assert_eq!(gate.get("/", &[]).await.status, 502);
    assert_eq!(gate.admin_get("/readyz").await.status, 200, "an upstream that is down is no reason to take the gate out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_version_mode_revision_reload_cache_and_audit_position() {
    let gate = Gate::rocketchat().await;
    gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
    gate.outcome(&gate.last_decision()["id"]).await;
    let bad = [("X-User-Id", BOB.to_owned()), ("X-Auth-Token", "stolen".to_owned())];
    gate.get("/api/v1/users.info?username=bob", &bad).await;
    let answer = gate.admin_get("/status").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status = answer.json();
    assert_eq!(status["version"], rolegate::VERSION);
    assert_eq!((&status["mode"], &status["warning"]), (&json!("enforce"), &Value::Null));
    let records = gate.records();
    assert_eq!(status["policy_revision"], gate.last_decision()["policy_revision"]);
    assert_eq!((&status["last_reload"]["succeeded"], &status["last_reload"]["error"]), (&json!(true), &Value::Null));
    assert!(status["last_reload"]["time"].as_str().unwrap().ends_with('Z'));
    let upstream = &status["upstreams"][0];
    assert_eq!((&upstream["provider"], &upstream["mode"]), (&json!("rocketchat"), &json!("enforce")));
    assert!(upstream["open_routes"].as_u64().unwrap() > 50);
    assert_eq!(upstream["facts"], json!({ "callers": 1, "facts": 1, "tables": 1, "refused": 1 }));
    assert_eq!(status["audit"]["seq"], records.last().unwrap()["seq"]);
    assert_eq!(status["audit"]["file"], gate.audit().display().to_string());
    assert_eq!(status["audit"]["bytes"], std::fs::metadata(gate.audit()).unwrap().len());
    assert_eq!(status["audit"]["failures"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_is_said_loudly() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.mode = Mode::Observe).start();
    let status = gate.admin_get("/status").await.json();
    assert_eq!(status["mode"], "observe");
    let warning = status["warning"].as_str().unwrap();
    assert!(warning.contains("NOTHING IS ENFORCED for 127.0.0.1"), "{warning}");
    assert_eq!(status["upstreams"][0]["mode"], "observe");
    assert_eq!(gate.records_of("start")[0]["modes"], json!(["127.0.0.1: observe"]));
    gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("eve")).await;
    assert_eq!(gate.sample.count("/api/v1/rooms.roles"), 1, "it goes to the server all the same");
    let record = gate.last_decision();
    assert_eq!((&record["decision"], &record["enforced"]), (&json!("deny"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_forgotten_by_subject_or_all_and_a_record_says_so() {
    let gate = Gate::rocketchat().await;
    let ask = async |who: &str| {
        gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login(who)).await;
        gate.last_decision()["decision"].as_str().unwrap().to_owned()
    };
    let yes = || "permit".to_owned();
    let lookups =
        || ["/api/v1/me", "/api/v1/subscriptions.getOne", "/api/v1/permissions.listAll"].map(|path| gate.sample.count(path));
    assert_eq!((ask("carol").await, ask("bob").await, ask("carol").await), (yes(), yes(), yes()));
    assert_eq!(lookups(), [2, 2, 1]);
    let carol = json!({ "subject": CAROL }).to_string();
    let answer = order(gate.admin(), "POST", "/facts/invalidate", &[], &carol).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "dropped": 2 })));
    assert_eq!((ask("carol").await, ask("bob").await), (yes(), yes()));
    assert_eq!(lookups(), [3, 3, 1], "carol was looked up again, bob was not");
    let record = gate.records_of("invalidate").pop().unwrap();
    assert_eq!((&record["subject"], &record["dropped"]), (&json!(CAROL), &json!(2)));

    gate.sample.with(|world| world.workspace.leave(CAROL, BOARDROOM));
    assert_eq!(ask("carol").await, yes(), "the fact is young");
    let answer = order(gate.admin(), "POST", "/facts/invalidate", &[], r#"{"all":true}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "dropped": 5 })));
    assert_eq!((ask("carol").await, ask("bob").await), ("deny".to_owned(), yes()));
    assert_eq!(lookups(), [5, 5, 2]);
    let record = gate.records_of("invalidate").pop().unwrap();
    assert_eq!((&record["subject"], &record["dropped"]), (&Value::Null, &json!(5)));
    assert_eq!(gate.metric("rolegate_fact_invalidations_total{cause=\"admin\"}").await, 2.0);

    for wrong in ["", "{}", "[]", r#"{"all":false}"#, r#"{"all":true,"subject":"x"}"#, r#"{"subjects":"x"}"#] {
        assert_eq!(order(gate.admin(), "POST", "/facts/invalidate", &[], wrong).await.status, 400, "{wrong}");
    }
    let long = format!("{{\"subject\":\"{}\"}}", "x".repeat(5000));
    assert_eq!(order(gate.admin(), "POST", "/facts/invalidate", &[], &long).await.status, 413);
    assert_eq!(gate.records_of("invalidate").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_a_web_page_sent_is_refused_and_others_have_their_method_and_path() {
    let gate = Gate::rocketchat().await;
    for (path, body) in [("/reload", ""), ("/facts/invalidate", r#"{"all":true}"#)] {
        let answer = order(gate.admin(), "POST", path, &[("Origin", "http://evil.example")], body).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(order(gate.admin(), "GET", path, &[], "").await.status, 405);
    }
    assert_eq!(gate.records_of("reload").len() + gate.records_of("invalidate").len(), 0);
    let answer = order(gate.admin(), "POST", "/reload", &[], "").await;
    assert_eq!((answer.status, &answer.json()["policy_revision"]), (200, &gate.records_of("reload")[0]["policy_revision"]));
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(order(gate.admin(), "POST", path, &[], "").await.status, 405, "{path}");
        assert_eq!(order(gate.admin(), "HEAD", path, &[], "").await.status, 200, "{path}");
    }
    assert_eq!(gate.admin_get("/no/such/path").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_status_on_an_address_that_others_reach_need_the_token() {
    let exposed = |token: Option<&str>| {
        let token = token.map(rolegate::model::Secret::new);
        async {
            let builder = GateBuilder::rocketchat().await;
            builder
                .with(|config| config.admin = rolegate::config::Admin { address: (Ipv4Addr::UNSPECIFIED, 0).into(), token })
                .start()
        }
    };
    let guarded = [("GET", "/status", ""), ("POST", "/reload", ""), ("POST", "/facts/invalidate", r#"{"all":true}"#)];
    let reach = |gate: &Gate| SocketAddr::from((Ipv4Addr::LOCALHOST, gate.admin().port()));

    let closed = exposed(None).await;
    for (method, path, body) in guarded {
        for headers in [vec![], vec![("Authorization", "Bearer "), ("X-Other", "x")], vec![("Authorization", "Bearer null")]] {
            assert_eq!(order(reach(&closed), method, path, &headers, body).await.status, 404, "{path}");
        }
    }
    let gate = exposed(Some(TOKEN)).await;
    let right = format!("Bearer {TOKEN}");
    for (method, path, body) in guarded {
        let short = &right[..right.len() - 1];
        for wrong in ["Bearer wrong", "Bearer ", short, &format!("{right}x"), TOKEN, &format!("Basic {TOKEN}")] {
            let answer = order(reach(&gate), method, path, &[("Authorization", wrong)], body).await;
            assert_eq!(answer.status, 401, "{path} with `{wrong}`");
        }
        assert_eq!(order(reach(&gate), method, path, &[], body).await.status, 401, "{path}");
        assert_eq!(order(reach(&gate), method, path, &[("Authorization", &right)], body).await.status, 200, "{path}");
    }
    let page = order(reach(&gate), "POST", "/reload", &[("Authorization", &right), ("Origin", "http://evil.example")], "").await;
    assert_eq!(page.status, 403, "a token does not make a web page welcome");
    for gate in [&closed, &gate] {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(order(reach(gate), "GET", path, &[], "").await.status, 200, "{path} needs no token");
        }
    }
    assert_eq!((gate.records_of("reload").len(), closed.records_of("reload").len()), (1, 0));
}
