//! The tour that `rolegate demo` plays: who asks what, and what must come of it.

use super::world::account::{ACCOUNT, ROOM};
use super::world::homeserver::{COUNCIL, NOTICE_BOARD};
use super::world::workspace::{ALICE, AUDREY, BOARDROOM, BOB, CAROL, EVE, TOWN_SQUARE};
use crate::model::{Decision, Reason};

/// One call of the tour.
#[derive(Debug, Clone)]
pub struct Step {
    /// Who asks.
    pub who: &'static str,
    /// What they ask for, in words that go on from their name.
    pub what: &'static str,
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

impl Step {
    fn denied(self, reason: Reason) -> Self {
        Self { decision: Decision::Deny, reason: Some(reason), ..self }
    }

    fn with(self, credential: Vec<(&'static str, String)>) -> Self {
        Self { credential, ..self }
    }
}

/// The calls, in the order in which they are played, those of one provider together: every kind of upstream, and each of the
/// API reference's actions permitted and refused.
#[must_use]
pub fn steps() -> Vec<Step> {
    [chat(), rooms(), matrix()].concat()
}

fn chat() -> Vec<Step> {
    let members = |room: &str| format!("/api/v1/audit/rooms.members?roomId={room}");
    let roles = |room: &str| format!("/api/v1/rooms.roles?rid={room}");
    let step = |(who, id): (&'static str, &str), what, action, target: String| Step {
        who,
        what,
        provider: "rocketchat",
        action,
        target,
        credential: vec![("x-user-id", id.to_owned()), ("x-auth-token", format!("{who}-token"))],
        decision: Decision::Permit,
        reason: None,
    };
    let (alice, audrey, bob) = (("alice", ALICE), ("audrey", AUDREY), ("bob", BOB));
    let (carol, eve) = (("carol", CAROL), ("eve", EVE));
    vec![
        step(audrey, "lists the boardroom's members; she is an auditor", "audit.rooms.members", members(BOARDROOM)),
        step(bob, "lists the boardroom's members; he is not", "audit.rooms.members", members(BOARDROOM))
            .denied(Reason::PolicyDenied),
        step(audrey, "lists members and names no room", "audit.rooms.members", "/api/v1/audit/rooms.members".into())
            .denied(Reason::ParamMissing),
        step(
            alice,
            "lists who holds a role; she is an administrator",
            "roles.getUsersInRole",
            "/api/v1/roles.getUsersInRole?role=auditor".into(),
        ),
        step(eve, "lists the administrators", "roles.getUsersInRole", "/api/v1/roles.getUsersInRole?role=admin".into())
            .denied(Reason::PolicyDenied),
        step(
            alice,
            "asks for a count that passes the server's cap",
            "roles.getUsersInRole",
            "/api/v1/roles.getUsersInRole?role=user&count=-1".into(),
        )
        .denied(Reason::ParamInvalid),
        step(carol, "asks who owns the boardroom; she is in it", "rooms.roles", roles(BOARDROOM)),
        step(eve, "asks who owns the boardroom; she is not", "rooms.roles", roles(BOARDROOM)).denied(Reason::PolicyDenied),
        step(eve, "asks who owns a public room", "rooms.roles", roles(TOWN_SQUARE)),
        step(
            eve,
            "spells the parameter as only the server reads it",
            "rooms.roles",
            format!("/api/v1/rooms.roles?rid[]={BOARDROOM}"),
        )
        .denied(Reason::ParamInvalid),
        step(eve, "spells the path as only the server reads it", "none", format!("/api/v1/rooms%2Eroles?rid={BOARDROOM}"))
            .denied(Reason::TargetAmbiguous),
        step(
            bob,
            "looks at himself, his rooms included",
            "users.info",
            format!("/api/v1/users.info?userId={BOB}&includeUserRooms=true"),
        ),
        step(
            eve,
            "asks for bob's rooms, and is answered without them",
            "users.info",
            "/api/v1/users.info?username=bob&includeUserRooms=true".into(),
        ),
        step(("somebody", ""), "asks without a login", "users.info", "/api/v1/users.info?username=bob".into())
            .with(Vec::new())
            .denied(Reason::CredentialMissing),
        step(("somebody", ""), "asks with a token that was revoked", "users.info", "/api/v1/users.info?username=bob".into())
            .with(vec![("x-user-id", BOB.into()), ("x-auth-token", "stolen-and-revoked".into())])
            .denied(Reason::CredentialRefused),
    ]
}

fn rooms() -> Vec<Step> {
    let step = |who: &'static str, what, query: &str| Step {
        who,
        what,
        provider: "docusign-rooms",
        action: "rooms.users",
        target: format!("/restapi/v2/accounts/{ACCOUNT}/rooms/{ROOM}/users{query}"),
        credential: vec![("authorization", format!("Bearer {who}-ds-token"))],
        decision: Decision::Permit,
        reason: None,
    };
    vec![
        step("bob", "lists a room's people; he is on its roster", "?count=10&sort=lastNameDesc"),
        step("alice", "lists them; she is the company's administrator", ""),
        step("eve", "lists them; she is neither", "").denied(Reason::PolicyDenied),
        step("mallory", "lists them with another company's token", "").denied(Reason::PolicyDenied),
        step("bob", "asks for more than a page holds", "?count=101").denied(Reason::ParamInvalid),
    ]
}

fn matrix() -> Vec<Step> {
    let step = |who: &'static str, what, action, target: String| Step {
        who,
        what,
        provider: "matrix",
        action,
        target,
        credential: vec![("authorization", format!("Bearer {who}-mx-token"))],
        decision: Decision::Permit,
        reason: None,
    };
    let room = |id: &str, rest: &str| format!("/_matrix/client/v3/rooms/{id}/{rest}");
    let admin = || format!("/_synapse/admin/v1/rooms/{COUNCIL}/members");
    vec![
        step("carol", "lists who is in the council; she is", "rooms.joined_members", room(COUNCIL, "joined_members")),
        step("eve", "lists who is in the council; she is not", "rooms.joined_members", room(COUNCIL, "joined_members"))
            .denied(Reason::PolicyDenied),
        step("dave", "lists the members that there were; he left", "rooms.members", room(COUNCIL, "members")),
        step("frank", "lists the members; he is invited, and not in it", "rooms.members", room(COUNCIL, "members"))
            .denied(Reason::PolicyDenied),
        step("eve", "reads who rules a room that everybody may read", "rooms.power_levels", {
            room(NOTICE_BOARD, "state/m.room.power_levels")
        }),
        step("carol", "lists members by a membership that is none", "rooms.members", room(COUNCIL, "members?membership=joined"))
            .denied(Reason::ParamInvalid),
        step("alice", "lists them by Synapse's admin API; she may", "admin.rooms.members", admin()),
        step("carol", "lists them by Synapse's admin API; she may not", "admin.rooms.members", admin())
            .denied(Reason::PolicyDenied),
    ]
}
