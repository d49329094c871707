//! `rooms.roles`: one parameter, and a handler that calls an empty one no room.

use rolegate::model::Reason;

use super::INVALID_TARGET;
use super::cases::{Case, Fault, assert_complete, case, refuse_all, whole};
use super::told::{STRING, UNKNOWN, malformed, missing, too_long, typed};
use crate::support::Gate;
use crate::support::gate::login;

const PATH: &str = "/api/v1/rooms.roles";
const NO_ROOM: &str = r#"{"success":false,"error":"Invalid room [error-invalid-room]","errorType":"error-invalid-room","details":{"method":"getRoomRoles"}}"#;
/// As the contract prints it.
const NO_RID: &str = r#"{"success":false,"errorType":"error-invalid-params","error":"must have required property 'rid'"}"#;

fn cases() -> Vec<Case> {
    let at = |query: &str| format!("{PATH}?{query}");
    assert_eq!(NO_RID, typed(&missing("rid")));
    let mut cases = vec![
        case("rid", Fault::Missing, PATH, Reason::ParamMissing, NO_RID),
        case("rid", Fault::Missing, at("roomId=r1"), Reason::ParamMissing, NO_RID),
        case("rid", Fault::OtherCase, at("RID=r1"), Reason::ParamMissing, NO_RID),
        case("rid", Fault::Dotted, at("rid.x=r1"), Reason::ParamMissing, NO_RID),
        case("rid", Fault::Repeated, at("rid=a&rid=b"), Reason::ParamRepeated, typed(STRING)),
        case("rid", Fault::Repeated, at("rid=a&rid=a"), Reason::ParamRepeated, typed(STRING)),
        case("rid", Fault::Repeated, at("rid=a&%72id=b"), Reason::ParamRepeated, typed(STRING)),
        case("rid", Fault::Empty, at("rid="), Reason::ParamInvalid, NO_ROOM),
        case("rid", Fault::Empty, at("rid"), Reason::ParamInvalid, NO_ROOM),
        case("rid", Fault::Bracketed, at("rid[]=a"), Reason::ParamInvalid, typed(STRING)),
        case("rid", Fault::Bracketed, at("rid[0]=a"), Reason::ParamInvalid, typed(STRING)),
        case("rid", Fault::Bracketed, at("rid[]=a&rid[]=b"), Reason::ParamInvalid, typed(STRING)),
        case("rid", Fault::Bracketed, at("rid=a&rid[]=b"), Reason::ParamInvalid, typed(STRING)),
        case("rid", Fault::Bracketed, at("rid[$ne]=a"), Reason::ParamInvalid, typed(STRING)),
        case("rid", Fault::BrokenPercent, at("rid=%zz"), Reason::ParamInvalid, typed(&malformed("rid"))),
        case("rid", Fault::NotUtf8, at("rid=%ff"), Reason::ParamInvalid, typed(&malformed("rid"))),
        case("rid", Fault::TooLong, at(&format!("rid={}", "%C3%BC".repeat(128))), Reason::ParamInvalid, typed(&too_long(255))),
        whole(at("rid=r1&count=5"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(at("rid=r1&__proto__=x"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(at("rid=r1&__proto__[rid]=x"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(at("rid=r1&x[]=1"), Reason::ParamUnknown, typed(UNKNOWN)),
        whole(at("rid=r1?rid=r2"), Reason::TargetAmbiguous, INVALID_TARGET),
    ];
    for value in ["a%0D%0Ab", "%C2%85", "%7F", ".", "..", "%2e%2E"] {
        let target = at(&format!("rid={value}"));
        cases.push(case("rid", Fault::ControlCharacter, target, Reason::ParamInvalid, typed(&malformed("rid"))));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_parameter_of_room_roles_is_told_as_the_server_tells_it() {
    let cases = cases();
    assert_complete("rooms.roles", &cases);
    refuse_all(&Gate::rocketchat().await, &cases, &login("bob")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_that_are_not_utf_8_do_not_arrive() {
    let gate = Gate::rocketchat().await;
    let mut connection = gate.connect().await;
    let mut request = format!("GET {PATH}?rid=a").into_bytes();
    request.extend_from_slice(b"\xff\xfe HTTP/1.1\r\nHost: chat\r\n");
    for (name, value) in login("bob") {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    connection.send(&request).await;
    assert_eq!(connection.answer("GET").await.status, 400);
    assert!(gate.sample.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_holds_no_more_of_a_target_than_its_bound_and_no_value_of_an_undeclared_name() {
    let gate = Gate::rocketchat().await;
    let hidden = "s3cr3t-value";
    for query in [
        format!("rid=r1&access_token={hidden}"),
        format!("{}{hidden}=1&rid=a", "n".repeat(40)),
        format!("rid={}%ff", "b".repeat(490)),
        format!("rid={}", "%ff".repeat(400)),
        format!("x={}&rid=%zz", "c".repeat(3000)),
    ] {
        assert_eq!(gate.get(&format!("{PATH}?{query}"), &login("bob")).await.status, 400, "{query}");
        let record = gate.last_decision();
        for name in ["target", "detail"] {
            let text = record[name].as_str().unwrap();
            assert!(text.len() <= 512, "{name} has {} bytes: {text}", text.len());
            assert!(!text.contains(hidden), "{name}: {text}");
        }
    }
}
