//! `rolegate status`: how a running rolegate is, for people.

use bytesize::ByteSize;
use serde_json::Value;

use super::listener::{ListenerArgs, TOKEN, TokenArgs};
use super::output::{self, Format, Paint};
use super::{Exit, invalid};

/// Show how a running rolegate is
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate status --config rolegate.toml\n\n\
    Exit codes: 0 all is well, 1 no answer, or something needs attention (each such thing is named), 2 usage, 3 configuration invalid")]
pub(super) struct Args {
    #[command(flatten)]
    listener: ListenerArgs,
    #[command(flatten)]
    token: TokenArgs,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut listener = match args.listener.listener() {
        Ok(listener) => listener,
        Err(faults) => return invalid(&faults, args.format),
    };
    if let Err(why) = args.token.bring_to(&mut listener) {
        return failed(&why);
    }
    let (ready, status) = match listener.get("/readyz").and_then(|ready| Ok((ready, listener.get("/status")?))) {
        Ok(answers) => answers,
        Err(why) => return failed(&why),
    };
    let address = &listener.address;
    let told = match (status.status, serde_json::from_str::<Value>(&status.body)) {
        (200, Ok(told)) if told.get("policy_revision").is_some() => told,
        (200, _) => return failed(&format!("{address}: this is not the admin listener of a rolegate")),
        (401, _) => return failed(&format!("{address}: the token is not the right one\n  hint: {TOKEN}")),
        (404, _) => {
            return failed(&format!("{address}: shows its status to nobody, or is not an admin listener\n  hint: {TOKEN}"));
        }
        (other, _) => return failed(&format!("{address}: answers {other}")),
    };
    let mut worries = Vec::new();
    if ready.status != 200 {
        worries.push(format!("it is not ready: {}", ready.body.trim().replace('\n', ", ")));
    }
    worries.extend(self::worries(&told));
    match args.format {
        Format::Json => output::json(&told),
        Format::Human => {
            human(&told, &address.to_string(), &worries).iter().for_each(|line| output::line(line));
        }
    }
    if worries.is_empty() { Exit::Good } else { Exit::Failed }
}

fn failed(why: &str) -> Exit {
    output::error(why);
    Exit::Failed
}

/// What somebody should look at.
fn worries(told: &Value) -> Vec<String> {
    let mut worries = Vec::new();
    if told.pointer("/last_reload/succeeded") == Some(&Value::Bool(false)) {
        worries.push("the last reload failed; the policies of before it run on".to_owned());
    }
    if told.pointer("/config/matches_disk") == Some(&Value::Bool(false)) {
        let files = told.pointer("/config/differing").and_then(Value::as_array).into_iter().flatten();
        let restart = match told.pointer("/config/fault").and_then(Value::as_str) {
            None => "; restart to use it".to_owned(),
            Some(fault) => format!(", and a restart would fail: {fault}"),
        };
        worries.extend(files.map(|file| format!("{} differs from what runs{restart}", text(file, ""))));
    }
    for server in servers(told).filter(|server| server.get("up") == Some(&Value::Bool(false))) {
        worries.push(format!("{} does not answer: {}", text(server, "/url"), text(server, "/why")));
    }
    for upstream in told.get("upstreams").and_then(Value::as_array).into_iter().flatten() {
        let missing = upstream.get("missing_routes").and_then(Value::as_array).into_iter().flatten();
        let name = text(upstream, "/name");
        if let Some(wrong) = upstream.get("misplaced").filter(|wrong| wrong.is_object()) {
            let hint = wrong.get("hint").and_then(Value::as_str).map(|hint| format!(": {hint}")).unwrap_or_default();
            let (url, why) = (text(wrong, "/url"), text(wrong, "/why"));
            worries.push(format!("{name}: {url} {why}; clients may reach the API by paths that are not judged{hint}"));
        }
        worries.extend(missing.map(|route| format!("{name} has no route `{}`: what needs it is refused", text(route, ""))));
    }
    worries
}

/// Every server behind the gate.
fn servers(told: &Value) -> impl Iterator<Item = &Value> {
    let upstreams = told.get("upstreams").and_then(Value::as_array).into_iter().flatten();
    upstreams.flat_map(|upstream| upstream.get("servers").and_then(Value::as_array).into_iter().flatten())
}

fn human(told: &Value, address: &str, worries: &[String]) -> Vec<String> {
    let paint = Paint::stdout();
    let mut rows = vec![row("rolegate", format!("{} at {address}", text(told, "/version")))];
    let mode = match told.get("warning").and_then(Value::as_str) {
        Some(warning) => paint.bad(warning),
        None => text(told, "/mode"),
    };
    rows.push(row("mode", mode));
    rows.push(row("policies", format!("revision {}", text(told, "/policy_revision"))));
    let read = time(told, "/last_reload/time");
    match told.pointer("/last_reload/error").and_then(Value::as_str) {
        None => rows.push(row("read", format!("{read}, without a fault"))),
        Some(error) => {
            rows.push(row("read", format!("{read}, {}:", paint.bad("REFUSED"))));
            rows.extend(error.lines().map(|line| row("", line.to_owned())));
        }
    }
    for upstream in told.get("upstreams").and_then(Value::as_array).into_iter().flatten() {
        rows.push(row(
            "upstream",
            format!(
                "{} ({}, {}), {} left open",
                text(upstream, "/name"),
                text(upstream, "/provider"),
                text(upstream, "/mode"),
                count(upstream, "/open_routes", "known route")
            ),
        ));
        for server in upstream.get("servers").and_then(Value::as_array).into_iter().flatten() {
            let state = match server.get("up").and_then(Value::as_bool) {
                Some(true) => paint.good("up"),
                Some(false) => format!("{}: {}", paint.bad("DOES NOT ANSWER"), text(server, "/why")),
                None => "not asked yet".to_owned(),
            };
            rows.push(row("", format!("{} {state}, since {}", text(server, "/url"), time(server, "/since"))));
        }
        rows.push(row(
            "",
            format!(
                "remembered: {}, {}, {}, {}",
                count(upstream, "/facts/callers", "caller"),
                count(upstream, "/facts/facts", "fact"),
                count(upstream, "/facts/tables", "table"),
                count(upstream, "/facts/refused", "refused credential")
            ),
        ));
    }
    let file = told.pointer("/audit/file").and_then(Value::as_str).unwrap_or("standard output");
    rows.push(row(
        "audit",
        format!(
            "record {} in {file}, {}, {}",
            text(told, "/audit/seq"),
            size(told, "/audit/bytes"),
            count(told, "/audit/failures", "failure")
        ),
    ));
    rows.push(row("clients", count(told, "/connections", "connection")));
    rows.extend(worries.iter().map(|worry| row(&paint.bad("look at"), worry.clone())));
    rows
}

/// A heading and what stands beside it.
fn row(heading: &str, content: String) -> String {
    // Colours take no room on a terminal.
    let shown = heading.chars().count() - if heading.contains('\x1b') { 9 } else { 0 };
    format!("{heading}{:room$}{content}", "", room = 10usize.saturating_sub(shown))
}

/// So many things.
fn count(value: &Value, pointer: &str, thing: &str) -> String {
    let many = if value.pointer(pointer).and_then(Value::as_u64) == Some(1) { "" } else { "s" };
    format!("{} {thing}{many}", text(value, pointer))
}

/// A number of bytes in the unit that suits it.
fn size(value: &Value, pointer: &str) -> String {
    let bytes = value.pointer(pointer).and_then(Value::as_u64);
    bytes.map_or_else(|| text(value, pointer), |bytes| ByteSize(bytes).to_string())
}

/// A time to the second.
fn time(value: &Value, pointer: &str) -> String {
    let text = text(value, pointer);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A value as people read it.
fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told() -> Value {
        json!({
            "version": "0.1.0 (abc)", "mode": "enforce", "warning": null, "policy_revision": "90981126f0f2",
            "last_reload": { "time": "2026-01-02T03:04:05Z", "succeeded": true, "error": null },
            "config": { "matches_disk": true, "differing": [] },
            "upstreams": [{
                "name": "chat.example.org", "provider": "rocketchat", "mode": "enforce", "open_routes": 200,
                "facts": { "callers": 3, "facts": 1, "tables": 1, "refused": 0 },
                "servers": [{ "url": "http://chat.internal:3000", "up": true, "since": "2026-01-02T03:04:05.678901234Z", "why": null }],
            }],
            "connections": 7, "audit": { "seq": 42, "file": "audit/audit.jsonl", "bytes": 2560, "failures": 1 },
        })
    }

    #[test]
    fn a_gate_that_is_well_is_told_in_a_few_lines() {
        let told = told();
        assert_eq!(worries(&told), Vec::<String>::new());
        assert_eq!(
            human(&told, "127.0.0.1:9901", &[]),
            [
                "rolegate  0.1.0 (abc) at 127.0.0.1:9901",
                "mode      enforce",
                "policies  revision 90981126f0f2",
                "read      2026-01-02T03:04:05Z, without a fault",
                "upstream  chat.example.org (rocketchat, enforce), 200 known routes left open",
                "          http://chat.internal:3000 up, since 2026-01-02T03:04:05Z",
                "          remembered: 3 callers, 1 fact, 1 table, 0 refused credentials",
                "audit     record 42 in audit/audit.jsonl, 2.5 KiB, 1 failure",
                "clients   7 connections",
            ]
        );
    }

    #[test]
    fn everything_that_needs_attention_is_named() {
        let mut told = told();
        told["last_reload"]["succeeded"] = json!(false);
        told["last_reload"]["error"] = json!("policy.cedar:1:1: wrong\n  hint: mend it");
        told["config"] = json!({ "matches_disk": false, "differing": ["rolegate.toml"] });
        told["upstreams"][0]["servers"][0]["up"] = json!(false);
        told["upstreams"][0]["servers"][0]["why"] = json!("connection refused");
        told["upstreams"][0]["missing_routes"] = json!(["GET /api/v1/rooms.info?roomId={room}"]);
        told["upstreams"][0]["misplaced"] =
            json!({ "url": "http://chat/api/v1/me", "why": "answers 404", "hint": "is `path_prefix` missing?" });
        told["warning"] = json!("NOTHING IS ENFORCED for chat.example.org");
        let worries = worries(&told);
        assert_eq!(
            worries,
            [
                "the last reload failed; the policies of before it run on",
                "rolegate.toml differs from what runs; restart to use it",
                "http://chat.internal:3000 does not answer: connection refused",
                "chat.example.org: http://chat/api/v1/me answers 404; clients may reach the API by paths that are not judged: is `path_prefix` missing?",
                "chat.example.org has no route `GET /api/v1/rooms.info?roomId={room}`: what needs it is refused",
            ]
        );
        let shown = human(&told, "127.0.0.1:9901", &worries).join("\n");
        for part in [
            "mode      NOTHING IS ENFORCED",
            "REFUSED:\n          policy.cedar:1:1: wrong\n            hint: mend it",
            "DOES NOT ANSWER: connection refused",
            "look at   rolegate.toml differs",
        ] {
            assert!(shown.contains(part), "nothing says `{part}`:\n{shown}");
        }
    }
}
