//! What a provider file or an operator declares is carried out, wherever it lies and however it is spelt.

mod agreement;
mod beside;
mod closed;
mod doors;
mod secrets;

use std::sync::Arc;

use rolegate::config::{Origin, Upstream};
use rolegate::pipeline::Site;
use rolegate::rules::{Ruleset, Sources};
use serde_json::Value;

use crate::support::policies::Policies;
use crate::support::{Gate, GateBuilder};

/// A gate before a workspace, its provider file with `more` at its end, and its policies with `policies` at theirs.
async fn gate_with(more: &str, policies: &str, change: impl FnOnce(&mut Upstream)) -> Gate {
    let builder = GateBuilder::rocketchat().await;
    let folder = builder.folder.path().join("policies");
    let written = Policies::write(&folder);
    written.put("provider.toml", &format!("{}{more}", Policies::built_in("provider.toml")));
    written.put("policy.cedar", &format!("{}{policies}", Policies::built_in("policy.cedar")));
    builder.with(|config| config.policies.directory = Some(folder)).upstream(change).start()
}

/// The same rules for a walk without a network.
fn site_with(more: &str, change: impl FnOnce(&mut Upstream)) -> Site {
    let mut sources = Sources::built_in();
    for file in sources.files.iter_mut().filter(|file| file.provider == "rocketchat" && file.name == "provider.toml") {
        file.text.push_str(more);
    }
    let ruleset = Ruleset::load(&sources, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let mut upstream = Upstream::new("rocketchat", Origin { tls: false, host: "upstream".into(), port: 80 });
    change(&mut upstream);
    Site::new(Arc::new(upstream), Arc::clone(ruleset.provider("rocketchat").unwrap()), Arc::from([]))
}

/// Fails unless what was sent last was refused for one of `reasons`, left its one record, and did not arrive.
#[track_caller]
fn assert_refused(gate: &Gate, before: usize, told: &str, reasons: &[&str]) -> Value {
    let records = gate.records_of("decision");
    assert_eq!(records.len(), before + 1, "{told}: not one record");
    let record = records[before].clone();
    assert_eq!((&record["decision"], &record["enforced"]), (&"deny".into(), &true.into()), "{told}: {record}");
    assert!(reasons.contains(&record["reason"].as_str().unwrap()), "{told}: {record}");
    assert!(gate.sample.seen().is_empty(), "{told}: {:?}", gate.sample.seen());
    record
}
