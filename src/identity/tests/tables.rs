//! What is looked up once for all callers.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tokio::time::advance;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const WHOLE: &str = "/api/v1/permissions.listAll";

fn rows(rows: &[(&str, &[&str])], removed: &Json) -> Json {
    let rows: Vec<Json> = rows.iter().map(|(key, roles)| json!({"_id": key, "roles": roles})).collect();
    json!({"update": rows, "remove": removed})
}

/// A world whose table is `view` for admin and user, and whose changes are `changes`.
fn world(changes: Json) -> World {
    let world = World::new(settings());
    world.upstream.answers(move |question| match question.target.as_str() {
        "/api/v1/me" => me(question),
        WHOLE => ok(&rows(&[("view", &["admin", "user"]), ("audit", &["admin"])], &json!([]))),
        _ => ok(&changes),
    });
    world
}

impl World {
    async fn table(&self, credential: &Credential) -> Result<Known<Table>, Failure> {
        self.identity.table(&self.plan, "permissions", credential, HERE).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_is_one_for_all_callers() {
    let world = world(rows(&[], &json!([])));
    let first = world.table(&bearer("a")).await.unwrap();
    let second = world.table(&bearer("b")).await.unwrap();
    assert!(Arc::ptr_eq(&first.value, &second.value));
    assert_eq!(first.value.values("view"), ["admin", "user"]);
    assert_eq!(first.value.keys_holding("admin"), ["audit", "view"]);
    assert_eq!(world.upstream.targets(), [WHOLE]);
    assert_eq!(world.upstream.questions()[0].headers, bearer("a").headers, "asked as the caller at hand");
    assert_eq!((world.counted("permissions", "miss"), world.counted("permissions", "hit")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_service_credential_asks_where_there_is_one() {
    let world = World::new(Settings { service: Some(bearer("service")), ..settings() });
    world.upstream.answers(|_| reply(401, &json!({})));
    assert!(matches!(world.table(&bearer("a")).await, Err(Failure::Unavailable { .. })));
    let questions = world.upstream.questions();
    assert_eq!(questions.len(), 1, "the caller is not doubted for the service's sake");
    assert_eq!(questions[0].headers, bearer("service").headers);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_for_changes_since_five_minutes_before_the_last_lookup() {
    let world = world(rows(&[("view", &["admin"]), ("new", &["user"])], &json!([{"_id": "audit"}, "unknown"])));
    let before = Timestamp::now();
    let first = world.table(&bearer("t")).await.unwrap();
    advance(MINUTE).await;
    let second = world.table(&bearer("t")).await.unwrap();
    assert_ne!(first.value.revision, second.value.revision);
    let all: Vec<_> = second.value.iter().collect();
    assert_eq!(all, [("new", &["user".to_owned()][..]), ("view", &["admin".to_owned()][..])]);

    let targets = world.upstream.targets();
    let since = targets[1].strip_prefix("/api/v1/permissions.listAll?updatedSince=").unwrap();
    let since = percent_encoding::percent_decode_str(since).decode_utf8().unwrap();
    assert_eq!(since.len(), "2026-01-02T03:04:05.678Z".len(), "{since}");
    assert!(since.ends_with('Z'));
    let distance = before.duration_since(since.parse().unwrap());
    assert!(distance > SignedDuration::from_secs(290) && distance <= SignedDuration::from_secs(301), "{distance:?}");

    advance(MINUTE).await;
    let third = world.table(&bearer("t")).await.unwrap();
    assert_eq!(second.value.revision, third.value.revision, "the same changes again change nothing");
    assert!(!Arc::ptr_eq(&second.value, &third.value));
}

#[tokio::test]
async fn a_table_past_its_time_is_kept_as_the_base_of_changes() {
    let mut world = world(rows(&[], &json!([])));
    let mut plan = (*world.plan).clone();
    plan.tables[0].ttl = Some(Duration::ZERO);
    world.plan = Arc::new(plan);
    for _ in 0..10 {
        world.table(&bearer("t")).await.unwrap();
    }
    let targets = world.upstream.targets();
    assert_eq!(targets.iter().map(|target| target == WHOLE).collect::<Vec<_>>(), [[true].as_slice(), &[false; 9]].concat());
}

#[tokio::test(start_paused = true)]
async fn every_twentieth_lookup_and_every_one_after_an_invalidation_is_of_the_whole() {
    let world = world(rows(&[], &json!([])));
    for _ in 0..41 {
        world.table(&bearer("t")).await.unwrap();
        advance(MINUTE).await;
    }
    let whole: Vec<usize> =
        world.upstream.targets().iter().enumerate().filter(|(_, target)| *target == WHOLE).map(|(at, _)| at).collect();
    assert_eq!(whole, [0, 20, 40]);
    assert_eq!(world.identity.invalidate(Selection::All), 1);
    world.table(&bearer("t")).await.unwrap();
    assert_eq!(world.upstream.targets().last().unwrap(), WHOLE);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_lookup_of_changes_the_whole_is_asked_for() {
    let world = world(json!({"success": false}));
    world.table(&bearer("t")).await.unwrap();
    advance(MINUTE).await;
    assert!(matches!(world.table(&bearer("t")).await, Err(Failure::Unavailable { .. })));
    world.table(&bearer("t")).await.unwrap();
    let targets = world.upstream.targets();
    assert_eq!(targets.iter().map(|target| target == WHOLE).collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn changes_that_contradict_themselves_are_replaced_by_the_whole() {
    let world = world(rows(&[("view", &["guest"])], &json!(["view"])));
    world.table(&bearer("t")).await.unwrap();
    advance(MINUTE).await;
    assert_eq!(world.table(&bearer("t")).await.unwrap().value.values("view"), ["admin", "user"]);
    assert_eq!(world.upstream.targets().last().unwrap(), WHOLE);
    assert_eq!(world.upstream.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_older_table_stands_in_for_a_failed_refresh_within_max_stale() {
    let world = World::new(Settings { max_stale: MINUTE, ..settings() });
    world.upstream.answers(|_| ok(&rows(&[("view", &["user"])], &json!([]))));
    world.table(&bearer("t")).await.unwrap();
    world.upstream.answers(|_| reply(503, &json!({})));
    advance(MINUTE).await;
    let known = world.table(&bearer("t")).await.unwrap();
    assert!(known.stale);
    assert_eq!(known.value.values("view"), ["user"]);
    advance(MINUTE).await;
    assert!(matches!(world.table(&bearer("t")).await, Err(Failure::Unavailable { .. })), "but it is still the base of changes");
}

#[tokio::test]
async fn an_odd_row_costs_that_row_and_no_other() {
    for (odd, held) in [
        (json!({"roles": ["user"]}), None),
        (json!({"_id": "odd"}), Some(0)),
        (json!({"_id": "odd", "roles": null}), Some(0)),
        (json!({"_id": "odd", "roles": [{}]}), None),
        (json!({"_id": "odd", "roles": "user"}), None),
        (json!({"_id": "odd", "roles": {"0": "user"}}), None),
        (json!("odd"), None),
        (json!(null), None),
    ] {
        let world = World::new(settings());
        let told = odd.clone();
        world.upstream.answers(move |_| ok(&json!({"update": [told, {"_id": "view", "roles": ["user"]}], "remove": []})));
        let table = world.table(&bearer("t")).await.unwrap().value;
        assert_eq!(table.values("view"), ["user"], "{odd}");
        assert_eq!(table.keys_holding("user"), ["view"], "{odd}: nobody holds more");
        assert_eq!(table.iter().find(|(key, _)| *key == "odd").map(|(_, values)| values.len()), held, "{odd}");
    }
    for whole in [json!({}), json!({"update": null}), json!({"update": {}}), json!([])] {
        let world = World::new(settings());
        world.upstream.answers(move |_| ok(&whole));
        assert!(matches!(world.table(&bearer("t")).await, Err(Failure::Unavailable { .. })), "no rows at all");
    }
}

#[tokio::test]
async fn a_row_without_a_value_has_the_stated_one() {
    for (value, expected) in [
        (json!({"_id": "old", "roles": "Subscriptions"}), &["Subscriptions"][..]),
        (json!({"_id": "old"}), &["Users"]),
        (json!({"_id": "old", "roles": null}), &["Users"]),
        (json!({"_id": "old", "roles": ""}), &["Users"]),
        (json!({"_id": "old", "roles": ["Users"]}), &[]),
        (json!({"_id": "old", "roles": {}}), &[]),
    ] {
        let world = World::new(settings());
        let mut plan = (*world.plan).clone();
        plan.tables[0].default = Some("Users".into());
        let told = value.clone();
        world.upstream.answers(move |_| ok(&json!({"update": [told], "remove": []})));
        let table = world.identity.table(&Arc::new(plan), "permissions", &bearer("t"), HERE).await.unwrap().value;
        assert_eq!(table.values("old"), expected, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_read_leaves_nothing_granted() {
    let world = world(json!({"update": [{"_id": "view", "roles": "admin"}], "remove": []}));
    assert_eq!(world.table(&bearer("t")).await.unwrap().value.values("view"), ["admin", "user"]);
    advance(MINUTE).await;
    assert!(world.table(&bearer("t")).await.unwrap().value.values("view").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_cannot_be_read_is_replaced_by_the_whole() {
    let world = world(json!({"update": [], "remove": [{"id": "view"}]}));
    world.table(&bearer("t")).await.unwrap();
    advance(MINUTE).await;
    world.table(&bearer("t")).await.unwrap();
    assert_eq!(world.upstream.targets().last().unwrap(), WHOLE);
    assert_eq!(world.upstream.asked(), 3);
}

#[tokio::test]
async fn anothers_refused_or_limited_credential_spoils_the_table_for_nobody() {
    for status in [401, 429] {
        let world = World::new(settings());
        world.upstream.answers(move |question| {
            if question.headers == bearer("bad").headers {
                return reply(status, &json!({}));
            }
            ok(&rows(&[("view", &["user"])], &json!([])))
        });
        world.upstream.hold();
        let start = |token: &'static str| {
            let (identity, plan) = (world.identity.clone(), Arc::clone(&world.plan));
            tokio::spawn(async move { identity.table(&plan, "permissions", &bearer(token), HERE).await })
        };
        let bad = start("bad");
        world.upstream.until_asked(1).await;
        let good = start("good");
        tokio::task::yield_now().await;
        assert_eq!(world.upstream.asked(), 1, "the good one waits for the bad one's lookup");
        world.upstream.release();
        let expected = if status == 401 { Failure::Refused } else { Failure::Limited { retry_after: 5 } };
        assert_eq!(bad.await.unwrap().unwrap_err(), expected);
        assert_eq!(good.await.unwrap().unwrap().value.values("view"), ["user"]);
        assert_eq!(world.upstream.questions().last().unwrap().headers, bearer("good").headers);
    }
}

/// Any JSON, with the names that rows have where servers have them, and none of a good row's keys.
fn odd_row() -> impl Strategy<Value = Json> {
    let text = prop_oneof![Just("user"), Just("_id"), Just(""), Just("\u{0}"), Just("é\u{202e}")].prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        text.prop_map(Json::from),
        "[a-z.$/~]{0,6}".prop_map(Json::from),
    ];
    let any_json = leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![Just("_id".to_owned()), Just("roles".to_owned()), "[a-z/~]{0,3}".prop_map(|name| name)];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    });
    let row = (any_json.clone(), any_json.clone()).prop_map(|(key, roles)| json!({ "_id": key, "roles": roles }));
    prop_oneof![any_json, row]
}

proptest! {
    #[test]
    fn among_any_odd_rows_each_good_one_keeps_its_value(
        rows in prop::collection::vec(prop_oneof![odd_row().prop_map(Err), prop::collection::vec("[a-z]{1,4}", 0..4).prop_map(Ok)], 0..12)
            .prop_shuffle(),
    ) {
        let good = |at: usize| format!("good-{at}");
        let told = rows.iter().enumerate().map(|(at, row)| match row {
            Ok(roles) => json!({ "_id": good(at), "roles": roles }),
            Err(odd) => odd.clone(),
        });
        let told: Vec<Json> = told.collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new(settings());
            world.upstream.answers(move |question| match question.target.as_str() {
                "/api/v1/me" => me(question),
                _ => ok(&json!({ "update": told, "remove": [] })),
            });
            // The whole, and then what changed since.
            for _ in 0..2 {
                let table = world.table(&bearer("t")).await;
                let table = table.map_err(|failure| TestCaseError::fail(format!("{failure:?}")))?.value;
                for (at, row) in rows.iter().enumerate() {
                    let Ok(roles) = row else { continue };
                    prop_assert_eq!(table.values(&good(at)), roles.as_slice());
                    for role in roles {
                        prop_assert!(table.keys_holding(role).contains(&good(at)));
                    }
                }
                advance(MINUTE).await;
            }
            prop_assert!(world.upstream.asked() >= 2);
            Ok(())
        })?;
    }
}
