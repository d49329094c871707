//! How the walk grows with what is declared: actions, and policies for them.

use std::fmt::{self, Write};
use std::path::Path;

use divan::{Bencher, black_box};
use rolegate::audit::Durability;
use rolegate::pipeline::Admission;
use rolegate::rules::source::SourceFile;
use rolegate::rules::{Ruleset, Sources};

use crate::setup::{ALLOWED, Bench, request};

/// So many actions, and so many policies, spread evenly over them.
#[derive(Debug, Clone, Copy)]
struct Size {
    actions: usize,
    policies: usize,
}

/// From a small workspace to far more than any server has routes; the last one has all of its policies on one action.
const SIZES: [Size; 6] = [
    Size { actions: 10, policies: 10 },
    Size { actions: 100, policies: 100 },
    Size { actions: 1_000, policies: 1_000 },
    Size { actions: 10, policies: 100 },
    Size { actions: 1_000, policies: 10_000 },
    Size { actions: 1, policies: 1_000 },
];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} actions, {} policies", self.actions, self.policies)
    }
}

impl Size {
    /// The rig's provider with more actions; of each action's policies the last one permits.
    fn sources(self) -> Sources {
        let rig = Sources::folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/policies")).unwrap();
        let provider = rig.files.iter().find(|file| file.name == "provider.toml").unwrap();
        let mut provider_text = provider.text.split("[[action]]").next().unwrap().to_owned();
        let mut policy_text = String::new();
        for action in 0..self.actions {
            write!(
                provider_text,
                "[[action]]\nid = \"rooms.{action}\"\nsummary = \"Action {action}\"\nresource = {{ type = \"Room\", param = \"rid\" }}\n\
                 rest = \"GET /api/v1/rooms.{action}\"\n\n[action.params.rid]\nin = \"query\"\ntype = \"id\"\nrequired = true\n\n"
            )
            .unwrap();
            let policies = self.policies / self.actions;
            for policy in 0..policies {
                let role = if policy + 1 == policies { "admin" } else { "owner" };
                write!(
                    policy_text,
                    "@id(\"p-{action}-{policy}\")\npermit (principal in Rig::Role::\"{role}\", action == Rig::Action::\"rooms.{action}\", resource);\n\n"
                )
                .unwrap();
            }
        }
        let file = |name: &str, text| SourceFile { provider: "rig".into(), name: name.into(), path: name.into(), text };
        Sources { files: vec![file("policy.cedar", policy_text), file("provider.toml", provider_text)], revision: "0".into() }
    }
}

#[divan::bench(args = SIZES, sample_size = 100)]
fn permit(bencher: Bencher<'_, '_>, size: &Size) {
    let bench = Bench::over("rig", &size.sources(), Durability::Written);
    let target = format!("/api/v1/rooms.{}?rid=GENERAL7", size.actions - 1);
    let raw = request(&target, ALLOWED);
    assert!(matches!(bench.warm(&raw), Admission::Permitted(_)));
    bencher.bench_local(|| drop(bench.admit(black_box(&raw))));
}

#[divan::bench(args = SIZES, sample_count = 3, sample_size = 1)]
fn load(bencher: Bencher<'_, '_>, size: &Size) {
    let sources = size.sources();
    bencher.bench_local(|| Ruleset::load(black_box(&sources), &[]).unwrap());
}
