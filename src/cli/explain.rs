//! `rolegate explain`: what the rules say to a request, and why, without any network.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::output::{self, Format, Paint};
use super::{Exit, PolicyArgs, invalid};
use crate::config::Upstream;
use crate::model::{Door, Fault, Faults, Obligation, Place};
use crate::pipeline::{Denial, Evaluation, Permit, Site, Trail, evaluate_with, rehearse};
use crate::policy::{Effect, PolicyInfo};
use crate::rules::provider::{nearest, with_suggestion};
use crate::rules::stated::{self, Places, Stated, Wrong};
use crate::rules::{Known, Rules, Ruleset};

/// Explain the verdict on a request
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: rolegate explain --provider rocketchat --subject '{\"id\":\"u1\",\"roles\":[\"user\"]}' \\\n    \
    --facts '{\"room\":{\"member\":true}}' 'GET /api/v1/rooms.roles?rid=abc'\n\n\
    Exit codes: 0 permitted or not judged, 2 usage, 3 configuration or policies invalid, 6 denied"
)]
pub(super) struct Args {
    #[command(flatten)]
    policies: PolicyArgs,
    /// The kind of upstream; without, the only one that the configuration or the policy folder has
    #[arg(long, value_name = "P")]
    provider: Option<String>,
    /// Who asks: {"id", "name", "roles", "permissions"}; nobody is logged in without
    #[arg(long, value_name = "JSON", value_parser = json_of::<crate::rules::KnownSubject>)]
    subject: Option<crate::rules::KnownSubject>,
    /// What is known: facts by name; what the request could have and is not given is assumed, and told
    #[arg(long, value_name = "JSON", value_parser = facts_of)]
    facts: Option<Facts>,
    /// Values of `context.table`
    #[arg(long, value_name = "JSON", value_parser = json_of::<crate::model::Record>)]
    table: Option<crate::model::Record>,
    /// A named network that the client is in; may be repeated
    #[arg(long, value_name = "NAME")]
    network: Vec<String>,
    /// The request's content, as application/json: a method call, or the parameters of a body
    #[arg(long, value_name = "JSON")]
    content: Option<String>,
    /// A header field of the request; may be repeated. Whoever asks has a credential without
    #[arg(long, value_name = "NAME: VALUE", value_parser = field_of)]
    header: Vec<(String, String)>,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The request: METHOD target
    #[arg(value_name = "REQUEST", value_parser = request_of)]
    request: (String, String),
}

/// Facts by name.
type Facts = std::collections::BTreeMap<String, crate::model::Record>;

/// A value in JSON, without a name that stands twice.
fn json_of<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let value = crate::rules::json::read(text.as_bytes())?;
    serde_json::from_value(value).map_err(|error| with_suggestion(&error.to_string()))
}

fn request_of(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(' ').map(|(method, target)| (method.to_owned(), target.to_owned()));
    parts.ok_or_else(|| "a request is written as 'METHOD target', such as 'GET /api/v1/rooms.roles?rid=abc'".to_owned())
}

fn field_of(text: &str) -> Result<(String, String), String> {
    let field = text.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let is_name = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    field
        .filter(|(name, _)| is_name(name))
        .ok_or_else(|| "a header field is written as 'name: value', such as 'X-Original-URL: /api/info'".to_owned())
}

fn facts_of(text: &str) -> Result<Facts, String> {
    json_of(text)
}

pub(super) fn run(args: &Args) -> Exit {
    let (ruleset, config) = match args.policies.load() {
        Ok(loaded) => loaded,
        Err(faults) => return invalid(&faults, args.format),
    };
    let upstreams = config.as_ref().map(|config| config.upstreams.as_slice()).unwrap_or_default();
    let rules = match rules(args.provider.as_deref(), &ruleset, upstreams) {
        Ok(rules) => rules,
        Err(why) => {
            output::error(&why);
            return Exit::Usage;
        }
    };
    let (method, target) = &args.request;
    let known = Known {
        subject: args.subject.clone(),
        facts: args.facts.clone().unwrap_or_default(),
        table: args.table.clone().unwrap_or_default(),
        networks: args.network.clone(),
        content: args.content.clone(),
    };
    let evaluation = match upstreams.iter().find(|upstream| upstream.provider == rules.provider.name) {
        // Judged as that upstream's requests are: what is unlisted may be closed there, and its paths may have a prefix.
        Some(upstream) => {
            let networks = config.iter().flat_map(|config| config.networks.iter().cloned()).collect();
            let site = Site::new(Arc::new(upstream.clone()), Arc::clone(rules), networks);
            evaluate_with(site, method, target, &args.header, &known)
        }
        None => evaluate_with(rehearse::site_of(rules), method, target, &args.header, &known),
    };
    let mut wrong = stated::unknown(&rules.provider, &rules.networks, &known);
    wrong.extend(rehearse::impossible(&evaluation, &known));
    let unread = args.content.as_ref().and_then(|_| unread(rules, method, &evaluation));
    if !wrong.is_empty() || unread.is_some() {
        let mut faults = Faults::default();
        wrong.into_iter().map(at_option).chain(unread).for_each(|fault| faults.push(fault));
        let _ = invalid(&faults, args.format);
        return Exit::Usage;
    }
    match args.format {
        Format::Human => human(rules, &evaluation, &known),
        Format::Json => output::json(&as_json(rules, &evaluation, &known)),
    }
    match evaluation {
        Evaluation::Denial(_) => Exit::Denied,
        Evaluation::Open(_) | Evaluation::Permit(_) => Exit::Good,
    }
}

/// The rules of the provider `named`, or of the only one that can be meant.
fn rules<'r>(named: Option<&str>, ruleset: &'r Ruleset, upstreams: &[Upstream]) -> Result<&'r Arc<Rules>, String> {
    let all: Vec<&str> = ruleset.providers().map(|rules| rules.provider.name.as_str()).collect();
    let mut meant: Vec<&str> = upstreams.iter().map(|upstream| upstream.provider.as_str()).collect();
    if meant.is_empty() {
        meant.clone_from(&all);
    }
    meant.sort_unstable();
    meant.dedup();
    let name = match (named, meant.as_slice()) {
        (Some(named), _) => named,
        (None, [only]) => only,
        (None, several) => return Err(format!("name one of {} with `--provider`", several.join(", "))),
    };
    ruleset.provider(name).ok_or_else(|| {
        let hint = nearest(name, all.iter().copied()).map(|near| format!("\n  hint: did you mean `{near}`?"));
        format!("no provider `{name}`; there are {}{}", all.join(", "), hint.unwrap_or_default())
    })
}

fn human(rules: &Rules, evaluation: &Evaluation, known: &Known) {
    let paint = Paint::stdout();
    match evaluation {
        Evaluation::Open(open) => output::line(&format!("not judged: {}", open_text(*open))),
        Evaluation::Permit(permit) => {
            output::line(&format!("{} {}", paint.good("permit"), permit.trail().action()));
            permit.policies().iter().for_each(|policy| output::line(&format!("  by    {}", told(policy))));
            facts(rules, permit.trail(), known);
            permit.obligations().iter().for_each(|obligation| output::line(&format!("  with  {}", obligation_text(obligation))));
            output::line(&format!("  sends {} {}", permit.method(), permit.target()));
            permit.content().iter().for_each(|content| output::line(&format!("        {content}")));
        }
        Evaluation::Denial(denial) => {
            output::line(&format!("{} {} ({})", paint.bad("deny"), denial.trail().action(), denial.reason()));
            output::line(&format!("  why   {}", denial.detail()));
            facts(rules, denial.trail(), known);
            for policy in could(rules, denial) {
                output::line(&format!("  could {}", told(policy)));
            }
            let refusal = denial.refusal();
            output::line(&format!("  tells {} {}", refusal.status, refusal.body));
        }
    }
}

/// Everything that was known, with what was not stated and therefore assumed.
fn facts(rules: &Rules, trail: &Trail, known: &Known) {
    for (name, value) in trail.context().as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        output::line(&format!("  knows {name} = {value}"));
    }
    let assumed: Vec<String> =
        assumed(rules, trail, known).into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if !assumed.is_empty() {
        output::line(&format!("  assumes {}", assumed.join(", ")));
    }
    for name in trail.unknown() {
        output::line(&format!("  lacks {name}: nothing is known of it"));
    }
}

/// The values of facts that the policies read and nobody stated: what a server that knows nothing would leave them at.
fn assumed(rules: &Rules, trail: &Trail, known: &Known) -> Map<String, Value> {
    let context = trail.context();
    let facts = context.as_object().into_iter().flatten().filter(|(name, _)| rules.provider.plan.fact(name).is_some());
    let mut assumed = Map::new();
    for (fact, values) in facts {
        let stated = known.facts.get(fact);
        for (name, value) in values.as_object().into_iter().flatten() {
            if stated.is_none_or(|stated| stated.value(name).is_none()) {
                assumed.insert(format!("{fact}.{name}"), value.clone());
            }
        }
    }
    assumed
}

/// A wrong statement, laid to the option that made it.
fn at_option(wrong: Wrong) -> Fault {
    let option = match wrong.stated {
        Stated::Subject | Stated::Role(_) | Stated::Permission(_) => "--subject",
        Stated::Fact(_) | Stated::Field(..) => "--facts",
        Stated::Table(_) => "--table",
        Stated::Network(_) => "--network",
    };
    wrong.fault(&Places::new(), &Place::file(option))
}

/// Why the content that is given says nothing of the request.
fn unread(rules: &Rules, method: &str, evaluation: &Evaluation) -> Option<Fault> {
    let trail = match evaluation {
        Evaluation::Open(_) => None,
        Evaluation::Permit(permit) => Some(permit.trail()),
        Evaluation::Denial(denial) => Some(denial.trail()),
    };
    let action = trail.filter(|trail| trail.door() == Door::Rest);
    let action = action.and_then(|trail| rules.provider.actions.iter().find(|action| action.id == trail.action()));
    let why = match action {
        Some(action) if !action.takes_body() => format!("a request for `{}` has no parameters in its content", action.id),
        _ if matches!(method, "GET" | "HEAD") => format!("the content of a `{method}` is not read"),
        _ => return None,
    };
    Some(Fault::new(Place::file("--content"), why).hint("leave it out"))
}

fn as_json(rules: &Rules, evaluation: &Evaluation, known: &Known) -> Value {
    match evaluation {
        Evaluation::Open(open) => json!({ "decision": null, "open": open_text(*open) }),
        Evaluation::Permit(permit) => permit_json(rules, permit, known),
        Evaluation::Denial(denial) => {
            let refusal = denial.refusal();
            json!({
                "decision": "deny",
                "action": denial.trail().action(),
                "reason": denial.reason(),
                "detail": denial.detail(),
                "policies": denial.policies().iter().map(|policy| policy_json(policy)).collect::<Vec<_>>(),
                "could": could(rules, denial).map(policy_json).collect::<Vec<_>>(),
                "context": denial.trail().context(),
                "assumed": assumed(rules, denial.trail(), known),
                "not_known": denial.trail().unknown().collect::<Vec<_>>(),
                "tells": { "status": refusal.status, "body": refusal.body },
            })
        }
    }
}

fn permit_json(rules: &Rules, permit: &Permit, known: &Known) -> Value {
    json!({
        "decision": "permit",
        "action": permit.trail().action(),
        "policies": permit.policies().iter().map(|policy| policy_json(policy)).collect::<Vec<_>>(),
        "context": permit.trail().context(),
        "assumed": assumed(rules, permit.trail(), known),
        "not_known": permit.trail().unknown().collect::<Vec<_>>(),
        "obligations": permit.obligations().iter().map(obligation_text).collect::<Vec<_>>(),
        "sends": format!("{} {}", permit.method(), permit.target()),
        "content": permit.content(),
    })
}

fn policy_json(policy: &PolicyInfo) -> Value {
    json!({ "id": policy.id, "file": policy.file, "line": policy.line, "reason": policy.reason })
}

/// The policies that could have permitted the action; only worth telling when none did.
fn could<'r>(rules: &'r Rules, denial: &'r Denial) -> impl Iterator<Item = &'r PolicyInfo> {
    let of_action = move |policy: &&PolicyInfo| policy.actions.iter().any(|action| action == denial.trail().action());
    let asked = denial.reason() == crate::model::Reason::PolicyDenied;
    rules.engine.policies().filter(move |policy| asked && policy.effect == Effect::Permit).filter(of_action)
}

fn told(policy: &PolicyInfo) -> String {
    let reason = policy.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} ({}:{}){reason}", policy.id, policy.file, policy.line)
}

fn obligation_text(obligation: &Obligation) -> String {
    match obligation {
        Obligation::Without(name) => format!("`{name}` left out of what is sent"),
        Obligation::Redact(pointer) => format!("`{pointer}` left out of the answer"),
    }
}

fn open_text(open: crate::pipeline::Open) -> &'static str {
    use crate::pipeline::Open;
    match open {
        Open::Outside => "it leads to no guarded space",
        Open::Route => "the provider file leaves this route open",
        Open::Unlisted => "no action or route declares it, and those pass",
        Open::Method => "no action declares the method, and those pass",
        Open::Preflight => "a CORS preflight passes without credentials",
    }
}
