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
    let token = "`/status`, `/reload`, `/facts/invalidate` and `/audit/rotate` are closed (404)";
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
        ("[facts]\nttl = \"61m\"\n[policies]", "\"61m\"", "a withdrawn role lasts up to 1h 1m"),
        ("[limits]\nheader_deadline = \"999ms\"\n[policies]", "\"999ms\"", "`limits.header_deadline`: clients on a slow network"),
        ("[limits]\nbody_deadline = \"10ms\"\n[policies]", "\"10ms\"", "are cut off after 10ms"),
        ("[limits]\nbody_idle = \"1ms\"\n[policies]", "\"1ms\"", "`limits.body_idle`: clients on a slow network"),
        ("[limits]\ninspected_body = \"1023B\"\n[policies]", "\"1023B\"", "calls of more than 1023 bytes are refused (413)"),
        ("[limits]\nlookup_body = \"63KiB\"\n[policies]", "\"63KiB\"", "larger than 64512 bytes, requests are refused (503)"),
        ("[audit]\nkeep_age = \"59m\"\n[policies]", "\"59m\"", "records are removed as early as 59m after they were made"),
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
fn values_at_the_bounds_of_the_notes_pass_in_silence() {
    let limits = "[limits]\nheader_deadline = \"1s\"\nbody_deadline = \"1s\"\nbody_idle = \"1s\"\ninspected_body = \"1KiB\"\nlookup_body = \"64KiB\"\n";
    let (_, _, told) = notes(&format!("{limits}[facts]\nttl = \"1h\"\n[audit]\nkeep_age = \"1h\"\n[policies]"));
    assert!(!told.contains("rolegate.toml"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_methods_of_a_provider_that_has_none_in_bodies_are_noted_and_told_at_the_start() {
    const SAYS: &str = "`unlisted_methods = \"deny\"` does nothing: `matrix` has no methods in bodies";
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "[policies]\ndirectory = \"policies\"\n", "unlisted_methods = \"deny\"\n");
    let text = folder.change("rolegate.toml", "\"small\"", "\"matrix\"");
    let told = folder.check(&[], 0).out;
    assert!(told.contains(&format!("note: rolegate.toml:{}: {SAYS}", place(&text, "\"deny\""))), "{told}");
    let gate = Process::run(folder.0, &["run", "--config", "rolegate.toml"]).await;
    assert!(gate.log().lines().any(|line| line.contains("WARN") && line.contains("has no methods in bodies")), "{}", gate.log());
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "[policies]\ndirectory = \"policies\"\n", "unlisted_methods = \"deny\"\n");
    folder.change("rolegate.toml", "\"small\"", "\"rocketchat\"");
    assert!(!folder.check(&[], 0).out.contains("does nothing"), "it has");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_says_at_its_start_that_its_certificate_ended_or_soon_will() {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    for (days, level, says) in [(-3, "ERROR", "the certificate ended 3 days ago"), (29, "WARN", "the certificate ends in 2")] {
        let ends = today + jiff::Span::new().days(days);
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        let [month, day] = [ends.month(), ends.day()].map(|part| u8::try_from(part).unwrap());
        params.not_after = rcgen::date_time_ymd(ends.year().into(), month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        let folder = Folder::new(PLAIN);
        fs::write(folder.path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(folder.path("key.pem"), key.serialize_pem()).unwrap();
        folder.change("rolegate.toml", "[listen]", "[listen]\ntls = { certificate = \"cert.pem\", key = \"key.pem\" }");
        let gate = Process::run(folder.0, &["run", "--config", "rolegate.toml"]).await;
        let log = gate.log();
        let line = log.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("nothing says `{says}`:\n{log}"));
        assert!(line.contains(&format!("\"{level}\"")) && line.contains("rolegate.toml:2:23"), "{line}");
    }
}
