//! `users.info`: a validator with five branches, of which each says something.

use rolegate::model::Reason;

use super::cases::{Case, Fault, assert_complete, case, refuse_all, whole};
use super::told::{STRING, UNKNOWN, malformed, missing, not_json, too_long, typed};
use crate::support::Gate;
use crate::support::gate::login;

const PATH: &str = "/api/v1/users.info";
const SELECTORS: [&str; 4] = ["userId", "username", "importId", "email"];
const NO_SEARCH: &str = r#"{"success":false,"error":"Invalid search query."}"#;

/// One text a branch: `said` for those named, that its selector is missing for the others.
fn branches(said: &[(&str, &str)]) -> String {
    let mut texts = Vec::new();
    for name in SELECTORS.iter().chain(&["freeSwitchExtension"]) {
        let own = said.iter().find(|(branch, _)| branch == name);
        texts.push(own.map_or_else(|| missing(name), |(_, text)| (*text).to_owned()));
    }
    texts.push("must match a schema in anyOf".to_owned());
    typed(&texts.join("\n "))
}

fn cases() -> Vec<Case> {
    let at = |query: &str| format!("{PATH}?{query}");
    let none = || branches(&[]);
    let mut cases = vec![
        whole(PATH, Reason::ParamMissing, none()),
        whole(at("includeUserRooms=true"), Reason::ParamMissing, none()),
        whole(at("fields=%7B%7D"), Reason::ParamMissing, none()),
        whole(at("x=1"), Reason::ParamMissing, none()),
        whole(at("freeSwitchExtension=1234"), Reason::ParamMissing, branches(&[("freeSwitchExtension", UNKNOWN)])),
        whole(at("userId=u1&x=1"), Reason::ParamUnknown, branches(&[("userId", UNKNOWN)])),
        whole(at("username=bob&x=1"), Reason::ParamUnknown, branches(&[("username", UNKNOWN)])),
        whole(at("importId=1&x=1"), Reason::ParamUnknown, branches(&[("importId", UNKNOWN)])),
        whole(at("email=a@b&x=1"), Reason::ParamUnknown, branches(&[("email", UNKNOWN)])),
        whole(at("userId=u1&x=1&y=2"), Reason::ParamUnknown, branches(&[("userId", UNKNOWN)])),
        whole(at("userId=u1&count=5"), Reason::ParamUnknown, branches(&[("userId", UNKNOWN)])),
        whole(at("userId=u1&__proto__=x"), Reason::ParamUnknown, branches(&[("userId", UNKNOWN)])),
        whole(
            at("userId=u1&freeSwitchExtension=1234"),
            Reason::ParamUnknown,
            branches(&[("userId", UNKNOWN), ("freeSwitchExtension", UNKNOWN)]),
        ),
        whole(at(&format!("userId=u1&{}", "x=1&".repeat(101))), Reason::ParamUnknown, branches(&[("userId", UNKNOWN)])),
    ];
    // Two, three and four selectors: every one that is there takes no other.
    for chosen in 3..16_u8 {
        let names: Vec<&str> = (0..4).filter(|bit| chosen >> bit & 1 == 1).map(|bit| SELECTORS[bit]).collect();
        if names.len() > 1 {
            let query: Vec<String> = names.iter().map(|name| format!("{name}=a")).collect();
            let said: Vec<(&str, &str)> = names.iter().map(|name| (*name, UNKNOWN)).collect();
            cases.push(whole(at(&query.join("&")), Reason::ParamRepeated, branches(&said)));
        }
    }
    for name in SELECTORS {
        let own = |text: &str| branches(&[(name, text)]);
        let mut add = |fault, query: String, reason, body| cases.push(case(name, fault, at(&query), reason, body));
        add(Fault::OtherCase, format!("{}=u1", name.to_ascii_uppercase()), Reason::ParamMissing, none());
        add(Fault::Repeated, format!("{name}=a&{name}=b"), Reason::ParamRepeated, own(STRING));
        add(Fault::Empty, format!("{name}="), Reason::ParamInvalid, NO_SEARCH.to_owned());
        add(Fault::Bracketed, format!("{name}[]=u1"), Reason::ParamInvalid, own(STRING));
        add(Fault::Bracketed, format!("{name}[$ne]=a"), Reason::ParamInvalid, own(STRING));
        add(Fault::Dotted, format!("{name}.x=u1"), Reason::ParamMissing, none());
        add(Fault::BrokenPercent, format!("{name}=%zz"), Reason::ParamInvalid, own(&malformed(name)));
        add(Fault::NotUtf8, format!("{name}=%ff"), Reason::ParamInvalid, own(&malformed(name)));
        if name == "userId" {
            add(Fault::TooLong, format!("{name}={}", "a".repeat(256)), Reason::ParamInvalid, own(&too_long(255)));
        }
        add(Fault::ControlCharacter, format!("{name}=a%0Ab"), Reason::ParamInvalid, own(&malformed(name)));
    }
    // What goes with a selector is told in the branch of that selector.
    for selector in SELECTORS {
        let own = |text: &str| branches(&[(selector, text)]);
        for name in ["includeUserRooms", "fields"] {
            let mut add = |fault, query: String, reason, body| {
                cases.push(case(name, fault, at(&format!("{selector}=a&{query}")), reason, body));
            };
            add(Fault::OtherCase, format!("{}=x", name.to_ascii_lowercase() + "S"), Reason::ParamUnknown, own(UNKNOWN));
            add(Fault::OtherCase, format!("{}=true", name.to_ascii_uppercase()), Reason::ParamUnknown, own(UNKNOWN));
            add(Fault::Repeated, format!("{name}=true&{name}=true"), Reason::ParamRepeated, own(STRING));
            add(Fault::Bracketed, format!("{name}[]=true"), Reason::ParamInvalid, own(STRING));
            add(Fault::Dotted, format!("{name}.x=1"), Reason::ParamUnknown, own(UNKNOWN));
            add(Fault::BrokenPercent, format!("{name}=%zz"), Reason::ParamInvalid, own(&malformed(name)));
            add(Fault::NotUtf8, format!("{name}=%ff"), Reason::ParamInvalid, own(&malformed(name)));
        }
        let mut add = |name, fault, query: &str, body| {
            cases.push(case(name, fault, at(&format!("{selector}=a&{query}")), Reason::ParamInvalid, body));
        };
        add("includeUserRooms", Fault::ControlCharacter, "includeUserRooms=true%00", own(&malformed("includeUserRooms")));
        add("fields", Fault::BadValue, "fields=abc", not_json("fields", "abc"));
        add("fields", Fault::BadValue, "fields=%5B1%5D", not_json("fields", "[1]"));
        add("fields", Fault::BadValue, "fields=null", not_json("fields", "null"));
        add("fields", Fault::ControlCharacter, "fields=%7B%22a%01%22:1%7D", not_json("fields", "{\"a\u{1}\":1}"));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_parameter_of_a_profile_is_told_as_the_server_tells_it() {
    let cases = cases();
    assert_complete("users.info", &cases);
    refuse_all(&Gate::rocketchat().await, &cases, &login("carol")).await;
}
