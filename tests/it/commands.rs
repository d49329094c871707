//! Every verb of the command line, told as a story.

use std::fs;
use std::path::Path;

use rolegate::config::{Config, EXAMPLE, Flags};
use rolegate::demo::Sample;
use rolegate::demo::world::workspace::BOARDROOM;
use rolegate::rules::source::BUILT_IN;
use serde_json::{Value, json};

use crate::support::gate::{login, records};
use crate::support::{Gate, Policies, Process, Program, until};

const ACTIONS: [&str; 5] = ["audit.rooms.members", "roles.getUsersInRole", "rooms.roles", "users.info", "rooms.users"];
const MEMBER: &str = r#"{"id":"u1","roles":["user"]}"#;
const ROOM: &str = "GET /api/v1/rooms.roles?rid=abc";

/// Runs the program in `folder`, and sees that it ends with `code`.
fn run(folder: &Path, arguments: &[&str], code: i32) -> crate::support::program::Ended {
    let ended = Program::new(arguments).within(folder).run();
    assert_eq!(ended.code, code, "{arguments:?}\n{}\n{}", ended.out, ended.err);
    ended
}

/// The line and column, from 1, at which `needle` first stands in `text`.
fn place(text: &str, needle: &str) -> String {
    let before = &text[..text.find(needle).unwrap_or_else(|| panic!("no `{needle}`"))];
    format!("{}:{}", before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap().chars().count() + 1)
}

#[test]
fn check_finds_no_fault_in_what_is_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["check"], 0);
    assert!(ended.out.starts_with("no faults: 31 actions, 25 policies, 80 cases; revision "), "{}", ended.out);
    assert_eq!((ended.out.lines().count(), ended.err.as_str()), (1, ""));
    let told = run(folder.path(), &["check", "--format", "json"], 0).json();
    assert_eq!((&told["valid"], &told["faults"], &told["untried"]), (&json!(true), &json!([]), &json!([])));
    assert!(ended.out.trim_end().ends_with(told["revision"].as_str().unwrap()));
}

#[test]
fn the_cases_of_the_benchmarks_policies_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ended = run(root, &["test", "--policies", "tests/bench/policies"], 0);
    assert!(ended.out.ends_with("ok: 3 cases passed\n"), "{}", ended.out);
}

#[test]
fn check_tells_every_fault_of_the_configuration_and_of_the_policies_with_place_and_hint() {
    let folder = tempfile::tempdir().unwrap();
    let policies = Policies::write(&folder.path().join("rules"));
    let config = "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"ftp://chat\"\n\n[policies]\ndirectory = \"rules\"\n\n\
                  [facts]\nttl = \"soon\"\nlookup_address = \"callers\"\n\n[audit]\nrotate_bytes = \"much\"\ndurability = \"durable\"\n\n\
                  [limits]\nlookups = 0\n\n[networks]\noffice = [\"10.0.0.0/99\"]\n";
    fs::write(folder.path().join("rolegate.toml"), config).unwrap();
    let wrong = "\n@id(\"typo\")\npermit (principal in RocketChat::Permission::\"view-c-rom\", action == RocketChat::Action::\"rooms.roles\", resource)\n\
                 when { context.networks.contains(\"office\") };\n";
    let text = format!("{}{wrong}", policies.open());
    policies.put("policy.cedar", &text);
    let ended = run(folder.path(), &["check", "--config", "rolegate.toml"], 3);
    let expected = [
        (format!("rolegate.toml:{}: ", place(config, "\"ftp")), ""),
        (format!("rolegate.toml:{}: `facts.ttl`: `soon` is not a duration", place(config, "\"soon")), "write it as \"30s\""),
        (
            format!("rolegate.toml:{}: `facts.lookup_address`: `callers` is none of caller, client", place(config, "\"callers")),
            "did you mean `caller`?",
        ),
        (
            format!("rolegate.toml:{}: `audit.rotate_bytes`: `much` is not a size", place(config, "\"much")),
            "write it as \"64KiB\"",
        ),
        (
            format!("rolegate.toml:{}: `durability = \"durable\"` is not in this release", place(config, "\"durable")),
            "the strongest is `written`",
        ),
        (format!("rolegate.toml:{}: `limits.lookups`: must be at least 1", place(config, "0\n\n[net")), ""),
        (format!("rolegate.toml:{}: `networks.office`: `10.0.0.0/99` is not a network", place(config, "\"10.0")), ""),
        (
            format!(
                "rules/rocketchat/policy.cedar:{}: unknown permission `view-c-rom`",
                place(&text, "RocketChat::Permission::\"view-c-rom")
            ),
            "did you mean `view-c-room`?",
        ),
    ];
    for (line, hint) in &expected {
        let at = ended.err.find(line.as_str()).unwrap_or_else(|| panic!("nothing tells `{line}`:\n{}", ended.err));
        let after: String = ended.err[at..].lines().skip(1).take(1).collect();
        assert!(after.contains(hint), "{line} has no hint `{hint}`:\n{}", ended.err);
    }
    assert!(ended.err.trim_end().ends_with(&format!("{} faults", expected.len())), "{}", ended.err);

    let told = run(folder.path(), &["check", "--config", "rolegate.toml", "--format", "json"], 3).json();
    assert_eq!((&told["valid"], told["faults"].as_array().unwrap().len()), (&json!(false), expected.len()));
    let soon = told["faults"]
        .as_array()
        .unwrap()
        .iter()
        .find(|fault| fault["message"] == "`facts.ttl`: `soon` is not a duration")
        .unwrap();
    assert_eq!((&soon["file"], &soon["line"], &soon["column"]), (&json!("rolegate.toml"), &json!(9), &json!(7)));
    assert!(soon["hint"].as_str().unwrap().starts_with("write it as"));
}

#[test]
fn check_finds_the_files_that_run_could_not_use() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[listen]\ntls = { certificate = \"cert.pem\", key = \"key.pem\" }\n\
                  [[upstream]]\nprovider = \"rocketchat\"\nurl = \"https://chat.example\"\ntls = { ca = \"ca.pem\" }\n";
    fs::write(folder.path().join("rolegate.toml"), config).unwrap();
    let told = run(folder.path(), &["check", "--config", "rolegate.toml"], 3).err;
    assert!(told.contains("rolegate.toml:6:14: `upstream.tls.ca`: ca.pem: No such file"), "{told}");
    assert!(told.contains("rolegate.toml:2:23: `listen.tls.certificate`: cert.pem: No such file"), "{told}");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for (name, text) in
        [("cert.pem", made.cert.pem()), ("ca.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
    run(folder.path(), &["check", "--config", "rolegate.toml"], 0);
    fs::write(folder.path().join("key.pem"), "no key").unwrap();
    assert!(run(folder.path(), &["check", "--config", "rolegate.toml"], 3).err.contains("key.pem: holds no private key"));
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:3000\"\n";
    for (text, wrong, meant) in [
        (format!("{upstream}[listen]\nadress = \"127.0.0.1:1\"\n"), "adress", "address"),
        (format!("{upstream}unlistd = \"deny\"\n"), "unlistd", "unlisted"),
        (format!("[fact]\nttl = \"1s\"\n{upstream}"), "fact", "facts"),
        (format!("{upstream}mode = \"observed\"\n"), "observed", "observe"),
        (format!("{upstream}tls = {{ cA = \"x\" }}\n"), "cA", "ca"),
    ] {
        fs::write(folder.path().join("rolegate.toml"), &text).unwrap();
        for verb in ["check", "run"] {
            let ended = run(folder.path(), &[verb, "--config", "rolegate.toml"], 3);
            assert!(ended.err.contains(&format!("`{wrong}`")), "{}", ended.err);
            assert!(ended.err.contains(&format!("hint: did you mean `{meant}`?")), "{}", ended.err);
            let line = text.lines().position(|line| line.contains(wrong)).unwrap() + 1;
            assert!(ended.err.starts_with(&format!("rolegate.toml:{line}:")), "{}", ended.err);
        }
    }
}

#[test]
fn test_passes_fails_filters_and_names_what_no_case_tried() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["test"], 0);
    assert_eq!(ended.out, "ok: 80 cases passed\n");
    assert_eq!(run(folder.path(), &["test", "--filter", "outsider"], 0).out, "ok: 7 cases passed\n");

    let policies = Policies::write(&folder.path().join("policies"));
    let cases = "[[case]]\nname = \"a member sees who owns the room\"\nrequest = \"GET /api/v1/rooms.roles?rid=r1\"\n\
                 subject = { id = \"u1\" }\nfacts = { room = { member = true } }\nexpect = \"permit\"\nby = [\"rooms-roles-member\"]\n\n\
                 [[case]]\nname = \"an outsider does too\"\nrequest = \"GET /api/v1/rooms.roles?rid=r1\"\nsubject = { id = \"u1\" }\nexpect = \"permit\"\n";
    policies.put("cases.toml", cases);
    let ended = run(folder.path(), &["test", "--policies", "policies"], 4);
    let at = cases[..cases.rfind("[[case]]").unwrap()].matches('\n').count() + 1;
    assert!(
        ended.out.contains(&format!(
            "failed policies/rocketchat/cases.toml:{at}:1: an outsider does too\n  expected permit, found deny: policy_denied"
        )),
        "{}",
        ended.out
    );
    assert!(ended.out.ends_with("failed: 1 of 2 cases failed\n"), "{}", ended.out);
    let line = policies.open().lines().position(|line| line == "@id(\"audit-members\")").unwrap() + 1;
    assert!(
        ended.out.contains(&format!("note: no case makes audit-members (policies/rocketchat/policy.cedar:{line}) decide")),
        "{}",
        ended.out
    );
    assert!(!ended.out.contains("no case makes rooms-roles-member"), "{}", ended.out);
    run(folder.path(), &["test", "--policies", "policies", "--filter", "a member"], 0);
    let told = run(folder.path(), &["test", "--policies", "policies", "--format", "json"], 4).json();
    assert_eq!(
        (&told["ran"], &told["failed"], &told["failures"][0]["case"]),
        (&json!(2), &json!(1), &json!("an outsider does too"))
    );
    assert!(told["failures"][0]["why"].as_str().unwrap().starts_with("expected permit, found deny"));
    policies.put("policy.cedar", "permit");
    run(folder.path(), &["test", "--policies", "policies"], 3);
}

#[test]
fn explain_tells_who_decided_what_is_sent_or_what_the_client_would_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let line = |id: &str| {
        let text = Policies::built_in("policy.cedar");
        format!(
            "{id} (policies/rocketchat/policy.cedar:{})",
            text.lines().position(|line| line == format!("@id(\"{id}\")")).unwrap() + 1
        )
    };
    let explain = |more: &[&str], code| {
        let mut arguments = vec!["explain", "--provider", "rocketchat"];
        arguments.extend(more);
        run(folder.path(), &arguments, code)
    };
    let permit = explain(&["--subject", MEMBER, "--facts", r#"{"room":{"member":true}}"#, "GET /api/v1/rooms.roles?rid=abc&"], 0);
    assert!(permit.out.starts_with("permit rooms.roles\n"), "{}", permit.out);
    for told in [&format!("by    {}", line("rooms-roles-member")), "\"member\":true", "sends GET /api/v1/rooms.roles?rid=abc\n"] {
        assert!(permit.out.contains(told), "nothing tells `{told}`:\n{}", permit.out);
    }
    let deny = explain(&["--subject", MEMBER, ROOM], 6);
    assert!(deny.out.starts_with("deny rooms.roles (policy_denied)\n"), "{}", deny.out);
    for told in [
        &format!("could {}", line("rooms-roles-member")),
        &format!("could {}", line("rooms-roles-public")),
        r#"tells 403 {"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}"#,
    ] {
        assert!(deny.out.contains(told), "nothing tells `{told}`:\n{}", deny.out);
    }
    assert!(!deny.out.contains("users-info") && !deny.out.contains("sends"), "{}", deny.out);
    let invalid = explain(&["--subject", MEMBER, "GET /api/v1/rooms.roles"], 6);
    assert!(
        invalid.out.contains("param_missing") && invalid.out.contains("must have required property 'rid'"),
        "{}",
        invalid.out
    );
    assert!(!invalid.out.contains("could"), "no policy could have permitted it: {}", invalid.out);
    assert!(explain(&[ROOM], 6).out.contains("credential_missing"));
    let open = explain(&["GET /api/v1/rooms.info?roomId=abc"], 0);
    assert_eq!(open.out, "not judged: the provider file leaves this route open\n");
    assert_eq!(explain(&["GET /"], 0).out, "not judged: it leads to no guarded space\n");

    let told = explain(&["--subject", MEMBER, "--format", "json", ROOM], 6).json();
    assert_eq!(
        (&told["decision"], &told["reason"], &told["tells"]["status"]),
        (&json!("deny"), &json!("policy_denied"), &json!(403))
    );
    assert_eq!(told["could"][0]["id"], "rooms-roles-member");
    let facts = r#"{"room":{"kind":"c"}}"#;
    let subject = r#"{"id":"u1","permissions":["view-c-room"]}"#;
    let told = explain(&["--subject", subject, "--facts", facts, "--format", "json", ROOM], 0).json();
    assert_eq!((&told["decision"], &told["sends"]), (&json!("permit"), &json!(ROOM)));
    assert_eq!(
        (&told["policies"][0]["id"], &told["policies"][0]["file"]),
        (&json!("rooms-roles-public"), &json!("policies/rocketchat/policy.cedar"))
    );
    assert_eq!(explain(&["--format", "json", "GET /"], 0).json()["decision"], Value::Null);
    let without = explain(&["--subject", MEMBER, "GET /api/v1/users.info?username=bob&includeUserRooms=true"], 0);
    assert!(without.out.contains("`includeUserRooms` left out of what is sent"), "{}", without.out);

    explain(&["--subject", "{", ROOM], 2);
    explain(&["--subject", r#"{"identity":"u1"}"#, ROOM], 2);
    explain(&["/api/v1/rooms.roles?rid=abc"], 2);
    let unknown = run(folder.path(), &["explain", "--provider", "rocketchta", ROOM], 2);
    assert!(unknown.err.contains("did you mean `rocketchat`?"), "{}", unknown.err);
    assert!(unknown.err.contains("there are docusign-rooms, matrix, rocketchat"), "{}", unknown.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_verify_follows_the_chain_over_files_and_names_the_first_bad_line() {
    let mut gate = Gate::rocketchat().await;
    for who in ["carol", "eve", "carol"] {
        gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login(who)).await;
    }
    until("every outcome", || (gate.records_of("outcome").len() == 2).then_some(())).await;
    assert!(gate.stop().await);
    let folder = gate.folder.path();
    let text = fs::read_to_string(gate.audit()).unwrap();
    let count = text.lines().count();
    assert!(run(folder, &["audit", "verify", "audit.jsonl"], 0).out.contains(&count.to_string()));
    let told = run(folder, &["audit", "verify", "--format", "json", "audit.jsonl"], 0).json();
    assert_eq!(
        (&told["valid"], &told["records"], &told["first"], &told["last"]),
        (&json!(true), &json!(count), &json!(1), &json!(count))
    );

    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(folder.join("one.jsonl"), lines[..3].concat()).unwrap();
    fs::write(folder.join("two.jsonl"), lines[3..].concat()).unwrap();
    run(folder, &["audit", "verify", "one.jsonl", "two.jsonl"], 0);
    run(folder, &["audit", "verify", "two.jsonl", "one.jsonl"], 0);
    fs::write(folder.join("bad.jsonl"), text.replacen("carol", "karol", 1)).unwrap();
    let bad = run(folder, &["audit", "verify", "bad.jsonl"], 7);
    let changed = lines.iter().position(|line| line.contains("carol")).unwrap() + 1;
    let named = [format!("bad.jsonl:{changed}"), format!("bad.jsonl:{}", changed + 1)];
    assert!(named.iter().any(|place| bad.err.contains(place)), "{}", bad.err);
    let told = run(folder, &["audit", "verify", "--format", "json", "bad.jsonl"], 7).json();
    assert_eq!((&told["valid"], &told["file"]), (&json!(false), &json!("bad.jsonl")));
    run(folder, &["audit", "verify", "nowhere.jsonl"], 2);
    run(folder, &["audit", "verify"], 2);
    run(folder, &["audit"], 2);
}

#[test]
fn actions_names_all_five_and_the_routes_that_stay_open() {
    let folder = tempfile::tempdir().unwrap();
    let table = run(folder.path(), &["actions"], 0).out;
    for heading in ["ACTION", "DOORS", "PARAMETERS", "RESOURCE", "FACTS", "PERMITTED BY"] {
        assert!(table.contains(heading), "no column {heading}");
    }
    for action in ACTIONS {
        assert!(table.lines().any(|line| line.starts_with(action)), "{action} is not in the table:\n{table}");
    }
    let row = table.lines().find(|line| line.starts_with("rooms.roles")).unwrap();
    for cell in ["rest GET /api/v1/rooms.roles", " rid ", " Room ", " room ", "rooms-roles-member"] {
        assert!(row.contains(cell), "{cell} is not in {row}");
    }
    let open = table.split("known routes of rocketchat left open").nth(1).unwrap();
    assert!(open.contains("GET /api/v1/users.listByStatus") && open.contains("closed: "), "{open}");
    assert!(open.split("closed: ").nth(1).unwrap().contains("/api/v1/mcp"), "{open}");
    let told = run(folder.path(), &["actions", "--format", "json"], 0).json();
    let names: Vec<&str> = told["providers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|provider| provider["actions"].as_array().unwrap())
        .map(|action| action["id"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 31);
    assert!(ACTIONS.iter().all(|action| names.contains(action)), "{names:?}");
    for provider in told["providers"].as_array().unwrap() {
        let forward = provider["routes"].as_array().unwrap().iter().filter(|route| route["then"] == "forward");
        let doors: usize = forward.map(|route| route["doors"].as_array().unwrap().len()).sum();
        assert_eq!(provider["open_routes"], json!(doors));
        assert!(
            provider["actions"].as_array().unwrap().iter().all(|action| !action["permitted_by"].as_array().unwrap().is_empty())
        );
    }
    let policies = Policies::write(&folder.path().join("policies"));
    policies.put("provider.toml", "provider = 1");
    run(folder.path(), &["actions", "--policies", "policies"], 3);
}

#[test]
fn schema_prints_what_cedar_reads() {
    let folder = tempfile::tempdir().unwrap();
    let text = run(folder.path(), &["schema"], 0).out;
    for action in ACTIONS {
        assert!(text.contains(&format!("action \"{action}\" appliesTo {{")), "{action} is not in the schema");
    }
    assert!(text.contains("namespace RocketChat {") && text.contains("entity User in [Role, Permission];"), "{text}");
    let (schema, _) = cedar_policy::Schema::from_cedarschema_str(&text).unwrap();
    assert_eq!(schema.actions().count(), 31);
}

#[test]
fn init_writes_what_check_passes_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let written = run(folder.path(), &["init", "new/here"], 0).out;
    let mut expected = vec!["new/here/rolegate.toml".to_owned()];
    expected.extend(BUILT_IN.iter().map(|(path, _)| format!("new/here/policies/{path}")));
    assert_eq!(written.lines().collect::<Vec<_>>(), expected);
    let here = folder.path().join("new/here");
    for (path, text) in BUILT_IN {
        assert_eq!(fs::read_to_string(here.join("policies").join(path)).unwrap(), *text);
    }
    run(&here, &["check", "--config", "rolegate.toml"], 0);
    run(folder.path(), &["check", "--config", "new/here/rolegate.toml"], 0);
    fs::write(here.join("policies/rocketchat/policy.cedar"), "permit").unwrap();
    run(folder.path(), &["check", "--config", "new/here/rolegate.toml"], 3);
    fs::remove_file(here.join("rolegate.toml")).unwrap();
    let again = run(folder.path(), &["init", "new/here"], 1);
    assert!(again.err.contains("policies/") && again.err.contains("nothing was written"), "{}", again.err);
    assert!(!here.join("rolegate.toml").exists());
    assert_eq!(fs::read_to_string(here.join("policies/rocketchat/policy.cedar")).unwrap(), "permit");
}

#[test]
fn the_written_configuration_shows_every_key_with_the_default_that_the_code_has() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Config::load(Some(&path), &Flags::default()).unwrap_or_else(|faults| panic!("{faults}"))
    };
    let bare = load("bare.toml", "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:3000\"\n");
    assert_eq!(format!("{:#?}", load("example.toml", EXAMPLE)), format!("{bare:#?}"));

    // What stands behind `# ` and looks like a key is one.
    fs::write(folder.path().join("admin.token"), "0123456789abcdef").unwrap();
    fs::write(folder.path().join("service.toml"), "x-auth-token = \"t\"\n").unwrap();
    let is_key = |line: &str| line.strip_prefix("# ").filter(|rest| rest.split(' ').nth(1) == Some("=")).map(str::to_owned);
    let whole: Vec<String> = EXAMPLE.lines().map(|line| is_key(line).unwrap_or_else(|| line.to_owned())).collect();
    let whole = load("whole.toml", &whole.join("\n"));
    assert_eq!(whole.upstreams[0].host.as_deref(), Some("chat.example.org"));
    assert_eq!(whole.policies.directory, Some(folder.path().join("policies")));
    assert_eq!(whole.network_names(), ["office"]);

    // The reader itself says which keys there are.
    for table in ["listen", "admin", "policies", "facts", "audit", "limits", "traces", "[upstream]"] {
        let header = format!("[{table}]\n");
        let section = EXAMPLE.split(&header).nth(1).unwrap().split("\n[").next().unwrap();
        let path = folder.path().join("unknown.toml");
        let needed = if table == "[upstream]" { "provider = \"p\"\nurl = \"http://h\"\n" } else { "" };
        fs::write(&path, format!("{header}{needed}\"?\" = 1\n")).unwrap();
        let told = Config::load(Some(&path), &Flags::default()).unwrap_err().0.remove(0).message;
        let keys: Vec<&str> = told.split('`').skip(3).step_by(2).collect();
        assert!(!keys.is_empty(), "{told}");
        for key in keys {
            let shown = section.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            assert!(shown, "`{key}` of [{table}] is not in the written configuration");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_alone_run_the_proxy_and_healthcheck_asks_it() {
    let sample = Sample::rocketchat().await.unwrap();
    let mut program = Process::before(sample.url(), &[]).await;
    let admin = program.admin.to_string();
    let folder = program.folder.path().to_path_buf();
    let asked = run(&folder, &["healthcheck", "--admin", &admin], 0);
    assert_eq!((asked.out.as_str(), asked.err.as_str()), ("", ""));
    let answer = program.connect().await.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
    assert_eq!(answer.status, 200);
    assert!(program.log().contains("guarding 9 actions"), "{}", program.log());
    let log = folder.join("audit/audit.jsonl");
    assert!(records(&log).iter().any(|record| record["kind"] == "decision" && record["decision"] == "permit"));
    fs::remove_dir_all(folder.join("audit")).unwrap();
    fs::write(folder.join("audit"), "no folder").unwrap();
    let asked = run(&folder, &["healthcheck", "--admin", &admin], 1);
    assert_eq!(asked.err, "not ready: policies ok, audit failed, accepting ok\n");
    program.terminate();
    assert_eq!(program.exit().await, 0);
    let asked = run(&folder, &["healthcheck", "--admin", &admin], 1);
    assert!(asked.err.starts_with(&format!("{admin}: ")), "{}", asked.err);
}

#[test]
fn run_ends_at_once_with_the_code_for_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path();
    let flags = [
        "run",
        "--provider",
        "rocketchat",
        "--upstream",
        "http://127.0.0.1:9",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let with = |more: &[&'static str]| [&flags[..], more].concat();
    assert!(run(there, &["run"], 3).err.contains("names no `[[upstream]]`"));
    assert!(
        run(there, &["run", "--config", "nowhere.toml"], 2).err.contains("'nowhere.toml' for '--config <FILE>': No such file")
    );
    assert!(run(there, &["run", "--provider", "rocketchat"], 3).err.contains("--upstream: is needed with `--provider`"));
    assert!(
        run(there, &["run", "--provider", "rocketchta", "--upstream", "http://h"], 3).err.contains("no provider `rocketchta`")
    );
    assert!(run(there, &with(&["--policies", "nowhere"]), 2).err.contains("'nowhere' for '--policies <DIR>': No such file"));
    fs::write(there.join("durable.toml"), "[audit]\ndurability = \"durable\"\n").unwrap();
    let durable = run(there, &with(&["--config", "durable.toml"]), 3);
    assert!(durable.err.contains("durable.toml:2:14: `durability = \"durable\"` is not in this release"), "{}", durable.err);
    fs::write(there.join("cert.toml"), "[listen]\ntls = { certificate = \"no.pem\", key = \"no.pem\" }\n").unwrap();
    assert!(run(there, &with(&["--config", "cert.toml"]), 3).err.contains("no.pem: No such file"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let taken =
        Program::new(&["run", "--provider", "rocketchat", "--upstream", "http://h", "--listen", &address]).within(there).run();
    assert_eq!(taken.code, 1);
    assert!(taken.err.contains(&format!("cannot listen on {address}")), "{}", taken.err);
    fs::write(there.join("audit"), "no folder").unwrap();
    let unwritable = run(there, &with(&[]), 74);
    assert!(unwritable.err.contains("audit log: audit: File exists"), "{}", unwritable.err);
}

#[test]
fn the_version_names_a_revision_and_every_help_has_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--version", "-V"] {
        let version = run(folder.path(), &[flag], 0).out;
        assert_eq!(version.trim_end(), format!("rolegate {}", rolegate::VERSION));
        let revision = version.split(['(', ')']).nth(1).unwrap();
        let is_revision = revision.len() == 12 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_revision || revision == "unknown revision", "{version}");
    }
    let verbs = [
        "run",
        "demo",
        "check",
        "test",
        "explain",
        "audit",
        "audit verify",
        "actions",
        "schema",
        "init",
        "status",
        "healthcheck",
        "completions",
        "man",
    ];
    let all = run(folder.path(), &["--help"], 0).out;
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = run(folder.path(), &words, 0).out;
        assert!(help.contains("Example: rolegate "), "{verb} has no example:\n{help}");
        assert!(help.contains(&format!("Example: rolegate {verb}")), "{verb} shows another verb's example:\n{help}");
        assert!(all.contains(&format!("  {} ", words[0])), "{verb} is not in the help of all");
    }
    let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()).count();
    assert_eq!(listed, verbs.len() - 1 + 1, "a verb that this story does not know (`help` is the odd one):\n{all}");
}

#[test]
fn a_wrong_use_exits_2_and_says_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [
        &["chek"][..],
        &[],
        &["check", "--confg", "x"],
        &["check", "--format", "yaml"],
        &["healthcheck", "--admin", "nowhere"],
        &["init"],
        &["explain", "--provider", "rocketchat"],
    ] {
        let ended = run(folder.path(), wrong, 2);
        assert!(ended.err.contains("Usage: rolegate") || ended.err.contains("try '--help'"), "{wrong:?}: {}", ended.err);
        assert_eq!(ended.out, "");
    }
    assert!(run(folder.path(), &["chek"], 2).err.contains("'check'"));
}

#[test]
fn no_color_is_respected_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_rolegate");
    let on_a_terminal = |no_color: Option<&str>| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &format!("'{program}' test"), "/dev/null"]).current_dir(folder.path()).env_remove("NO_COLOR");
        script.stdin(std::process::Stdio::null());
        if let Some(value) = no_color {
            script.env("NO_COLOR", value);
        }
        let output = script.output().expect("no `script` on PATH: install Debian's bsdutils package");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_a_terminal(None).contains("\x1b[32mok:\x1b[0m 80 cases passed"));
    assert!(on_a_terminal(Some("")).contains('\x1b'), "an empty value is none");
    let plain = on_a_terminal(Some("1"));
    assert!(plain.contains("ok: 80 cases passed") && !plain.contains('\x1b'), "{plain:?}");
}
