//! Pingora with nothing in it, as rolegate sets it up: forwards every request from `LISTEN` to `UPSTREAM` on one thread.

use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

/// How long a connection to the upstream is kept for the next request; as in rolegate.
const KEPT: Duration = Duration::from_secs(4);

// As in rolegate, so that what differs is not the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Forward {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        peer.options.idle_timeout = Some(KEPT);
        Ok(Box::new(peer))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::var("LISTEN").map_err(|_| "LISTEN is not set: the address to listen on")?;
    let upstream = env::var("UPSTREAM").map_err(|_| "UPSTREAM is not set: the address to forward to")?.parse()?;
    let conf = ServerConf {
        threads: 1,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Forward { upstream });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever()
}
