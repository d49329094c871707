//! What the stories share: a gate before a sample server, a client that shows every byte, and the records that were left.

pub mod authority;
pub mod collector;
pub mod gate;
pub mod http;
pub mod lenient;
pub mod policies;
pub mod process;
pub mod program;
pub mod scripted;
pub mod upstream;

use std::time::Duration;

pub use authority::Authority;
pub use collector::Collector;
pub use gate::{Gate, GateBuilder};
pub use http::{Answer, Connection};
pub use policies::Policies;
pub use process::Process;
pub use program::{Program, Running};
pub use upstream::Upstream;

/// How long a story waits for what must happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
