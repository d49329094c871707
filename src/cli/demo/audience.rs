//! What the demo prints: a line for people about each call, or JSON.

use serde_json::{Value, json};

use super::super::output::{self, Format, Paint};
use super::{Played, Stage, doors, why};
use crate::demo::world::workspace::{BOARDROOM, CAROL, EVE};
use crate::proxy::Gate;

/// The width of the column that says what was asked, in characters.
const ROOM_FOR_WHAT: usize = 52;

/// For whom the demo prints, and how much.
#[derive(Debug)]
pub(super) struct Audience {
    format: Format,
    verbose: bool,
    paint: Paint,
}

impl Audience {
    pub(super) fn new(format: Format, verbose: bool) -> Self {
        Self { format, verbose, paint: Paint::stdout() }
    }

    /// The heading of one provider's calls.
    pub(super) fn provider(&self, stage: &Stage, provider: &str) {
        if self.format == Format::Json {
            return;
        }
        let title = match provider {
            "rocketchat" => "Rocket.Chat",
            "docusign-rooms" => "DocuSign Rooms",
            "matrix" => "Matrix",
            other => other,
        };
        output::line("");
        output::line(&self.paint.strong(&format!("{title}, behind {}", stage.gate(provider))));
    }

    /// One call of the tour.
    pub(super) fn step(&self, gate: &Gate, played: &Played) {
        let Played { step, status, body, line, record } = played;
        let expected = played.is_expected();
        if self.format == Format::Json {
            return output::json(&json!({ "step": {
                "who": step.who, "what": step.what, "provider": step.provider, "target": step.target,
                "status": status, "expected": expected, "record": record,
            } }));
        }
        let verdict = self.verdict(record, Some(*status));
        output::line(&format!("  {:<9}{:<ROOM_FOR_WHAT$}{verdict}  {}", step.who, step.what, why(gate, record)));
        if !expected {
            let reason = step.reason.map_or("", crate::model::Reason::as_str);
            output::line(&self.paint.bad(&format!("  UNEXPECTED: {} {reason} should have come of it", step.decision)));
        }
        if self.verbose {
            let shown: String = body.chars().take(160).collect();
            for told in [&format!("GET {}", step.target), &shown, line] {
                output::line(&self.paint.faint(&format!("           {told}")));
            }
        }
    }

    pub(super) fn end_of_tour(&self, played: usize, expected: usize) {
        if self.format == Format::Json {
            return;
        }
        output::line("");
        let summed = format!("{expected} of {played} calls were decided as expected; each left a record.");
        output::line(&if expected == played { self.paint.good(&summed) } else { self.paint.bad(&summed) });
    }

    /// Where everything is, and what to try.
    pub(super) fn ready(&self, stage: &Stage) {
        if self.format == Format::Json {
            return output::json(&doors(stage));
        }
        let target = format!("/api/v1/rooms.roles?rid={BOARDROOM}");
        let gate = stage.gate("rocketchat");
        output::line("");
        output::line(&self.paint.strong("The servers and the gate stay up. Ask yourself, as carol and as eve:"));
        for (name, id) in [("carol", CAROL), ("eve", EVE)] {
            output::line(&format!("  curl -i -H 'X-User-Id: {id}' -H 'X-Auth-Token: {name}-token' '{gate}{target}'"));
        }
        output::line(&format!("Metrics and status: http://{0}/metrics http://{0}/status", stage.running.admin()));
        output::line(&format!("Audit records:      {}", stage.audit.display()));
        output::line("Each request is printed here as it comes in. End with Ctrl-C.");
        output::line("");
    }

    /// A request that was judged while the demo stays up.
    pub(super) fn judged(&self, gate: &Gate, record: &Value) {
        let who = record.pointer("/subject/name").and_then(Value::as_str).unwrap_or("-");
        let method = record.get("method").and_then(Value::as_str).unwrap_or("-");
        let target = record.get("target").and_then(Value::as_str).unwrap_or("-");
        let verdict = self.verdict(record, None);
        output::line(&format!("  {who:<9}{verdict}  {method} {target}: {}", why(gate, record)));
        if self.verbose {
            output::line(&self.paint.faint(&format!("           {record}")));
        }
    }

    /// A request that no action or closed route matched.
    pub(super) fn passed(&self, method: &str, target: &str) {
        output::line(&format!("  {:<9}{:<6}  {method} {target}: not guarded", "-", "pass"));
    }

    /// Whether requests are to be printed while the demo stays up: a program that reads JSON reads the records themselves.
    pub(super) fn follows(&self) -> bool {
        self.format == Format::Human
    }

    /// The verdict in its colour, as wide as every other.
    fn verdict(&self, record: &Value, status: Option<u16>) -> String {
        let decision = record.get("decision").and_then(Value::as_str).unwrap_or("none");
        let status = status.map(|status| format!(" {status}")).unwrap_or_default();
        let text = format!("{decision:<6}{status}");
        if decision == "permit" { self.paint.good(&text) } else { self.paint.bad(&text) }
    }
}
