//! Connections on both sides: TLS, h2, hosts, addresses, limits, drain.
