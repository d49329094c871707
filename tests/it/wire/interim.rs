//! Interim answers to rolegate's own lookups.

use rolegate::demo::world::workspace::BOARDROOM;

use crate::support::Gate;
use crate::support::gate::{GateBuilder, login};
use crate::support::scripted::Scripted;

const ME: &str = "/api/v1/me";

async fn gate() -> (Gate, Scripted, String) {
    let builder = GateBuilder::rocketchat().await;
    let me = builder.sample.url().to_owned();
    let upstream = Scripted::before(me.trim_start_matches("http://").parse().unwrap(), ME).await;
    let url = format!("http://{}", upstream.address).parse().unwrap();
    let gate = builder.upstream(|settings| settings.url = url).start();
    let carol = reqwest::Client::new().get(format!("{me}{ME}"));
    let carol = login("carol").into_iter().fold(carol, |request, (name, value)| request.header(name, value));
    let body = carol.send().await.unwrap().text().await.unwrap();
    (gate, upstream, format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_to_a_lookup_are_skipped_and_an_endless_row_of_them_is_a_failure() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for (interim, status) in [
        ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), 200),
        (hints.to_owned(), 200),
        (format!("HTTP/1.1 102 Processing\r\n\r\n{hints}{hints}"), 200),
        (hints.repeat(50), 503),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".to_owned(), 503),
    ] {
        let (gate, upstream, answer) = gate().await;
        for together in [true, false] {
            let pieces = if together { vec![format!("{interim}{answer}")] } else { vec![interim.clone(), answer.clone()] };
            upstream.play(&pieces.iter().map(String::as_bytes).collect::<Vec<_>>(), false);
            let told = gate.get(&format!("/api/v1/rooms.roles?rid={BOARDROOM}"), &login("carol")).await;
            assert_eq!(told.status, status, "{interim:?}, together: {together}: {}", told.text());
            gate.shared().handles[0].identity.invalidate(rolegate::identity::Selection::All);
        }
    }
}
