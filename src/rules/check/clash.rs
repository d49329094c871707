//! Declarations that exclude each other or mean nothing: two of one name, two that match one path, bounds of another type.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::Check;
use crate::model::{Fault, Place};
use crate::rules::raw;
use crate::rules::router::Pattern;

/// A route as it is declared.
struct Declared {
    pattern: Pattern,
    /// The action's id; nothing for what is not judged.
    action: Option<String>,
    /// The table that declares it: `[[route]]`.
    table: &'static str,
    at: usize,
}

impl Check<'_> {
    pub(super) fn place(&self, at: usize) -> Place {
        Place::at(self.file, self.text, at)
    }

    /// Names that are declared before, told at the second place with the first.
    pub(super) fn unique<'n>(&mut self, what: &str, names: impl Iterator<Item = &'n Spanned<String>>) {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names {
            let at = name.span().start;
            match first.get(name.get_ref().as_str()) {
                None => drop(first.insert(name.get_ref(), at)),
                Some(first) => {
                    let hint = format!("the first is at {}; rename or remove one of the two", self.place(*first));
                    let fault = Fault::new(self.place(at), format!("two {what}s are named `{}`", name.get_ref()));
                    self.faults.push(fault.hint(hint));
                }
            }
        }
    }

    /// Two declarations that match one path: the reader could not tell which is meant.
    pub(super) fn overlaps(&mut self, raw: &raw::ProviderFile) {
        let mut all = Vec::new();
        for action in &raw.action {
            self.declared(&mut all, action.rest.as_ref(), Some(action.id.get_ref()), "[[action]]");
        }
        for tunnel in &raw.tunnel {
            self.declared(&mut all, Some(&tunnel.rest), None, "[[tunnel]]");
        }
        for route in &raw.route {
            self.declared(&mut all, Some(&route.rest), None, "[[route]]");
        }
        for (index, one) in all.iter().enumerate() {
            for other in all.iter().skip(index + 1) {
                let both_judged = one.action.is_some() && other.action.is_some();
                if one.pattern == other.pattern || (both_judged && one.pattern.collides(&other.pattern)) {
                    self.faults.push(self.clash(one, other));
                }
            }
        }
    }

    fn declared(
        &self,
        all: &mut Vec<Declared>,
        rest: Option<&Spanned<raw::OneOrMany>>,
        action: Option<&String>,
        table: &'static str,
    ) {
        let Some(rest) = rest else { return };
        let mut left = rest.span();
        for text in rest.get_ref().iter() {
            let at = self.within(left.clone(), text);
            // One that is listed again is found behind the first.
            left.start = (at + text.len()).min(left.end);
            // A pattern that cannot be read has its own fault.
            let Ok(pattern) = text.parse() else { continue };
            all.push(Declared { pattern, action: action.cloned(), table, at });
        }
    }

    /// Where `text` stands in the value at `span`; the value's beginning where it is written with escapes.
    pub(super) fn within(&self, span: Range<usize>, text: &str) -> usize {
        let value = self.text.get(span.clone()).unwrap_or_default();
        let quoted = ['"', '\''].iter().find_map(|quote| value.find(&format!("{quote}{text}{quote}")));
        span.start + quoted.unwrap_or(0)
    }

    fn clash(&self, one: &Declared, other: &Declared) -> Fault {
        let (one_at, other_at) = (self.place(one.at), self.place(other.at));
        match (&one.action, &other.action) {
            (Some(first), Some(second)) => {
                let (pattern, earlier) = (&other.pattern, &one.pattern);
                let message =
                    format!("`{pattern}` of the action `{second}` matches the paths of `{earlier}` of the action `{first}`");
                Fault::new(other_at, message).hint(format!("the other is at {one_at}; remove one of the two"))
            }
            (Some(action), None) => {
                let message = format!("`{}` of the action `{action}` is also the `{}` at {other_at}", one.pattern, other.table);
                Fault::new(one_at, message).hint("remove that one: the action says what becomes of it")
            }
            _ => {
                let message = format!("`{}` is declared twice, first as the `{}` at {one_at}", other.pattern, one.table);
                Fault::new(other_at, message).hint("remove one of the two")
            }
        }
    }

    /// Keys that bound values of another type: nothing would carry them out.
    pub(super) fn bounds(&mut self, name: &str, spanned: &Spanned<raw::Param>) {
        use raw::ParamType::{Enum, Integer, String as Text};
        let raw = spanned.get_ref();
        for (key, is_set, of, told) in [
            ("minimum", raw.minimum.is_some(), Integer, "an integer"),
            ("maximum", raw.maximum.is_some(), Integer, "an integer"),
            ("min_length", raw.min_length.is_some(), Text, "a string"),
            ("max_length", raw.max_length.is_some(), Text, "a string"),
            ("values", !raw.values.is_empty(), Enum, "an enum"),
            ("any_case", raw.any_case, Enum, "an enum"),
        ] {
            if is_set && raw.kind != of {
                let fault =
                    Fault::new(self.place(spanned.span().start), format!("`{key}` of `{name}` bounds {told}, which it is not"));
                let hint = match raw.kind {
                    Integer => "`minimum` and `maximum` bound an integer".to_owned(),
                    Text => "`min_length` and `max_length` bound a string".to_owned(),
                    _ => format!("remove `{key}`, or make it {told}"),
                };
                self.faults.push(fault.hint(hint));
            }
        }
        if raw.kind == Enum && raw.values.is_empty() {
            let fault = Fault::new(self.place(spanned.span().start), format!("the enum `{name}` lists no values"));
            self.faults.push(fault.hint("list them: `values = [\"one\", \"other\"]`"));
        }
        let none =
            |least: Option<i128>, greatest: Option<i128>| least.zip(greatest).is_some_and(|(least, greatest)| least > greatest);
        let length = |length: Option<usize>| length.and_then(|length| i128::try_from(length).ok());
        if none(raw.minimum.map(i128::from), raw.maximum.map(i128::from)) || none(length(raw.min_length), length(raw.max_length))
        {
            let fault = Fault::new(self.place(spanned.span().start), format!("nothing is within the bounds of `{name}`"));
            self.faults.push(fault.hint("the lower bound is above the upper one"));
        }
    }
}
