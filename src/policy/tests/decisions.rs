//! Who is permitted what, by which policy.

use std::fmt::Write;

use super::{Asked, EXCERPT, compile, deciding, domain, room, source};
use crate::model::{Decision, Kind, Obligation, Reason, Record, Resource, Value};
use crate::policy::{ActionShape, Domain, Effect, Engine, Field, Query, Reads};

#[test]
fn the_excerpt_decides_as_the_contract_says() {
    let engine = compile(EXCERPT);
    let audit = Asked::about("audit.rooms.members");
    assert_eq!(audit.to(&engine).reason(), Some(Reason::PolicyDenied));
    let answer = audit.clone().permissions(&["view-members-list-all-rooms"]).to(&engine);
    assert_eq!((answer.decision, deciding(&answer), answer.reason()), (Decision::Permit, vec!["audit-members"], None));

    let roles = Asked::about("rooms.roles");
    assert_eq!(deciding(&roles.clone().room(room(true, &["owner"], "p")).to(&engine)), ["rooms-roles-member"]);
    assert_eq!(
        deciding(&roles.clone().permissions(&["view-c-room"]).room(room(false, &[], "c")).to(&engine)),
        ["rooms-roles-public"]
    );
    let both = roles.clone().permissions(&["view-c-room"]).room(room(true, &[], "c")).to(&engine);
    assert_eq!(deciding(&both), ["rooms-roles-member", "rooms-roles-public"], "in the order of the file");
    let private = roles.permissions(&["view-c-room"]).to(&engine);
    assert_eq!((private.decision, deciding(&private).len()), (Decision::Deny, 0));
}

#[test]
fn a_policy_is_known_by_its_id_place_and_reach() {
    let engine = compile(&format!(
        "{EXCERPT}\n@id(\"guests\")\n@reason(\"guests see nothing\")\nforbid (principal in RocketChat::Role::\"guest\", action, resource is RocketChat::Room);"
    ));
    let known: Vec<_> = engine.policies().map(|policy| (policy.id.as_str(), policy.line, policy.effect)).collect();
    assert_eq!(
        known,
        [
            ("audit-members", 2, Effect::Permit),
            ("rooms-roles-member", 4, Effect::Permit),
            ("rooms-roles-public", 6, Effect::Permit),
            ("guests", 9, Effect::Forbid)
        ]
    );
    let guests = engine.policies().last().unwrap();
    assert_eq!((guests.file.as_str(), guests.reason.as_deref()), ("p.cedar", Some("guests see nothing")));
    assert_eq!(guests.actions, ["audit.rooms.members", "rooms.roles"]);
}

#[test]
fn a_forbid_wins_over_every_permit_through_a_list_of_actions() {
    let engine = compile(&format!(
        "{EXCERPT}@id(\"no-guests\") forbid (principal in RocketChat::Role::\"guest\", \
         action in [RocketChat::Action::\"rooms.roles\", RocketChat::Action::\"users.info\"], resource);"
    ));
    let member = Asked::about("rooms.roles").room(room(true, &[], "p"));
    assert_eq!(member.to(&engine).decision, Decision::Permit);
    let answer = member.roles(&["user", "guest"]).to(&engine);
    assert_eq!(
        (answer.decision, deciding(&answer), answer.reason()),
        (Decision::Deny, vec!["no-guests"], Some(Reason::PolicyForbidden))
    );
    let audit = Asked::about("audit.rooms.members").roles(&["guest"]).permissions(&["view-members-list-all-rooms"]);
    assert_eq!(audit.to(&engine).decision, Decision::Permit, "an action outside the list");
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies() {
    let engine = compile(&format!(
        "{EXCERPT}@id(\"overflow\") forbid (principal, action == RocketChat::Action::\"audit.rooms.members\", resource) \
         when {{ context.params has count && context.params.count * 9223372036854775807 == 5 }};"
    ));
    let audit = Asked::about("audit.rooms.members").permissions(&["view-members-list-all-rooms"]);
    assert_eq!(audit.clone().param("count", Value::Integer(1)).to(&engine).decision, Decision::Permit);
    let answer = audit.param("count", Value::Integer(2)).to(&engine);
    assert_eq!((answer.decision, answer.reason()), (Decision::Deny, Some(Reason::PolicyError)));
    assert!(answer.determining.is_empty() && answer.obligations.is_empty());
    assert!(
        answer.errors.len() == 1 && answer.errors[0].contains("`overflow`") && answer.errors[0].contains("overflow while"),
        "{answer:?}"
    );
}

#[test]
fn a_context_that_lacks_or_misshapes_what_policies_read_denies() {
    let engine = compile(&format!(
        "{EXCERPT}@id(\"self\") permit (principal, action == RocketChat::Action::\"users.info\", resource) when {{ context.self }};\n\
         @id(\"far\") forbid (principal, action == RocketChat::Action::\"audit.rooms.members\", resource) \
         when {{ context.params has count && context.params.count == 1000 }};"
    ));
    let mut no_self = Asked::about("users.info");
    no_self.is_self = None;
    let text = Value::Text("1000".into());
    let audit = Asked::about("audit.rooms.members").permissions(&["view-members-list-all-rooms"]);
    let mut wrong_resource = audit.clone();
    wrong_resource.resource = "User";
    let cases = [
        (no_self, "`context.self` is not known"),
        (Asked::about("rooms.roles").room(Record::default()), "`context.room.member` is not known"),
        (audit.clone().param("count", text), "`context.params.count` has another form than the provider file declares"),
        (wrong_resource, "the resource is a `User`, but the action declares `Room`"),
        (Asked::about("rooms.delete"), "unknown action `rooms.delete`"),
    ];
    for (asked, error) in cases {
        let answer = asked.to(&engine);
        assert_eq!((answer.reason(), answer.errors.as_slice()), (Some(Reason::PolicyError), [error.to_owned()].as_slice()));
    }
}

#[test]
fn a_fact_that_is_not_there_at_all_denies_only_where_it_is_read() {
    let engine =
        compile(&format!("{EXCERPT}@id(\"info\") permit (principal, action == RocketChat::Action::\"users.info\", resource);"));
    let principal = engine.principal_given(&Asked::about("rooms.roles").subject(), &[""; 0]);
    let empty = Record::default();
    let query = |action, kind: &str| {
        let resource = Resource { kind: kind.into(), id: String::new() };
        let query = Query {
            action,
            principal: &principal,
            resource: &resource,
            params: &empty,
            is_self: None,
            facts: &[],
            networks: &[],
            table: &empty,
        };
        engine.authorize(&query)
    };
    assert_eq!(query("rooms.roles", "Room").errors, ["`context.room` is not known"]);
    assert_eq!(query("users.info", "User").decision, Decision::Permit, "nobody reads its context");
}

#[test]
fn a_caller_prepared_for_other_policies_is_denied() {
    let (old, new) = (compile(EXCERPT), compile(EXCERPT));
    let asked = Asked::about("audit.rooms.members").permissions(&["view-members-list-all-rooms"]);
    let principal = old.principal_given(&asked.subject(), &asked.permissions);
    assert_eq!(format!("{principal:?}"), "Principal(\"u1\")", "roles and permissions stay out of the log");
    let resource = Resource { kind: "Room".into(), id: "r1".into() };
    let empty = Record::default();
    let query = Query {
        action: asked.action,
        principal: &principal,
        resource: &resource,
        params: &asked.params,
        is_self: None,
        facts: &[],
        networks: &[],
        table: &empty,
    };
    assert_eq!(old.authorize(&query).decision, Decision::Permit);
    assert_eq!(new.authorize(&query).errors, ["the caller was prepared for another set of policies"]);
}

#[test]
fn the_obligations_of_every_deciding_permit_hold_together() {
    let engine = compile(
        "@id(\"anyone\") @without(\"includeUserRooms,fields\") permit (principal, action == RocketChat::Action::\"users.info\", resource);\n\
         @id(\"again\") @without(\"fields\") permit (principal, action == RocketChat::Action::\"users.info\", resource) when { !context.self };\n\
         @id(\"office\") permit (principal, action == RocketChat::Action::\"users.info\", resource) when { context.networks.contains(\"office\") };",
    );
    let mut asked = Asked::about("users.info");
    asked.networks = vec!["office"];
    let answer = asked.to(&engine);
    assert_eq!(deciding(&answer), ["anyone", "again", "office"]);
    assert_eq!(answer.obligations, [Obligation::Without("fields".into()), Obligation::Without("includeUserRooms".into())]);
}

#[test]
fn what_an_action_reads_is_told_exactly() {
    let engine = compile(&format!(
        "{EXCERPT}@id(\"scoped\") forbid (principal, action == RocketChat::Action::\"rooms.roles\", resource) when {{ context.table.scoped }};\n\
         @id(\"info\") permit (principal, action == RocketChat::Action::\"users.info\", resource) \
         when {{ context has self && context.self && context.params has fields && context.networks.contains(\"office\") }};"
    ));
    assert_eq!(engine.reads("audit.rooms.members"), Some(&Reads::default()));
    let room = Reads { facts: ["room".to_owned()].into(), table: true, ..Reads::default() };
    assert_eq!(engine.reads("rooms.roles"), Some(&room));
    let info = Reads { params: true, networks: true, is_self: true, ..Reads::default() };
    assert_eq!(engine.reads("users.info"), Some(&info));
    assert_eq!(engine.reads("rooms.delete"), None);

    let whole = compile(
        "@id(\"a\") permit (principal, action == RocketChat::Action::\"rooms.roles\", resource) when { (if true then context else context).room.member };",
    );
    let all = Reads { facts: ["room".to_owned()].into(), params: true, networks: true, table: true, is_self: false };
    assert_eq!(whole.reads("rooms.roles"), Some(&all), "all that the action has");
    assert_eq!(deciding(&Asked::about("rooms.roles").room(super::room(true, &[], "p")).to(&whole)), ["a"]);
}

#[test]
fn names_of_roles_and_ids_may_be_any_text() {
    let mut domain = domain();
    domain.roles.push("líder \"x\"\\;".into());
    let text = "@id(\"a\") permit (principal in RocketChat::Role::\"líder \\\"x\\\"\\\\;\", action, resource);";
    let engine = Engine::compile(&domain, &[source(text)]).unwrap();
    let asked = Asked::about("users.info").roles(&["líder \"x\"\\;", "\0\n::\"", ""]);
    assert_eq!(asked.to(&engine).decision, Decision::Permit);
    assert_eq!(asked.roles(&["lider"]).to(&engine).decision, Decision::Deny);
}

#[test]
fn an_engine_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let engine = compile(EXCERPT);
    shared(&engine);
    let principal = engine.principal_given(&Asked::about("rooms.roles").subject(), &["x"]);
    shared(&principal);
    assert_eq!(principal.cedar().ok().unwrap().entities.len(), 4, "the caller beside the three actions");
    assert_eq!(format!("{engine:?}"), "Engine { actions: 3, policies: 3, .. }");
}

#[test]
fn ten_thousand_policies_on_a_thousand_actions_compile_and_decide() {
    let shape = |number: usize| ActionShape {
        name: format!("a{number}"),
        resource: "Room".into(),
        params: vec![Field { name: "n".into(), kind: Kind::Integer, required: true }],
        ..ActionShape::default()
    };
    let domain = Domain { namespace: "N".into(), actions: (0..1000).map(shape).collect(), ..Domain::default() };
    let mut text = String::new();
    for number in 0..10_000 {
        let action = number % 1000;
        writeln!(text, "@id(\"p{number}\") permit (principal, action == N::Action::\"a{action}\", resource) when {{ context.params.n == {number} }};").unwrap();
    }
    let engine = Engine::compile(&domain, &[source(&text)]).unwrap();
    let mut asked = Asked::about("a7").param("n", Value::Integer(9007));
    asked.resource = "Room";
    let answer = asked.to(&engine);
    assert_eq!(deciding(&answer), ["p9007"]);
    assert_eq!(answer.determining[0].line, 9008);
}
