//! Which action or route a canonical path belongs to.

mod tree;

use std::sync::Arc;

use super::provider::Tunnel;
use super::provider::{Action, Provider, Route, Then};
use super::target;
pub use tree::Tree;
use tree::{Door, Leads};

/// A declared `METHOD /path/{name}`; `{name*}` at its end stands for everything below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The method.
    pub method: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Named(String),
    /// One segment or more, to the end of the path.
    Rest(String),
}

/// Where a canonical path leads.
#[derive(Debug)]
pub enum Found<'r> {
    /// To an action: the values of its path segments, as received.
    Action {
        /// The action.
        action: &'r Arc<Action>,
        /// The pattern that matched.
        pattern: &'r Arc<Pattern>,
        /// Name and raw text of each named segment.
        segments: Vec<(&'r str, String)>,
    },
    /// To a route by which the body names a method.
    Tunnel {
        /// The tunnel.
        tunnel: &'r Arc<Tunnel>,
        /// The pattern that matched.
        pattern: &'r Arc<Pattern>,
    },
    /// To the path of an action or a closed route with a method that nobody declares there; the declared ones are named.
    OtherMethod(Vec<&'r str>),
    /// To a known route that is not judged.
    Route(&'r Route),
    /// To a path that only looks like a guarded one.
    Variant,
    /// To an encoding that no route declares.
    Undeclared,
    /// To nothing that the provider file names.
    Unlisted,
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, path) = text.split_once(' ').ok_or("a route is written as `METHOD /path`")?;
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("`{method}` is no method"));
        }
        let rest = path.strip_prefix('/').ok_or("a path begins with a slash")?;
        let segments = rest
            .split('/')
            .map(|segment| match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                Some(name) if !matches!(name, "" | "*") => Ok(match name.strip_suffix('*') {
                    Some(name) => Segment::Rest(name.to_owned()),
                    None => Segment::Named(name.to_owned()),
                }),
                _ if segment.contains(['{', '}', '?', '%', '*', ' ']) => Err(format!("`{segment}` is no path segment")),
                _ => Ok(Segment::Literal(segment.to_owned())),
            })
            .collect::<Result<Vec<Segment>, _>>()?;
        // The last one may be empty: a path that ends in a slash where the server takes that for another one.
        let inner = segments.split_last().map(|(_, inner)| inner).unwrap_or_default();
        if rest.is_empty() || inner.contains(&Segment::Literal(String::new())) {
            return Err(format!("`{path}` has an empty segment"));
        }
        if let Some(Segment::Rest(name)) = inner.iter().find(|segment| matches!(segment, Segment::Rest(_))) {
            return Err(format!("`{{{name}*}}` is everything below, so it ends a path"));
        }
        Ok(Self { method: method.to_owned(), segments })
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.method)?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Named(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{{name}*}}")?,
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// The names of its segments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) | Segment::Rest(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Its literal segments.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Named(_) | Segment::Rest(_) => None,
        })
    }

    /// Whether it ends in everything below.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        matches!(self.segments.last(), Some(Segment::Rest(_)))
    }

    /// Whether every path that it matches lies in one of the `spaces`.
    #[must_use]
    pub(super) fn is_within(&self, spaces: &[String]) -> bool {
        let path = self.path(|name| format!("{{{name}}}"));
        spaces.iter().any(|space| target::within(&path, space))
    }

    /// The path with each named segment replaced by what `value` gives for it.
    pub fn path(&self, value: impl FnMut(&str) -> String) -> String {
        let mut path = String::new();
        self.path_onto(&mut path, value);
        path
    }

    /// `path`, if it matches, with each named segment for which `instead` gives something replaced.
    #[must_use]
    pub fn with(&self, path: &str, mut instead: impl FnMut(&str) -> Option<String>) -> Option<String> {
        let mut values = self.matches(path)?.into_iter();
        Some(self.path(|name| {
            let value = values.next().map(|(_, value)| value).unwrap_or_default();
            instead(name).unwrap_or(value)
        }))
    }

    /// The same behind what `path` holds.
    pub fn path_onto(&self, path: &mut String, mut value: impl FnMut(&str) -> String) {
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(text),
                Segment::Named(name) | Segment::Rest(name) => path.push_str(&value(name)),
            }
        }
    }

    /// Whether some path matches both, and neither more closely than the other.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        self.method == other.method
            && self.literals() == other.literals()
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (Segment::Named(_), Segment::Literal(text)) | (Segment::Literal(text), Segment::Named(_)) => !text.is_empty(),
                (Segment::Named(_), Segment::Named(_)) | (Segment::Rest(_), Segment::Rest(_)) => true,
                // One that ends where the other goes on is the closer one.
                (Segment::Rest(_), _) | (_, Segment::Rest(_)) => false,
            })
    }

    /// How many of its segments are literal: of two patterns that match, the one with more is meant.
    fn literals(&self) -> usize {
        self.segments.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count()
    }

    fn matches(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let mut named = Vec::new();
        for segment in &self.segments {
            let part = parts.next()?;
            match segment {
                Segment::Literal(text) if text == part => {}
                Segment::Literal(_) => return None,
                Segment::Named(_) | Segment::Rest(_) if part.is_empty() => return None,
                Segment::Named(name) => named.push((name.as_str(), part.to_owned())),
                Segment::Rest(name) => {
                    let rest = std::iter::once(part).chain(parts.by_ref()).collect::<Vec<_>>().join("/");
                    named.push((name.as_str(), rest));
                }
            }
        }
        parts.next().is_none().then_some(named)
    }
}

/// Finds where `path` leads with `method`. HEAD is judged like GET.
#[must_use]
pub fn find<'r>(provider: &'r Provider, method: &str, path: &str) -> Found<'r> {
    let Provider { actions, tunnels, routes, tree, .. } = provider;
    let method = if method == "HEAD" { "GET" } else { method };
    let of_action = |door: &Door| match door.leads {
        Leads::Action(place) => actions.get(place).and_then(|action| Some((action, action.doors.get(door.index)?))),
        Leads::Tunnel(_) | Leads::Route(_) | Leads::Socket => None,
    };
    let literal = tree.literal(path).iter().filter_map(of_action).find(|(_, pattern)| pattern.method == method);
    if let Some((action, pattern)) = literal {
        return Found::Action { action, pattern, segments: Vec::new() };
    }
    let on = tree.on(path);
    let on_actions = || on.iter().filter_map(of_action);
    let on_tunnels = || {
        on.iter().filter_map(|door| match door.leads {
            Leads::Tunnel(place) => tunnels.get(place).and_then(|tunnel| Some((tunnel, tunnel.doors.get(door.index)?))),
            Leads::Action(_) | Leads::Route(_) | Leads::Socket => None,
        })
    };
    let on_routes = || {
        on.iter().filter_map(|door| match door.leads {
            Leads::Route(place) => routes.get(place).and_then(|route| Some((route, route.doors.get(door.index)?))),
            Leads::Action(_) | Leads::Tunnel(_) | Leads::Socket => None,
        })
    };
    let action = on_actions().filter(|(_, pattern)| pattern.method == method).max_by_key(|(_, pattern)| pattern.literals());
    if let Some((action, pattern)) = action {
        let segments = pattern.matches(path).unwrap_or_default();
        return if legal(&segments, |name| action.encoded(name)) {
            Found::Action { action, pattern, segments }
        } else {
            Found::Undeclared
        };
    }
    if let Some((tunnel, pattern)) = on_tunnels().find(|(_, pattern)| pattern.method == method) {
        return Found::Tunnel { tunnel, pattern };
    }
    let route = on_routes().filter(|(_, pattern)| pattern.method == method).max_by_key(|(_, pattern)| pattern.literals());
    if let Some((route, pattern)) = route {
        let declared = legal(&pattern.matches(path).unwrap_or_default(), |_| route.encoded || provider.encoded);
        return if declared && !hides(provider, path) { Found::Route(route) } else { Found::Undeclared };
    }
    let legal_on = |pattern: &Pattern, declared: &dyn Fn(&str) -> bool| {
        pattern.matches(path).is_some_and(|segments| legal(&segments, declared))
    };
    let ending =
        |then: Then| on_routes().filter(move |(route, pattern)| route.then == then && legal_on(pattern, &|_| route.encoded));
    let closed = ending(Then::Deny).filter(|(_, pattern)| !is_another_operation(provider, method, pattern));
    let method_of = |(_, pattern): (&'r Route, &'r Pattern)| pattern.method.as_str();
    let judged: Vec<&str> = on_actions()
        .filter(|(action, pattern)| legal_on(pattern, &|name| action.encoded(name)))
        .map(|(_, pattern)| pattern.method.as_str())
        .chain(on_tunnels().filter(|(_, pattern)| legal_on(pattern, &|_| false)).map(|(_, pattern)| pattern.method.as_str()))
        .chain(closed.map(method_of))
        .collect();
    if !judged.is_empty() {
        return Found::OtherMethod(judged.into_iter().chain(ending(Then::Forward).map(method_of)).collect());
    }
    // What is left of the closed routes that stand here openly closes another operation.
    let left: Vec<&Pattern> = ending(Then::Deny).map(|(_, pattern)| pattern).collect();
    let elsewhere = |door: Door| match door.leads {
        Leads::Route(place) => {
            let pattern = routes.get(place).and_then(|route| route.doors.get(door.index));
            !pattern.is_some_and(|pattern| left.iter().any(|left| std::ptr::eq(*left, pattern)))
        }
        Leads::Action(_) | Leads::Tunnel(_) | Leads::Socket => true,
    };
    if tree.nearly(path, elsewhere) {
        Found::Variant
    } else if target::needs_declaration(path) && (!provider.encoded || hides(provider, path)) {
        Found::Undeclared
    } else {
        Found::Unlisted
    }
}

/// Whether `method` does something else than `closed`, the pattern of a closed route on the same path: it is one of those that
/// every server tells apart, and the path lies in a guarded space, where servers look at the method. Pages, files and hooks
/// outside are often served whatever the method is.
fn is_another_operation(provider: &Provider, method: &str, closed: &Pattern) -> bool {
    let told_apart = matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE");
    told_apart && method != closed.method && closed.is_within(&provider.guarded)
}

/// Whether each of these segments has an encoding only where it is `declared`.
fn legal(segments: &[(&str, String)], declared: impl Fn(&str) -> bool) -> bool {
    segments.iter().all(|(name, raw)| !target::needs_declaration(raw) || declared(name))
}

/// Whether a server that decodes more than its segments would find a watched pattern in `path`, where it does not stand
/// openly (with another method, which a route declares).
#[must_use]
pub fn hides(provider: &Provider, path: &str) -> bool {
    target::needs_declaration(path) && {
        let openly = provider.tree.on(path);
        target::some_reading(path, |reading| provider.tree.nearly(reading, |door| !openly.contains(&door)))
    }
}
