//! One configuration for all verbs: what `run` reads from the file, the others read too, and variables stand in for flags.

use std::fs;
use std::path::Path;

use super::{run, run_with};
use crate::support::Policies;

const ROOM: &str = "GET /api/v1/rooms.roles?rid=abc";

/// A folder with policies that close `rooms.roles`, and a configuration that names them and a network.
fn prepare(folder: &Path) {
    let policies = Policies::write(&folder.join("gate/rules"));
    let office = "\n@id(\"office\")\nforbid (principal, action == RocketChat::Action::\"rooms.roles\", resource)\n\
                  when { context.networks.contains(\"office\") };\n";
    policies.put("policy.cedar", &format!("{}{office}", policies.closed()));
    let case = "[[case]]\nname = \"nobody sees who owns a room\"\nrequest = \"GET /api/v1/rooms.roles?rid=r1\"\n\
                subject = { id = \"u1\" }\nfacts = { room = { member = true } }\nexpect = \"deny\"\n";
    policies.put("cases.toml", case);
    fs::write(
        folder.join("gate/rolegate.toml"),
        "[admin]\naddress = \"127.0.0.1:1\"\n[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:9\"\n\
         path_prefix = \"/chat\"\nunlisted = \"deny\"\n[policies]\ndirectory = \"rules\"\n[networks]\noffice = [\"10.0.0.0/8\"]\n",
    )
    .unwrap();
}

#[test]
fn every_verb_that_reads_policies_reads_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    prepare(there);
    let config = ["--config", "gate/rolegate.toml"];
    let with = |verb: &[&'static str], more: &[&'static str]| [verb, &config[..], more].concat();
    assert!(run(there, &with(&["test"], &[]), 0).out.ends_with("ok: 1 cases passed\n"));
    assert!(run(there, &with(&["actions"], &[]), 0).out.starts_with("Rocket.Chat workspace (rocketchat)"));
    assert!(!run(there, &with(&["actions"], &[]), 0).out.contains("(matrix)"), "the built-in providers are not shown");
    assert!(!run(there, &with(&["schema"], &[]), 0).out.contains("namespace Matrix"));
    run(there, &with(&["check"], &[]), 0);
    let member =
        ["--subject", r#"{"id":"u1"}"#, "--facts", r#"{"room":{"member":true}}"#, "GET /chat/api/v1/rooms.roles?rid=abc"];
    let told = run(there, &with(&["explain"], &member), 6).out;
    assert!(told.contains("`closed` (gate/rules/rocketchat/policy.cedar"), "{told}");
    // Without the configuration the file names a network that is unknown.
    assert!(run(there, &["test", "--policies", "gate/rules"], 3).err.contains("office"));
    // A flag beats the file.
    Policies::write(&there.join("open")).put("policy.cedar", Policies::built_in("policy.cedar"));
    run(there, &with(&["explain", "--policies", "open"], &member), 0);
    // Its faults are told.
    fs::write(there.join("gate/rolegate.toml"), "modee = 1\n").unwrap();
    for verb in [&["test"][..], &["actions"], &["schema"], &["explain", ROOM], &["healthcheck"], &["status"]] {
        assert!(run(there, &[verb, &config[..]].concat(), 3).err.contains("gate/rolegate.toml:1:1: "), "{verb:?}");
    }
}

#[test]
fn explain_judges_as_the_configured_upstream_would() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    prepare(there);
    let explain = |target: &str, code| run(there, &["explain", "--config", "gate/rolegate.toml", target], code).out;
    assert!(explain("GET /chat/api/v1/no.such.route", 6).contains("route_unlisted"));
    assert_eq!(explain("GET /api/v1/rooms.roles?rid=abc", 0), "not judged: it leads to no guarded space\n");
    assert_eq!(run(there, &["explain", "--provider", "rocketchat", "GET /api/v1/no.such.route"], 0).out.lines().count(), 1);
}

#[test]
fn explain_needs_no_provider_where_only_one_can_be_meant() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    prepare(there);
    Policies::write(&there.join("one"));
    run(there, &["explain", "--policies", "one", "GET /"], 0);
    let several = run(there, &["explain", ROOM], 2).err;
    assert_eq!(several, "name one of docusign-rooms, matrix, rocketchat with `--provider`\n");
    let unknown = run(there, &["explain", "--provider", "rocketchatt", ROOM], 2).err;
    assert_eq!(
        unknown,
        "no provider `rocketchatt`; there are docusign-rooms, matrix, rocketchat\n  hint: did you mean `rocketchat`?\n"
    );
}

#[test]
fn a_file_that_is_not_there_is_a_wrong_use_and_the_nearest_name_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    prepare(there);
    for verb in ["run", "check", "test", "actions", "schema", "explain", "healthcheck", "status"] {
        let wrong = run(there, &[verb, "--config", "gate/rolegat.toml"], 2);
        assert!(wrong.err.contains("No such file"), "{verb}: {}", wrong.err);
        assert!(wrong.err.contains("did you mean `gate/rolegate.toml`?"), "{verb}: {}", wrong.err);
        assert_eq!(wrong.out, "");
        let wrong = run(there, &[verb, "--config", "gate"], 2);
        assert!(wrong.err.contains("is a folder; did you mean `gate/rolegate.toml`?"), "{verb}: {}", wrong.err);
    }
    for verb in ["run", "check", "test", "actions", "schema", "explain"] {
        let wrong = run(there, &[verb, "--policies", "gate/rulse"], 2);
        assert!(wrong.err.contains("did you mean `gate/rules`?"), "{verb}: {}", wrong.err);
        assert!(run(there, &[verb, "--policies", "gate/rolegate.toml"], 2).err.contains("is no folder"), "{verb}");
    }
    assert!(run(there, &["status", "--token-file", "no.token"], 2).err.contains("No such file"));
    let bare = run(there, &["check", "gate/rolegate.toml"], 2).err;
    assert!(bare.contains("tip: write `--config gate/rolegate.toml`"), "{bare}");
    assert!(run(there, &["test", "gate/rules"], 2).err.contains("tip: write `--policies gate/rules`"));
    assert!(!run(there, &["init", "a", "gate"], 2).err.contains("--policies"));
}

#[test]
fn a_variable_stands_in_for_its_flag_and_the_flag_beats_it() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    prepare(there);
    let config = [("ROLEGATE_CONFIG", "gate/rolegate.toml")];
    assert!(run_with(there, &config, &["test"], 0).out.ends_with("ok: 1 cases passed\n"));
    let json = [("ROLEGATE_CONFIG", "gate/rolegate.toml"), ("ROLEGATE_FORMAT", "json")];
    assert_eq!(run_with(there, &json, &["test"], 0).json()["ran"], 1);
    assert!(run_with(there, &json, &["test", "--format", "human"], 0).out.ends_with("ok: 1 cases passed\n"));
    // The variable beats the file.
    Policies::write(&there.join("open")).put("cases.toml", "");
    let both = [("ROLEGATE_CONFIG", "gate/rolegate.toml"), ("ROLEGATE_POLICIES", "open")];
    assert!(run_with(there, &both, &["test"], 1).err.contains("there is no case to run"));
    // An empty one is none; a wrong one is a wrong use.
    assert!(run_with(there, &[("ROLEGATE_CONFIG", "")], &["test"], 0).out.starts_with("ok: "));
    assert!(run_with(there, &[("ROLEGATE_CONFIG", "nowhere.toml")], &["test"], 2).err.contains("No such file"));
    // A switch takes what people write.
    for (value, code) in [("1", 0), ("true", 0), ("perhaps", 2)] {
        run_with(there, &[("ROLEGATE_ONCE", value)], &["demo"], code);
    }
    let told = run_with(there, &[("ROLEGATE_SUBJECT", "{\"id\":\"secret\"}")], &["explain", "--help"], 0).out;
    assert!(told.contains("[env: ROLEGATE_SUBJECT]") && !told.contains("secret"), "{told}");
}

#[test]
fn a_filter_that_names_no_case_is_a_failure_that_names_those_that_are_close() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    let none = run(there, &["test", "--filter", "zzz"], 1);
    assert!(none.err.contains("none of 80 cases has a name that contains `zzz`"), "{}", none.err);
    assert_eq!(none.out, "");
    let near = run(there, &["test", "--filter", "outsidre"], 1).err;
    assert!(near.contains("hint: did you mean `") && near.contains("outsider"), "{near}");
    let told = run(there, &["test", "--filter", "zzz", "--format", "json"], 1).json();
    assert_eq!((&told["ran"], &told["failed"]), (&serde_json::json!(0), &serde_json::json!(0)));
    Policies::write(&there.join("bare"));
    assert!(run(there, &["test", "--policies", "bare"], 1).err.contains("there is no case to run"));
}
