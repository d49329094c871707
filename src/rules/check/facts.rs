//! The facts of a provider file, checked: their steps, what they give, and how actions use them.

use std::collections::BTreeMap;
use std::str::FromStr;

use toml::Spanned;

use super::super::raw;
use super::Check;
use crate::identity::{FactPlan, Origin, Output, Pointer, PointerTemplate, Source, Step, Template};
use crate::model::{Fault, Kind, Place, Value};

/// The key of a fact's use that names the fact; the others are its inputs.
pub(super) const FACT_KEY: &str = "name";

impl Check<'_> {
    pub(super) fn fact(&mut self, raw: raw::Fact, caller: &raw::Caller) -> Option<FactPlan> {
        for need in raw.needs.iter().filter(|need| need.get_ref() == FACT_KEY) {
            let message = format!("an input cannot be named `{FACT_KEY}`: where an action uses a fact, `{FACT_KEY}` is the fact");
            let fault = Fault::new(Place::at(self.file, self.text, need.span().start), message);
            self.faults.push(fault.hint("give it another name, such as the parameter's"));
        }
        let needs: Vec<String> = raw.needs.into_iter().map(Spanned::into_inner).collect();
        let mut known = needs.clone();
        known.extend(["caller.id".to_owned(), "caller.name".to_owned()]);
        known.extend(caller.attributes.keys().map(|name| format!("caller.{name}")));
        let ttl = self.duration(raw.ttl.as_ref());
        let mut steps: Vec<Step> = Vec::new();
        for step in raw.step {
            let step = self.step(step, &raw.name, &known, &steps)?;
            known.extend(step.outputs.iter().map(|output| output.name.clone()));
            steps.push(step);
        }
        Some(FactPlan { name: raw.name.into_inner(), needs, ttl, steps })
    }

    fn step(&mut self, raw: raw::Step, fact: &Spanned<String>, known: &[String], earlier: &[Step]) -> Option<Step> {
        let source = match (&raw.lookup, &raw.from) {
            (Some(lookup), None) => {
                let found = self.lookup(lookup, raw.base.as_ref())?;
                for name in found.target.placeholders() {
                    self.placeholder(lookup, name, known);
                }
                Source::Lookup(found)
            }
            (None, Some(from)) => match from.get_ref().strip_prefix("caller.") {
                Some(attribute) if known.iter().any(|name| name == from.get_ref()) => Source::Caller(attribute.to_owned()),
                None if earlier.iter().flat_map(|step| &step.outputs).any(|output| output.name == *from.get_ref()) => {
                    Source::Found(from.get_ref().clone())
                }
                _ => {
                    self.hinted(
                        from,
                        format!("unknown source `{}`", from.get_ref()),
                        from.get_ref(),
                        known.iter().map(String::as_str),
                    );
                    return None;
                }
            },
            (None, None) => Source::Nothing,
            (Some(lookup), Some(_)) => {
                self.fault(lookup, format!("a step of the fact `{}` has `lookup` or `from`, not both", fact.get_ref()));
                return None;
            }
        };
        for condition in [&raw.when, &raw.unless].into_iter().flatten() {
            for name in condition.get_ref().iter() {
                let outputs = earlier.iter().flat_map(|step| &step.outputs).map(|output| output.name.as_str());
                if !outputs.clone().any(|output| output == name) {
                    self.hinted(condition, format!("no earlier step gives `{name}`"), name, outputs);
                }
            }
        }
        let mut matching = Vec::new();
        for (field, wanted) in &raw.matching {
            match (format!("/{}", field.trim_start_matches('/')).parse::<Pointer>(), wanted.parse::<Template>()) {
                (Ok(pointer), Ok(template)) => {
                    for name in template.placeholders() {
                        self.placeholder(fact, name, known);
                    }
                    matching.push((pointer, template));
                }
                _ => self.fault(fact, format!("`where`: `{field} = {wanted}` cannot be read")),
            }
        }
        if !matching.is_empty() && raw.rows.is_none() {
            self.fault(fact, "`where` chooses among `rows`, which the step does not name");
        }
        let rows = raw.rows.as_ref().and_then(|rows| self.parsed(rows));
        let next = raw.next.as_ref().and_then(|next| self.parsed(next));
        let mut outputs = Vec::new();
        for (name, output) in raw.outputs {
            match output_of(&name, output, &source) {
                Ok(output) => {
                    self.output_placeholders(fact, &output, known);
                    outputs.push(output);
                }
                Err(why) => self.fault(fact, format!("output `{name}` of the fact `{}`: {why}", fact.get_ref())),
            }
        }
        Some(Step { source, when: names(raw.when), unless: names(raw.unless), absent: raw.absent, rows, matching, next, outputs })
    }

    fn placeholder<T>(&mut self, at: &Spanned<T>, name: &str, known: &[String]) {
        if !known.iter().any(|known| known == name) {
            self.hinted(at, format!("unknown placeholder `{{{name}}}`"), name, known.iter().map(String::as_str));
        }
    }

    fn output_placeholders(&mut self, fact: &Spanned<String>, output: &Output, known: &[String]) {
        let names: Vec<&str> = match &output.origin {
            Origin::At(pointers) => pointers.iter().flat_map(PointerTemplate::placeholders).collect(),
            Origin::Is(pointer, wanted) => pointer.placeholders().chain(wanted.iter().flat_map(Template::placeholders)).collect(),
            Origin::Contains(template) => template.placeholders().collect(),
            Origin::Present(_) | Origin::Always(_) => Vec::new(),
        };
        for name in names {
            self.placeholder(fact, name, known);
        }
    }

    /// What a use of a fact binds, the fact's own name among it.
    pub(super) fn fact_inputs(
        &mut self,
        fact_use: &Spanned<BTreeMap<String, Spanned<raw::OneOrMany>>>,
    ) -> BTreeMap<String, String> {
        let mut inputs = BTreeMap::new();
        for (input, param) in fact_use.get_ref() {
            match param.get_ref() {
                raw::OneOrMany::One(param) => {
                    inputs.insert(input.clone(), param.clone());
                }
                raw::OneOrMany::Many(params) => {
                    let place = Place::at(self.file, self.text, param.span().start);
                    let fault = Fault::new(place, format!("`{input}` takes one parameter, not a list"));
                    self.faults.push(fault.hint("a fact takes one parameter; for another one declare another fact"));
                    inputs.insert(input.clone(), params.first().cloned().unwrap_or_default());
                }
            }
        }
        inputs
    }
}

fn names(raw: Option<Spanned<raw::OneOrMany>>) -> Vec<String> {
    raw.map(|names| names.into_inner().into_vec()).unwrap_or_default()
}

fn output_of(name: &str, raw: raw::Output, source: &Source) -> Result<Output, String> {
    fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error| format!("`{text}`: {error}"))
    }
    let one = |at: &raw::OneOrMany| match at {
        raw::OneOrMany::One(at) => Ok(at.clone()),
        raw::OneOrMany::Many(_) => Err("`present` and `is` look at one place".to_owned()),
    };
    let document = !matches!(source, Source::Nothing);
    let origin = match (&raw.at, raw.present, &raw.is, &raw.contains, &raw.value) {
        (Some(at), Some(true), None, None, None) if document => Origin::Present(parsed(&one(at)?)?),
        (Some(at), None, Some(wanted), None, None) if document => {
            Origin::Is(parsed(&one(at)?)?, wanted.iter().map(|wanted| parsed(wanted)).collect::<Result<_, _>>()?)
        }
        (Some(at), None, None, None, None) if document => Origin::At(at.iter().map(|at| parsed(at)).collect::<Result<_, _>>()?),
        (None, None, None, Some(wanted), None) if matches!(source, Source::Caller(_)) => Origin::Contains(parsed(wanted)?),
        (None, None, None, Some(_), None) => {
            return Err("`contains` reads a list of the caller: the step needs `from`".to_owned());
        }
        (None, None, None, None, Some(value)) => Origin::Always(value.clone()),
        _ if !document => return Err("a step without `lookup` and `from` gives a `value`".to_owned()),
        _ => return Err("an output has `at`, alone or with `present = true` or `is`, or `contains`, or `value`".to_owned()),
    };
    let levels = raw.levels.map(|levels| {
        let mut levels: Vec<(String, i64)> = levels.into_iter().collect();
        levels.sort_by_key(|(_, least)| std::cmp::Reverse(*least));
        levels
    });
    let stated = raw.kind.map(|kind| match kind {
        raw::OutputKind::Boolean => Kind::Boolean,
        raw::OutputKind::Integer => Kind::Integer,
        raw::OutputKind::Text => Kind::Text,
        raw::OutputKind::Set => Kind::Set,
    });
    let kind = match (&origin, stated, &raw.default, &levels) {
        (Origin::Present(_) | Origin::Contains(_) | Origin::Is(..), _, _, _) => Kind::Boolean,
        (Origin::Always(value), _, _, _) => value.kind(),
        (Origin::At(_), _, _, Some(_)) => Kind::Set,
        (Origin::At(_), Some(kind), _, None) => kind,
        (Origin::At(_), None, Some(default), None) => default.kind(),
        (Origin::At(_), None, None, None) => return Err("its kind is not known: state `kind` or a `default`".to_owned()),
    };
    let fits = |default: &Value| default.kind() == kind || (levels.is_some() && default.kind() == Kind::Integer);
    if raw.default.as_ref().is_some_and(|default| !fits(default)) {
        return Err(format!("its default is no {kind:?}").to_lowercase());
    }
    Ok(Output { name: name.to_owned(), kind, origin, default: raw.default, levels })
}
