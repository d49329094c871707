//! That series are those of their labels, and names are registered once.

use super::*;

#[test]
fn what_an_action_keeps_counts_only_what_it_is_of() {
    let (metrics, others, usual) = (Metrics::new().unwrap(), Metrics::new().unwrap(), Usual::default());
    let by = |door| Labels { provider: "p", door, action: "a", usual: Some(&usual) };
    for _ in 0..2 {
        for (metrics, door, mode) in [
            (&metrics, Door::Rest, Mode::Enforce),
            (&metrics, Door::Rest, Mode::Observe),
            (&metrics, Door::Ddp, Mode::Enforce),
            (&others, Door::Rest, Mode::Enforce),
        ] {
            metrics.decision(by(door), Decision::Permit, None, mode);
            metrics.decision(by(door), Decision::Deny, Some(Reason::PolicyDenied), mode);
            metrics.request(by(door), 200, Duration::ZERO);
            metrics.request(by(door), 404, Duration::ZERO);
        }
    }
    let (page, others) = (metrics.page().unwrap(), others.page().unwrap());
    let series = |page: &str, name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    for (of, door, mode, count) in [(&page, "rest", "enforce", 2), (&page, "rest", "observe", 2), (&others, "rest", "enforce", 2)]
    {
        for (decision, reason) in [("permit", "none"), ("deny", "policy_denied")] {
            let line = format!(
                r#"rolegate_decisions_total{{action="a",decision="{decision}",door="{door}",mode="{mode}",provider="p",reason="{reason}"}} {count}"#
            );
            assert!(of.contains(&line), "{line}\n{of}");
        }
    }
    assert!(page.contains(r#"rolegate_requests_total{action="a",code="200",door="rest",provider="p"} 4"#), "{page}");
    assert!(page.contains(r#"rolegate_requests_total{action="a",code="404",door="rest",provider="p"} 4"#));
    assert!(page.contains(r#"rolegate_request_duration_seconds_count{action="a",provider="p"} 12"#));
    assert_eq!((series(&page, "rolegate_decisions_total"), series(&others, "rolegate_decisions_total")), (6, 2));
    assert_eq!((series(&page, "rolegate_requests_total"), series(&others, "rolegate_requests_total")), (4, 2));
}

#[test]
fn every_metric_name_is_registered_once() {
    let metrics = Metrics::new().unwrap();
    let labels = Labels { provider: "rocketchat", door: Door::Rest, action: "rooms.roles", usual: None };
    metrics.decision(labels, Decision::Deny, Some(Reason::PolicyDenied), Mode::Enforce);
    metrics.policy("a");
    metrics.policy("b");
    let page = metrics.page().unwrap();
    assert!(page.contains(r#"rolegate_decisions_total{action="rooms.roles",decision="deny",door="rest",mode="enforce",provider="rocketchat",reason="policy_denied"} 1"#), "{page}");
    assert!(page.contains(r#"rolegate_policy_info{revision="b"} 1"#));
    assert!(!page.contains(r#"revision="a""#), "only the running revision is shown");
}
