//! `rolegate actions`: what is guarded, by which policies, and which known routes stay open.

use serde_json::{Value, json};

use super::output::{self, Format, Paint};
use super::{Exit, PolicyArgs, invalid};
use crate::policy::Effect;
use crate::rules::provider::Action;
use crate::rules::{Rules, Then};

/// List what is guarded, and what is known and left open
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate actions --policies policies\n\nExit codes: 0 good, 2 usage, 3 policies invalid")]
pub(super) struct Args {
    #[command(flatten)]
    policies: PolicyArgs,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Exit {
    let ruleset = match args.policies.load() {
        Ok((ruleset, _)) => ruleset,
        Err(faults) => return invalid(&faults, args.format),
    };
    match args.format {
        Format::Human => ruleset.providers().for_each(|rules| human(rules)),
        Format::Json => {
            let providers: Vec<Value> = ruleset.providers().map(|rules| as_json(rules)).collect();
            output::json(&json!({ "policy_revision": ruleset.revision, "providers": providers }));
        }
    }
    Exit::Good
}

fn human(rules: &Rules) {
    let paint = Paint::stdout();
    let provider = &rules.provider;
    output::line(&paint.strong(&format!("{} ({})", provider.summary, provider.name)));
    let mut rows = vec![["ACTION", "DOORS", "PARAMETERS", "RESOURCE", "FACTS", "PERMITTED BY"].map(ToOwned::to_owned).to_vec()];
    for action in &provider.actions {
        let doors = doors(action);
        let params = params(action).join(" ");
        let facts: Vec<&str> = action.facts.iter().map(|fact| fact.name.as_str()).collect();
        let permits = permits(rules, action);
        for index in 0..doors.len().max(permits.len()).max(1) {
            let first = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
            rows.push(vec![
                first(&action.id),
                doors.get(index).cloned().unwrap_or_default(),
                first(&params),
                first(&action.resource),
                first(&facts.join(" ")),
                permits.get(index).cloned().unwrap_or_default(),
            ]);
        }
    }
    output::columns(&rows).iter().for_each(|row| output::line(row));
    output::line("");
    let open = provider.open_routes();
    output::line(
        &paint.strong(&format!("{open} known routes of {} left open (close one with `then = \"deny\"`):", provider.name)),
    );
    let mut rows = Vec::new();
    for route in provider.routes.iter().filter(|route| route.then == Then::Forward) {
        rows.extend(route.doors.iter().map(|door| vec![format!("  {door}"), route.reveals.clone()]));
    }
    output::columns(&rows).iter().for_each(|row| output::line(row));
    let closed: Vec<String> = provider
        .routes
        .iter()
        .filter(|route| route.then == Then::Deny)
        .flat_map(|route| &route.doors)
        .map(ToString::to_string)
        .collect();
    if !closed.is_empty() {
        output::line(&format!("closed: {}", closed.join(", ")));
    }
    output::line("");
}

fn doors(action: &Action) -> Vec<String> {
    let rest = action.doors.iter().map(|door| format!("rest {door}"));
    rest.chain(action.method.iter().map(|method| format!("method {method}"))).collect()
}

fn params(action: &Action) -> Vec<String> {
    action.params.iter().map(|param| if param.required { param.name.clone() } else { format!("[{}]", param.name) }).collect()
}

fn permits(rules: &Rules, action: &Action) -> Vec<String> {
    let permits = rules.engine.policies().filter(|policy| policy.effect == Effect::Permit && policy.actions.contains(&action.id));
    permits.map(|policy| policy.id.clone()).collect()
}

fn as_json(rules: &Rules) -> Value {
    let provider = &rules.provider;
    let actions: Vec<Value> = provider
        .actions
        .iter()
        .map(|action| {
            json!({
                "id": action.id,
                "summary": action.summary,
                "doors": action.doors.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "method": action.method,
                "parameters": action.params.iter().map(|param| json!({ "name": param.name, "required": param.required })).collect::<Vec<_>>(),
                "resource": action.resource,
                "facts": action.facts.iter().map(|fact| &fact.name).collect::<Vec<_>>(),
                "permitted_by": permits(rules, action),
            })
        })
        .collect();
    let routes: Vec<Value> = provider
        .routes
        .iter()
        .map(|route| {
            json!({
                "doors": route.doors.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "reveals": route.reveals,
                "then": if route.then == Then::Forward { "forward" } else { "deny" },
            })
        })
        .collect();
    json!({ "provider": provider.name, "actions": actions, "routes": routes, "open_routes": provider.open_routes() })
}
