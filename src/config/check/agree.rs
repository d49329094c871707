//! What several keys say together: addresses that exclude each other, hosts that are served twice, the gate as its own upstream,
//! and what is allowed and yet hardly meant.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Check;
use crate::config::{Config, Origin};
use crate::model::{Fault, Place};

/// Above this an old fact is hardly a help any more.
const OLD: Duration = Duration::from_secs(60 * 60);
/// Below this an audit log is gone before somebody looks.
const SHORT: Duration = Duration::from_secs(60 * 60);
/// Below this a deadline meets honest clients.
const HASTY: Duration = Duration::from_secs(1);
/// Below this, in bytes, honest calls are too large.
const SMALL_BODY: usize = 1024;
/// Below this, in bytes, honest answers to lookups are too large.
const SMALL_ANSWER: usize = 64 * 1024;

impl Check<'_> {
    /// Reports what no process could carry out.
    pub(super) fn agree(&mut self, config: &Config) {
        self.addresses(config);
        self.own(config);
        self.hosts(config);
    }

    /// Each listener with its key and place.
    fn listeners(&self, config: &Config) -> Vec<(SocketAddr, &'static str, Place)> {
        let clients = config.listen.addresses.iter().enumerate();
        let place = |index: usize| self.places.of_key(&format!("listen.address.{index}"));
        let mut all: Vec<_> = clients.map(|(index, address)| (*address, "listen.address", place(index))).collect();
        all.push((config.admin.address, "admin.address", self.places.of_key("admin.address")));
        all
    }

    fn addresses(&mut self, config: &Config) {
        let all = self.listeners(config);
        for (index, (address, key, place)) in all.iter().enumerate() {
            let clash = all.iter().take(index).find(|(other, _, _)| excludes(*other, *address));
            if let Some((other, other_key, other_place)) = clash {
                let fault =
                    Fault::new(place.clone(), format!("`{key}`: {address} cannot be had beside {other} of `{other_key}`"));
                self.faults.push(fault.hint(format!("the other is at {other_place}; give one of them another port")));
            }
        }
    }

    /// A gate that is its own upstream asks itself until no connection is left.
    fn own(&mut self, config: &Config) {
        let listeners = self.listeners(config);
        for (index, upstream) in config.upstreams.iter().enumerate() {
            let origins = [("url", Some(&upstream.url)), ("account_url", upstream.account.as_ref())];
            for (key, origin) in origins.into_iter().filter_map(|(key, origin)| Some((key, origin?))) {
                if let Some((address, listener, _)) = listeners.iter().find(|(address, _, _)| reaches(origin, *address, is_local))
                {
                    let place = self.places.of_key(&format!("upstream.{index}.{key}"));
                    let message = format!("`upstream.{key}`: leads back to this gate, which listens on {address} (`{listener}`)");
                    self.faults.push(Fault::new(place, message).hint("name the address of the server behind the gate"));
                }
            }
        }
    }

    fn hosts(&mut self, config: &Config) {
        let place = |index: usize| self.places.of_key(&format!("upstream.{index}.host"));
        let mut faults = Vec::new();
        for (index, upstream) in config.upstreams.iter().enumerate() {
            let before = config.upstreams.iter().take(index);
            let first = upstream.host.as_ref().and_then(|_| before.clone().position(|other| other.host == upstream.host));
            if let (Some(first), Some(host)) = (first, &upstream.host) {
                let fault = Fault::new(
                    place(index),
                    format!("`upstream.host`: two upstreams serve `{host}`, and the first would have all of it"),
                );
                faults.push(fault.hint(format!("the first is at {}; remove one of the two", place(first))));
            }
        }
        faults.into_iter().for_each(|fault| self.faults.push(fault));
    }

    /// What is allowed, and yet does not do what it seems to.
    pub(super) fn notes(&self, config: &Config) -> Vec<Fault> {
        let mut notes = Vec::new();
        let mut note = |key: &str, message: String, hint: &str| {
            notes.push(Fault::new(self.places.of_key(key), message).hint(hint));
        };
        let Config { admin, listen, limits, facts, audit, .. } = config;
        if !admin.address.ip().to_canonical().is_loopback() && admin.token.is_none() {
            let message = format!(
                "`admin.address`: {} can be reached from elsewhere, and without `token_file` `/status`, `/reload`, `/facts/invalidate` and `/audit/rotate` are closed (404)",
                admin.address
            );
            note("admin.address", message, "set `token_file`, or listen on 127.0.0.1; health and metrics need no token");
        }
        if listen.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
            let message =
                "`listen.trusted_proxies`: everybody's `X-Forwarded-For` is believed, so that anybody can be at any address";
            note("listen.trusted_proxies", message.to_owned(), "name the proxies before the gate");
        }
        if facts.max_stale > OLD {
            let shown = humantime::format_duration(facts.max_stale);
            let message = format!("`facts.max_stale`: a withdrawn role lasts up to {shown} while lookups fail");
            note("facts.max_stale", message, "some minutes carry over a restart of the server");
        }
        if facts.ttl > OLD {
            let shown = humantime::format_duration(facts.ttl);
            note("facts.ttl", format!("`facts.ttl`: a withdrawn role lasts up to {shown}"), "some seconds spare most lookups");
        }
        let deadlines = [
            ("header_deadline", limits.header_deadline),
            ("body_deadline", limits.body_deadline),
            ("body_idle", limits.body_idle),
        ];
        for (key, deadline) in deadlines.into_iter().filter(|(_, deadline)| *deadline < HASTY) {
            let shown = humantime::format_duration(deadline);
            let message = format!("`limits.{key}`: clients on a slow network are cut off after {shown}");
            note(&format!("limits.{key}"), message, "some seconds let them through and still end those that send nothing");
        }
        if limits.inspected_body < SMALL_BODY {
            let message =
                format!("`limits.inspected_body`: calls of more than {} bytes are refused (413)", limits.inspected_body);
            note("limits.inspected_body", message, "256KiB lets ordinary calls through");
        }
        if limits.lookup_body < SMALL_ANSWER {
            let message = format!(
                "`limits.lookup_body`: where the server's answer to a lookup is larger than {} bytes, requests are refused (503)",
                limits.lookup_body
            );
            note("limits.lookup_body", message, "the permissions of a large workspace are one answer: 32MiB");
        }
        if let Some(age) = audit.keep.age.filter(|age| *age < SHORT) {
            let shown = humantime::format_duration(age);
            let message = format!("`audit.keep_age`: records are removed as early as {shown} after they were made");
            note("audit.keep_age", message, "write it as \"90d\"");
        }
        if limits.connections_per_address > limits.connections {
            let message = "`limits.connections_per_address`: does nothing, it is more than `connections`".to_owned();
            note("limits.connections_per_address", message, "lower it, or raise `connections`");
        }
        if limits.lookups_per_address > limits.lookups {
            let message = "`limits.lookups_per_address`: does nothing, it is more than `lookups`".to_owned();
            note("limits.lookups_per_address", message, "lower it, or raise `lookups`");
        }
        for (index, upstream) in config.upstreams.iter().enumerate() {
            let with_tls = upstream.url.tls || upstream.account.as_ref().is_some_and(|account| account.tls);
            if (upstream.ca.is_some() || upstream.server_name.is_some()) && !with_tls {
                let message = "`upstream.tls`: does nothing, the URL begins with `http://`".to_owned();
                note(&format!("upstream.{index}.tls"), message, "write `https://`, or remove `tls`");
            }
        }
        notes
    }
}

/// Whether two listeners cannot be there at once. One on `[::]` beside one on an IPv4 address takes IPv6 only.
fn excludes(one: SocketAddr, other: SocketAddr) -> bool {
    // An IPv4 address that is written as an IPv6 one is had by a socket of IPv6.
    let written_as_v6 = |one: SocketAddr, other: SocketAddr| {
        one.ip() != one.ip().to_canonical() && other.is_ipv6() && other.ip().is_unspecified()
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0
        && one.port() == other.port()
        && (written_as_v6(one, other)
            || written_as_v6(other, one)
            || (a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())))
}

/// Whether `address` is one of this machine's: only such a one can be bound.
fn is_local(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Whether a connection to `origin` comes in at `listener`, as far as names and numbers tell.
fn reaches(origin: &Origin, listener: SocketAddr, is_local: impl Fn(IpAddr) -> bool) -> bool {
    let name = origin.host.trim_end_matches('.').to_ascii_lowercase();
    let local = name == "localhost" || name.ends_with(".localhost");
    let address = if local { Some(IpAddr::from([127, 0, 0, 1])) } else { name.parse().ok() };
    let Some(address) = address.map(|address: IpAddr| address.to_canonical()) else { return false };
    let at = listener.ip().to_canonical();
    // To connect to "no address" is to connect to this machine.
    let here = address.is_loopback() || address.is_unspecified() || is_local(address);
    let either = |address: IpAddr| address.is_ipv4() == at.is_ipv4();
    origin.port == listener.port()
        && (address == at
            || (here && at.is_unspecified() && (either(address) || at.is_ipv6()))
            || (address.is_unspecified() && at.is_loopback() && (either(address) || address.is_ipv6())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_exclude_each_other_where_the_kernel_says_so() {
        let addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"];
        for one in addresses {
            let first = std::net::TcpListener::bind(format!("{one}:0")).unwrap();
            let port = first.local_addr().unwrap().port();
            for other in addresses {
                let other: SocketAddr = format!("{other}:{port}").parse().unwrap();
                let kernel = std::net::TcpListener::bind(other).is_err();
                let told = excludes(first.local_addr().unwrap(), other);
                // Of these two the gate itself makes one take IPv6 only.
                let apart = first.local_addr().unwrap().is_ipv4() != other.is_ipv4();
                assert!(told == kernel || (apart && !told), "{one} and {other}: the kernel refuses: {kernel}");
            }
        }
    }

    #[test]
    fn the_gate_is_recognised_as_its_own_upstream() {
        let own = "192.0.2.7".parse::<IpAddr>().unwrap();
        let reaches = |url: &str, at: &str| reaches(&url.parse().unwrap(), at.parse().unwrap(), |address| address == own);
        for (url, at) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "0.0.0.0:8080"),
            ("http://127.0.0.1:8080", "[::]:8080"),
            ("http://localhost:8080", "127.0.0.1:8080"),
            ("https://LOCALHOST.:8080", "0.0.0.0:8080"),
            ("http://[::1]:8080", "[::]:8080"),
            ("http://[::ffff:127.0.0.1]:8080", "127.0.0.1:8080"),
            ("http://0.0.0.0:8080", "127.0.0.1:8080"),
            ("http://0.0.0.0:8080", "0.0.0.0:8080"),
            ("http://[::]:8080", "[::1]:8080"),
            ("http://[::]:8080", "127.0.0.1:8080"),
            ("http://10.0.0.1", "10.0.0.1:80"),
            ("http://192.0.2.7", "0.0.0.0:80"),
        ] {
            assert!(reaches(url, at), "{url} leads to {at}");
        }
        for (url, at) in [
            ("http://127.0.0.1:3000", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "127.0.0.2:8080"),
            ("http://[::1]:8080", "0.0.0.0:8080"),
            ("http://10.0.0.1:8080", "0.0.0.0:8080"),
            ("http://chat.example.org:8080", "0.0.0.0:8080"),
            ("http://0.0.0.0:8080", "10.0.0.1:8080"),
        ] {
            assert!(!reaches(url, at), "{url} does not lead to {at}");
        }
    }
}
