//! The policy enforcement point: connections in, verdicts carried out, connections out. The only importer of the proxy engine.

mod admin;
#[cfg(any(test, fuzzing))]
pub mod agreement;
mod arrival;
mod chunks;
mod convert;
mod entrance;
mod errors;
mod fast_path;
mod fence;
mod gate;
mod gateway;
mod head;
mod health;
mod hpack;
mod kept;
mod lookup;
mod online;
mod operators;
mod patience;
mod peer;
mod probe;
mod read_first;
mod relay;
mod server;
mod sockets;
mod stand_in;
mod streams;
mod tasks;
mod tls;
mod websocket;
mod wire;

use std::path::Path;
use std::time::SystemTime;

use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;

pub use gate::{Gate, tell_of_restart};
pub use online::{Complaint, Report, ask_upstreams};
pub use server::{Running, Server, StartError};

use crate::audit::Recorded;
use crate::config::Config;
use crate::model::{Fault, Faults};
use crate::pipeline::Permit;
use crate::traces::Trace;
use gate::Handle;

/// What is wrong at `now` with the files of TLS that `config` names, so that the proxy could not use them or clients would not
/// believe them; and what soon will be.
#[must_use]
pub fn look_at_files(config: &Config, now: SystemTime) -> (Faults, Vec<Fault>) {
    let (mut faults, notes) = tls::look(config, now);
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if let Some(Err(why)) = upstream.ca.as_deref().map(peer::authorities) {
            faults.push(unusable_authority(config, index, &why));
        }
    }
    (faults, notes)
}

/// Why what the upstream with this index names as `tls.ca` cannot be used.
fn unusable_authority(config: &Config, index: usize, why: &str) -> Fault {
    let path = config.upstreams.get(index).and_then(|upstream| upstream.ca.as_deref()).unwrap_or(Path::new(""));
    let place = config.places.of_key(&format!("upstream.{index}.tls.ca"));
    let fault = Fault::new(place, format!("`upstream.tls.ca`: {}: {why}", path.display()));
    fault.hint("name a file with the authority's certificate in PEM")
}

/// Where a guarded request goes: there is none without a recorded permit, so that nothing guarded can be sent unrecorded.
#[derive(Debug)]
pub struct Destination<'p> {
    permit: &'p Recorded<Permit>,
}

impl<'p> Destination<'p> {
    /// The destination that `permit` opens.
    #[must_use]
    pub fn of(permit: &'p Recorded<Permit>) -> Self {
        Self { permit }
    }

    fn peer(&self, handle: &Handle) -> Result<HttpPeer, peer::Unreachable> {
        handle.peer.http(None)
    }

    fn head(
        &self,
        received: &RequestHeader,
        origin: &convert::Origin,
        handle: &Handle,
        trace: Option<&Trace>,
    ) -> pingora::Result<RequestHeader> {
        convert::permitted(self.permit, received, origin, handle.peer.authority(), trace)
    }
}
