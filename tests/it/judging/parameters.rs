//! Names that the server ignores, takes twice, or takes at any length.

use std::sync::Arc;

use rolegate::model::Door;
use rolegate::pipeline::rehearse::{Evaluation, evaluate};
use rolegate::rules::{Known, KnownSubject, Rules, Ruleset, Sources};
use serde_json::json;

use super::kept::Upstream;
use super::{assert_refused, somebody, token};

/// What synapse-admin and ketesa put behind every list of one room or user.
const PAGED: &str = "from=0&limit=10&order_by=id&dir=f";

#[tokio::test(flavor = "multi_thread")]
async fn every_tab_of_an_admin_page_is_judged_and_what_synapse_ignores_is_left_out() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    for path in [
        "/_synapse/admin/v1/rooms/%21r%3Ahs/members",
        "/_synapse/admin/v1/rooms/%21r%3Ahs/state",
        "/_synapse/admin/v1/rooms/%21r%3Ahs",
        "/_synapse/admin/v1/users/%40bob%3Ahs/joined_rooms",
        "/_synapse/admin/v1/users/%40bob%3Ahs/memberships",
        "/_synapse/admin/v2/users/%40bob%3Ahs",
        "/_synapse/admin/v1/whois/%40bob%3Ahs",
    ] {
        let answer = connection.get(&format!("{path}?{PAGED}"), &token()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(upstream.newest().target(), path, "what is ignored is not sent");
        let record = gate.last_decision();
        assert!(record["target"].as_str().unwrap().ends_with(PAGED), "it is recorded: {record}");
        assert!(record["context"]["params"].get("from").is_none(), "policies do not see it: {record}");
    }
    // Where they mean something they are parameters like any others.
    let answer = connection.get("/_synapse/admin/v2/users?dir=f&from=5&limit=10&order_by=name", &token()).await;
    assert_eq!(
        (answer.status, upstream.newest().target()),
        (200, "/_synapse/admin/v2/users?dir=f&from=5&limit=10&order_by=name")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_name_is_no_way_around_the_rules_of_a_query() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    let members = "/_synapse/admin/v1/rooms/%21r%3Ahs/members";
    for (query, reason) in [
        ("from=0&from=1", "param_repeated"),
        ("from=0&fr%6Fm=1", "param_repeated"),
        ("from=%00", "param_invalid"),
        ("from=%zz", "param_invalid"),
        ("from[]=1", "param_unknown"),
        ("FROM=1", "param_unknown"),
        ("from=1&since=2", "param_unknown"),
        ("from=1;limit=2&x=1", "param_unknown"),
        ("from=1?limit=2", "target_ambiguous"),
    ] {
        let answer = connection.get(&format!("{members}?{query}"), &token()).await;
        assert_refused(&gate, &answer, 400, reason, query);
    }
    let gate = upstream.gate("rocketchat").await.start();
    let mut connection = gate.connect().await;
    let list = "/api/v1/roles.getUsersInRole?role=admin";
    for (query, reason) in [("sort[a]=1", "param_invalid"), ("query[]=1", "param_invalid"), ("sort=1&sort=1", "param_repeated")] {
        let answer = connection.get(&format!("{list}&{query}"), &somebody()).await;
        assert_refused(&gate, &answer, 400, reason, query);
    }
    assert!(upstream.requests().is_empty());
    let answer = connection.get(&format!("{list}&sort=%7B%22a%22%3A1%7D&query=%7B%7D"), &somebody()).await;
    assert_eq!((answer.status, upstream.newest().target()), (200, list), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_takes_more_than_once_goes_on_in_its_order() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    for (query, sent, read) in [
        (
            "from=0&limit=10&not_user_type=bot&not_user_type=support",
            "from=0&limit=10&not_user_type=bot&not_user_type=support",
            json!(["bot", "support"]),
        ),
        (
            "not_user_type=support&from=1&not_user_type=bot",
            "from=1&not_user_type=support&not_user_type=bot",
            json!(["support", "bot"]),
        ),
        ("not_user_type=", "not_user_type=", json!([""])),
        ("not_user_type=a%2Cb", "not_user_type=a%2Cb", json!(["a,b"])),
    ] {
        let answer = connection.get(&format!("/_synapse/admin/v2/users?{query}"), &token()).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(upstream.newest().target(), format!("/_synapse/admin/v2/users?{sent}"), "{query}");
        assert_eq!(gate.last_decision()["context"]["params"]["not_user_type"], read, "{query}");
    }
    for (query, reason) in [
        ("not_user_type=bot&not_user_type=%00", "param_invalid"),
        ("not_user_type[]=bot", "param_unknown"),
        ("name=a&name=b", "param_repeated"),
    ] {
        let answer = connection.get(&format!("/_synapse/admin/v2/users?{query}"), &token()).await;
        assert_refused(&gate, &answer, 400, reason, query);
    }
}

/// The built-in Matrix rules with another policy.
fn rules(policy: &str) -> Result<Arc<Rules>, String> {
    let mut sources = Sources::built_in();
    sources.files.retain(|file| file.name != "cases.toml");
    for file in sources.files.iter_mut().filter(|file| file.provider == "matrix" && file.name.ends_with(".cedar")) {
        file.text = policy.to_owned();
    }
    let rules = Ruleset::load(&sources, &[]).map_err(|faults| faults.to_string())?;
    Ok(Arc::clone(rules.provider("matrix").unwrap()))
}

#[test]
fn to_a_policy_it_is_a_set_that_may_be_absent() {
    let policy = |condition: &str| {
        format!("@id(\"p\") permit (principal, action == Matrix::Action::\"admin.users\", resource) when {{ {condition} }};")
    };
    let rules = rules(&policy("context.params has not_user_type && context.params.not_user_type.contains(\"bot\")")).unwrap();
    let subject = KnownSubject { id: "@carol:hs".into(), name: "@carol:hs".into(), ..KnownSubject::default() };
    let known = Known { subject: Some(subject), ..Known::default() };
    for (query, permitted) in [
        ("?not_user_type=support&not_user_type=bot", true),
        ("?not_user_type=bot", true),
        ("?not_user_type=support", false),
        ("", false),
    ] {
        let verdict = evaluate(&rules, "GET", &format!("/_synapse/admin/v2/users{query}"), &known);
        assert_eq!(matches!(verdict, Evaluation::Permit(_)), permitted, "{query}: {verdict:?}");
        if let Evaluation::Permit(permit) = verdict {
            assert_eq!(
                (permit.trail().door(), permit.target()),
                (Door::Rest, format!("/_synapse/admin/v2/users{query}").as_str())
            );
        }
    }
    let unguarded = self::rules(&policy("context.params.not_user_type.contains(\"bot\")")).unwrap_err();
    assert!(unguarded.contains("not_user_type"), "{unguarded}");
    let text = self::rules(&policy("context.params has not_user_type && context.params.not_user_type == \"bot\"")).unwrap_err();
    assert!(text.contains("policy.cedar:1:"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_server_can_read_is_as_long_as_it_likes() {
    let upstream = Upstream::start().await;
    let gate = upstream.gate("matrix").await.start();
    let mut connection = gate.connect().await;
    // A token of one writer, of ten, and one of a hundred.
    for length in [40, 256, 284, 2_900, 7_800, 40_000] {
        let token_of_the_server: String = "s_0123456789~".chars().cycle().take(length).collect();
        for target in [
            format!("/_matrix/client/v3/rooms/%21r%3Ahs/members?at={token_of_the_server}&not_membership=leave"),
            format!("/_synapse/admin/v1/rooms?search_term={token_of_the_server}"),
            format!("/_synapse/admin/v2/users?name={token_of_the_server}"),
            format!("/_synapse/admin/v2/users?user_id={token_of_the_server}"),
            format!("/_synapse/admin/v1/rooms/%21r%3Ahs/state?type={token_of_the_server}"),
        ] {
            let answer = connection.get(&target, &token()).await;
            assert_eq!(answer.status, 200, "{length}: {}", answer.text());
            assert_eq!(upstream.newest().target(), target);
        }
    }
    // It is the head that is bounded, for open routes and guarded ones alike.
    for path in ["/_matrix/client/v3/rooms/%21r%3Ahs/members", "/_matrix/client/v3/sync"] {
        let mut connection = gate.connect().await;
        let target = format!("{path}?at={}", "a".repeat(48 * 1024));
        let answer = connection.get(&target, &token()).await;
        assert_eq!((answer.status, upstream.newest().target() == target), (400, false), "{path}: {}", answer.text());
    }
}

#[test]
fn no_parameter_in_a_query_of_a_shipped_file_is_shorter_than_any_head_unless_the_server_says_so() {
    use rolegate::rules::param::{Form, Place};
    let rules = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    for rules in rules.providers() {
        for action in &rules.provider.actions {
            for param in action.params.iter().filter(|param| matches!(param.place, Place::Query | Place::Body)) {
                if let Form::Text { max, .. } = param.form {
                    assert!(max >= rolegate::rules::param::LONGEST_VALUE, "{}: {}", action.id, param.name);
                }
            }
        }
    }
}

#[test]
fn what_a_provider_file_cannot_mean_is_told_with_its_place() {
    for (from, to, told) in [
        (
            "[\"from\", \"limit\", \"order_by\", \"dir\"]",
            "[\"from\", \"userId\"]",
            "`userId` is a parameter, so it is not ignored",
        ),
        (
            "[action.params.roomId]\nin = \"path\"",
            "[action.params.roomId]\nrepeated = true\nin = \"path\"",
            "`repeated` is for query parameters",
        ),
        (
            "[action.params.empty_rooms]\nin = \"query\"",
            "[action.params.empty_rooms]\nrepeated = true\nin = \"query\"",
            "`repeated` is for texts: the types `id`, `string` and `enum`",
        ),
        (
            "resource = { type = \"Server\", param = [] }\nfacts = [{ name = \"server\" }]\nrest = [\n  \"GET /_synapse/admin/v2/users\"",
            "resource = { type = \"Server\", param = \"not_user_type\" }\nfacts = [{ name = \"server\" }]\nrest = [\n  \"GET /_synapse/admin/v2/users\"",
            "`not_user_type` may be given more than once, so it names no resource",
        ),
    ] {
        let mut sources = Sources::built_in();
        for file in sources.files.iter_mut().filter(|file| file.provider == "matrix" && file.name == "provider.toml") {
            assert!(file.text.contains(from), "{from}");
            file.text = file.text.replacen(from, to, 1);
        }
        let faults = Ruleset::load(&sources, &[]).map(|_| ()).unwrap_err().to_string();
        assert!(faults.contains(told) && faults.contains("provider.toml:"), "{told}: {faults}");
    }
}
