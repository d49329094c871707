//! Asking a running rolegate: `healthcheck` for machines, `status` for people.

use std::fs;

use serde_json::json;

use super::{run, run_with};
use crate::support::{Gate, GateBuilder};

const TOKEN: &str = "a-token-of-32-letters-and-digits";

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_takes_a_host_name_a_configuration_or_a_variable() {
    let gate = Gate::rocketchat().await;
    let (folder, port) = (gate.folder.path(), gate.admin().port());
    let named = format!("localhost:{port}");
    run(folder, &["healthcheck", "--admin", &named], 0);
    run_with(folder, &[("ROLEGATE_ADMIN", named.as_str())], &["healthcheck"], 0);
    for address in ["127.0.0.1", "0.0.0.0"] {
        let config = format!(
            "[admin]\naddress = \"{address}:{port}\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:9\"\n"
        );
        fs::write(folder.join("rolegate.toml"), config).unwrap();
        run(folder, &["healthcheck", "--config", "rolegate.toml"], 0);
        // A flag beats the file.
        let other = run(folder, &["healthcheck", "--config", "rolegate.toml", "--admin", "localhost:1"], 1);
        assert_eq!(other.err, "localhost:1: Connection refused (os error 111)\n");
    }
    assert!(run(folder, &["healthcheck", "--admin", "no-such-host.invalid:1"], 1).err.starts_with("no-such-host.invalid:1: "));
    let wrong = run(folder, &["healthcheck", "--admin", "http://localhost:9901"], 2).err;
    assert!(wrong.contains("write it as `localhost:9901`"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_people_how_it_is_and_machines_what_the_listener_says() {
    let gate = Gate::rocketchat().await;
    let (folder, admin) = (gate.folder.path(), gate.admin().to_string());
    let shown = run(folder, &["status", "--admin", &admin], 0);
    for part in [
        &format!("rolegate  {} at {admin}\n", rolegate::VERSION),
        "mode      enforce\n",
        &format!("policies  revision {}\n", gate.shared().current.live().revision),
        "upstream  127.0.0.1 (rocketchat, enforce), ",
        "audit     record ",
        "audit.jsonl, ",
    ] {
        assert!(shown.out.contains(part), "nothing says `{part}`:\n{}", shown.out);
    }
    let told = run(folder, &["status", "--admin", &admin, "--format", "json"], 0).json();
    let asked = gate.admin_get("/status").await.json();
    assert_eq!((&told["version"], &told["policy_revision"]), (&asked["version"], &asked["policy_revision"]));
    assert_eq!(told["upstreams"][0]["name"], json!("127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_loud_where_nothing_is_enforced() {
    let gate = GateBuilder::rocketchat().await.upstream(|upstream| upstream.mode = rolegate::model::Mode::Observe).start();
    let shown = run(gate.folder.path(), &["status", "--admin", &gate.admin().to_string()], 0).out;
    assert!(shown.contains("mode      NOTHING IS ENFORCED for 127.0.0.1: mode = \"observe\""), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_needs_attention_and_fails() {
    let builder = GateBuilder::rocketchat().await;
    let policies = crate::support::Policies::write(&builder.folder.path().join("policies"));
    let gate = builder.with(|config| config.policies.directory = Some(policies.0.clone())).start();
    policies.put("policy.cedar", "permit");
    gate.until_metric("rolegate_config_last_reload_successful", 0.0).await;
    let shown = run(gate.folder.path(), &["status", "--admin", &gate.admin().to_string()], 1);
    assert!(shown.out.contains("REFUSED:") && shown.out.contains("policy.cedar:1:"), "{}", shown.out);
    assert!(shown.out.contains("look at   the last reload failed"), "{}", shown.out);
    run(gate.folder.path(), &["status", "--admin", &gate.admin().to_string(), "--format", "json"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_brings_the_token_that_a_listener_beyond_loopback_wants() {
    let gate = GateBuilder::rocketchat().await.with(|config| {
        config.admin.address = "0.0.0.0:0".parse().unwrap();
        config.admin.token = Some(rolegate::model::Secret::new(TOKEN));
    });
    let gate = gate.start();
    let (folder, admin) = (gate.folder.path(), format!("127.0.0.1:{}", gate.admin().port()));
    let refused = run(folder, &["status", "--admin", &admin], 1).err;
    assert!(refused.contains("the token is not the right one") && refused.contains("--token-file FILE"), "{refused}");
    fs::write(folder.join("admin.token"), format!("{TOKEN}\n")).unwrap();
    run(folder, &["status", "--admin", &admin, "--token-file", "admin.token"], 0);
    let refused = run(folder, &["audit", "rotate", "--admin", &admin], 1).err;
    assert!(refused.contains("answers 401") && refused.contains("--token-file FILE"), "{refused}");
    let rotated = run(folder, &["audit", "rotate", "--admin", &admin, "--token-file", "admin.token"], 0).out;
    assert!(rotated.starts_with("rotated to "), "{rotated}");
    let config = format!(
        "[admin]\naddress = \"{admin}\"\ntoken_file = \"admin.token\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:9\"\n"
    );
    fs::write(folder.join("rolegate.toml"), config).unwrap();
    run(folder, &["status", "--config", "rolegate.toml"], 0);
    fs::write(folder.join("admin.token"), "another token of that length").unwrap();
    assert!(!run(folder, &["status", "--config", "rolegate.toml"], 1).err.contains("another token"));
    let nobody = run(folder, &["status", "--admin", "127.0.0.1:1"], 1).err;
    assert_eq!(nobody, "127.0.0.1:1: Connection refused (os error 111)\n");
    // The clients' port is no admin listener.
    let clients = gate.address().to_string();
    assert!(run(folder, &["status", "--admin", &clients], 1).err.starts_with(&format!("{clients}: ")));
}
