//! A fact whose parameter is not given, and a table without a row, are absent and not their defaults.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::gate::login;
use crate::support::{Gate, GateBuilder, Policies, Program};

/// A route that a newcomer closes: the room is named by its id or by its name, and the fact hangs on the id.
const ACTION: &str = r#"
[[action]]
id = "channels.members"
summary = "List the members of a channel"
resource = { type = "Room", param = ["roomId", "roomName"] }
facts = [{ name = "room", room = "roomId" }]
rest = "GET /api/v1/channels.members"

[action.params.roomId]
in = "query"
type = "id"

[action.params.roomName]
in = "query"
type = "string"
"#;

/// The built-in rules of Rocket.Chat in `folder`, with this action instead of the route, and this policy for it.
fn with_members(folder: &Path, conditions: &str) -> Policies {
    let policies = Policies::write(folder);
    let provider = Policies::built_in("provider.toml");
    let route = "rest = \"GET /api/v1/channels.members\"\n";
    assert_eq!(provider.matches(route).count(), 1);
    let other = provider.replace(route, "rest = \"GET /api/v1/channels.members.of.old\"\n");
    policies.put("provider.toml", &format!("{other}{ACTION}"));
    let policy = format!(
        "\n@id(\"channel-members\")\npermit (principal, action == RocketChat::Action::\"channels.members\", resource)\n{conditions};\n"
    );
    policies.put("policy.cedar", &format!("{}{policy}", policies.open()));
    policies
}

fn check(folder: &Path) -> crate::support::program::Ended {
    Program::new(&["check", "--policies", "rules"]).within(folder).run()
}

async fn gate(conditions: &str) -> Gate {
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("rules");
    with_members(&folder, conditions);
    builder.with(|config| config.policies.directory = Some(folder)).start()
}

#[test]
fn a_policy_that_does_not_ask_whether_the_fact_is_known_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    with_members(&folder.path().join("rules"), "unless { context.room.kind == \"p\" }");
    let ended = check(folder.path());
    assert_eq!(ended.code, 3, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("access to optional attribute `room`"), "{}", ended.err);
    assert!(ended.err.contains("hint: try testing for the attribute's presence with `context has room && ..`"), "{}", ended.err);
    with_members(&folder.path().join("rules"), "when { context has room && context.room.kind != \"p\" }");
    assert_eq!(check(folder.path()).code, 0);
}

#[test]
fn a_case_that_states_a_fact_which_its_request_cannot_have_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let policies = with_members(&folder.path().join("rules"), "when { context has room && context.room.kind != \"p\" }");
    let case = |request: &str| {
        format!(
            "[[case]]\nname = \"an outsider of a private room\"\nrequest = \"GET /api/v1/channels.members?{request}\"\n\
             subject = {{ id = \"u1\" }}\nfacts = {{ room = {{ kind = \"p\" }} }}\nexpect = \"deny\"\n"
        )
    };
    policies.put("cases.toml", &case("roomName=secret"));
    let ended = check(folder.path());
    assert_eq!(ended.code, 3, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("rocketchat/cases.toml:5:11: "), "{}", ended.err);
    assert!(ended.err.contains("the fact `room` is known only when `roomId` is given"), "{}", ended.err);
    policies.put("cases.toml", &case("roomId=secret"));
    assert_eq!(check(folder.path()).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_the_parameter_is_judged_without_the_fact_and_the_record_says_so() {
    let gate = gate("when { context has room && context.room.kind != \"p\" }").await;
    let by_name = gate.get("/api/v1/channels.members?roomName=boardroom", &login("eve")).await;
    assert_eq!(by_name.status, 403, "{}", by_name.text());
    assert_eq!(gate.sample.count("/api/v1/channels.members"), 0, "it never arrived");
    let record = gate.last_decision();
    assert_eq!((record["context"].get("room"), record["facts"].get("room")), (None, Some(&json!(null))), "{record}");
    assert_eq!(gate.sample.count("/api/v1/subscriptions.getOne"), 0, "there was nothing to ask about");

    let by_id = gate.get("/api/v1/channels.members?roomId=GENERAL", &login("eve")).await;
    assert_eq!(by_id.status, 200, "{}", by_id.text());
    let record = gate.last_decision();
    assert!(record["context"]["room"].is_object() && record["facts"]["room"]["age_ms"].is_u64(), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_row_gives_no_value_and_the_record_says_so() {
    let gate = Gate::rocketchat().await;
    gate.sample.with(|world| world.workspace.grant("access-permissions", &["user"]));
    let answer = gate.get("/api/v1/roles.getUsersInRole?role=nobody-knows", &login("eve")).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let record = gate.last_decision();
    assert_eq!((record["context"].get("table"), record["facts"].get("role_scope")), (None, Some(&json!(null))), "{record}");
    assert_eq!(gate.get("/api/v1/roles.getUsersInRole?role=admin", &login("eve")).await.status, 200);
    let record = gate.last_decision();
    assert_eq!((&record["context"]["table"]["role_scope"], record["facts"].get("role_scope")), (&json!("Users"), None));
}

#[test]
fn a_fact_takes_one_parameter_and_no_input_is_called_name() {
    let folder = tempfile::tempdir().unwrap();
    let policies = Policies::write(&folder.path().join("rules"));
    let listed = Policies::built_in("provider.toml").replacen(
        "{ name = \"room\", room = \"rid\" }",
        "{ name = \"room\", room = [\"rid\", \"rname\"] }",
        1,
    );
    let line = listed.lines().position(|line| line.contains("\"rname\"")).unwrap() + 1;
    policies.put("provider.toml", &listed);
    let ended = check(folder.path());
    assert!(ended.err.contains(&format!("provider.toml:{line}:34: `room` takes one parameter, not a list")), "{}", ended.err);
    assert!(ended.err.contains("hint: a fact takes one parameter; for another one declare another fact"), "{}", ended.err);

    let named = Policies::built_in("provider.toml").replacen("needs = [\"room\"]", "needs = [\"name\"]", 1);
    let line = named.lines().position(|line| line == "needs = [\"name\"]").unwrap() + 1;
    fs::write(policies.path("provider.toml"), named).unwrap();
    let ended = check(folder.path());
    assert!(ended.err.contains(&format!("provider.toml:{line}:10: an input cannot be named `name`")), "{}", ended.err);
}
