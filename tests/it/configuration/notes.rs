//! What is allowed and does not do what it seems to: `check` says so, and `run` where it is about the gate itself.

use std::fs;

use super::{Folder, PLAIN, place};
use crate::support::Process;

/// The notes that `check` has, in both forms, for a change of the configuration.
fn notes(to: &str) -> (Folder, String, String) {
    let folder = Folder::new(PLAIN);
    let text = folder.change("rolegate.toml", "[policies]", to);
    let told = folder.check(&[], 0).out;
    let json = folder.check(&["--format", "json"], 0).json();
    let count = told.lines().filter(|line| line.starts_with("note: ") && !line.contains("no case makes")).count();
    assert_eq!(json["notes"].as_array().unwrap().len(), count, "{told}\n{json}");
    (folder, text, told)
}

#[test]
fn a_folder_without_doubts_has_no_notes() {
    let (folder, _, told) = notes("[policies]");
    assert!(!told.contains("rolegate.toml"), "{told}");
    folder.change("policies/small/provider.toml", ", \"POST /api/rooms/{roomId}/search\"", "");
    assert_eq!(folder.check(&["--format", "json"], 0).json()["notes"], serde_json::json!([]));
}

#[test]
fn what_hardly_can_be_meant_is_noted_with_its_place() {
    let token = "`/status`, `/reload` and `/facts/invalidate` are closed (404)";
    for (change, at, says) in [
        ("[facts]\nmax_stale = \"2h\"\n[policies]", "\"2h\"", "a withdrawn role lasts up to 2h while lookups fail"),
        ("[limits]\nlookups = 5\nlookups_per_address = 6\n[policies]", "6\n", "does nothing, it is more than `lookups`"),
        (
            "[limits]\nconnections = 5\nconnections_per_address = 6\n[policies]",
            "6\n",
            "does nothing, it is more than `connections`",
        ),
        ("path_prefix = \"/chat/api\"\n[policies]", "\"/chat/api\"", "only `/chat/api/api` is guarded, not `/chat/api`"),
        ("websockets = \"deny\"\n[policies]", "\"deny\"", "closes handshakes only: `provider.toml` has no `[sockets]`"),
        ("tls = { server_name = \"chat\" }\n[policies]", "{ server", "the URL begins with `http://`"),
    ] {
        let (_, text, told) = notes(change);
        let line = told.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("nothing says `{says}`:\n{told}"));
        assert!(line.starts_with(&format!("note: rolegate.toml:{}: ", place(&text, at))), "{line}");
    }
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"0.0.0.0:0\"");
    let told = folder.check(&[], 0).out;
    assert!(told.contains("note: rolegate.toml:4:11: `admin.address`: 0.0.0.0:0 can be reached from elsewhere"), "{told}");
    assert!(told.contains(token) && told.contains("hint: set `token_file`"), "{told}");
    fs::write(folder.path("admin.token"), "0123456789abcdef").unwrap();
    folder.change("rolegate.toml", "[admin]", "[admin]\ntoken_file = \"admin.token\"");
    assert!(!folder.check(&[], 0).out.contains(token), "with a token there is nothing to say");
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "[listen]", "[listen]\ntrusted_proxies = [\"0.0.0.0/0\"]");
    assert!(folder.check(&[], 0).out.contains("everybody's `X-Forwarded-For` is believed"));
}

#[test]
fn an_action_that_no_policy_permits_is_noted() {
    let folder = Folder::new(PLAIN);
    let action = "[[action]]\nid = \"room.search\"\nsummary = \"new\"\nresource = { type = \"Team\", param = \"teamId\" }\n\
                  rest = \"POST /api/teams/{teamId}\"\nparams.teamId = { in = \"path\", type = \"id\", required = true }\n[[route]]";
    let text = folder.change("policies/small/provider.toml", "[[route]]", action);
    let told = folder.check(&[], 0).out;
    let at = format!("note: policies/small/provider.toml:{}: ", place(&text, "\"room.search\""));
    assert!(told.contains(&format!("{at}no policy permits `room.search`: it is refused to everybody")), "{told}");
    assert!(told.contains("permit (principal, action == Small::Action::\"room.search\", resource)"), "{told}");
    assert!(told.contains(&format!("{at}`POST /api/teams/{{teamId}}` takes no body")), "{told}");
}

#[test]
fn a_provider_without_cases_is_noted() {
    let folder = Folder::new(PLAIN);
    fs::remove_file(folder.path("policies/small/cases.toml")).unwrap();
    let told = folder.check(&[], 0).out;
    assert!(
        told.contains("note: policies/small: has no `cases.toml`: nothing holds what the policies permit and refuse"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_says_at_its_start_what_check_notes_of_its_configuration() {
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "[policies]", "[facts]\nmax_stale = \"2h\"\n[policies]");
    let gate = Process::run(folder.0, &["run", "--config", "rolegate.toml"]).await;
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("a withdrawn role lasts up to 2h")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN") && line.contains("rolegate.toml:9:13"), "{line}");
}
