//! Reading JSON values as the texts, numbers and lists that facts are made of; anything else is a failure, never a guess.

use serde_json::Value as Json;

use super::Failure;
use super::plan::{Origin, Output};
use super::pointer::Pointer;
use super::scope::Scope;
use crate::model::{Kind, Value};

/// A text, or a number in its text form.
pub(super) fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A list of texts, or one text as a list of one.
pub(super) fn texts(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::Array(elements) => elements.iter().map(text).collect(),
        single => text(single).map(|text| vec![text]),
    }
}

/// A list of texts, and nothing else.
pub(super) fn list(value: &Json) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

/// What stands at `pointer`, null counting as nothing.
pub(super) fn at<'a>(pointer: &Pointer, document: &'a Json) -> Option<std::borrow::Cow<'a, Json>> {
    pointer.resolve(document).filter(|value| !value.is_null())
}

/// The value of `output` in `document`; nothing when a placeholder of it has no value.
pub(super) fn output(output: &Output, document: &Json, scope: &Scope<'_>) -> Result<Option<Value>, Failure> {
    let unreadable = || Failure::unavailable(format!("`{}` has another form than expected", output.name));
    match &output.origin {
        Origin::Present(pointer) => Ok(Some(Value::Boolean(at(pointer, document).is_some()))),
        Origin::Contains(template) => {
            let Some(wanted) = template.fill(|name| scope.text(name)) else { return Ok(None) };
            let elements = texts(document).ok_or_else(unreadable)?;
            Ok(Some(Value::Boolean(elements.iter().any(|element| element.eq_ignore_ascii_case(&wanted)))))
        }
        Origin::Is(template, wanted) => {
            let Some(pointer) = template.fill(|name| scope.text(name)) else { return Ok(None) };
            let wanted: Option<Vec<String>> = wanted.iter().map(|wanted| wanted.fill(|name| scope.text(name))).collect();
            let (Some(wanted), held) = (wanted, at(&pointer, document)) else { return Ok(None) };
            let Some(held) = held else { return Ok(Some(Value::Boolean(false))) };
            let held = texts(&held).ok_or_else(unreadable)?;
            Ok(Some(Value::Boolean(held.iter().any(|text| wanted.contains(text)))))
        }
        Origin::Always(value) => Ok(Some(value.clone())),
        Origin::At(templates) => {
            for template in templates {
                let Some(pointer) = template.fill(|name| scope.text(name)) else { return Ok(None) };
                if let Some(value) = at(&pointer, document) {
                    return convert(output, &value).ok_or_else(unreadable).map(Some);
                }
            }
            match &output.default {
                Some(_) => Ok(Some(output.unset())),
                None => Err(Failure::unavailable(format!("the answer has no `{}`", output.name))),
            }
        }
    }
}

fn convert(output: &Output, value: &Json) -> Option<Value> {
    match output.kind {
        Kind::Boolean => value.as_bool().map(Value::Boolean),
        Kind::Integer => number(value).map(Value::Integer),
        Kind::Text => text(value).map(Value::Text),
        Kind::Set if output.levels.is_some() => number(value).map(|number| Value::Set(output.reached(number))),
        Kind::Set => texts(value).map(Value::Set),
    }
}

/// A whole number, or a text that is its one decimal form: Matrix rooms up to version 9 hold power levels as either.
fn number(value: &Json) -> Option<i64> {
    match value {
        Json::String(text) => text.parse::<i64>().ok().filter(|number| number.to_string() == *text),
        other => other.as_i64(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Subject;

    fn read(kind: Kind, default: Option<Value>, document: &Json) -> Result<Option<Value>, Failure> {
        let origin = Origin::At(vec!["/x".parse().unwrap()]);
        let subject = Subject::default();
        output(&Output { name: "x".into(), kind, origin, default, levels: None }, document, &Scope::new(&subject, &[]))
    }

    #[test]
    fn each_kind_is_read_from_its_own_form_only() {
        assert_eq!(read(Kind::Boolean, None, &json!({"x": true})), Ok(Some(Value::Boolean(true))));
        assert_eq!(read(Kind::Integer, None, &json!({"x": -3})), Ok(Some(Value::Integer(-3))));
        assert_eq!(read(Kind::Integer, None, &json!({"x": "-50"})), Ok(Some(Value::Integer(-50))), "a number may be a text");
        assert_eq!(read(Kind::Text, None, &json!({"x": "a"})), Ok(Some(Value::from("a"))));
        assert_eq!(read(Kind::Text, None, &json!({"x": 7})), Ok(Some(Value::from("7"))), "an id may be a number");
        assert_eq!(read(Kind::Set, None, &json!({"x": ["a", 1]})), Ok(Some(Value::Set(vec!["a".into(), "1".into()]))));
        assert_eq!(read(Kind::Set, None, &json!({"x": "a"})), Ok(Some(Value::Set(vec!["a".into()]))));
        for (kind, wrong) in [
            (Kind::Boolean, json!({"x": "true"})),
            (Kind::Boolean, json!({"x": 1})),
            (Kind::Integer, json!({"x": "+1"})),
            (Kind::Integer, json!({"x": " 1"})),
            (Kind::Integer, json!({"x": "01"})),
            (Kind::Integer, json!({"x": 1.5})),
            (Kind::Integer, json!({"x": 18_446_744_073_709_551_615_u64})),
            (Kind::Text, json!({"x": ["a"]})),
            (Kind::Set, json!({"x": [null]})),
            (Kind::Set, json!({"x": {"a": 1}})),
        ] {
            assert!(read(kind, Some(Value::from("default")), &wrong).is_err(), "{wrong}: a wrong form is not an absent value");
        }
    }

    fn of(origin: Origin, kind: Kind, document: &Json) -> Result<Option<Value>, Failure> {
        let subject = Subject { id: "@a:b".into(), ..Subject::default() };
        let output = Output { name: "x".into(), kind, origin, default: Some(Value::Integer(0)), levels: None };
        super::output(&output, document, &Scope::new(&subject, &[("room", "r")]))
    }

    #[test]
    fn a_value_is_read_where_it_first_stands() {
        let origin = || Origin::At(["/users/{caller.id}", "/users_default"].map(|at| at.parse().unwrap()).to_vec());
        let read = |document| of(origin(), Kind::Integer, &document);
        assert_eq!(read(json!({"users": {"@a:b": 50}, "users_default": 10})), Ok(Some(Value::Integer(50))));
        assert_eq!(read(json!({"users": {"@c:b": 50}, "users_default": 10})), Ok(Some(Value::Integer(10))));
        assert_eq!(read(json!({"users": {"@a:b": null}})), Ok(Some(Value::Integer(0))));
        assert!(read(json!({"users": {"@a:b": []}, "users_default": 10})).is_err(), "a wrong form is not passed over");
    }

    #[test]
    fn a_text_is_one_of_the_expected_byte_for_byte() {
        let is = |wanted: &[&str], document| {
            let wanted = wanted.iter().map(|wanted| wanted.parse().unwrap()).collect();
            of(Origin::Is("/x".parse().unwrap(), wanted), Kind::Boolean, &document)
        };
        let told = |value| Ok(Some(Value::Boolean(value)));
        assert_eq!(is(&["leave", "ban"], json!({"x": "ban"})), told(true));
        assert_eq!(is(&["{caller.id}"], json!({"x": "@a:b"})), told(true));
        assert_eq!(is(&["{caller.id}"], json!({"x": "@A:b"})), told(false));
        assert_eq!(is(&["{caller.id}"], json!({"x": ["@c:b", "@a:b"]})), told(true), "or one of a list");
        assert_eq!(is(&["join"], json!({})), told(false));
        assert_eq!(is(&["{caller.email}"], json!({"x": ""})), Ok(None), "nothing is expected of a value that is not known");
        assert!(is(&["join"], json!({"x": {"join": true}})).is_err());
    }

    #[test]
    fn what_is_absent_or_null_is_the_default_or_a_failure() {
        for document in [json!({}), json!({"x": null}), json!([]), json!(null)] {
            assert_eq!(read(Kind::Text, Some(Value::from("d")), &document), Ok(Some(Value::from("d"))));
            assert!(matches!(read(Kind::Text, None, &document), Err(Failure::Unavailable { .. })));
        }
    }
}
