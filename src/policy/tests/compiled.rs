//! What is decided without Cedar against Cedar: random conditions and queries, well typed or not.

use std::sync::{Arc, LazyLock};

use cedar_policy::{Authorizer, Policy, PolicySet};
use proptest::prelude::*;

use super::{Asked, compile, domain, room};
use crate::model::{Decision, Resource, Value};
use crate::policy::compiled::{Compiled, Names};
use crate::policy::engine::Indexed;
use crate::policy::principal::{Given, Principal, entity};
use crate::policy::{Answer, Effect, Engine, PolicyInfo, Query, Reads};

static NO_POLICIES: LazyLock<Engine> = LazyLock::new(|| compile(""));

/// One policy, asked in both ways: what the compiled form says, and what Cedar does, with its errors counted.
fn both(text: &str, asked: &Asked) -> (Option<Answer>, Decision, usize) {
    let policy: Policy = text.parse().unwrap();
    let shape = domain().actions.into_iter().find(|shape| shape.name == asked.action).unwrap();
    let info = Arc::new(PolicyInfo {
        id: policy.id().to_string(),
        file: "p.cedar".into(),
        line: 1,
        effect: if text.starts_with("forbid") { Effect::Forbid } else { Effect::Permit },
        reason: None,
        obligations: Vec::new(),
        actions: vec![shape.name.clone()],
    });
    let json = policy.to_json().unwrap();
    let mut names = Names::default();
    let compiled = Compiled::of("RocketChat", &shape, [(&json, &info)].into_iter(), &mut names);
    let given = Given { subject: asked.subject(), permissions: asked.permissions.clone() };
    let principal = Principal::prepare(Arc::new(given), &NO_POLICIES.types, &names, &NO_POLICIES.action_entities);
    let resource = Resource { kind: asked.resource.into(), id: "r1".into() };
    let query = Query {
        action: asked.action,
        principal: &principal,
        resource: &resource,
        params: &asked.params,
        is_self: asked.is_self,
        facts: &asked.facts(),
        networks: &asked.networks,
        table: &asked.table,
    };
    let everything = Reads {
        facts: shape.facts.iter().map(|fact| fact.name.clone()).collect(),
        params: true,
        networks: true,
        table: !shape.table.is_empty(),
        is_self: shape.has_self,
    };
    let index = Indexed {
        uid: entity(&"RocketChat::Action".parse().unwrap(), &shape.name),
        resource: format!("RocketChat::{}", shape.resource).parse().unwrap(),
        reads: everything,
        policies: PolicySet::from_policies([policy]).unwrap(),
        compiled: None,
        infos: [(info.id.parse().unwrap(), (0, info))].into_iter().collect(),
        shape,
    };
    let cedar = principal.cedar().ok().unwrap();
    let stock =
        index.answer(&Authorizer::new().is_authorized(&index.request(&query, cedar).unwrap(), &index.policies, &cedar.entities));
    (compiled.and_then(|compiled| compiled.answer(&query)), stock.decision, stock.errors.len())
}

/// A condition, most of them well typed.
fn condition() -> impl Strategy<Value = String> {
    let number = || proptest::sample::select(&["context.params.count", "1", "100", "-5", "context.room.kind"][..]);
    let text = || {
        let texts = [
            "context.room.kind",
            "context.params.rid",
            "context.params.roomId",
            "context.params.fields",
            "\"c\"",
            "\"r1\"",
            "\"\"",
        ];
        proptest::sample::select(texts.to_vec())
    };
    let set = || {
        let sets = ["context.room.roles", "context.networks", "[\"owner\"]", "[\"office\", \"owner\"]", "context.room.kind"];
        proptest::sample::select(sets.to_vec())
    };
    let order = proptest::sample::select(&["<", "<=", ">", ">=", "==", "!="][..]);
    let equality = || proptest::sample::select(&["==", "!="][..]);
    let alone = [
        "true",
        "false",
        "context.self",
        "context.room.member",
        "context.table.scoped",
        "context.missing",
        "context.room.missing",
        "context has room",
        "context has room.kind",
        "context has self",
        "context has missing",
        "context has params.count",
        "context has room.missing",
        "context has missing.count",
        "context.params has count",
        "context.params has undeclared",
        "context.room has kind",
        "context.table has scoped",
        "principal in RocketChat::Role::\"admin\"",
        "principal in RocketChat::Permission::\"view-c-room\"",
        "principal in RocketChat::User::\"u1\"",
        "principal in [RocketChat::Role::\"guest\", RocketChat::Permission::\"view-members-list-all-rooms\"]",
        "principal in RocketChat::Permission::\"admin\"",
        "principal == RocketChat::User::\"u1\"",
        "principal != RocketChat::User::\"u2\"",
        "principal == RocketChat::Role::\"user\"",
        "principal is RocketChat::User",
        "principal is RocketChat::Room",
        "resource == RocketChat::Room::\"r1\"",
        "resource in RocketChat::User::\"r1\"",
        "resource in [RocketChat::Room::\"r1\", RocketChat::Room::\"r2\"]",
        "resource is RocketChat::User",
        "action == RocketChat::Action::\"rooms.roles\"",
        "action in [RocketChat::Action::\"users.info\", RocketChat::Action::\"audit.rooms.members\"]",
        "context.room == context.room",
        "context.params.count + 1 > 2",
        "context.room.kind like \"c*\"",
        "context.room.kind like \"\"",
        "context.params.rid like \"r*1\"",
        "context.params.rid like \"r1*1\"",
        "context.params.roomId like \"*r*1*\"",
        "context.params.roomId like \"r\\*\"",
        "context.params.count like \"*\"",
        "[1, 2].contains(context.params.count)",
        "[].containsAll(context.networks)",
    ];
    let leaf = prop_oneof![
        6 => proptest::sample::select(alone.to_vec()).prop_map(str::to_owned),
        1 => (number(), order, number()).prop_map(|(left, order, right)| format!("({left} {order} {right})")),
        1 => (text(), equality(), text()).prop_map(|(left, equality, right)| format!("({left} {equality} {right})")),
        1 => (set(), text()).prop_map(|(set, text)| format!("{set}.contains({text})")),
        1 => (set(), any::<bool>(), set()).prop_map(|(left, all, right)| {
            format!("{left}.{}({right})", if all { "containsAll" } else { "containsAny" })
        }),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| format!("!({one})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} && {right})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(first, then, otherwise)| format!("(if {first} then {then} else {otherwise})")),
        ]
    })
}

fn policy() -> impl Strategy<Value = String> {
    let principals = [
        "principal",
        "principal == RocketChat::User::\"u1\"",
        "principal in RocketChat::Role::\"admin\"",
        "principal is RocketChat::User",
        "principal is RocketChat::User in RocketChat::Permission::\"view-c-room\"",
    ];
    let resources = [
        "resource",
        "resource == RocketChat::Room::\"r1\"",
        "resource is RocketChat::User",
        "resource in RocketChat::Room::\"r9\"",
    ];
    (
        any::<bool>(),
        proptest::sample::select(principals.to_vec()),
        proptest::sample::select(resources.to_vec()),
        proptest::collection::vec((any::<bool>(), condition()), 0..3),
    )
        .prop_map(|(permits, principal, resource, conditions)| {
            let effect = if permits { "permit" } else { "forbid" };
            let conditions: String = conditions
                .into_iter()
                .map(|(when, condition)| format!(" {} {{ {condition} }}", if when { "when" } else { "unless" }))
                .collect();
            format!("{effect} ({principal}, action, {resource}){conditions};")
        })
}

fn asked() -> impl Strategy<Value = Asked> {
    let some = |names: &'static [&'static str]| proptest::sample::subsequence(names, 0..=names.len());
    (
        proptest::sample::select(&["audit.rooms.members", "rooms.roles", "users.info"][..]),
        some(&["admin", "user", "guest", "view-c-room"]),
        some(&["view-members-list-all-rooms", "view-c-room", "admin"]),
        (any::<bool>(), some(&["owner", "moderator"]), proptest::sample::select(&["c", "p", ""][..])),
        proptest::option::of(-10..120_i64),
        (any::<bool>(), any::<bool>(), any::<bool>(), some(&["office", "home", "owner"])),
    )
        .prop_map(|(action, roles, permissions, (member, room_roles, kind), count, (is_self, known, scoped, networks))| {
            let mut asked = Asked::about(action).roles(&roles).permissions(&permissions).room(room(member, &room_roles, kind));
            asked.params.set("undeclared", Value::Boolean(true));
            if let Some(count) = count {
                asked.params.set("count", Value::Integer(count));
            }
            asked.is_self = Some(is_self);
            asked.knows_room = known || action == "rooms.roles";
            asked.table.set("scoped", Value::Boolean(scoped));
            asked.networks = networks;
            asked
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_form_fits_the_texts_that_it_fits_for_cedar(form in "[ab*]{0,8}", text in "[ab]{0,8}") {
        let policy = format!("permit (principal, action, resource) when {{ context.room.kind like {form:?} }};");
        let asked = Asked::about("rooms.roles").room(room(true, &[], &text));
        let (compiled, decision, errors) = both(&policy, &asked);
        prop_assert_eq!((compiled.map(|answer| answer.decision), errors), (Some(decision), 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decided_without_cedar_is_what_cedar_decides(text in policy(), asked in asked()) {
        let (compiled, decision, errors) = both(&text, &asked);
        if let Some(answer) = compiled {
            prop_assert_eq!(errors, 0, "Cedar cannot evaluate {} for {:?}", text, asked);
            prop_assert_eq!(answer.decision, decision, "{} for {:?}", text, asked);
        }
    }
}

#[test]
fn what_people_write_is_decided_without_cedar() {
    for condition in [
        "context.room.member && context.room.kind == \"c\"",
        "context.room.roles.containsAny([\"owner\", \"moderator\"])",
        "principal in [RocketChat::Role::\"admin\", RocketChat::Role::\"user\"] || context.networks.contains(\"office\")",
        "if context.table.scoped then context has room else !(context has self)",
        "context.params.rid like \"*ENER*\" || context.room.kind like \"p*\"",
        "context has room && context.room has kind && context has room.member && context.room.member",
        "context.params.rid != \"GENERAL\" && resource != RocketChat::Room::\"r2\"",
    ] {
        let (compiled, decision, errors) =
            both(&format!("permit (principal, action, resource) when {{ {condition} }};"), &Asked::about("rooms.roles"));
        assert_eq!((compiled.map(|answer| answer.decision), errors), (Some(decision), 0), "{condition}");
    }
}

#[test]
fn what_has_no_term_and_what_nests_too_deep_is_left_to_cedar() {
    let deep = format!("{}context.room.member{}", "!(".repeat(100), ")".repeat(100));
    let conditions = ["1 + 1 == 2", "[].isEmpty()", "context.room.roles == [\"owner\"]", &deep];
    let all = || {
        for condition in conditions {
            let text = format!("permit (principal, action, resource) when {{ {condition} }};");
            let (compiled, _, errors) = both(&text, &Asked::about("rooms.roles"));
            assert!(compiled.is_none() && errors == 0, "{condition}");
        }
    };
    // Cedar reads by recursion.
    let stack = std::thread::Builder::new().stack_size(64 << 20);
    std::thread::scope(|scope| stack.spawn_scoped(scope, all).unwrap().join().unwrap());
}
