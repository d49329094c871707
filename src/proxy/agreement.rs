//! Holds the two readings of one head against each other, for tests and for the fuzzer: what the fast path recognises is what
//! the engine reads in the same bytes, so that the walk is told the same and the upstream is sent the same.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures_util::FutureExt;
use ipnet::IpNet;
use pingora::protocols::http::v1::server::HttpSession;
use tokio::io::duplex;

use super::arrival::Arrival;
use super::convert;
use super::fence::Fence;
use super::head::{self, Reading};
use super::wire::Wire;
use crate::model::RawRequest;

/// Whether the fast path would take the head that `bytes` begin with.
///
/// # Panics
/// Where the two readings differ.
pub fn check(bytes: &[u8]) -> bool {
    let Reading::Complete(head) = head::read(bytes, 32 * 1024, 100, &mut head::Fields::default()) else { return false };
    let Some(bytes) = bytes.get(..head.length) else { return false };
    let Some(arrival) = Arrival::recognise(&head, bytes) else { return false };
    // Every peer but one is a stranger; this one is believed what it says of where a request came from.
    let trusted = [IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    for peer in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(203, 0, 113, 7)].map(IpAddr::from) {
        let origin = arrival.origin(peer, false, &trusted);
        compare(bytes, peer, &trusted, &arrival.raw(origin.client, origin.correlation.clone()), &origin);
    }
    true
}

fn compare(bytes: &[u8], peer: IpAddr, trusted: &[IpNet], raw: &RawRequest<'_>, origin: &convert::Origin) {
    let (_, nothing_more) = duplex(1);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let fence = Fence::around(Wire::Layered(Box::new(nothing_more)), bytes.to_vec(), length, Arc::default());
    let mut session = HttpSession::new(Box::new(fence));
    // Every byte is there already.
    let read = session.read_request().now_or_never();
    assert!(matches!(read, Some(Ok(Some(_)))), "the engine does not read what the fast path does: {read:?}");
    let received = session.req_header();
    let fields = |name| received.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let engines = convert::origin(fields, peer, false, trusted);
    assert_eq!(*origin, engines, "another origin");
    let mut engines = convert::raw_request(received, true, &engines);
    // As the gateway does: the engine drops a fragment.
    engines.target = raw.target;
    assert_eq!(ordered(raw), ordered(&engines), "another request");
}

/// What the walk reads of a request; fields of one name keep their order.
#[expect(clippy::type_complexity, reason = "one place, and every part of it is compared")]
fn ordered<'a>(raw: &'a RawRequest<'_>) -> (&'a str, &'a [u8], Option<&'a str>, Vec<(&'a str, &'a [u8])>, String) {
    let mut headers: Vec<(&str, &[u8])> = raw.headers.iter().map(|(name, value)| (*name, *value)).collect();
    headers.sort_by_key(|(name, _)| *name);
    (raw.method, raw.target, raw.host, headers, format!("{:?} {:?} {:?}", raw.body, raw.client, raw.correlation))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_known_head_is_read_alike_by_both_paths() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let folders = ["seeds/paths", "crashes/paths"].map(|folder| fuzz.join(folder));
        let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        let taken: Vec<bool> = files.map(|file| check(&fs::read(file.unwrap().path()).unwrap())).collect();
        assert!(taken.iter().filter(|taken| **taken).count() >= 3, "{taken:?}");
        assert!(taken.contains(&false), "{taken:?}");
    }
}
