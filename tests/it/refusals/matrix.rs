//! Matrix's actions: every parameter of each with every fault it can have, and the body of the one that takes a body.

use rolegate::demo::Sample;
use rolegate::model::Reason;
use rolegate::rules::param::LONGEST_VALUE;
use rolegate::rules::param::{Form, Param, Place};
use rolegate::rules::{Action, Ruleset, Sources};

use super::cases::{Case, Fault, assert_complete, refuse_all, whole};
use super::{assert_denied, assert_refusal};
use crate::support::Gate;
use crate::support::gate::GateBuilder;

async fn gate() -> Gate {
    GateBuilder::before("matrix", Sample::rocketchat().await.unwrap()).start()
}

fn token() -> Vec<(&'static str, String)> {
    vec![("Authorization", "Bearer syt_secret".to_owned())]
}

fn invalid(message: &str) -> String {
    format!(r#"{{"errcode":"M_INVALID_PARAM","error":"{message}"}}"#)
}

fn target_invalid() -> String {
    invalid("The request target is not valid.")
}

/// A value that the server would take.
fn good(name: &str) -> &'static str {
    match name {
        "roomId" => "!r:example.org",
        "userId" => "@bob:example.org",
        "eventType" => "m.room.topic",
        "stateKey" | "field" => "k",
        other => panic!("`{other}` stands in no path"),
    }
}

/// The faults of a value, with how it is told.
fn faults(param: &Param) -> Vec<(Fault, String, String)> {
    let name = &param.name;
    let long = |limit: usize| format!("Parameter {name} must have at most {limit} characters");
    let malformed = format!("Parameter {name} holds characters that are not allowed");
    match &param.form {
        Form::Id => vec![(Fault::TooLong, "a".repeat(256), long(255)), (Fault::ControlCharacter, "a%C2%85".into(), malformed)],
        Form::Text { min, max } => {
            let mut faults = vec![(Fault::ControlCharacter, "a%C2%85".into(), malformed)];
            if *max < LONGEST_VALUE {
                faults.push((Fault::TooLong, "a".repeat(max + 1), long(*max)));
            }
            if *min > 0 && param.place == Place::Query {
                faults.push((Fault::Empty, String::new(), format!("Parameter {name} must have at least {min} characters")));
            }
            faults
        }
        Form::Integer { .. } => vec![
            (Fault::NotANumber, "abc".into(), format!("Query parameter {name} must be an integer")),
            (Fault::Empty, String::new(), format!("Query parameter {name} must be an integer")),
            (Fault::Fraction, "1.5".into(), format!("Query parameter {name} must be an integer")),
            (Fault::BelowBound, "-1".into(), format!("Parameter {name} must be at least 0")),
            (Fault::AboveBound, "9007199254740992".into(), format!("Parameter {name} must be at most 9007199254740991")),
        ],
        Form::Boolean => ["", "True", "1"]
            .map(|value| {
                let fault = if value.is_empty() { Fault::Empty } else { Fault::BadValue };
                (fault, value.to_owned(), format!("Boolean query parameter {name} must be one of true, false"))
            })
            .into(),
        Form::Enum { values, .. } => {
            let told = format!("Query parameter {name} must be one of {}", values.join(", "));
            let shouted = values[0].to_uppercase();
            vec![(Fault::BadValue, shouted, told.clone()), (Fault::Empty, String::new(), told)]
        }
        form => panic!("no fault is known of {form:?}"),
    }
}

fn cases(action: &Action) -> Vec<Case> {
    let door = &action.doors[0];
    let path =
        |name: &str, value: &str| door.path(|segment| if segment == name { value.to_owned() } else { good(segment).to_owned() });
    let plain = door.path(|segment| good(segment).to_owned());
    let mut cases = Vec::new();
    for param in &action.params {
        let name = &param.name;
        let mut case = |fault, target: String, reason, message: &str| {
            cases.push(Case { param: Some(name.clone().leak()), fault: Some(fault), target, reason, body: invalid(message) });
        };
        match param.place {
            Place::Path { .. } => {
                let ambiguous = "The request target is not valid.";
                // State without a key is another door, which ends in a slash.
                if matches!(name.as_str(), "stateKey") || action.id == "rooms.member" && name == "userId" {
                    let other = format!("{}?x=1", path(name, ""));
                    case(Fault::Empty, other, Reason::ParamUnknown, "Unknown parameter: x");
                } else {
                    case(Fault::Empty, path(name, ""), Reason::TargetAmbiguous, ambiguous);
                }
                for (fault, value) in [
                    (Fault::BrokenPercent, "a%zz"),
                    (Fault::BrokenPercent, "a%2"),
                    (Fault::NotUtf8, "a%ff"),
                    (Fault::ControlCharacter, "a%00"),
                    (Fault::ControlCharacter, "a%0A"),
                    (Fault::ControlCharacter, "a;b"),
                    (Fault::ControlCharacter, "a\\b"),
                ] {
                    case(fault, path(name, value), Reason::TargetAmbiguous, ambiguous);
                }
                let malformed = format!("Parameter {name} holds characters that are not allowed");
                for dots in ["%2e%2e", "%2E", "a%2F%2e%2e%2Fb", "..%5Ca"] {
                    case(Fault::ControlCharacter, path(name, dots), Reason::ParamInvalid, &malformed);
                }
                for (fault, value, message) in faults(param) {
                    case(fault, path(name, &value), Reason::ParamInvalid, &message);
                }
            }
            Place::Query => {
                let at = |query: String| format!("{plain}?{query}");
                for (fault, value, message) in faults(param) {
                    case(fault, at(format!("{name}={value}")), Reason::ParamInvalid, &message);
                }
                let broken = match param.form {
                    Form::Integer { .. } => format!("Query parameter {name} must be an integer"),
                    _ => format!("Parameter {name} holds characters that are not allowed"),
                };
                case(Fault::BrokenPercent, at(format!("{name}=%zz")), Reason::ParamInvalid, &broken);
                case(Fault::NotUtf8, at(format!("{name}=%ff")), Reason::ParamInvalid, &broken);
                let shouted = name.to_uppercase();
                case(
                    Fault::OtherCase,
                    at(format!("{shouted}=1")),
                    Reason::ParamUnknown,
                    &format!("Unknown parameter: {shouted}"),
                );
                for (fault, other) in [(Fault::Bracketed, format!("{name}[]")), (Fault::Dotted, format!("{name}.a"))] {
                    case(fault, at(format!("{other}=1")), Reason::ParamUnknown, &format!("Unknown parameter: {other}"));
                }
                let repeated = format!("Parameter {name} was given more than once");
                if !param.repeated {
                    case(Fault::Repeated, at(format!("{name}=1&{name}=1")), Reason::ParamRepeated, &repeated);
                }
            }
            Place::Body | Place::Method => {}
        }
    }
    // Twisted parts a query at `;`, too, and takes a token from it; with another token it would answer somebody else.
    for name in ["x", "access_token", "user_id2", "__proto__"] {
        cases.push(whole(format!("{plain}?{name}=1"), Reason::ParamUnknown, invalid(&format!("Unknown parameter: {name}"))));
    }
    let hidden = format!("{plain}?x;access_token=1");
    cases.push(whole(hidden, Reason::ParamUnknown, invalid("Unknown parameter: x;access_token")));
    cases.push(whole(format!("{plain}?a=1?b=2"), Reason::TargetAmbiguous, target_invalid()));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_parameter_of_a_matrix_action_is_told_as_a_homeserver_tells_it() {
    let gate = gate().await;
    let rules = Ruleset::load(&Sources::built_in(), &[]).unwrap();
    let actions = &rules.provider("matrix").unwrap().provider.actions;
    for action in actions.iter().filter(|action| !action.takes_body()) {
        let cases = cases(action);
        assert_complete(&action.id, &cases);
        refuse_all(&gate, &cases, &token()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_whose_body_has_not_one_reading_is_refused() {
    let gate = gate().await;
    let mut connection = gate.connect().await;
    for (kind, body, reason, told) in [
        ("application/json", r#"{"limit":1}"#, Reason::ParamMissing, "Missing parameter: search_term"),
        ("application/json", r#"{"search_term":null}"#, Reason::ParamMissing, "Missing parameter: search_term"),
        ("application/json", r#"{"search_term":"a","limit":-1}"#, Reason::ParamInvalid, "Parameter limit must be at least 0"),
        (
            "application/json",
            r#"{"search_term":"a","limit":"1"}"#,
            Reason::ParamInvalid,
            "Query parameter limit must be an integer",
        ),
        ("application/json", r#"{"search_term":["a"]}"#, Reason::ParamRepeated, "Parameter search_term was given more than once"),
        ("application/json", r#"{"search_term":"a","Limit":1}"#, Reason::ParamUnknown, "Unknown parameter: Limit"),
        (
            "application/json",
            r#"{"search_term":"a","search_term":"b"}"#,
            Reason::ParamInvalid,
            "the body: `search_term` stands twice in an object at line 1 column 37",
        ),
        ("application/json", "[]", Reason::ParamInvalid, "the body is no object"),
        (
            // Synapse would take the token in such a body for the caller's.
            "application/x-www-form-urlencoded",
            "access_token=other",
            Reason::ParamInvalid,
            "the body: expected value at line 1 column 1",
        ),
    ] {
        let mut headers = token();
        headers.push(("Content-Type", kind.to_owned()));
        let answer = connection.request("POST", "/_matrix/client/v3/user_directory/search", &headers, body.as_bytes()).await;
        let id = answer.header("x-request-id").unwrap_or_default().to_owned();
        assert_refusal(&answer, 400, &invalid(told), &id);
        assert_denied(&gate, reason);
    }
    let mut headers = token();
    headers.push(("Content-Type", "application/json".to_owned()));
    let long = format!(r#"{{"search_term":"{}"}}"#, "a".repeat(256 * 1024));
    let answer = connection.request("POST", "/_matrix/client/v3/user_directory/search", &headers, long.as_bytes()).await;
    assert_eq!((answer.status, answer.json()["errcode"].as_str()), (413, Some("M_TOO_LARGE")));
    let answer = gate.connect().await.request("POST", "/_matrix/client/v3/user_directory/search", &token(), b"").await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("Missing parameter: search_term")));
    assert!(gate.sample.seen().is_empty(), "{:?}", gate.sample.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_may_read_a_refusal() {
    let gate = gate().await;
    let answer = gate.get("/_matrix/client/v3/joined_rooms", &[("Origin", "https://client.example".into())]).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.text(), r#"{"errcode":"M_MISSING_TOKEN","error":"Missing access token"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_a_slash_pass_where_nothing_is_judged_and_hide_nothing_that_is() {
    let gate = gate().await;
    let mut connection = gate.connect().await;
    for (method, open) in [
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/event/%24abc%2Fdef%3Aexample.org"),
        ("PUT", "/_matrix/client/v3/rooms/!r:example.org/redact/%24abc%2Bd%2Ff/t1"),
        ("GET", "/_matrix/client/v3/directory/room/%23a%2Fb%3Aexample.org"),
        ("PUT", "/_matrix/client/v3/rooms/!r:example.org/state/m.space.child/%21s%2Ft%3Aexample.org"),
        ("PUT", "/_matrix/client/v3/profile/@b%2Fob:example.org/displayname"),
        ("GET", "/_matrix/client/v3/pushrules/global/content/50%25%20off%2E"),
        ("OPTIONS", "/_matrix/client/v3/profile/@b%2Fob:example.org"),
    ] {
        let mut headers = vec![("Origin", "https://client.example".to_owned())];
        headers.push(("Access-Control-Request-Method", "GET".to_owned()));
        let answer = connection.request(method, open, &headers, b"").await;
        assert_eq!(answer.header("x-request-id"), None, "{method} {open}: {}", answer.text());
    }
    let passed = gate.sample.seen();
    assert_eq!(passed.len(), 7, "{passed:?}");
    assert!(passed[0].target.ends_with("/event/%24abc%2Fdef%3Aexample.org"), "as received: {passed:?}");
    for (method, hidden) in [
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/x%2F..%2Fmembers"),
        ("GET", "/_matrix/client/v3/rooms%2F!r:example.org%2Fmembers"),
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/%6Dembers"),
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/event/..%2Fjoined_members"),
        ("GET", "/_matrix/client/v3/%72ooms/!r:example.org/members"),
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/members%2F"),
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/MEMBERS"),
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/members/"),
        ("GET", "/_matrix/client/v3/rooms/!r:example.org/state/m.room%2Emember/@bob:example.org"),
        ("GET", "/_matrix/client/v3/x%2F..%2F..%2F..%2F..%2F_synapse%2Fadmin%2Fv2%2Fusers"),
        ("PUT", "/_matrix/client/v3/rooms/!r:example.org/state/m.room.topic/..%2F..%2Fmembers"),
        ("GET", "/_synapse/admin/v2/users/"),
    ] {
        let answer = connection.request(method, hidden, &token(), b"").await;
        assert_eq!((answer.status, answer.text()), (400, target_invalid()), "{method} {hidden}");
        assert_denied(&gate, Reason::TargetAmbiguous);
    }
    assert_eq!(gate.sample.seen().len(), 7, "nothing hidden arrived");
}
