//! What a provider file declares beside its actions: routes that are known only, and where the server takes sockets.

use std::sync::Arc;

use toml::Spanned;

use super::Check;
use crate::rules::provider::{Action, Route, Tunnel};
use crate::rules::raw;
use crate::rules::router::Pattern;
use crate::rules::vocabulary::Vocabulary;

impl Check<'_> {
    /// Patterns of what is judged: none of them is everything below a path, whose parts nothing could name.
    pub(super) fn closed_patterns(&mut self, raw: Spanned<raw::OneOrMany>) -> Vec<Pattern> {
        let at = Spanned::new(raw.span(), ());
        let patterns = self.patterns(raw);
        for pattern in patterns.iter().filter(|pattern| pattern.is_open_ended()) {
            self.fault(&at, format!("`{pattern}`: everything below a path is for `[[route]]` and `[sockets]`"));
        }
        patterns
    }

    /// A known route; `actions` are those that its methods must not belong to.
    pub(super) fn route(&mut self, raw: raw::Route, actions: &[Arc<Action>]) -> Route {
        for method in &raw.method {
            if let Some(action) = actions.iter().find(|action| action.method.as_deref() == Some(method.get_ref())) {
                let message = format!("the method `{}` is the action `{}`'s: it is judged there", method.get_ref(), action.id);
                self.fault(method, message);
            }
        }
        Route {
            doors: self.patterns(raw.rest),
            methods: raw.method.into_iter().map(Spanned::into_inner).collect(),
            reveals: raw.reveals,
            then: raw.then,
            encoded: raw.encoded,
        }
    }

    /// Paths, for every method.
    pub(super) fn sockets(&mut self, raw: raw::Sockets) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for path in raw.paths {
            // A pattern has a method, which is not looked at here.
            match format!("GET {}", path.get_ref()).parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.fault(&path, format!("`{}`: {error}", path.get_ref())),
            }
        }
        patterns
    }

    /// Paths below which whatever follows is a credential.
    pub(super) fn secrets(&mut self, raw: Vec<Spanned<String>>) -> Vec<String> {
        for path in &raw {
            let text = path.get_ref();
            if !text.starts_with('/') || text.ends_with('/') || text.contains(['{', '%', '?', '#', ';']) || text.contains("//") {
                self.fault(path, format!("`{text}` is not an absolute path without a slash at its end, such as `/hooks`"));
            }
        }
        raw.into_iter().map(Spanned::into_inner).collect()
    }
}

/// Every word of these declarations.
pub(super) fn words(
    actions: &[Arc<Action>],
    tunnels: &[Arc<Tunnel>],
    routes: &[Route],
    sockets: &[Pattern],
    secrets: &[String],
    guarded: &[String],
) -> Vocabulary {
    let of_actions = actions.iter().flat_map(|action| action.doors.iter().map(AsRef::as_ref));
    let of_tunnels = tunnels.iter().flat_map(|tunnel| tunnel.doors.iter().map(AsRef::as_ref));
    let patterns = of_actions.chain(of_tunnels).chain(routes.iter().flat_map(|route| &route.doors)).chain(sockets);
    let methods = actions.iter().filter_map(|action| action.method.as_ref());
    let params = actions.iter().flat_map(|action| action.params.iter().map(|param| &param.name));
    let others = methods.chain(params).chain(routes.iter().flat_map(|route| &route.methods)).chain(secrets).chain(guarded);
    Vocabulary::of(patterns.flat_map(Pattern::words).chain(others.map(String::as_str)), secrets)
}
