//! The decision point as its users see it, on a small chat domain.

mod agreement;
mod compiled;
mod decisions;
mod faults;

use crate::model::{Kind, Record, Resource, Subject, Value};
use crate::policy::{ActionShape, Answer, Domain, Engine, FactShape, Field, Query, Source};

/// The policies of the contract's own excerpt.
const EXCERPT: &str = r#"// policies/rocketchat/policy.cedar (excerpt)
@id("audit-members")
permit (principal in RocketChat::Permission::"view-members-list-all-rooms", action == RocketChat::Action::"audit.rooms.members", resource);
@id("rooms-roles-member")
permit (principal, action == RocketChat::Action::"rooms.roles", resource) when { context.room.member };
@id("rooms-roles-public")
permit (principal in RocketChat::Permission::"view-c-room", action == RocketChat::Action::"rooms.roles", resource) when { context.room.kind == "c" };
"#;

fn field(name: &str, kind: Kind, required: bool) -> Field {
    Field { name: name.into(), kind, required }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn domain() -> Domain {
    let room = vec![field("member", Kind::Boolean, true), field("roles", Kind::Set, true), field("kind", Kind::Text, true)];
    Domain {
        namespace: "RocketChat".into(),
        permissions: words(&["view-members-list-all-rooms", "view-c-room", "access-permissions"]),
        roles: words(&["admin", "user", "guest"]),
        networks: words(&["office"]),
        actions: vec![
            ActionShape {
                name: "audit.rooms.members".into(),
                resource: "Room".into(),
                params: vec![field("roomId", Kind::Text, true), field("count", Kind::Integer, false)],
                facts: vec![FactShape { name: "room".into(), fields: room.clone(), required: false }],
                ..ActionShape::default()
            },
            ActionShape {
                name: "rooms.roles".into(),
                resource: "Room".into(),
                params: vec![field("rid", Kind::Text, true)],
                facts: vec![FactShape { name: "room".into(), fields: room.clone(), required: true }],
                table: vec![field("scoped", Kind::Boolean, true)],
                ..ActionShape::default()
            },
            ActionShape {
                name: "users.info".into(),
                resource: "User".into(),
                params: vec![
                    field("userId", Kind::Text, true),
                    field("includeUserRooms", Kind::Boolean, false),
                    field("fields", Kind::Text, false),
                ],
                has_self: true,
                ..ActionShape::default()
            },
        ],
    }
}

fn compile(text: &str) -> Engine {
    Engine::compile(&domain(), &[source(text)]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn source(text: &str) -> Source {
    Source { file: "p.cedar".into(), text: text.into() }
}

/// A query in words: who holds what and what is known; whatever the action does not declare is not looked at.
#[derive(Debug, Clone)]
struct Asked {
    action: &'static str,
    resource: &'static str,
    roles: Vec<String>,
    permissions: Vec<String>,
    params: Record,
    is_self: Option<bool>,
    room: Record,
    /// Whether the fact about the room is known.
    knows_room: bool,
    networks: Vec<&'static str>,
    table: Record,
}

impl Asked {
    fn about(action: &'static str) -> Self {
        let params = [("roomId", "r1"), ("rid", "r1"), ("userId", "u2")];
        Self {
            action,
            resource: if action == "users.info" { "User" } else { "Room" },
            roles: words(&["user"]),
            permissions: Vec::new(),
            params: params.into_iter().map(|(name, value)| (name, value.into())).collect(),
            is_self: Some(false),
            room: room(false, &[], "p"),
            knows_room: true,
            networks: Vec::new(),
            table: Record::from_iter([("scoped", Value::Boolean(false))]),
        }
    }

    fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = words(roles);
        self
    }

    fn permissions(mut self, permissions: &[&str]) -> Self {
        self.permissions = words(permissions);
        self
    }

    fn param(mut self, name: &str, value: Value) -> Self {
        self.params.set(name, value);
        self
    }

    fn room(mut self, room: Record) -> Self {
        self.room = room;
        self
    }

    fn facts(&self) -> Vec<(&str, &Record)> {
        self.knows_room.then_some(("room", &self.room)).into_iter().collect()
    }

    fn subject(&self) -> Subject {
        Subject {
            id: "u1".into(),
            name: "alice".into(),
            roles: self.roles.iter().map(|role| role.as_str().into()).collect(),
            ..Subject::default()
        }
    }

    fn to(&self, engine: &Engine) -> Answer {
        let principal = engine.principal_given(&self.subject(), &self.permissions);
        let resource = Resource { kind: self.resource.into(), id: "r1".into() };
        engine.authorize(&Query {
            action: self.action,
            principal: &principal,
            resource: &resource,
            params: &self.params,
            is_self: self.is_self,
            facts: &self.facts(),
            networks: &self.networks,
            table: &self.table,
        })
    }
}

fn room(member: bool, roles: &[&str], kind: &str) -> Record {
    [("member", Value::Boolean(member)), ("roles", Value::Set(words(roles))), ("kind", kind.into())].into_iter().collect()
}

/// The ids of the policies behind an answer.
fn deciding(answer: &Answer) -> Vec<&str> {
    answer.determining.iter().map(|policy| policy.id.as_str()).collect()
}
