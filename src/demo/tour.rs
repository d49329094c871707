//! The tour that `rolegate demo` plays: who asks what, and what must come of it.

use super::world::account::{ACCOUNT, ROOM};
use super::world::workspace::{ALICE, AUDREY, BOARDROOM, BOB, CAROL, EVE, TOWN_SQUARE};
use crate::model::{Decision, Reason};

/// One call of the tour.
#[derive(Debug, Clone)]
pub struct Step {
    /// Who asks, and why it comes out as it does.
    pub story: &'static str,
    /// The provider whose gate is asked.
    pub provider: &'static str,
    /// The action it is meant for.
    pub action: &'static str,
    /// The target of the GET.
    pub target: String,
    /// The credential, as header names and values.
    pub credential: Vec<(&'static str, String)>,
    /// The verdict.
    pub decision: Decision,
    /// The reason of a denial.
    pub reason: Option<Reason>,
}

/// The calls, in the order in which they are played: every action permitted and refused.
#[must_use]
pub fn steps() -> Vec<Step> {
    let audit = |room: &str| format!("/api/v1/audit/rooms.members?roomId={room}");
    let rooms = |room: &str| format!("/api/v1/rooms.roles?rid={room}");
    let people = |rest: &str| format!("/restapi/v2/accounts/{ACCOUNT}/rooms/{ROOM}/users{rest}");
    vec![
        chat(
            "audrey is an auditor: she lists the members of a room she is not in",
            "audit.rooms.members",
            audit(BOARDROOM),
            Some(("audrey", AUDREY)),
        ),
        chat("bob is not an auditor", "audit.rooms.members", audit(BOARDROOM), Some(("bob", BOB))).denied(Reason::PolicyDenied),
        chat("audrey forgets the room", "audit.rooms.members", "/api/v1/audit/rooms.members".into(), Some(("audrey", AUDREY)))
            .denied(Reason::ParamMissing),
        chat(
            "alice is an administrator: she lists who holds a role",
            "roles.getUsersInRole",
            "/api/v1/roles.getUsersInRole?role=auditor".into(),
            Some(("alice", ALICE)),
        ),
        chat(
            "eve would like to know who the administrators are",
            "roles.getUsersInRole",
            "/api/v1/roles.getUsersInRole?role=admin".into(),
            Some(("eve", EVE)),
        )
        .denied(Reason::PolicyDenied),
        chat(
            "alice asks for a count that would pass the server's cap",
            "roles.getUsersInRole",
            "/api/v1/roles.getUsersInRole?role=user&count=-1".into(),
            Some(("alice", ALICE)),
        )
        .denied(Reason::ParamInvalid),
        chat("carol is in the boardroom: she sees who owns it", "rooms.roles", rooms(BOARDROOM), Some(("carol", CAROL))),
        chat("eve is not in the boardroom", "rooms.roles", rooms(BOARDROOM), Some(("eve", EVE))).denied(Reason::PolicyDenied),
        chat("eve sees who owns a public room", "rooms.roles", rooms(TOWN_SQUARE), Some(("eve", EVE))),
        chat(
            "eve tries another spelling of the parameter",
            "rooms.roles",
            format!("/api/v1/rooms.roles?rid[]={BOARDROOM}"),
            Some(("eve", EVE)),
        )
        .denied(Reason::ParamInvalid),
        chat(
            "eve tries another spelling of the path",
            "none",
            format!("/api/v1/rooms%2Eroles?rid={BOARDROOM}"),
            Some(("eve", EVE)),
        )
        .denied(Reason::TargetAmbiguous),
        chat(
            "bob looks at himself, his rooms included",
            "users.info",
            format!("/api/v1/users.info?userId={BOB}&includeUserRooms=true"),
            Some(("bob", BOB)),
        ),
        chat(
            "eve asks for bob's rooms: she is answered without them, as the server would",
            "users.info",
            "/api/v1/users.info?username=bob&includeUserRooms=true".into(),
            Some(("eve", EVE)),
        ),
        chat("nobody in particular asks", "users.info", "/api/v1/users.info?username=bob".into(), None)
            .denied(Reason::CredentialMissing),
        Step {
            credential: vec![("x-user-id", BOB.into()), ("x-auth-token", "stolen-and-revoked".into())],
            ..chat("somebody uses a token that was revoked", "users.info", "/api/v1/users.info?username=bob".into(), None)
        }
        .denied(Reason::CredentialRefused),
        rooms_of("bob is on the room's roster", people("?count=10&sort=lastNameDesc"), Some("bob")),
        rooms_of("alice is not, but she is the company's administrator", people(""), Some("alice")),
        rooms_of("eve works for the company and is not on the roster", people(""), Some("eve")).denied(Reason::PolicyDenied),
        rooms_of("mallory has a good token of another company", people(""), Some("mallory")).denied(Reason::PolicyDenied),
        rooms_of("bob asks for more than a page holds", people("?count=101"), Some("bob")).denied(Reason::ParamInvalid),
    ]
}

impl Step {
    fn denied(self, reason: Reason) -> Self {
        Self { decision: Decision::Deny, reason: Some(reason), ..self }
    }
}

fn chat(story: &'static str, action: &'static str, target: String, who: Option<(&str, &str)>) -> Step {
    let credential = who.map(|(name, id)| vec![("x-user-id", id.to_owned()), ("x-auth-token", format!("{name}-token"))]);
    Step {
        story,
        provider: "rocketchat",
        action,
        target,
        credential: credential.unwrap_or_default(),
        decision: Decision::Permit,
        reason: None,
    }
}

fn rooms_of(story: &'static str, target: String, who: Option<&str>) -> Step {
    let credential = who.map(|name| vec![("authorization", format!("Bearer {name}-ds-token"))]);
    Step { provider: "docusign-rooms", action: "rooms.users", ..chat(story, "", target, None) }
        .with(credential.unwrap_or_default())
}

impl Step {
    fn with(self, credential: Vec<(&'static str, String)>) -> Self {
        Self { credential, ..self }
    }
}
