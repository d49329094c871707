//! What the record of a denial tells whoever asks later why.

use rolegate::demo::world::workspace::BOARDROOM;

use crate::support::Gate;
use crate::support::gate::login;

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_denial_names_the_policies_that_could_have_permitted_it() {
    let gate = Gate::rocketchat().await;
    assert_eq!(gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("eve")).await.status, 403);
    let record = gate.last_decision();
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.starts_with("no policy permits it; these could have: `rooms-roles-"), "{detail}");
    for policy in ["`rooms-roles-member` (", "`rooms-roles-public` ("] {
        assert!(detail.contains(policy), "{detail}");
    }
    assert!(!detail.contains("audit-members"), "{detail}");
    assert!(detail.contains("policy.cedar:"), "{detail}");
    assert_eq!(record["policies"], serde_json::json!([]), "none of them decided");
}
