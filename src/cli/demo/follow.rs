//! Prints the requests that come in while the demo stays up.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use serde_json::Value;

use super::super::output;
use super::Stage;
use super::audience::Audience;

/// How long a request may go unprinted.
const GLANCE: Duration = Duration::from_millis(100);
/// The name by which rolegate's own lookups tell the servers who asks.
const LOOKUPS: &str = concat!("rolegate/", env!("CARGO_PKG_VERSION"));

/// Prints a line about each request from now on, until nobody reads them: the judged ones from their records, the others as the
/// sample servers saw them.
pub(super) async fn requests(stage: &Stage, audience: &Audience) {
    if !audience.follows() {
        return std::future::pending().await;
    }
    let mut records = Records { read: std::fs::metadata(&stage.audit).map_or(0, |file| file.len()), rest: Vec::new() };
    let mut seen = stage.samples().map(|(_, sample)| sample.arrivals());
    let mut interval = tokio::time::interval(GLANCE);
    while !output::lost() {
        interval.tick().await;
        for record in records.read_on(stage).iter().filter(|record| is(record, "kind", "decision")) {
            audience.judged(stage.running.gate(), record);
        }
        for ((_, sample), seen) in stage.samples().into_iter().zip(&mut seen) {
            for request in sample.since(seen) {
                let own = request.header("user-agent") == Some(LOOKUPS);
                // A judged request goes on under its decision id.
                if !own && request.header("x-request-id").is_none() {
                    audience.passed(request.method.as_str(), &request.target);
                }
            }
        }
    }
}

fn is(record: &Value, key: &str, value: &str) -> bool {
    record.get(key).and_then(Value::as_str) == Some(value)
}

/// The audit log, read on from where it was read last.
#[derive(Debug)]
struct Records {
    read: u64,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl Records {
    fn read_on(&mut self, stage: &Stage) -> Vec<Value> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(&stage.audit)?;
            file.seek(SeekFrom::Start(self.read))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // A log that cannot be read just now is read with the next glance.
        let bytes = read().unwrap_or_default();
        self.read += bytes.len() as u64;
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}
