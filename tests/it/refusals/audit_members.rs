//! `audit.rooms.members`: an older family of words, and a sort that the server repeats.

use rolegate::model::Reason;

use super::cases::{Case, Fault, assert_complete, case, refuse_all, whole};
use super::told::{
    AT_MOST_100, AT_MOST_ALL, NOT_EMPTY, NOT_NEGATIVE, NUMBER, STRING, UNKNOWN, WHOLE, legacy, malformed, missing, not_json,
    too_long,
};
use crate::support::Gate;
use crate::support::gate::login;

const PATH: &str = "/api/v1/audit/rooms.members";

fn cases() -> Vec<Case> {
    let at = |query: &str| format!("{PATH}?{query}");
    let with = |query: &str| format!("{PATH}?roomId=r1&{query}");
    let no_room = || legacy(&missing("roomId"));
    let mut cases = vec![
        case("roomId", Fault::Missing, PATH, Reason::ParamMissing, no_room()),
        case("roomId", Fault::Missing, at(""), Reason::ParamMissing, no_room()),
        case("roomId", Fault::Missing, at("count=5"), Reason::ParamMissing, no_room()),
        case("roomId", Fault::Missing, at("x=1"), Reason::ParamMissing, no_room()),
        case("roomId", Fault::OtherCase, at("RoomId=r1"), Reason::ParamMissing, no_room()),
        case("roomId", Fault::OtherCase, at("roomid=r1"), Reason::ParamMissing, no_room()),
        case("roomId", Fault::Repeated, at("roomId=a&roomId=b"), Reason::ParamRepeated, legacy(STRING)),
        case("roomId", Fault::Repeated, at("roomId=a&roomId=a"), Reason::ParamRepeated, legacy(STRING)),
        case("roomId", Fault::Repeated, at("roomId=a&room%49d=b"), Reason::ParamRepeated, legacy(STRING)),
        case("roomId", Fault::Empty, at("roomId="), Reason::ParamInvalid, legacy(NOT_EMPTY)),
        case("roomId", Fault::Empty, at("roomId"), Reason::ParamInvalid, legacy(NOT_EMPTY)),
        case("roomId", Fault::Bracketed, at("roomId[]=r1"), Reason::ParamInvalid, legacy(STRING)),
        case("roomId", Fault::Bracketed, at("roomId%5B%5D=r1"), Reason::ParamInvalid, legacy(STRING)),
        case("roomId", Fault::Bracketed, at("roomId[0]=r1"), Reason::ParamInvalid, legacy(STRING)),
        case("roomId", Fault::Bracketed, at("roomId[$ne]=a"), Reason::ParamInvalid, legacy(STRING)),
        case("roomId", Fault::Bracketed, at("roomId=a&roomId[]=b"), Reason::ParamInvalid, legacy(STRING)),
        case("roomId", Fault::Dotted, at("roomId.x=r1"), Reason::ParamMissing, no_room()),
        case("roomId", Fault::BrokenPercent, at("roomId=%zz"), Reason::ParamInvalid, legacy(&malformed("roomId"))),
        case("roomId", Fault::BrokenPercent, at("roomId=%2"), Reason::ParamInvalid, legacy(&malformed("roomId"))),
        case("roomId", Fault::NotUtf8, at("roomId=%ff"), Reason::ParamInvalid, legacy(&malformed("roomId"))),
        case("roomId", Fault::TooLong, at(&format!("roomId={}", "a".repeat(256))), Reason::ParamInvalid, legacy(&too_long(255))),
        case("filter", Fault::OtherCase, with("Filter=a"), Reason::ParamUnknown, legacy(UNKNOWN)),
        case("filter", Fault::Repeated, with("filter=a&filter=b"), Reason::ParamRepeated, legacy(STRING)),
        case("filter", Fault::Bracketed, with("filter[]=x"), Reason::ParamInvalid, legacy(STRING)),
        case("filter", Fault::Dotted, with("filter.x=a"), Reason::ParamUnknown, legacy(UNKNOWN)),
        case("filter", Fault::BrokenPercent, with("filter=%"), Reason::ParamInvalid, legacy(&malformed("filter"))),
        case("filter", Fault::NotUtf8, with("filter=%c3%28"), Reason::ParamInvalid, legacy(&malformed("filter"))),
        case("filter", Fault::ControlCharacter, with("filter=a%00"), Reason::ParamInvalid, legacy(&malformed("filter"))),
        case("sort", Fault::OtherCase, with("SORT={}"), Reason::ParamUnknown, legacy(UNKNOWN)),
        case("sort", Fault::Repeated, with("sort=%7B%7D&sort=%7B%7D"), Reason::ParamRepeated, legacy(STRING)),
        case("sort", Fault::Bracketed, with("sort[username]=1"), Reason::ParamInvalid, legacy(STRING)),
        case("sort", Fault::Dotted, with("sort.username=1"), Reason::ParamUnknown, legacy(UNKNOWN)),
        case("sort", Fault::BrokenPercent, with("sort=%7B%"), Reason::ParamInvalid, legacy(&malformed("sort"))),
        case("sort", Fault::NotUtf8, with("sort=%ff"), Reason::ParamInvalid, legacy(&malformed("sort"))),
        case("sort", Fault::ControlCharacter, with("sort=%0A"), Reason::ParamInvalid, not_json("sort", "\n")),
        case("sort", Fault::Empty, with("sort="), Reason::ParamInvalid, not_json("sort", "")),
        whole(with("x=1"), Reason::ParamUnknown, legacy(UNKNOWN)),
        whole(with("query=%7B%7D"), Reason::ParamUnknown, legacy(UNKNOWN)),
        whole(with("__proto__=x"), Reason::ParamUnknown, legacy(UNKNOWN)),
        whole(with("__proto__[a]=x"), Reason::ParamUnknown, legacy(UNKNOWN)),
        whole(with("constructor=x"), Reason::ParamUnknown, legacy(UNKNOWN)),
        whole(with("=x"), Reason::ParamUnknown, legacy(UNKNOWN)),
        whole(with("a%zz=x"), Reason::ParamInvalid, legacy(&malformed("a%zz"))),
        whole(with(&"x&".repeat(100)), Reason::ParamUnknown, legacy(UNKNOWN)),
    ];
    for room in ["a%0Ab", "a%00", "a%1Fb", "a%C2%9Fb", ".", "..", "%2E%2e"] {
        let target = at(&format!("roomId={room}"));
        cases.push(case("roomId", Fault::ControlCharacter, target, Reason::ParamInvalid, legacy(&malformed("roomId"))));
    }
    for (value, sent) in [
        ("abc", "abc"),
        ("{", "%7B"),
        ("null", "null"),
        ("5", "5"),
        ("[]", "%5B%5D"),
        (r#"{"username":2}"#, "%7B%22username%22:2%7D"),
        (r#"{"username":"1"}"#, "%7B%22username%22:%221%22%7D"),
        (r#"{"username":true}"#, "%7B%22username%22:true%7D"),
        (r#""abc""#, "%22abc%22"),
        ("{param}{limit}", "%7Bparam%7D%7Blimit%7D"),
    ] {
        let target = with(&format!("sort={sent}"));
        cases.push(case("sort", Fault::BadValue, target, Reason::ParamInvalid, not_json("sort", value)));
    }
    for (name, largest) in [("count", AT_MOST_100), ("offset", AT_MOST_ALL)] {
        cases.extend(number(name, largest, with, legacy));
        cases.push(case(name, Fault::Empty, with(&format!("{name}=")), Reason::ParamInvalid, legacy(NUMBER)));
    }
    cases
}

/// The faults of a whole number from 0; an empty one is told by each action for itself.
pub fn number(name: &'static str, largest: &str, with: impl Fn(&str) -> String, family: impl Fn(&str) -> String) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |fault, query: String, reason, text: &str| cases.push(case(name, fault, with(&query), reason, family(text)));
    let upper = name.to_ascii_uppercase();
    add(Fault::OtherCase, format!("{upper}=5"), Reason::ParamUnknown, UNKNOWN);
    add(Fault::Repeated, format!("{name}=5&{name}=6"), Reason::ParamRepeated, NUMBER);
    add(Fault::Bracketed, format!("{name}[]=5"), Reason::ParamInvalid, NUMBER);
    add(Fault::Bracketed, format!("{name}=5&{name}[]=6"), Reason::ParamInvalid, NUMBER);
    add(Fault::Dotted, format!("{name}.x=5"), Reason::ParamUnknown, UNKNOWN);
    add(Fault::BrokenPercent, format!("{name}=5%"), Reason::ParamInvalid, NUMBER);
    add(Fault::NotUtf8, format!("{name}=%ff"), Reason::ParamInvalid, NUMBER);
    for value in ["abc", "true", "NaN", "Infinity", "1e3", "0x10", "%20", "5%20", "%2B5", "007", "-0", "5%00", "%D9%A3"] {
        add(Fault::NotANumber, format!("{name}={value}"), Reason::ParamInvalid, NUMBER);
    }
    for value in ["1.5", "-0.5", ".5", "1e-1"] {
        add(Fault::Fraction, format!("{name}={value}"), Reason::ParamInvalid, WHOLE);
    }
    for value in ["-1", "-99999999999999999999"] {
        add(Fault::BelowBound, format!("{name}={value}"), Reason::ParamInvalid, NOT_NEGATIVE);
    }
    let above = if largest == AT_MOST_100 { "101" } else { "9223372036854775808" };
    for value in [above, "99999999999999999999"] {
        add(Fault::AboveBound, format!("{name}={value}"), Reason::ParamInvalid, largest);
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_parameter_of_an_audit_is_told_as_the_server_tells_it() {
    let cases = cases();
    assert_complete("audit.rooms.members", &cases);
    refuse_all(&Gate::rocketchat().await, &cases, &login("audrey")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_servers_accept_of_an_audit_passes() {
    let gate = Gate::rocketchat().await;
    for query in
        ["filter=", "count=0&offset=0", "count=100", "sort=%7B%22username%22:-1%7D", "sort=%7B%7D", "filter=J%C3%BCrgen+%25"]
    {
        let answer = gate.get(&format!("{PATH}?roomId=GENERAL&{query}"), &login("audrey")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    }
    assert_eq!(gate.sample.count(PATH), 6);
}
