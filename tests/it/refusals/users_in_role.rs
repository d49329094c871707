//! `roles.getUsersInRole`: a missing role is told by the handler, everything else by the validator.

use rolegate::model::Reason;

use super::audit_members::number;
use super::cases::{Case, Fault, assert_complete, case, refuse_all, whole};
use super::told::{AT_MOST_100, AT_MOST_ALL, STRING, UNKNOWN, malformed, too_long, typed};
use crate::support::Gate;
use crate::support::gate::login;

const PATH: &str = "/api/v1/roles.getUsersInRole";
const NO_ROLE: &str = r#"{"success":false,"error":"Query param \"role\" is required [error-param-not-provided]","errorType":"error-param-not-provided"}"#;

fn cases() -> Vec<Case> {
    let at = |query: &str| format!("{PATH}?{query}");
    let with = |query: &str| format!("{PATH}?role=admin&{query}");
    let long = "a".repeat(256);
    let mut cases = vec![
        case("role", Fault::Missing, PATH, Reason::ParamMissing, NO_ROLE),
        case("role", Fault::Missing, at("count=5"), Reason::ParamMissing, NO_ROLE),
        case("role", Fault::Missing, at("x=1"), Reason::ParamMissing, NO_ROLE),
        case("role", Fault::Empty, at("role="), Reason::ParamMissing, NO_ROLE),
        case("role", Fault::Empty, at("role"), Reason::ParamMissing, NO_ROLE),
        case("role", Fault::OtherCase, at("Role=admin"), Reason::ParamMissing, NO_ROLE),
        case("role", Fault::Dotted, at("role.x=admin"), Reason::ParamMissing, NO_ROLE),
        case("role", Fault::Repeated, at("role=a&role=b"), Reason::ParamRepeated, typed(STRING)),
        case("role", Fault::Bracketed, at("role[]=admin"), Reason::ParamInvalid, typed(STRING)),
        case("role", Fault::Bracketed, at("role[$ne]=a"), Reason::ParamInvalid, typed(STRING)),
        case("role", Fault::BrokenPercent, at("role=%a"), Reason::ParamInvalid, typed(&malformed("role"))),
        case("role", Fault::NotUtf8, at("role=%ff"), Reason::ParamInvalid, typed(&malformed("role"))),
        case("role", Fault::TooLong, at(&format!("role={long}")), Reason::ParamInvalid, typed(&too_long(255))),
        case("role", Fault::ControlCharacter, at("role=ad%09min"), Reason::ParamInvalid, typed(&malformed("role"))),
        case("roomId", Fault::OtherCase, with("ROOMID=r1"), Reason::ParamUnknown, typed(UNKNOWN)),
        case("roomId", Fault::Dotted, with("roomId.x=r1"), Reason::ParamUnknown, typed(UNKNOWN)),
        case("roomId", Fault::Repeated, with("roomId=r1&roomId=r2"), Reason::ParamRepeated, typed(STRING)),
        case("roomId", Fault::Repeated, with("roomId=&roomId=r2"), Reason::ParamRepeated, typed(STRING)),
        case("roomId", Fault::Bracketed, with("roomId[]=r1"), Reason::ParamInvalid, typed(STRING)),
        case("roomId", Fault::BrokenPercent, with("roomId=%g0"), Reason::ParamInvalid, typed(&malformed("roomId"))),
        case("roomId", Fault::NotUtf8, with("roomId=%e2%82"), Reason::ParamInvalid, typed(&malformed("roomId"))),
        case("roomId", Fault::TooLong, with(&format!("roomId={long}")), Reason::ParamInvalid, typed(&too_long(255))),
        case("roomId", Fault::ControlCharacter, with("roomId=a%7F"), Reason::ParamInvalid, typed(&malformed("roomId"))),
        whole(with("x=1"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(with("fields=%7B%7D"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(with("sort=a&sort=a"), Reason::ParamRepeated, typed(STRING)),
        whole(with("query[]=a"), Reason::ParamInvalid, typed(STRING)),
        whole(with("query=%0A"), Reason::ParamInvalid, typed(&malformed("query"))),
        whole(with("__proto__=x"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(with(&"count=1&".repeat(101)), Reason::ParamUnknown, typed(UNKNOWN)),
    ];
    cases.extend(number("count", AT_MOST_100, with, typed));
    cases.extend(number("offset", AT_MOST_ALL, with, typed));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_parameter_of_a_role_list_is_told_as_the_server_tells_it() {
    let cases = cases();
    assert_complete("roles.getUsersInRole", &cases);
    refuse_all(&Gate::rocketchat().await, &cases, &login("alice")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_reads_as_not_given_is_not_sent_on() {
    let gate = Gate::rocketchat().await;
    let answer = gate.get(&format!("{PATH}?offset=&count=&roomId=&role=admin"), &login("alice")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = gate.sample.seen().into_iter().find(|seen| seen.path == PATH).unwrap();
    assert_eq!(seen.target, format!("{PATH}?role=admin"));
}
