//! What a provider file says of parameters: where each stands, what it looks like, and how often it may be given.

use std::collections::BTreeMap;

use toml::Spanned;

use super::Check;
use crate::rules::param::{Param, Place};
use crate::rules::provider::{empty, form};
use crate::rules::raw;
use crate::rules::router::Pattern;

impl Check<'_> {
    /// The parameter `name` of an action with these `doors`.
    pub(super) fn param(&mut self, name: &str, spanned: &Spanned<raw::Param>, doors: &[Pattern]) -> Param {
        let raw = spanned.get_ref();
        let in_path = doors.iter().all(|door| door.names().any(|segment| segment == name));
        let place = match raw.place {
            raw::ParamPlace::Path => Place::Path { encoded: raw.encoded },
            raw::ParamPlace::Query => Place::Query,
            raw::ParamPlace::Body => Place::Body,
            raw::ParamPlace::Method => Place::Method,
        };
        match raw.place {
            raw::ParamPlace::Path if !in_path => self.fault(spanned, format!("`{name}` is in no path of the action")),
            raw::ParamPlace::Path if !raw.required => self.fault(spanned, format!("`{name}` is in the path, so it is required")),
            raw::ParamPlace::Query | raw::ParamPlace::Body | raw::ParamPlace::Method if raw.encoded => {
                self.fault(spanned, "`encoded` is for path parameters")
            }
            raw::ParamPlace::Path | raw::ParamPlace::Body | raw::ParamPlace::Method if raw.repeated => {
                self.fault(spanned, "`repeated` is for query parameters")
            }
            raw::ParamPlace::Query
                if raw.repeated && !matches!(raw.kind, raw::ParamType::Id | raw::ParamType::String | raw::ParamType::Enum) =>
            {
                self.fault(spanned, "`repeated` is for texts: the types `id`, `string` and `enum`")
            }
            raw::ParamPlace::Body if doors.iter().any(|door| door.method == "GET") => {
                self.fault(spanned, format!("`{name}` is in the body, which GET has none of"))
            }
            _ => {}
        }
        self.bounds(name, spanned);
        let refusal = raw.refusal.as_ref().and_then(|body| self.parsed(body));
        Param {
            name: name.to_owned(),
            place,
            form: form(raw),
            required: raw.required,
            empty: empty(raw.empty),
            repeated: raw.repeated,
            refusal,
            secret: raw.secret,
        }
    }

    /// What is ignored is no parameter, and what names one thing (`single`) is given once.
    pub(super) fn counted(
        &mut self,
        params: &BTreeMap<String, Spanned<raw::Param>>,
        ignored: &[Spanned<String>],
        single: &[&String],
    ) {
        for name in ignored.iter().filter(|name| params.contains_key(name.get_ref())) {
            self.fault(name, format!("`{}` is a parameter, so it is not ignored", name.get_ref()));
        }
        for name in single {
            if let Some(param) = params.get(*name).filter(|param| param.get_ref().repeated) {
                let told = "so it names no resource, no fact, no key of a table and nobody";
                self.fault(param, format!("`{name}` may be given more than once, {told}"));
            }
        }
    }
}
