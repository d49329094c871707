//! Which action or route a canonical path belongs to.

use std::sync::Arc;

use super::provider::Tunnel;
use super::provider::{Action, Provider, Route, Then};
use super::target;

/// A declared `METHOD /path/{name}`.
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
    /// To an action's path with a method that nobody declares there; the declared ones are named.
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
                Some(name) if !name.is_empty() => Ok(Segment::Named(name.to_owned())),
                _ if segment.contains(['{', '}', '?', '%', '*', ' ']) => Err(format!("`{segment}` is no path segment")),
                _ => Ok(Segment::Literal(segment.to_owned())),
            })
            .collect::<Result<Vec<Segment>, _>>()?;
        // The last one may be empty: a path that ends in a slash where the server takes that for another one.
        let inner = segments.split_last().map(|(_, inner)| inner).unwrap_or_default();
        if rest.is_empty() || inner.contains(&Segment::Literal(String::new())) {
            return Err(format!("`{path}` has an empty segment"));
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
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// The names of its segments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The path with each named segment replaced by what `value` gives for it.
    pub fn path(&self, mut value: impl FnMut(&str) -> String) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(text),
                Segment::Named(name) => path.push_str(&value(name)),
            }
        }
        path
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
                (Segment::Named(_), Segment::Named(_)) => true,
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
                Segment::Named(_) if part.is_empty() => return None,
                Segment::Named(name) => named.push((name.as_str(), part.to_owned())),
            }
        }
        parts.next().is_none().then_some(named)
    }

    /// Whether `path` differs from this pattern only in the case of literals, a trailing slash, or something hung on to
    /// the last segment: an attempt on the guarded path by somebody who knows a more forgiving server.
    fn nearly(&self, path: &str) -> bool {
        self.nearly_exactly(path) || path.strip_suffix('/').is_some_and(|path| self.nearly_exactly(path))
    }

    fn nearly_exactly(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let last = parts.len().wrapping_sub(1);
        parts.len() == self.segments.len()
            && self.segments.iter().zip(&parts).enumerate().all(|(index, (segment, part))| match segment {
                Segment::Named(_) => true,
                Segment::Literal(text) => {
                    let part = part.to_ascii_lowercase();
                    let text = text.to_ascii_lowercase();
                    let continued = || part.strip_prefix(&text).is_some_and(|rest| rest.starts_with(['.', ';', '%']));
                    part == text || (index == last && !text.is_empty() && continued())
                }
            })
    }
}

/// Finds where `path` leads with `method`. HEAD is judged like GET.
#[must_use]
pub fn find<'r>(provider: &'r Provider, method: &str, path: &str) -> Found<'r> {
    let Provider { actions, tunnels, routes, .. } = provider;
    let method = if method == "HEAD" { "GET" } else { method };
    let action = actions
        .iter()
        .flat_map(|action| action.doors.iter().map(move |pattern| (action, pattern)))
        .filter(|(_, pattern)| pattern.method == method)
        .filter_map(|(action, pattern)| Some((action, pattern, pattern.matches(path)?)))
        .max_by_key(|(_, pattern, _)| pattern.literals());
    if let Some((action, pattern, segments)) = action {
        return if legal(&segments, |name| action.encoded(name)) {
            Found::Action { action, pattern, segments }
        } else {
            Found::Undeclared
        };
    }
    let tunnel = tunnels.iter().flat_map(|tunnel| tunnel.doors.iter().map(move |pattern| (tunnel, pattern)));
    if let Some((tunnel, pattern)) =
        tunnel.clone().find(|(_, pattern)| pattern.method == method && pattern.matches(path).is_some())
    {
        return Found::Tunnel { tunnel, pattern };
    }
    let route = routes
        .iter()
        .flat_map(|route| route.doors.iter().map(move |pattern| (route, pattern)))
        .filter(|(_, pattern)| pattern.method == method)
        .filter_map(|(route, pattern)| pattern.matches(path).map(|segments| (route, pattern, segments)))
        .max_by_key(|(_, pattern, _)| pattern.literals());
    if let Some((route, _, segments)) = route {
        let declared = legal(&segments, |_| route.encoded || provider.encoded);
        return if declared && !hides(provider, path) { Found::Route(route) } else { Found::Undeclared };
    }
    let on_action = actions.iter().flat_map(|action| action.doors.iter().map(move |pattern| (pattern, Some(action))));
    let on_tunnel = tunnels.iter().flat_map(|tunnel| &tunnel.doors).map(|pattern| (pattern, None));
    let on_path: Vec<&str> = on_action
        .chain(on_tunnel)
        .filter(|(pattern, action)| {
            let declared = |name: &str| action.is_some_and(|action| action.encoded(name));
            pattern.matches(path).is_some_and(|segments| legal(&segments, declared))
        })
        .map(|(pattern, _)| pattern.method.as_str())
        .chain(matching(routes, path, Then::Deny))
        .collect();
    if !on_path.is_empty() {
        return Found::OtherMethod(on_path.into_iter().chain(matching(routes, path, Then::Forward)).collect());
    }
    if watched(provider).any(|pattern| pattern.nearly(path)) {
        Found::Variant
    } else if target::needs_declaration(path) && (!provider.encoded || hides(provider, path)) {
        Found::Undeclared
    } else {
        Found::Unlisted
    }
}

/// Whether each of these segments has an encoding only where it is `declared`.
fn legal(segments: &[(&str, String)], declared: impl Fn(&str) -> bool) -> bool {
    segments.iter().all(|(name, raw)| !target::needs_declaration(raw) || declared(name))
}

/// The methods of the routes on `path` that end so.
fn matching<'r>(routes: &'r [Route], path: &str, then: Then) -> impl Iterator<Item = &'r str> {
    let doors = routes.iter().filter(move |route| route.then == then).flat_map(|route| {
        route.doors.iter().filter(|pattern| pattern.matches(path).is_some_and(|segments| legal(&segments, |_| route.encoded)))
    });
    doors.map(|pattern| pattern.method.as_str())
}

/// Every pattern that must not be reached past its verdict.
fn watched(provider: &Provider) -> impl Iterator<Item = &Pattern> {
    let Provider { actions, tunnels, routes, .. } = provider;
    let closed = routes.iter().filter(|route| route.then == Then::Deny).flat_map(|route| &route.doors);
    let doors = actions.iter().flat_map(|action| &action.doors).chain(tunnels.iter().flat_map(|tunnel| &tunnel.doors));
    doors.map(AsRef::as_ref).chain(closed)
}

/// Whether a server that decodes more than its segments would find one of those patterns in `path`, where it does not stand
/// openly (with another method, which a route declares).
fn hides(provider: &Provider, path: &str) -> bool {
    let hidden = || watched(provider).filter(|pattern| pattern.matches(path).is_none());
    target::needs_declaration(path) && target::some_reading(path, |reading| hidden().any(|pattern| pattern.nearly(reading)))
}
