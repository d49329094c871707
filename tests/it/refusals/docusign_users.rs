//! `rooms.users` of DocuSign: two parameters in the path, four in the query, and words of rolegate's own.

use rolegate::demo::world::account::ACCOUNT;
use rolegate::model::Reason;

use super::cases::{Case, Fault, assert_complete, case, refuse_all, whole};
use crate::support::Gate;
use crate::support::gate::bearer;

const SORTS: &str = "FirstNameAsc, LastNameAsc, EmailAsc, FirstNameDesc, LastNameDesc, EmailDesc";

fn invalid(message: &str) -> String {
    format!(r#"{{"errorCode":"ROLEGATE_INVALID_PARAMETER","message":"{message}","referenceId":"{{id}}"}}"#)
}

fn malformed(name: &str) -> String {
    invalid(&format!("The parameter {name} holds characters that are not allowed."))
}

fn unknown(name: &str) -> String {
    invalid(&format!("The parameter {name} is not known."))
}

fn cases(prefix: &str) -> Vec<Case> {
    let target = r#"{"errorCode":"ROLEGATE_INVALID_TARGET","message":"The request target is not valid.","referenceId":"{id}"}"#;
    let path = |account: &str, room: &str| format!("{prefix}/v2/accounts/{account}/rooms/{room}/users");
    let account = |account: &str| path(account, "1234");
    let room = |room: &str| path(ACCOUNT, room);
    let at = |query: &str| format!("{}?{query}", path(ACCOUNT, "1234"));
    let long = invalid("The parameter accountId must have at most 255 characters.");
    let mut cases = vec![
        case("accountId", Fault::Empty, account(""), Reason::TargetAmbiguous, target),
        case("accountId", Fault::BrokenPercent, account("a%zz"), Reason::TargetAmbiguous, target),
        case("accountId", Fault::NotUtf8, account("a%ff"), Reason::TargetAmbiguous, target),
        case("accountId", Fault::ControlCharacter, account("a%0A"), Reason::TargetAmbiguous, target),
        case("accountId", Fault::ControlCharacter, account("a%20b"), Reason::ParamInvalid, malformed("accountId")),
        case("accountId", Fault::ControlCharacter, account("a%C2%85"), Reason::ParamInvalid, malformed("accountId")),
        case("accountId", Fault::ControlCharacter, account("a%2Fb"), Reason::TargetAmbiguous, target),
        case("accountId", Fault::ControlCharacter, account("a'b"), Reason::ParamInvalid, malformed("accountId")),
        case("accountId", Fault::TooLong, account(&"a".repeat(256)), Reason::ParamInvalid, long),
        case("roomId", Fault::Empty, room(""), Reason::TargetAmbiguous, target),
        case("roomId", Fault::BrokenPercent, room("1%"), Reason::TargetAmbiguous, target),
        case("roomId", Fault::NotUtf8, room("%ff"), Reason::TargetAmbiguous, target),
        case("filter", Fault::ControlCharacter, at("filter=a%0D"), Reason::ParamInvalid, malformed("filter")),
        whole(at("x=1"), Reason::ParamUnknown, unknown("x")),
        whole(at("accountId=a"), Reason::ParamUnknown, unknown("accountId")),
        whole(at("__proto__=x"), Reason::ParamUnknown, unknown("__proto__")),
        whole(at("{limit}=x"), Reason::ParamUnknown, unknown("{limit}")),
        whole(at("a%22b=x"), Reason::ParamUnknown, unknown(r#"a\"b"#)),
        whole(at("count=5?count=6"), Reason::TargetAmbiguous, target),
    ];
    for value in ["", "lastName", "LastNameAsc,", "LastNameAsc%00"] {
        let fault = if value.is_empty() { Fault::Empty } else { Fault::BadValue };
        let told = invalid(&format!("The parameter sort must be one of {SORTS}."));
        cases.push(case("sort", fault, at(&format!("sort={value}")), Reason::ParamInvalid, told));
    }
    let mut numbers: Vec<(&'static str, Fault, String, &str)> = Vec::new();
    for name in ["count", "startPosition"] {
        let least = if name == "count" { "at least 1" } else { "at least 0" };
        let (over, most) = if name == "count" { ("101", "at most 100") } else { ("2147483648", "at most 2147483647") };
        for value in ["abc", "1e1", "0x1", "+1", "%201"] {
            numbers.push((name, Fault::NotANumber, at(&format!("{name}={value}")), "a whole number"));
        }
        numbers.push((name, Fault::Empty, at(&format!("{name}=")), "a whole number"));
        numbers.push((name, Fault::Fraction, at(&format!("{name}=1.5")), "a whole number"));
        numbers.push((name, Fault::BelowBound, at(&format!("{name}=-1")), least));
        numbers.push((name, Fault::AboveBound, at(&format!("{name}={over}")), most));
    }
    numbers.push(("count", Fault::BelowBound, at("count=0"), "at least 1"));
    for value in ["abc", "1234a", "007", "-0", "12,5"] {
        numbers.push(("roomId", Fault::NotANumber, room(value), "a whole number"));
    }
    numbers.push(("roomId", Fault::Fraction, room("1.5"), "a whole number"));
    numbers.push(("roomId", Fault::BelowBound, room("-1"), "at least 0"));
    numbers.push(("roomId", Fault::AboveBound, room("2147483648"), "at most 2147483647"));
    for (name, fault, target, must) in numbers {
        let told = invalid(&format!("The parameter {name} must be {must}."));
        cases.push(case(name, fault, target, Reason::ParamInvalid, told));
    }
    for name in ["count", "startPosition", "filter", "sort"] {
        let mut add = |fault, query: String, reason, body| cases.push(case(name, fault, at(&query), reason, body));
        let upper = name.to_ascii_uppercase();
        let twice = invalid(&format!("The parameter {name} was given more than once."));
        add(Fault::OtherCase, format!("{upper}=1"), Reason::ParamUnknown, unknown(&upper));
        add(Fault::Repeated, format!("{name}=1&{name}=1"), Reason::ParamRepeated, twice);
        add(Fault::Bracketed, format!("{name}[]=1"), Reason::ParamUnknown, unknown(&format!("{name}[]")));
        add(Fault::Dotted, format!("{name}.x=1"), Reason::ParamUnknown, unknown(&format!("{name}.x")));
        let broken = match name {
            "count" | "startPosition" => invalid(&format!("The parameter {name} must be a whole number.")),
            _ => malformed(name),
        };
        add(Fault::BrokenPercent, format!("{name}=%zz"), Reason::ParamInvalid, broken.clone());
        add(Fault::NotUtf8, format!("{name}=%ff"), Reason::ParamInvalid, broken);
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_parameter_of_a_docusign_room_is_told_with_its_name() {
    let gate = Gate::docusign().await;
    for prefix in ["", "/restapi"] {
        let cases = cases(prefix);
        assert_complete("rooms.users", &cases);
        refuse_all(&gate, &cases, &bearer("bob")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_spellings_of_a_docusign_sort_and_every_bound_pass() {
    let gate = Gate::docusign().await;
    for query in ["count=1&startPosition=0", "count=100", "sort=lastNameDesc", "sort=LastNameDesc", "filter=", "sort=EMAILASC"] {
        let answer = gate.get(&format!("/v2/accounts/{ACCOUNT}/rooms/1234/users?{query}"), &bearer("bob")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    }
}
