//! The forms of single values: durations, sizes, addresses, hosts, URLs, files. No message repeats what may be a secret.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::Spanned;

use super::Check;
use crate::config::Origin;
use crate::files;
use crate::model::Secret;

/// The longest of all durations but the drain of trust: what takes longer is a slip of the pen, and clocks overflow on it.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest duration in which anything can happen.
pub(super) const MOMENT: Duration = Duration::from_millis(1);
/// The longest file of certificate authorities that is compared with what runs, in bytes.
const LARGEST_AUTHORITY: u64 = 1024 * 1024;
/// The longest file that holds a secret, in bytes.
const LARGEST_SECRET: u64 = 64 * 1024;
/// The fewest characters of a token.
const SHORTEST_TOKEN: usize = 16;
/// Headers that frame a request: a service's credential is none of them.
const FRAMING: [&str; 7] = ["connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

impl Check<'_> {
    /// A duration from `least` to `greatest`.
    pub(super) fn within(
        &mut self,
        text: Option<&Spanned<String>>,
        default: Duration,
        least: Duration,
        greatest: Duration,
    ) -> Duration {
        let Some(text) = text else { return default };
        let typed = text.get_ref();
        let shown = |duration| humantime::format_duration(duration);
        match humantime::parse_duration(typed) {
            Ok(duration) if duration < least => {
                self.fault(
                    text,
                    format!("`{typed}` is shorter than {}", shown(least)),
                    Some("write it as \"30s\", \"500ms\" or \"5m\""),
                );
            }
            Ok(duration) if duration > greatest => {
                self.fault(
                    text,
                    format!("`{typed}` is longer than {}", shown(greatest)),
                    Some("write it as \"30s\", \"500ms\" or \"5m\""),
                );
            }
            Ok(duration) => return duration,
            Err(_) => {
                self.fault(text, format!("`{typed}` is not a duration"), Some("write it as \"30s\", \"500ms\" or \"5m\""));
            }
        }
        default
    }

    /// A duration of which zero would mean "never" or "at once, always".
    pub(super) fn positive(&mut self, text: Option<&Spanned<String>>, default: Duration) -> Duration {
        self.within(text, default, MOMENT, DAY)
    }

    /// A size in bytes from `least` to `greatest`.
    pub(super) fn bytes(&mut self, text: Option<&Spanned<String>>, default: u64, least: u64, greatest: u64) -> u64 {
        let Some(text) = text else { return default };
        let typed = text.get_ref();
        let shown = |bytes| ByteSize::b(bytes).display().iec().to_string().replace(' ', "");
        match typed.parse::<ByteSize>() {
            Ok(size) if size.as_u64() < least => {
                let hint = format!("at least \"{}\"; a number without a unit counts bytes", shown(least));
                self.fault(text, format!("`{typed}` is too small"), Some(&hint));
            }
            Ok(size) if size.as_u64() > greatest => {
                self.fault(text, format!("`{typed}` is too large"), Some(&format!("at most \"{}\"", shown(greatest))));
            }
            Ok(size) => return size.as_u64(),
            Err(_) => self.fault(text, format!("`{typed}` is not a size"), Some("write it as \"64KiB\" or \"256MiB\"")),
        }
        default
    }

    /// A number from `least` to `greatest`.
    pub(super) fn count<N: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        number: Option<&Spanned<N>>,
        default: N,
        least: N,
        greatest: N,
    ) -> N {
        let Some(number) = number else { return default };
        let typed = *number.get_ref();
        if typed < least {
            self.fault(number, format!("must be at least {least}, and is {typed}"), Some("leave the key out for the default"));
        } else if typed > greatest {
            self.fault(number, format!("must be at most {greatest}, and is {typed}"), Some("leave the key out for the default"));
        } else {
            return typed;
        }
        default
    }

    /// A path in the file counts from the file's own folder.
    pub(super) fn path(&mut self, path: &Spanned<String>) -> PathBuf {
        let typed = path.get_ref();
        if typed.is_empty() || typed.contains('\0') {
            self.fault(path, "names no file", Some("write a path; it counts from the folder of this file"));
        }
        self.folder.map_or_else(|| PathBuf::from(typed), |folder| folder.join(typed))
    }

    /// An address with a port; `port` is the one to suggest.
    pub(super) fn address(&mut self, typed: &str, port: u16) -> Result<SocketAddr, (String, String)> {
        typed.parse().map_err(|_| {
            let zoned = || {
                let example = by_number(typed)?;
                Some(format!("write the interface by its number, which `ip link` shows, as in `{example}`"))
            };
            let meant = address_meant(typed, port).map(|meant| format!("did you mean `{meant}`?"));
            let meant = meant.or_else(zoned).unwrap_or_else(|| format!("write it as \"127.0.0.1:{port}\" or \"[::1]:{port}\""));
            (format!("`{typed}` is not an address with a port"), meant)
        })
    }

    /// A network, or the network of one address. One that no client's address is in, or that holds more than is written, is a
    /// fault: addresses are compared as what they are, and an IPv4-mapped one is an IPv4 address.
    pub(super) fn network(&mut self, text: &Spanned<String>) -> Option<IpNet> {
        let written = text.get_ref();
        let address = written.parse::<IpAddr>().ok().map(IpNet::from);
        let Some(net) = address.or_else(|| written.parse().ok()) else {
            let hint = "write it as \"10.0.0.0/8\", \"fd00::/8\", or one address";
            self.fault(text, format!("`{written}` is not a network"), Some(hint));
            return None;
        };
        let mapped = match net {
            IpNet::V6(net) if net.prefix_len() >= 96 => net.addr().to_ipv4_mapped().zip(net.prefix_len().checked_sub(96)),
            IpNet::V6(_) | IpNet::V4(_) => None,
        };
        if let Some((address, prefix)) = mapped {
            let meant = IpNet::new(address.into(), prefix).unwrap_or(net).trunc();
            let fault = format!("`{written}` holds no client's address: an IPv4-mapped address is compared as IPv4");
            self.fault(text, fault, Some(&format!("write `{meant}`")));
        } else if net != net.trunc() {
            let alone = IpNet::from(net.addr());
            let hint = format!("write `{}` for the whole network, `{alone}` for the one address", net.trunc());
            self.fault(text, format!("`{written}` has bits set behind its prefix"), Some(&hint));
        }
        Some(net)
    }

    /// The name of a host as requests have it: without a closing dot, in lower case, an IPv6 address in brackets.
    pub(super) fn host(&mut self, text: &Spanned<String>) -> Option<String> {
        let typed = text.get_ref().to_ascii_lowercase();
        let name = typed.strip_suffix('.').unwrap_or(&typed);
        if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::Ipv6Addr>() {
            return Some(format!("[{address}]"));
        }
        if is_host(name) {
            return Some(name.to_owned());
        }
        let rest = name.split_once("://").map_or(name, |(_, rest)| rest);
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let bare = rest.rsplit_once(':').map_or(rest, |(name, _)| name);
        let hint = if name.contains('*') {
            "one upstream has one host; an only upstream without `host` serves every one".to_owned()
        } else if !name.is_ascii() {
            "write it as browsers send it, in ASCII (`xn--…`)".to_owned()
        } else if is_host(bare) {
            format!("write `{bare}`: the name alone, without scheme, port and path")
        } else {
            "write it as \"chat.example.org\"".to_owned()
        };
        let shown = if typed.contains('@') { "this".to_owned() } else { format!("`{}`", text.get_ref()) };
        self.fault(text, format!("{shown} is not the name of a host"), Some(&hint));
        None
    }

    /// `http://host[:port]`.
    pub(super) fn origin(&mut self, url: &Spanned<String>) -> Option<Origin> {
        match origin(url.get_ref()) {
            Ok(origin) => Some(origin),
            Err(why) => {
                self.fault(url, why.shown(url.get_ref()), Some(&why.hint));
                None
            }
        }
    }

    /// Part of a path: nothing, or `/something`.
    pub(super) fn prefix(&mut self, text: &Spanned<String>) -> String {
        let typed = text.get_ref();
        if typed.is_empty() || is_prefix(typed) {
            return typed.clone();
        }
        let meant = format!("/{}", typed.trim_matches('/'));
        let hint = if typed == "/" {
            "leave it empty".to_owned()
        } else if is_prefix(&meant) && !typed.contains('@') {
            format!("write `{meant}`")
        } else {
            "write it as \"/chat\": plain letters, digits and `-._~` between slashes, and no `.` or `..`".to_owned()
        };
        let shown = if typed.contains('@') { "this".to_owned() } else { format!("`{typed}`") };
        self.fault(text, format!("{shown} is not a path prefix"), Some(&hint));
        String::new()
    }

    /// The token in a file.
    pub(super) fn secret_file(&mut self, file: &Spanned<String>) -> Option<Secret> {
        let shown = file.get_ref();
        let text = self.read(file)?;
        let token = text.trim();
        let hint = Some("make one: `openssl rand -hex 32`");
        if token.len() < SHORTEST_TOKEN {
            self.fault(file, format!("`{shown}` holds fewer than {SHORTEST_TOKEN} characters"), hint);
        } else if !token.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            self.fault(file, format!("`{shown}` holds more than one line of visible ASCII, which no header can carry"), hint);
        } else {
            return Some(Secret::new(token));
        }
        None
    }

    /// `name = "value"` lines: the headers of a service's credential.
    pub(super) fn service(&mut self, file: &Spanned<String>) -> Option<Vec<(String, Secret)>> {
        let shown = file.get_ref().clone();
        let text = self.read(file)?;
        let hint = Some("write a line for each header, as `x-auth-token = \"…\"`");
        let headers = match toml::from_str::<std::collections::BTreeMap<String, Spanned<String>>>(&text) {
            Ok(headers) => headers,
            // The parser's own message would show the line, and with it the secret.
            Err(error) => {
                let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
                self.fault(file, format!("line {line} of `{shown}` is not a `name = \"value\"` line"), hint);
                return None;
            }
        };
        if headers.is_empty() {
            self.fault(file, format!("`{shown}` names no header"), hint);
        }
        let mut known = Vec::new();
        for (name, value) in headers {
            let line = text.get(..value.span().start).unwrap_or_default().matches('\n').count() + 1;
            let lower = name.to_ascii_lowercase();
            let is_name = http::HeaderName::from_bytes(lower.as_bytes()).is_ok();
            if !is_name || http::HeaderValue::from_str(value.get_ref()).is_err() || value.get_ref().is_empty() {
                // Neither is shown: who swaps them has the secret in the name.
                self.fault(file, format!("line {line} of `{shown}` is not a header"), hint);
            } else if FRAMING.contains(&lower.as_str()) {
                self.fault(file, format!("line {line} of `{shown}`: `{lower}` is not a credential"), hint);
            }
            known.push((lower, Secret::new(value.into_inner())));
        }
        Some(known)
    }

    /// The path of a certificate authority, which is read at the start only. What is wrong with it is told where it is used.
    pub(super) fn authority(&mut self, file: &Spanned<String>) -> PathBuf {
        let path = self.path(file);
        if let Ok(bytes) = files::bytes(&path, LARGEST_AUTHORITY) {
            self.on_disk.holds(&path, &bytes);
        }
        path
    }

    fn read(&mut self, file: &Spanned<String>) -> Option<String> {
        let path = self.path(file);
        let shown = file.get_ref();
        let text = files::text(&path, LARGEST_SECRET);
        if let Ok(text) = &text {
            self.on_disk.holds(&path, text.as_bytes());
        }
        text.map_err(|error| self.fault(file, format!("`{shown}`: {error}"), Some(&found_from(&path)))).ok()
    }
}

/// How a file is looked for.
fn found_from(path: &Path) -> String {
    format!("it is looked for at {}; a path counts from the folder of this file", path.display())
}

/// What is wrong with a URL. The URL itself may hold a password.
pub(super) struct NoOrigin {
    why: &'static str,
    pub(super) hint: String,
}

impl NoOrigin {
    fn new(why: &'static str, hint: impl Into<String>) -> Self {
        Self { why, hint: hint.into() }
    }

    /// What is wrong with `url`, which is named unless it holds what may be a credential.
    pub(super) fn shown(&self, url: &str) -> String {
        if url.contains('@') { format!("this URL {}", self.why) } else { format!("`{url}` {}", self.why) }
    }
}

/// Reads `http://host[:port]`, and nothing behind it.
pub(super) fn origin(url: &str) -> Result<Origin, NoOrigin> {
    let whole = "write it as \"http://127.0.0.1:3000\"";
    let (tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(NoOrigin::new("begins with neither `http://` nor `https://`", whole)),
        None => {
            let meant = format!("http://{url}");
            let good = !url.contains('@') && origin(&meant).is_ok();
            let hint = if good { format!("did you mean `{meant}`?") } else { whole.to_owned() };
            return Err(NoOrigin::new("begins with neither `http://` nor `https://`", hint));
        }
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        let hint = "leave out what stands before `@`; a credential for lookups belongs into `service`";
        return Err(NoOrigin::new("holds a user name or a password", hint));
    }
    if !matches!(path, "" | "/") {
        let scheme = if tls { "https" } else { "http" };
        let prefix = path.trim_end_matches('/');
        let hint = if is_prefix(prefix) && !path.contains('@') {
            format!("write `url = \"{scheme}://{authority}\"` and `path_prefix = \"{prefix}\"`")
        } else {
            whole.to_owned()
        };
        return Err(NoOrigin::new("has a path; use `path_prefix`", hint));
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("-"))),
        None => authority.rsplit_once(':').map_or((authority, Some("-")), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some("-") => Some(if tls { 443 } else { 80 }),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse::<u16>().ok().filter(|port| *port > 0),
        _ => None,
    };
    let Some(port) = port else {
        return Err(NoOrigin::new("has no port from 1 to 65535", whole));
    };
    if authority.starts_with('[') != host.parse::<std::net::Ipv6Addr>().is_ok() || (!authority.starts_with('[') && !is_host(host))
    {
        return Err(NoOrigin::new("names no host", whole));
    }
    Ok(Origin { tls, host: host.to_owned(), port })
}

impl std::str::FromStr for Origin {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        origin(url).map_err(|why| why.shown(url))
    }
}

/// Whether `name` is the name of a host or an IPv4 address, as DNS and URLs have it; underscores are used in container networks.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    !name.is_empty() && name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether `path` is `/a/b`, in the one spelling that no server reads as another path.
fn is_prefix(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
}

/// The address that was probably meant.
fn address_meant(typed: &str, port: u16) -> Option<SocketAddr> {
    let rest = typed.trim().split_once("://").map_or(typed.trim(), |(_, rest)| rest).trim_end_matches('/');
    let (host, port) = match rest.parse::<IpAddr>() {
        Ok(address) => return Some(SocketAddr::new(address, port)),
        Err(_) if rest.bytes().all(|byte| byte.is_ascii_digit()) && !rest.is_empty() => ("127.0.0.1", rest.parse().ok()?),
        Err(_) => match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (rest, port),
        },
    };
    let address = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        "" | "*" => IpAddr::from([0, 0, 0, 0]),
        host => host.trim_start_matches('[').trim_end_matches(']').parse().ok()?,
    };
    Some(SocketAddr::new(address, port))
}

/// An address whose interface is given by its name, with a number in the name's place.
fn by_number(typed: &str) -> Option<SocketAddr> {
    let (host, rest) = typed.split_once('%')?;
    let (_, port) = rest.split_once("]:")?;
    format!("{host}%2]:{port}").parse().ok()
}

/// Reads where a collector takes spans: `http://host[:port]`, and a path where that is not the usual one.
pub(super) fn collector(url: &str) -> Result<String, &'static str> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err("begins with `https://`, and spans are sent without TLS"),
        _ => return Err("does not begin with `http://`"),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("holds a credential");
    }
    origin(&format!("http://{authority}")).map_err(|no| no.why)?;
    if path.contains(['?', '#']) {
        return Err("has a query");
    }
    let path = if matches!(path, "" | "/") { "/v1/traces" } else { path };
    let whole = format!("http://{authority}{path}");
    whole.parse::<http::Uri>().map(|_| whole).map_err(|_| "is not a URL")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_is_an_origin_and_nothing_else() {
        for (url, host, port, tls) in [
            ("http://127.0.0.1:3000", "127.0.0.1", 3000, false),
            ("https://chat.example.org/", "chat.example.org", 443, true),
            ("http://rocket_chat:1", "rocket_chat", 1, false),
            ("http://[::1]:65535", "::1", 65535, false),
            ("https://[fd00::1]", "fd00::1", 443, true),
        ] {
            let found: Origin = url.parse().unwrap();
            assert_eq!((found.host.as_str(), found.port, found.tls), (host, port, tls), "{url}");
        }
        for (url, why) in [
            ("http://h:0", "has no port"),
            ("http://h:", "has no port"),
            ("http://h:65536", "has no port"),
            ("http://h:99999", "has no port"),
            ("http://h:+80", "has no port"),
            ("http://[::1]80", "has no port"),
            ("http://[::1", "names no host"),
            ("http://::1:80", "names no host"),
            ("http://", "names no host"),
            ("http://a..b", "names no host"),
            ("http://*.example.org", "names no host"),
            ("http://a b", "names no host"),
            ("http://h\0", "names no host"),
            ("http://h/chat", "has a path"),
            ("http://h?x", "has a path"),
            ("http://h#x", "has a path"),
            ("HTTP//h", "begins with neither"),
            ("", "begins with neither"),
        ] {
            let told = url.parse::<Origin>().unwrap_err();
            assert!(told.contains(why), "{url}: {told}");
        }
    }

    #[test]
    fn the_address_that_was_meant_is_named() {
        for (typed, meant) in [
            ("localhost:80", Some("127.0.0.1:80")),
            (":80", Some("0.0.0.0:80")),
            ("*:80", Some("0.0.0.0:80")),
            ("80", Some("127.0.0.1:80")),
            ("127.0.0.1", Some("127.0.0.1:8080")),
            ("::1", Some("[::1]:8080")),
            ("http://127.0.0.1:80/", Some("127.0.0.1:80")),
            ("chat.example.org:80", None),
            ("127.0.0.1:99999", None),
            ("", Some("0.0.0.0:8080")),
        ] {
            assert_eq!(
                address_meant(typed, 8080).map(|meant| meant.to_string()).as_deref(),
                meant.filter(|_| !typed.is_empty()).or(meant),
                "{typed}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_refused_of_a_url_never_shows_a_password(user in "[a-z]{1,5}", rest in "[ -~]{0,12}", scheme in "http|https|ftp|") {
            let url = format!("{scheme}://{user}:s3cr3t-pass@{rest}");
            prop_assert!(!url.parse::<Origin>().unwrap_err().contains("s3cr3t-pass"));
            prop_assert!(!collector(&url).unwrap_err().contains("s3cr3t-pass"));
        }

        #[test]
        fn what_is_an_origin_is_a_url_to_the_library_that_forwards(url in "https?://[a-z0-9.:_\\[\\]-]{0,20}/?") {
            if let Ok(origin) = url.parse::<Origin>() {
                let uri: http::Uri = url.parse().unwrap();
                prop_assert_eq!(uri.host().unwrap().trim_matches(['[', ']']), origin.host.as_str());
                prop_assert_eq!(uri.port_u16().unwrap_or(if origin.tls { 443 } else { 80 }), origin.port);
            }
        }
    }
}
