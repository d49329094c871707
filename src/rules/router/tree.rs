//! Every declared pattern by its segments, so that a path is compared only with what it could belong to, however much is declared.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::{Pattern, Segment};
use crate::rules::provider::{Action, Route, Then, Tunnel};

/// The patterns of one provider.
#[derive(Debug, Default)]
pub struct Tree {
    declared: Node,
    /// The doors of actions without a named segment, by their whole path.
    literal: HashMap<String, Vec<Door>>,
    /// Those that must not be reached past their verdict, their literals in lower case.
    watched: Node,
    /// The watched ones that lie in no guarded space.
    beside: Node,
    /// Where the server takes sockets, or what stands in for them.
    sockets: Node,
}

/// The patterns that begin alike.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    named: Option<Box<Node>>,
    ends: Vec<Door>,
    /// Those that match whatever lies below.
    rest: Vec<Door>,
}

/// Which pattern of the provider it is; in the order of the file, actions before tunnels before routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Door {
    pub(super) leads: Leads,
    /// Its place among the doors there.
    pub(super) index: usize,
}

/// Where a door leads, by its place in the provider's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leads {
    Action(usize),
    Tunnel(usize),
    Route(usize),
    Socket,
}

impl Tree {
    /// Puts every pattern in its place; `guarded` are the guarded spaces.
    #[must_use]
    pub fn of(
        actions: &[Arc<Action>],
        tunnels: &[Arc<Tunnel>],
        routes: &[Route],
        sockets: &[Pattern],
        guarded: &[String],
    ) -> Self {
        let mut tree = Self::default();
        for (place, action) in actions.iter().enumerate() {
            tree.add(Leads::Action(place), action.doors.iter().map(AsRef::as_ref), Some(guarded));
            for (index, pattern) in action.doors.iter().enumerate().filter(|(_, pattern)| pattern.names().next().is_none()) {
                let doors = tree.literal.entry(pattern.path(|_| String::new())).or_default();
                doors.push(Door { leads: Leads::Action(place), index });
            }
        }
        for (place, tunnel) in tunnels.iter().enumerate() {
            tree.add(Leads::Tunnel(place), tunnel.doors.iter().map(AsRef::as_ref), Some(guarded));
        }
        for (place, route) in routes.iter().enumerate() {
            tree.add(Leads::Route(place), route.doors.iter(), (route.then == Then::Deny).then_some(guarded));
        }
        for (index, socket) in sockets.iter().enumerate() {
            tree.sockets.insert(&socket.segments, Door { leads: Leads::Socket, index }, str::to_ascii_lowercase);
        }
        tree
    }

    /// Those that are watched come with the guarded spaces.
    fn add<'p>(&mut self, leads: Leads, doors: impl Iterator<Item = &'p Pattern>, watched: Option<&[String]>) {
        for (index, pattern) in doors.enumerate() {
            let door = Door { leads, index };
            self.declared.insert(&pattern.segments, door, str::to_owned);
            if let Some(guarded) = watched {
                self.watched.insert(&pattern.segments, door, str::to_ascii_lowercase);
                if !pattern.is_within(guarded) {
                    self.beside.insert(&pattern.segments, door, str::to_ascii_lowercase);
                }
            }
        }
    }

    /// Every door of an action that is `path` letter by letter: no other pattern on it has more literal segments.
    pub(super) fn literal(&self, path: &str) -> &[Door] {
        self.literal.get(path).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every pattern that `path` matches, whatever its method, in the order of the file.
    pub(super) fn on(&self, path: &str) -> Vec<Door> {
        let mut found = Vec::new();
        if let Some(rest) = path.strip_prefix('/') {
            self.declared.collect(Some(rest), &mut found);
        }
        found.sort_unstable();
        found
    }

    /// Whether `which` holds for a watched pattern from which `path` differs only in the case of literals, a trailing slash,
    /// or something hung on to the last segment: an attempt on the guarded path by somebody who knows a more forgiving server.
    pub(super) fn nearly(&self, path: &str, which: impl FnMut(Door) -> bool) -> bool {
        self.watched.nearly_from(path, which)
    }

    /// Whether `path` is, or nearly is, one of a watched pattern that lies in no guarded space.
    pub(crate) fn is_beside(&self, path: &str) -> bool {
        self.beside.nearly_from(path, |_| true)
    }

    /// Whether `path` is, or nearly is, one where the server takes sockets or what stands in for them.
    pub(crate) fn is_socket(&self, path: &str) -> bool {
        self.sockets.nearly_from(path, |_| true)
    }
}

impl Node {
    fn insert(&mut self, segments: &[Segment], door: Door, written: impl Fn(&str) -> String) {
        let Some((first, rest)) = segments.split_first() else { return self.ends.push(door) };
        let below = match first {
            Segment::Literal(text) => self.literals.entry(written(text)).or_default(),
            Segment::Named(_) => self.named.get_or_insert_default(),
            Segment::Rest(_) => return self.rest.push(door),
        };
        below.insert(rest, door, written);
    }

    /// Every end that `rest`, which is nothing behind the last segment, leads to.
    fn collect(&self, rest: Option<&str>, found: &mut Vec<Door>) {
        let Some(rest) = rest else { return found.extend(&self.ends) };
        let (part, rest) = parted(rest);
        if !part.is_empty() {
            found.extend(&self.rest);
        }
        if let Some(below) = self.literals.get(part) {
            below.collect(rest, found);
        }
        if let Some(below) = self.named.as_ref().filter(|_| !part.is_empty()) {
            below.collect(rest, found);
        }
    }

    fn nearly_from(&self, path: &str, mut which: impl FnMut(Door) -> bool) -> bool {
        let mut exactly = |path: &str| path.split_once('/').is_some_and(|(_, rest)| self.nearly(Some(rest), &mut which));
        exactly(path) || path.strip_suffix('/').is_some_and(exactly)
    }

    fn nearly(&self, rest: Option<&str>, which: &mut impl FnMut(Door) -> bool) -> bool {
        let Some(rest) = rest else { return self.ends.iter().any(|door| which(*door)) };
        if self.rest.iter().any(|door| which(*door)) {
            return true;
        }
        let (part, rest) = parted(rest);
        if let Some(below) = &self.named
            && below.nearly(rest, which)
        {
            return true;
        }
        if self.literals.is_empty() {
            return false;
        }
        let part =
            if part.bytes().any(|byte| byte.is_ascii_uppercase()) { part.to_ascii_lowercase().into() } else { Cow::from(part) };
        if let Some(below) = self.literals.get(&*part)
            && below.nearly(rest, which)
        {
            return true;
        }
        let mut hung_on = part.match_indices(['.', ';', '%']).filter(|(at, _)| *at > 0 && rest.is_none());
        hung_on.any(|(at, _)| {
            let below = part.get(..at).and_then(|begins| self.literals.get(begins));
            below.is_some_and(|below| below.nearly(None, which))
        })
    }
}

/// The first segment, and what follows its slash.
fn parted(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((part, rest)) => (part, Some(rest)),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same question put to one pattern after the other.
    fn nearly(pattern: &Pattern, path: &str) -> bool {
        let exactly = |path: &str| {
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let last = parts.len().wrapping_sub(1);
            (parts.len() == pattern.segments.len() || (pattern.is_open_ended() && parts.len() > pattern.segments.len()))
                && pattern.segments.iter().zip(&parts).enumerate().all(|(index, (segment, part))| match segment {
                    Segment::Named(_) | Segment::Rest(_) => true,
                    Segment::Literal(text) => {
                        let (part, text) = (part.to_ascii_lowercase(), text.to_ascii_lowercase());
                        let continued = || part.strip_prefix(&text).is_some_and(|rest| rest.starts_with(['.', ';', '%']));
                        part == text || (index == last && !text.is_empty() && continued())
                    }
                })
        };
        exactly(path) || path.strip_suffix('/').is_some_and(exactly)
    }

    fn route(text: &str) -> Route {
        Route {
            doors: vec![text.parse().unwrap()],
            methods: Vec::new(),
            reveals: String::new(),
            then: Then::Deny,
            encoded: false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_tree_finds_what_a_look_at_every_pattern_finds(
            patterns in prop::collection::vec("GET(/(a|A|b|a\\.b|\\{x\\})){1,4}(/|/\\{x\\*\\})?", 0..12),
            path in "(/(a|A|b|B|a\\.b|a\\.B;c|b%41|b\\.|\\.a|;|é|)){1,5}|a/b|",
        ) {
            let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.replacen("GET/", "GET /", 1)).collect();
            let routes: Vec<Route> = patterns.iter().map(|pattern| route(pattern)).collect();
            let tree = Tree::of(&[], &[], &routes, &[], &[]);
            let found: Vec<Leads> = tree.on(&path).iter().map(|door| door.leads).collect();
            let all = routes.iter().enumerate();
            let expected: Vec<Leads> = all
                .filter(|(_, route)| route.doors[0].matches(&path).is_some())
                .map(|(place, _)| Leads::Route(place))
                .collect();
            prop_assert_eq!(found, expected);
            for (place, route) in routes.iter().enumerate() {
                let found = tree.nearly(&path, |door| door.leads == Leads::Route(place));
                prop_assert_eq!(found, nearly(&route.doors[0], &path), "{} {}", route.doors[0], path);
            }
        }
    }
}
