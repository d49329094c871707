//! Micro-benchmarks of the walk, with allocation counts: each stop that has a door of its own, and the whole of
//! `Pipeline::admit`. `cargo bench --bench walk` runs all, `cargo bench --bench walk -- admit` those of that name.
//!
//! Each sample is a hundred turns: what is measured is the walk of a busy gate, not the first one after a pause.
#![expect(unreachable_pub, reason = "nothing is outside of a benchmark")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops at the first surprise")]

mod scale;
mod setup;

use std::sync::Arc;

use divan::{AllocProfiler, Bencher, black_box};
use futures_util::FutureExt;
use rolegate::audit::Durability;
use rolegate::metrics::{Labels, Stage, Usual};
use rolegate::model::{Decision, Door, Mode, Record, Resource, Subject, Value};
use rolegate::pipeline::{Admission, Evaluation, evaluate_request};
use rolegate::policy::Query;
use rolegate::rules::{Known, KnownSubject, router, target};
use setup::{ALLOWED, Bench, DENIED, RIG, ROCKETCHAT, Rules, client, credential, request};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// The whole walk: every fact known, the record written to a file.
#[divan::bench_group(sample_size = 100)]
mod admit {
    use super::*;

    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn permit(bencher: Bencher<'_, '_>, rules: &Rules) {
        permitted(bencher, *rules, Durability::Written);
    }

    #[divan::bench(args = [RIG])]
    fn permit_buffered(bencher: Bencher<'_, '_>, rules: &Rules) {
        permitted(bencher, *rules, Durability::Buffered);
    }

    fn permitted(bencher: Bencher<'_, '_>, rules: Rules, durability: Durability) {
        let bench = Bench::new(rules, durability);
        let raw = request(rules.permitted, ALLOWED);
        assert!(matches!(bench.warm(&raw), Admission::Permitted(_)));
        bencher.bench_local(|| drop(bench.admit(black_box(&raw))));
        assert!(matches!(bench.admit(&raw), Admission::Permitted(_)));
    }

    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn deny(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let raw = request(rules.permitted, DENIED);
        assert!(matches!(bench.warm(&raw), Admission::Refused(refused) if refused.refusal.status == 403));
        bencher.bench_local(|| drop(bench.admit(black_box(&raw))));
    }

    #[divan::bench(args = [RIG])]
    fn invalid(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let raw = request("/api/v1/rooms.roles?rid=GENERAL%077", ALLOWED);
        assert!(matches!(bench.warm(&raw), Admission::Refused(refused) if refused.refusal.status == 400));
        bencher.bench_local(|| drop(bench.admit(black_box(&raw))));
    }

    /// Outside of every guarded space: nothing is judged.
    #[divan::bench(args = [RIG])]
    fn open(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let raw = request("/avatar/alice", ALLOWED);
        assert!(matches!(bench.warm(&raw), Admission::Open(_)));
        bencher.bench_local(|| drop(bench.admit(black_box(&raw))));
    }
}

/// The first stop.
#[divan::bench_group(sample_size = 100)]
mod matching {
    use super::*;

    #[divan::bench]
    fn read_target() -> bool {
        let guarded = ["/api".to_owned()];
        let reading = target::read(black_box(RIG.permitted.as_bytes()), Some("127.0.0.1:8080"), &guarded);
        matches!(reading, target::Reading::Inside(_))
    }

    #[divan::bench]
    fn read_target_outside() -> bool {
        let guarded = ["/api".to_owned()];
        matches!(target::read(black_box(b"/avatar/alice"), Some("127.0.0.1:8080"), &guarded), target::Reading::Outside)
    }

    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn find_action(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let provider = &bench.site.rules.provider;
        let find = || router::find(provider, black_box("GET"), black_box("/api/v1/rooms.roles"));
        assert!(matches!(find(), router::Found::Action { .. }));
        bencher.bench_local(find);
    }

    /// The stop as a whole: with its trail, up to the denial that no credential was sent.
    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn without_credential(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let mut raw = request(rules.permitted, ALLOWED);
        raw.headers.retain(|(name, _)| *name != "x-auth-token");
        let known = Known::default();
        bencher.bench_local(|| evaluate_request(bench.site.clone(), black_box(&raw), &known));
    }
}

/// The second stop.
#[divan::bench_group(sample_size = 100)]
mod validating {
    use super::*;

    #[divan::bench]
    fn read_query() -> usize {
        target::pairs(black_box(b"rid=GENERAL7")).map_or(0, |pairs| pairs.len())
    }

    /// The first two stops, up to the denial that nobody is logged in.
    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn without_subject(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let raw = request(rules.permitted, ALLOWED);
        let known = Known::default();
        bencher.bench_local(|| evaluate_request(bench.site.clone(), black_box(&raw), &known));
    }
}

/// The third stop, with what it asks for in the cache.
#[divan::bench_group(sample_size = 100)]
mod identifying {
    use super::*;

    #[divan::bench]
    fn caller(bencher: Bencher<'_, '_>) {
        let bench = Bench::new(RIG, Durability::Written);
        let (plan, credential) = (Arc::clone(&bench.site.rules.provider.plan), credential(ALLOWED));
        bench.warm(&request(RIG.permitted, ALLOWED));
        bencher.bench_local(|| bench.identity.caller(&plan, black_box(&credential), client()).now_or_never().unwrap().unwrap());
    }

    #[divan::bench]
    fn table(bencher: Bencher<'_, '_>) {
        let bench = Bench::new(ROCKETCHAT, Durability::Written);
        let (plan, credential) = (Arc::clone(&bench.site.rules.provider.plan), credential(ALLOWED));
        bench.warm(&request(ROCKETCHAT.permitted, ALLOWED));
        let identity = &bench.identity;
        bencher.bench_local(|| {
            identity.table(&plan, "permissions", black_box(&credential), client()).now_or_never().unwrap().unwrap()
        });
    }

    #[divan::bench]
    fn fact(bencher: Bencher<'_, '_>) {
        let bench = Bench::new(ROCKETCHAT, Durability::Written);
        let (plan, credential) = (Arc::clone(&bench.site.rules.provider.plan), credential(ALLOWED));
        bench.warm(&request(ROCKETCHAT.permitted, ALLOWED));
        let identity = &bench.identity;
        let caller = identity.caller(&plan, &credential, client()).now_or_never().unwrap().unwrap().value;
        bencher.bench_local(|| {
            let inputs = [("room", black_box("GENERAL7"))];
            identity.fact(&plan, "room", &caller, &credential, &inputs, client()).now_or_never().unwrap().unwrap()
        });
    }

    /// Once for each caller, set of rules and state of the permission table, not once for each request.
    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn prepare_principal(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let subject = Subject { id: "u1".into(), roles: ["user".into(), "admin".into()].into(), ..Subject::default() };
        bencher.bench_local(|| bench.site.rules.engine.principal_given(black_box(&subject), &["view-c-room"]));
    }
}

/// The fourth stop: the policies.
#[divan::bench_group(sample_size = 100)]
mod deciding {
    use super::*;

    #[divan::bench(args = [RIG, ROCKETCHAT])]
    fn authorize(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let engine = &bench.site.rules.engine;
        let subject = Subject { id: "u1".into(), roles: ["user".into(), "admin".into()].into(), ..Subject::default() };
        let principal = engine.principal_given(&subject, &["view-c-room"]);
        let room: Record =
            [("member", Value::Boolean(true)), ("roles", Value::Set(Vec::new())), ("kind", "p".into())].into_iter().collect();
        let query = Query {
            action: "rooms.roles",
            principal: &principal,
            resource: &Resource { kind: "Room".into(), id: "GENERAL7".into() },
            params: &[("rid", "GENERAL7".into())].into_iter().collect(),
            is_self: None,
            facts: &[("room", &room)],
            networks: &[],
            table: &Record::default(),
        };
        let answer = engine.authorize(&query);
        assert_eq!(answer.decision, Decision::Permit, "{:?}", answer.errors);
        bencher.bench_local(|| engine.authorize(black_box(&query)));
    }

    /// The walk with its caller given instead of looked up (and so prepared each time), and nothing recorded.
    #[divan::bench(args = [RIG])]
    fn evaluate(bencher: Bencher<'_, '_>, rules: &Rules) {
        let bench = Bench::new(*rules, Durability::Written);
        let (raw, known) = (request(rules.permitted, ALLOWED), known());
        assert!(matches!(evaluate_request(bench.site.clone(), &raw, &known), Evaluation::Permit(_)));
        bencher.bench_local(|| evaluate_request(bench.site.clone(), black_box(&raw), &known));
    }
}

/// The last stop: the record of a permit.
#[divan::bench_group(sample_size = 100)]
mod recording {
    use super::*;

    #[divan::bench]
    fn written(bencher: Bencher<'_, '_>) {
        recorded(bencher, Durability::Written);
    }

    #[divan::bench]
    fn buffered(bencher: Bencher<'_, '_>) {
        recorded(bencher, Durability::Buffered);
    }

    fn recorded(bencher: Bencher<'_, '_>, durability: Durability) {
        let bench = Bench::new(RIG, durability);
        let known = known();
        let permit = || match evaluate_request(bench.site.clone(), &request(RIG.permitted, ALLOWED), &known) {
            Evaluation::Permit(permit) => *permit,
            other => panic!("not permitted: {other:?}"),
        };
        bencher.with_inputs(permit).bench_local_values(|permit| bench.audit.record(permit).ok());
    }
}

/// What is counted of one request on its way.
#[divan::bench_group(sample_size = 100)]
mod counting {
    use super::*;

    #[divan::bench]
    fn stage(bencher: Bencher<'_, '_>) {
        let bench = Bench::new(RIG, Durability::Written);
        bencher.bench_local(|| bench.metrics.stage(black_box(Stage::Match), black_box(std::time::Duration::from_micros(3))));
    }

    #[divan::bench]
    fn decision(bencher: Bencher<'_, '_>) {
        let (bench, usual) = (Bench::new(RIG, Durability::Written), Usual::default());
        bencher.bench_local(|| {
            let labels = Labels { provider: "rig", door: Door::Rest, action: "rooms.roles", usual: Some(&usual) };
            bench.metrics.decision(black_box(labels), Decision::Permit, None, Mode::Enforce);
        });
    }
}

/// A caller who is permitted, without a lookup.
fn known() -> Known {
    let subject = KnownSubject {
        id: "u1".into(),
        name: "alice".into(),
        roles: ["user".into(), "admin".into()].into(),
        ..KnownSubject::default()
    };
    Known { subject: Some(subject), ..Known::default() }
}
