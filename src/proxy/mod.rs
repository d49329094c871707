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
mod patience;
mod peer;
mod probe;
mod relay;
mod server;
mod sockets;
mod stand_in;
mod streams;
mod tls;
mod websocket;
mod wire;

use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;

pub use gate::{Gate, tell_of_restart};
pub use online::{Complaint, Report, ask_upstreams};
pub use server::{Running, Server, StartError};

use crate::audit::Recorded;
use crate::config::Config;
use crate::pipeline::Permit;
use crate::traces::Trace;
use gate::Handle;

/// Why the proxy could not use files of TLS that `config` names, each with its path.
#[must_use]
pub fn unusable_files(config: &Config) -> Vec<String> {
    let listener = config.listen.tls.iter().filter_map(|(certificate, key)| tls::acceptor(certificate, key).err());
    let authorities = config.upstreams.iter().filter_map(|upstream| upstream.ca.as_deref());
    listener.chain(authorities.filter_map(|authority| peer::authorities(authority).err())).collect()
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

    fn peer(&self, handle: &Handle) -> Result<HttpPeer, peer::Unresolved> {
        handle.peer.http(false)
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
