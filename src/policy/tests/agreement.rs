//! The index against Cedar itself: the whole set, the whole context, checked by the schema.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicyId, PolicySet, Request, Schema};
use proptest::prelude::*;
use serde_json::json;

use super::{Asked, compile, deciding, domain, room};
use crate::model::{Decision, Record, Value};

/// Policies of every kind: open scopes, lists, resource types, conditions on every key, forbids, and two that can overflow.
const POOL: [&str; 12] = [
    r#"permit (principal in RocketChat::Permission::"view-members-list-all-rooms", action == RocketChat::Action::"audit.rooms.members", resource);"#,
    r#"permit (principal, action == RocketChat::Action::"rooms.roles", resource) when { context.room.member };"#,
    r#"permit (principal in RocketChat::Permission::"view-c-room", action, resource) when { context has room && context.room.kind == "c" };"#,
    r#"permit (principal in RocketChat::Role::"admin", action, resource);"#,
    r#"permit (principal, action, resource is RocketChat::User) when { context.self };"#,
    r#"permit (principal, action in [RocketChat::Action::"rooms.roles", RocketChat::Action::"users.info"], resource) when { context.networks.contains("office") };"#,
    r#"permit (principal, action, resource == RocketChat::Room::"r1") unless { principal in [RocketChat::Role::"guest", RocketChat::Role::"user"] };"#,
    r#"forbid (principal in RocketChat::Role::"guest", action in [RocketChat::Action::"rooms.roles", RocketChat::Action::"audit.rooms.members"], resource);"#,
    r#"forbid (principal, action, resource) when { context has table && context.table.scoped && context.room.roles.contains("owner") };"#,
    r#"forbid (principal, action, resource is RocketChat::Room in RocketChat::Room::"r1") when { action == RocketChat::Action::"audit.rooms.members" && context.params has count && context.params.count > 100 };"#,
    r#"forbid (principal, action == RocketChat::Action::"audit.rooms.members", resource) when { context.params has count && context.params.count * 9223372036854775807 == 5 };"#,
    r#"permit (principal, action == RocketChat::Action::"audit.rooms.members", resource) when { context.params has count && context.params.count + 9223372036854775707 > 0 };"#,
];

fn text(chosen: &BTreeSet<usize>) -> String {
    chosen.iter().map(|number| format!("@id(\"p{number}\") {}\n", POOL[*number])).collect()
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| domain().schema().parse().unwrap());

/// What Cedar alone says: the decision with errors counted as denials, and the policies behind it.
fn oracle(chosen: &BTreeSet<usize>, asked: &Asked) -> (Decision, BTreeSet<String>, usize) {
    let parsed: PolicySet = text(chosen).parse().unwrap();
    let named = parsed.policies().map(|policy| policy.new_id(PolicyId::new(policy.annotation("id").unwrap())));
    let set = PolicySet::from_policies(named).unwrap();
    let uid = |kind: &str, id: &str| -> EntityUid { format!("RocketChat::{kind}::{id:?}").parse().unwrap() };
    let parent = |kind: &str, names: &[String]| -> Vec<_> {
        names.iter().map(|name| json!({"type": format!("RocketChat::{kind}"), "id": name})).collect()
    };
    let parents = [parent("Role", &asked.roles), parent("Permission", &asked.permissions)].concat();
    let user = json!([{"uid": {"type": "RocketChat::User", "id": "u1"}, "attrs": {}, "parents": parents}]);
    let entities = Entities::from_json_value(user, Some(&SCHEMA)).unwrap();
    let shape = domain().actions.into_iter().find(|shape| shape.name == asked.action).unwrap();
    let known = |record: &Record, fields: &[crate::policy::Field]| -> serde_json::Value {
        let declared = record.iter().filter(|(name, _)| fields.iter().any(|field| field.name == *name));
        json!(declared.map(|(name, value)| (name, json!(value))).collect::<std::collections::BTreeMap<_, _>>())
    };
    let mut context = json!({"params": known(&asked.params, &shape.params), "networks": asked.networks});
    for fact in shape.facts.iter().filter(|_| asked.knows_room) {
        context[&fact.name] = known(&asked.room, &fact.fields);
    }
    if shape.has_self {
        context["self"] = json!(asked.is_self);
    }
    if !shape.table.is_empty() {
        context["table"] = known(&asked.table, &shape.table);
    }
    let action = uid("Action", asked.action);
    let context = Context::from_json_value(context, Some((&SCHEMA, &action))).unwrap();
    let request = Request::new(uid("User", "u1"), action, uid(asked.resource, "r1"), context, Some(&SCHEMA)).unwrap();
    let response = Authorizer::new().is_authorized(&request, &set, &entities);
    let errors = response.diagnostics().errors().count();
    let allowed = response.decision() == cedar_policy::Decision::Allow;
    // A permit that an error overturned has nothing behind it that a denial could name.
    let reasons =
        if allowed && errors > 0 { BTreeSet::new() } else { response.diagnostics().reason().map(ToString::to_string).collect() };
    (if allowed && errors == 0 { Decision::Permit } else { Decision::Deny }, reasons, errors)
}

fn asked() -> impl Strategy<Value = Asked> {
    let some = |names: &'static [&'static str]| proptest::sample::subsequence(names, 0..=names.len());
    let count = prop_oneof![Just(None), (1..4_i64).prop_map(Some), (90..120_i64).prop_map(Some), any::<i64>().prop_map(Some)];
    (
        proptest::sample::select(&["audit.rooms.members", "rooms.roles", "users.info"][..]),
        some(&["admin", "user", "guest", "undeclared"]),
        some(&["view-members-list-all-rooms", "view-c-room", "undeclared"]),
        (any::<bool>(), some(&["owner", "moderator"]), proptest::sample::select(&["c", "p", "d"][..])),
        count,
        (any::<bool>(), any::<bool>(), any::<bool>(), some(&["office", "home"])),
    )
        .prop_map(|(action, roles, permissions, (member, room_roles, kind), count, (is_self, known, scoped, networks))| {
            let mut asked = Asked::about(action).roles(&roles).permissions(&permissions).room(room(member, &room_roles, kind));
            if let Some(count) = count {
                asked.params.set("count", Value::Integer(count));
            }
            asked.is_self = Some(is_self);
            // Where the parameter that it hangs on is optional, it need not be.
            asked.knows_room = known || action == "rooms.roles";
            asked.table.set("scoped", Value::Boolean(scoped));
            asked.networks = networks;
            asked
        })
}

fn chosen() -> impl Strategy<Value = BTreeSet<usize>> {
    proptest::sample::subsequence((0..POOL.len()).collect::<Vec<_>>(), 0..=POOL.len())
        .prop_map(|numbers| numbers.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_says_what_the_whole_set_says(chosen in chosen(), questions in proptest::collection::vec(asked(), 12)) {
        let engine = compile(&text(&chosen));
        for asked in questions {
            let answer = asked.to(&engine);
            let (decision, reasons, errors) = oracle(&chosen, &asked);
            prop_assert_eq!(answer.decision, decision, "{:?}", asked);
            prop_assert_eq!(answer.errors.len(), errors);
            prop_assert_eq!(deciding(&answer).into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), reasons, "{:?}", asked);
        }
    }

    #[test]
    fn removing_a_permit_never_turns_a_denial_into_a_permit(chosen in chosen(), removed in 0..POOL.len(), questions in proptest::collection::vec(asked(), 12)) {
        // A permit whose evaluation fails denies by itself, and its removal may well permit: it stays out of this law.
        let chosen: BTreeSet<usize> = chosen.into_iter().filter(|number| *number != 11).collect();
        let fewer: BTreeSet<usize> = chosen.iter().copied().filter(|number| *number != removed || POOL[*number].starts_with("forbid")).collect();
        let (before, after) = (compile(&text(&chosen)), compile(&text(&fewer)));
        for asked in questions {
            if asked.to(&before).decision == Decision::Deny {
                prop_assert_eq!(asked.to(&after).decision, Decision::Deny, "{:?}", asked);
            }
        }
    }
}
