//! One look at each upstream before anything is served: whether what answers there is the server that the configuration means.

use std::str::FromStr;

use pingora::http::RequestHeader;
use serde_json::{Value, json};
use ulid::Ulid;

use super::lookup::head_for;
use super::peer::Peer;
use super::probe::{Prober, Trouble};
use crate::config::{Config, Upstream};
use crate::identity::Reply;
use crate::metrics::Metrics;
use crate::model::Reason;
use crate::rules::provider::{HostHeader, Provider};
use crate::rules::refusal::Filling;
use crate::rules::{Rules, Ruleset};

/// How one upstream answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The upstream's name.
    pub upstream: String,
    /// What was asked: a URL.
    pub url: String,
    /// What it said when all is well, else what is wrong.
    pub outcome: Result<String, Complaint>,
}

/// What is wrong with an upstream's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What was found.
    pub message: String,
    /// What to do about it, when that is known.
    pub hint: Option<String>,
}

impl Complaint {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Asks each upstream of `config` whose provider `ruleset` has: whether a rolegate answers there, and what the caller lookup says
/// without a credential.
pub async fn ask_upstreams(config: &Config, ruleset: &Ruleset) -> Vec<Report> {
    let prober = Prober::new();
    let mut reports = Vec::new();
    for upstream in &config.upstreams {
        let Some(rules) = ruleset.provider(&upstream.provider) else { continue };
        let mut url = Origin::of(upstream, None).url;
        let outcome = ask(&prober, upstream, rules, &mut url).await;
        reports.push(Report { upstream: upstream.name.clone(), url, outcome });
    }
    reports
}

/// A server, and what its paths begin with.
struct Origin<'u> {
    at: &'u crate::config::Origin,
    prefix: &'u str,
    url: String,
    /// Whether it is such another server.
    elsewhere: bool,
}

impl<'u> Origin<'u> {
    /// The upstream itself, or another server that its configuration names.
    fn of(upstream: &'u Upstream, base: Option<&str>) -> Self {
        let account = base.and(upstream.account.as_ref());
        let (at, prefix) = account.map_or((&upstream.url, upstream.path_prefix.as_str()), |account| (account, ""));
        let scheme = if at.tls { "https" } else { "http" };
        Self { at, prefix, url: format!("{scheme}://{}{prefix}", at.authority()), elsewhere: account.is_some() }
    }
}

async fn ask(prober: &Prober, upstream: &Upstream, rules: &Rules, url: &mut String) -> Result<String, Complaint> {
    let provider = &rules.provider;
    let metrics = Metrics::new().map_err(|error| Complaint::new(error.to_string()))?;
    let peer = |origin: &Origin<'_>| Peer::new(origin.at, upstream, metrics.clone()).map_err(Complaint::new);
    let itself = Origin::of(upstream, None);
    let server = peer(&itself)?;
    let host = host(upstream, provider, &server);
    // A gate refuses TRACE itself, whatever it does with other requests, and "0" forbids every proxy to pass it on (RFC 9110
    // §7.6.2): what is asked first cannot go round.
    let mut trace = head_for("TRACE", "/", host).map_err(Complaint::new)?;
    trace.insert_header("max-forwards", "0").map_err(|error| Complaint::new(error.to_string()))?;
    match prober.exchange(&server, trace).await {
        Ok(reply) if is_gate(&reply, provider) => {
            let hint = "`url` names the chat server itself, not the address of `[listen]` or another way to a gate";
            return Err(Complaint::new("a rolegate answers there").hint(hint));
        }
        // There are servers that hang up on it.
        Ok(_) | Err(Trouble::Broken(_)) => {}
        Err(trouble) => return Err(unanswered(&trouble, itself.at.tls)),
    }
    let asked = Origin::of(upstream, provider.plan.caller.lookup.base.as_deref());
    let elsewhere;
    let server = if asked.elsewhere {
        elsewhere = peer(&asked)?;
        &elsewhere
    } else {
        &server
    };
    let head = caller_lookup(upstream, provider, server, &asked, url).map_err(Complaint::new)?;
    match prober.exchange(server, head).await {
        Ok(reply) => judged(&reply, &asked),
        Err(trouble) => Err(unanswered(&trouble, asked.at.tls)),
    }
}

/// The `Host` that a request to the upstream itself carries.
fn host<'a>(upstream: &'a Upstream, provider: &Provider, server: &'a Peer) -> &'a str {
    match provider.host {
        HostHeader::Received => upstream.host.as_deref().unwrap_or(server.authority()),
        HostHeader::Upstream => server.authority(),
    }
}

/// The caller lookup without a credential, and the URL that it asks for.
fn caller_lookup(
    upstream: &Upstream,
    provider: &Provider,
    server: &Peer,
    asked: &Origin<'_>,
    url: &mut String,
) -> Result<RequestHeader, String> {
    let target = provider.plan.caller_target().ok_or("the caller lookup has placeholders")?;
    *url = format!("{}{target}", asked.url);
    let host = if asked.elsewhere { server.authority() } else { host(upstream, provider, server) };
    head_for("GET", &format!("{}{target}", asked.prefix), host)
}

/// What answers where the API should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misplaced {
    url: String,
    complaint: Complaint,
}

/// Whether the API answers where the caller lookup looks for it, by what it says without a credential; nothing when that cannot be
/// known now.
pub(super) async fn find_api(
    prober: &Prober,
    upstream: &Upstream,
    provider: &Provider,
    server: &Peer,
) -> Option<Result<(), Misplaced>> {
    let asked = Origin::of(upstream, provider.plan.caller.lookup.base.as_deref());
    let mut url = String::new();
    let head = caller_lookup(upstream, provider, server, &asked, &mut url).ok()?;
    let reply = prober.exchange(server, head).await.ok()?;
    match judged(&reply, &asked) {
        Ok(_) => Some(Ok(())),
        // It is down, or starting.
        Err(_) if reply.status >= 500 => None,
        Err(complaint) => Some(Err(Misplaced { url, complaint })),
    }
}

impl Misplaced {
    /// Writes it to the process log.
    pub(super) fn tell(&self, upstream: &str) {
        let Self { url, complaint: Complaint { message, hint } } = self;
        let hint = hint.as_deref();
        tracing::warn!(
            upstream,
            url,
            why = message,
            hint,
            "THE API IS NOT WHERE IT IS LOOKED FOR: clients may reach it by paths that are not judged"
        );
    }

    /// For `/status`.
    pub(super) fn report(&self) -> Value {
        json!({ "url": self.url, "why": self.complaint.message, "hint": self.complaint.hint })
    }
}

/// Whether a gate refused the TRACE, in the words that this provider has for it.
fn is_gate(reply: &Reply, provider: &Provider) -> bool {
    let id = reply.header("x-request-id").filter(|id| Ulid::from_str(id).is_ok());
    let words = provider.words_for(None, Reason::FramingInvalid);
    id.zip(words).is_some_and(|(id, words)| words.fill(Filling { message: "", param: "", id }).as_bytes() == reply.body)
}

/// What it means that there is no answer.
fn unanswered(trouble: &Trouble, tls: bool) -> Complaint {
    let complaint = Complaint::new(trouble.to_string());
    match trouble {
        Trouble::Tls(why) if why.contains("InvalidContentType") => {
            complaint.hint("is this a plain port? then `url` begins with `http://`")
        }
        Trouble::Tls(why) if why.contains("not valid for name") => {
            complaint.hint("`tls = { server_name = \"…\" }` says for which name its certificate is made")
        }
        Trouble::Tls(why) if why.contains("UnknownIssuer") => {
            complaint.hint("`tls = { ca = \"…\" }` names the file of its authority")
        }
        Trouble::Broken(_) if !tls => complaint.hint("is this a TLS port? then `url` begins with `https://`"),
        _ => complaint,
    }
}

/// What the answer to a caller lookup without a credential says of the server.
fn judged(reply: &Reply, asked: &Origin<'_>) -> Result<String, Complaint> {
    let status = reply.status;
    let kind = reply.header("content-type").unwrap_or_default().to_ascii_lowercase();
    let page = kind.starts_with("text/html") || reply.body.trim_ascii_start().starts_with(b"<");
    let prefix = match asked.prefix {
        _ if asked.elsewhere => "is `account_url` wrong? it is where callers prove who they are".to_owned(),
        "" => "is `path_prefix` missing? it is what the server's own paths begin with, before `/api` and its like".to_owned(),
        set => format!(
            "is `path_prefix = \"{set}\"` wrong? it is what the server's own paths begin with, before `/api` and its like"
        ),
    };
    match status {
        300..=399 => {
            let to = reply.header("location").unwrap_or("nowhere");
            let complaint = Complaint::new(format!("answers {status}: it leads to `{to}`"));
            Err(if to.starts_with("https://") && !asked.at.tls {
                complaint.hint("is `url` to begin with `https://`?")
            } else if asked.elsewhere {
                complaint.hint(prefix)
            } else {
                complaint.hint("name where the API itself is, by `url` and `path_prefix`")
            })
        }
        400 if page && !asked.at.tls && String::from_utf8_lossy(&reply.body).contains("HTTPS port") => {
            Err(Complaint::new("answers 400: it is a TLS port").hint("then `url` begins with `https://`"))
        }
        401 | 407 if page => Err(Complaint::new(format!("answers {status} with a page (HTML) where the API should be"))
            .hint("does something before the chat server ask for a login of its own?")),
        500..=599 => Err(Complaint::new(format!("answers {status}")).hint("the server behind it is down, or starting")),
        _ if page => Err(Complaint::new(format!("answers {status} with a page (HTML) where the API should be")).hint(prefix)),
        404 => Err(Complaint::new("answers 404 where the API should be").hint(prefix)),
        // Which of them a server chooses for want of a credential is its own affair, and 429 only says that it was asked often.
        401 | 429 => Ok(format!("answers {status} without a credential, as it should")),
        400..=499 if serde_json::from_slice::<serde_json::Value>(&reply.body).is_ok() => {
            Ok(format!("answers {status} without a credential, in JSON"))
        }
        _ => Err(Complaint::new(format!("answers {status} without a credential, where 401 was to be expected")).hint(prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_is_wrong_with_the_configuration() {
        let plain = crate::config::Origin { tls: false, host: "chat".into(), port: 80 };
        let origin = |prefix| Origin { at: &plain, prefix, url: "http://chat".into(), elsewhere: false };
        let told = |status, fields: &[(&str, &str)], body: &str, prefix: &'static str| {
            let headers = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            judged(&Reply { status, headers, body: body.as_bytes().to_vec() }, &origin(prefix))
        };
        let json = [("content-type", "application/json")];
        let html = [("content-type", "text/html; charset=utf-8")];
        for (good, body) in [(401, ""), (401, "{}"), (403, "{}"), (400, "{}"), (429, "")] {
            assert!(told(good, &json, body, "").is_ok(), "{good} {body}");
        }
        let complaint = |status, fields: &[(&str, &str)], body: &str, prefix: &'static str| {
            let complaint = told(status, fields, body, prefix).unwrap_err();
            (complaint.message, complaint.hint.unwrap_or_default())
        };
        let (message, hint) = complaint(404, &json, "{}", "");
        assert_eq!(message, "answers 404 where the API should be");
        assert!(hint.starts_with("is `path_prefix` missing?"), "{hint}");
        let (message, hint) = complaint(200, &html, "<!doctype html>", "/chat");
        assert!(message.contains("HTML") && hint.starts_with("is `path_prefix = \"/chat\"` wrong?"), "{message} {hint}");
        assert!(complaint(200, &[], "\n <html>", "").0.contains("HTML"), "whatever it calls itself");
        assert!(complaint(301, &[("location", "https://chat/api/v1/me")], "", "").1.contains("`https://`"));
        let (message, hint) = complaint(302, &[("location", "/login")], "", "");
        assert!(message.contains("`/login`") && hint.contains("`path_prefix`"), "{message} {hint}");
        assert!(complaint(401, &html, "<html>", "").1.contains("login of its own"));
        assert!(complaint(400, &html, "<html>sent to HTTPS port</html>", "").1.contains("`https://`"));
        assert_eq!(complaint(503, &html, "<html>", "").0, "answers 503");
        assert!(complaint(200, &json, "{}", "").0.contains("where 401 was to be expected"));
        assert!(complaint(403, &[], "Forbidden", "").0.contains("403"));
    }
}
