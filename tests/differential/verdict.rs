//! What the rules make of one target, for a caller who may do anything: the shipped provider files under a policy that
//! permits all, so that only the reading of the request can refuse it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rolegate::config::{Origin, Upstream};
use rolegate::model::{Body, RawRequest};
use rolegate::pipeline::{Evaluation, Open, Site, evaluate_request};
use rolegate::rules::{Known, KnownSubject, Ruleset, Sources};
use serde_json::{Value, json};

/// The host that the requests are addressed to.
const HOST: &str = "localhost";

/// Judges targets.
#[derive(Debug)]
pub struct Judge {
    rules: Ruleset,
    known: Known,
}

impl Judge {
    /// A judge with the provider files of this build.
    pub fn new() -> Result<Self, String> {
        let mut sources = Sources::built_in();
        sources.files.retain(|file| file.name != "cases.toml");
        for file in sources.files.iter_mut().filter(|file| file.name.ends_with(".cedar")) {
            file.text = "@id(\"all\")\npermit (principal, action, resource);\n".to_owned();
        }
        let rules = Ruleset::load(&sources, &[]).map_err(|faults| faults.to_string())?;
        let subject = KnownSubject { id: "u1".into(), name: "somebody".into(), ..KnownSubject::default() };
        Ok(Self { rules, known: Known { subject: Some(subject), ..Known::default() } })
    }

    /// The verdict on the request that a line names: `provider`, `method`, and `target` with one character for each byte.
    pub fn verdict(&self, line: &Value) -> Result<Value, String> {
        let text = |name: &str| line.get(name).and_then(Value::as_str).ok_or_else(|| format!("no `{name}` in {line}"));
        let provider = text("provider")?;
        let target: Option<Vec<u8>> = text("target")?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let target = target.ok_or_else(|| format!("a character of {line} is no byte"))?;
        let rules = self.rules.provider(provider).ok_or_else(|| format!("`{provider}` is no provider"))?;
        let origin = Origin { tls: false, host: HOST.into(), port: 80 };
        let site = Site::new(Arc::new(Upstream::new(provider, origin)), Arc::clone(rules), Arc::from([]));
        let headers: Vec<(&str, &[u8])> = match provider {
            "rocketchat" => vec![("x-user-id", b"u1"), ("x-auth-token", b"t1")],
            _ => vec![("authorization", b"Bearer t1")],
        };
        let raw = RawRequest {
            method: text("method")?,
            target: &target,
            host: Some(HOST),
            headers,
            body: Body::Absent,
            content: None,
            client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            correlation: None,
        };
        Ok(match evaluate_request(site, &raw, &self.known) {
            Evaluation::Open(open) => json!({ "verdict": "open", "as": told(open) }),
            Evaluation::Denial(denial) => json!({ "verdict": "refused", "reason": denial.reason().as_str() }),
            Evaluation::Permit(permit) => json!({
                "verdict": "forwarded",
                "action": permit.trail().action(),
                "params": permit.trail().context().get("params"),
                "method": permit.method(),
                "sends": permit.target(),
            }),
        })
    }
}

fn told(open: Open) -> &'static str {
    match open {
        Open::Outside => "outside",
        Open::Route => "route",
        Open::Unlisted => "unlisted",
        Open::Method => "method",
        Open::Preflight => "preflight",
    }
}
