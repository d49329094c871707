//! Bodies that are read before the verdict, and what becomes of them.

use pingora::proxy::{ProxyHttp as _, Session};

use super::{Exchange, Gateway, Stage};
use crate::model::Body;
use crate::pipeline;
use crate::proxy::convert;
use crate::proxy::read_first::{self, ReadBody};

impl Gateway {
    /// Reads the content of a request that is not judged without it, or is sent without it: up to its bound.
    pub(super) async fn read(&self, session: &mut Session, exchange: &Exchange, target: Option<&[u8]>) -> Option<ReadBody> {
        let limit = self.gate.config.limits.inspected_body;
        let bodiless = session.as_downstream_mut().is_body_empty();
        if exchange.refused.is_some() {
            return None;
        }
        {
            let mut raw = convert::raw_request(session.req_header(), bodiless, &exchange.origin);
            raw.target = target.unwrap_or(raw.target);
            let announced = match raw.body {
                Body::Absent => return None,
                Body::Sized(length) => usize::try_from(length).unwrap_or(usize::MAX),
                Body::Streamed => 0,
            };
            let (_, site) = self.gate.serving(convert::addressed(&raw, session.req_header().version)).ok()?;
            if announced > limit || !pipeline::wants_content(&raw, &site) {
                return None;
            }
        }
        if session.req_header().headers.contains_key("expect") {
            // The client waits to be asked for its body.
            session.as_downstream_mut().write_continue_response().await.ok()?;
        }
        // Buffered, so that a call that passes as received can still be forwarded.
        session.as_downstream_mut().enable_retry_buffering();
        let mut read = ReadBody { bytes: Vec::new(), whole: true, forgotten: false };
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await.ok()? {
            read.bytes.extend_from_slice(&chunk);
            if read.bytes.len() > limit {
                read.whole = false;
                break;
            }
        }
        read.forgotten = session.as_downstream_mut().retry_buffer_truncated();
        Some(read)
    }

    /// Sends on a request whose body the engine no longer has, or must not announce, and relays the answer.
    pub(super) async fn send(&self, session: &mut Session, exchange: &mut Exchange, read: ReadBody) -> pingora::Result<()> {
        // A kept connection that the upstream is about to close would fail what cannot be sent a second time.
        exchange.retrying = true;
        let peer = self.upstream_peer(session, exchange).await?;
        let length = read.whole.then_some(read.bytes.len());
        let (body, all) = match &exchange.stage {
            // Of what was received nothing goes on.
            Stage::Admitted(permit) => (permit.content().unwrap_or_default().to_owned().into(), true),
            Stage::Arrived | Stage::PassThrough(_) | Stage::Refused => (read.bytes.into(), read.whole),
        };
        let mut head = read_first::passing(session.req_header(), length)?;
        self.upstream_request_filter(session, &mut head, exchange).await?;
        let (mut upstream, mut answer) = self.sender.send(&peer, head, body, all, session).await?;
        self.response_filter(session, &mut answer, exchange).await?;
        read_first::relay(&mut upstream, answer, session).await
    }
}
