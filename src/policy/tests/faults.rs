//! What is refused at load, where, and with which hint.

use super::{domain, source, words};
use crate::policy::{Domain, Engine, Source};

/// The faults of `text`, each as `line:column: message | hint`.
fn faults(text: &str) -> Vec<String> {
    faults_in(&domain(), text)
}

fn faults_in(domain: &Domain, text: &str) -> Vec<String> {
    let told = |fault: &crate::model::Fault| {
        let hint = fault.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
        assert_eq!(fault.place.file, "p.cedar", "{fault}");
        format!("{}:{}: {}{hint}", fault.place.line, fault.place.column, fault.message)
    };
    Engine::compile(domain, &[source(text)]).expect_err("the policies are wrong").0.iter().map(told).collect()
}

#[test]
fn a_misspelt_parameter_is_told_with_its_place_and_the_right_name() {
    let text = "@id(\"a\")\npermit (principal, action == RocketChat::Action::\"audit.rooms.members\", resource)\nwhen { context.params.roomID == \"x\" };";
    assert_eq!(
        faults(text),
        [
            "3:8: attribute `params.roomID` in context for RocketChat::Action::\"audit.rooms.members\" not found | did you mean `roomId`?"
        ]
    );
}

#[test]
fn a_misspelt_name_behind_has_is_told_and_not_taken_for_one_that_is_absent() {
    let text = "@id(\"a\")\npermit (principal, action == RocketChat::Action::\"users.info\", resource)\n\
                unless { context.params has feilds && context.params.feilds like \"*rooms*\" };\n\
                @id(\"b\")\npermit (principal, action, resource)\n\
                when { context has romo || context has params.cuont || context.params has \"x-y\" || context has room.owner || context.networks.contains(\"office\") };\n\
                @id(\"c\")\npermit (principal, action, resource)\n\
                when { context has self || context has room.member || context.params has count };";
    assert_eq!(
        faults(text),
        [
            "3:29: no action of this policy has `context.params.feilds` | did you mean `fields`?",
            "6:20: no action of this policy has `context.romo` | did you mean `room`?",
            "6:47: no action of this policy has `context.params.cuont` | did you mean `count`?",
            "6:75: no action of this policy has `context.params.x-y`",
            "6:101: no action of this policy has `context.room.owner`",
        ]
    );
}

#[test]
fn a_fact_that_need_not_be_known_is_asked_for_before_it_is_read() {
    let unless = |condition: &str| {
        format!(
            "@id(\"a\")\npermit (principal, action == RocketChat::Action::\"audit.rooms.members\", resource)\nunless {{ {condition} }};"
        )
    };
    let told = faults(&unless("context.room.kind == \"p\""));
    assert_eq!(
        told,
        [
            "3:10: unable to guarantee safety of access to optional attribute `room` in context for RocketChat::Action::\"audit.rooms.members\" | try testing for the attribute's presence with `context has room && ..`"
        ]
    );
    for condition in ["context has room && context.room.kind == \"p\"", "context has room.kind && context.room.kind == \"p\""] {
        super::compile(&unless(condition));
    }
}

#[test]
fn a_misspelt_action_is_told_with_its_place_and_the_right_name() {
    let text = "@id(\"a\")\npermit (\n  principal,\n  action == RocketChat::Action::\"audit.room.members\",\n  resource);";
    assert_eq!(
        faults(text),
        [
            "4:13: unrecognized action `RocketChat::Action::\"audit.room.members\"` | did you mean `RocketChat::Action::\"audit.rooms.members\"`?"
        ]
    );
}

#[test]
fn a_misspelt_permission_or_role_is_told_wherever_it_stands() {
    let text = "@id(\"a\")\npermit (principal in RocketChat::Permission::\"view-croom\", action, resource)\nunless { principal in [RocketChat::Role::\"gest\", RocketChat::Role::\"guest\"] };";
    assert_eq!(
        faults(text),
        [
            "2:22: unknown permission `view-croom` | did you mean `view-c-room`?",
            "3:24: unknown role `gest` | did you mean `guest`?"
        ]
    );
}

#[test]
fn a_role_that_resembles_none_is_told_where_to_add_it() {
    let text = "@id(\"a\") permit (principal in RocketChat :: Role::\"auditor\", action, resource);";
    assert_eq!(faults(text), ["1:31: unknown role `auditor` | add it to `roles` in the provider file, if the server knows it"]);
}

#[test]
fn a_misspelt_network_is_told_even_when_none_is_named() {
    let text =
        "@id(\"a\")\npermit (principal, action, resource)\nwhen { context.networks.containsAny([\"office\", \"ofice\"]) };";
    assert_eq!(faults(text), ["3:48: unknown network `ofice` | did you mean `office`?"]);
    let none = Domain { networks: Vec::new(), ..domain() };
    let hint = "name it under `[networks]` in the configuration";
    assert_eq!(
        faults_in(&none, text),
        [format!("3:38: unknown network `office` | {hint}"), format!("3:48: unknown network `ofice` | {hint}")]
    );
}

#[test]
fn an_optional_parameter_may_not_be_read_untested() {
    let scope = "@id(\"a\")\npermit (principal, action == RocketChat::Action::\"audit.rooms.members\", resource)\nwhen";
    let told = faults(&format!("{scope} {{ context.params.count < 100 }};"));
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("3:8: unable to guarantee safety of access to optional attribute `params.count`"), "{told:?}");
    super::compile(&format!("{scope} {{ context.params has count && context.params.count < 100 }};"));
}

#[test]
fn a_policy_that_can_never_match_is_a_fault() {
    let text = "\n@id(\"a\")\npermit (principal, action == RocketChat::Action::\"users.info\", resource is RocketChat::Room);";
    let told = faults(text);
    assert!(told.iter().all(|fault| fault.starts_with("2:1: ")), "{told:?}");
    assert!(told.iter().any(|fault| fault.contains("unable to find an applicable action")), "{told:?}");
    let told =
        faults("@id(\"a\")\npermit (principal, action, resource) when { 1 > 2 && true && principal is RocketChat::Role };");
    assert!(told.iter().any(|fault| fault.contains("policy is impossible")), "{told:?}");
}

#[test]
fn a_condition_may_name_actions_and_types_beyond_its_scope() {
    let scope = "@id(\"a\")\npermit (principal, action == RocketChat::Action::\"users.info\", resource)\nunless";
    super::compile(&format!("{scope} {{ action == RocketChat::Action::\"rooms.roles\" || resource is RocketChat::Room }};"));
    let told = faults(&format!("{scope} {{ action == RocketChat::Action::\"rooms.role\" || resource is RocketChat::Rom }};"));
    assert_eq!(
        told,
        [
            "3:20: unrecognized action `RocketChat::Action::\"rooms.role\"` | did you mean `RocketChat::Action::\"rooms.roles\"`?",
            "3:68: unrecognized entity type `RocketChat::Rom` | did you mean `RocketChat::Room`?"
        ]
    );
}

#[test]
fn an_ill_typed_comparison_is_a_fault() {
    let told = faults(
        "@id(\"a\")\npermit (principal, action == RocketChat::Action::\"rooms.roles\", resource) when { context.room.member == \"yes\" };",
    );
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("2:82: the types"), "{told:?}");
}

#[test]
fn syntax_errors_of_all_files_are_reported_beside_the_faults_of_the_others() {
    let file = |file: &str, text: &str| Source { file: file.into(), text: text.into() };
    let sources = [
        file("a.cedar", "@id(\"a\")\npermit (principal, action resource);"),
        file("b.cedar", "permit (principal, action, resource);"),
        file("c.cedar", "@id(\"c\")\npermit (principal, action, resource) when { context.oops }"),
    ];
    let told = Engine::compile(&domain(), &sources).unwrap_err();
    let told: Vec<String> = told.0.iter().map(|fault| format!("{}: {}", fault.place, fault.message)).collect();
    assert_eq!(
        told,
        [
            "a.cedar:2:27: unexpected token `resource`",
            "b.cedar:1:1: the policy has no `@id`",
            "c.cedar:2:59: unexpected end of input"
        ]
    );
}

#[test]
fn every_policy_has_one_id_that_no_other_has() {
    let file = |file: &str, text: &str| Source { file: file.into(), text: text.into() };
    let policy = |id: &str| format!("@id(\"{id}\")\npermit (principal, action, resource);\n");
    let sources =
        [file("a.cedar", &format!("{}{}", policy("one"), policy("Two"))), file("b.cedar", &format!("\n{}", policy("one")))];
    let told = Engine::compile(&domain(), &sources).unwrap_err().to_string();
    assert_eq!(
        told,
        "a.cedar:3:1: `Two` is not an id\n  hint: write `@id(\"…\")` before the policy, of lower-case letters, digits and hyphens\n\
         b.cedar:2:1: `@id(\"one\")` is used twice\n  hint: it is first used at a.cedar:1:1"
    );
}

#[test]
fn an_annotation_that_nobody_reads_is_a_fault() {
    let told = faults("@id(\"a\")\n@reson(\"because\")\n@audit(\"full\")\npermit (principal, action, resource);");
    assert_eq!(
        told,
        [
            "2:1: unknown annotation `@reson` | did you mean `@reason`?",
            "3:1: unknown annotation `@audit` | `@id`, `@reason`, `@redact` and `@without` are known"
        ]
    );
    assert_eq!(
        faults("@id(\"a\") @reason permit (principal, action, resource);"),
        ["1:10: `@reason` needs a text | write `@reason(\"…\")`"]
    );
}

#[test]
fn without_names_optional_parameters_of_every_action_in_the_scope() {
    let users_info = "permit (principal, action == RocketChat::Action::\"users.info\", resource);";
    assert_eq!(
        faults(&format!("@id(\"a\")\n@without(\"includeUserRoom, userId,\")\n{users_info}")),
        [
            "2:1: `@without` needs the names of parameters | separate them with commas",
            "2:1: action `users.info` has no parameter `includeUserRoom` | did you mean `includeUserRooms`?",
            "2:1: parameter `userId` of action `users.info` is required and cannot be left out",
        ]
    );
    let told = faults("@id(\"a\")\n@without(\"includeUserRooms\")\npermit (principal, action, resource);");
    assert_eq!(told.len(), 2, "the scope reaches two actions that lack it: {told:?}");
    super::compile("@id(\"a\")\n@without(\"includeUserRooms\")\npermit (principal, action, resource is RocketChat::User);");
    let told = faults("@id(\"a\")\n@without(\"fields\")\nforbid (principal, action, resource is RocketChat::User);");
    assert_eq!(told, ["2:1: `@without` means nothing on a forbid | what is forbidden is not forwarded: annotate the permits"]);
}

#[test]
fn redact_is_checked_and_then_refused_until_it_is_carried_out() {
    let refusal = "2:1: this release does not carry out `@redact` yet, so it refuses the policy | remove the annotation, or leave the parameter out with `@without`";
    assert_eq!(faults("@id(\"a\")\n@redact(\"/user/services,/user/emails\")\npermit (principal, action, resource);"), [refusal]);
    let told = faults("@id(\"a\")\n@redact(\"/ok,user~\")\npermit (principal, action, resource);");
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with("2:1: `user~` is not a JSON pointer"), "{told:?}");
    let told = faults("@id(\"a\")\n@redact(\"/a\")\nforbid (principal, action, resource);");
    assert_eq!(told, ["2:1: `@redact` means nothing on a forbid | what is forbidden is not forwarded: annotate the permits"]);
}

#[test]
fn templates_are_refused_beside_the_policies_around_them() {
    let text = "permit (principal, action, resource);\n@id(\"b\") permit (principal == ?principal, action, resource);\n@id(\"c\") permit (principal in RocketChat::Role::\"usr\", action, resource);";
    let told = faults(text);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("1:1: the policy has no `@id`"), "{told:?}");
    assert!(told[1].starts_with("2:31: templates are not supported"), "{told:?}");
    assert!(told[2].starts_with("3:31: unknown role `usr`"), "{told:?}");
}

#[test]
fn asking_for_the_roles_of_somebody_else_is_a_fault_instead_of_a_silent_no() {
    let scope = "action == RocketChat::Action::\"users.info\", resource";
    let expected = [
        "1:1: only the caller's own roles and permissions are known to a policy | ask with `principal in`, or compare with `==`",
    ];
    assert_eq!(
        faults(&format!("@id(\"a\") forbid (principal, {scope}) when {{ resource in RocketChat::Role::\"admin\" }};")),
        expected
    );
    assert_eq!(faults(&format!("@id(\"a\") forbid (principal, {scope} in RocketChat::Role::\"admin\");")), expected);
    assert_eq!(
        faults(&format!("@id(\"a\") forbid (principal, {scope} is RocketChat::User in RocketChat::Role::\"admin\");")),
        expected
    );
}

#[test]
fn a_policy_too_deep_for_the_stack_is_refused_and_the_deepest_one_allowed_is_read() {
    let nested = |depth: usize| {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        format!("@id(\"a\") permit (principal, action, resource) when {{ {open}context.networks.contains(\"office\"){close} }};")
    };
    let chained =
        |length: usize| format!("@id(\"a\") permit (principal, action, resource) when {{ 0{} == 1 }};", " + 1".repeat(length));
    super::compile(&nested(980));
    super::compile(&chained(980));
    for text in [nested(100_000), chained(100_000)] {
        let told = faults(&text);
        assert!(told.len() == 1 && told[0].starts_with("1:1: the policy has more than 2000 words"), "{told:?}");
    }
}

#[test]
fn a_broken_domain_is_told_beside_the_faults_of_the_policies() {
    let mut domain = domain();
    domain.actions[1].facts.push(crate::policy::FactShape { name: "networks".into(), ..Default::default() });
    domain.actions[2].name = "rooms.roles".into();
    let told = Engine::compile(&domain, &[source("permit (principal, action, resource);")]).unwrap_err().to_string();
    assert!(told.contains("provider.toml: action `rooms.roles`: the fact name `networks` is reserved"), "{told}");
    assert!(told.contains("p.cedar:1:1: the policy has no `@id`"), "{told}");
    let unnamed = Domain { namespace: String::new(), roles: words(&["x"]), ..Domain::default() };
    assert!(Engine::compile(&unnamed, &[]).is_err());
}
