//! The sockets that clients connect to: handed over by a service manager, or else bound here.
//!
//! A socket that systemd holds outlives the process: between the last connection that the old process accepts and the first one
//! that the new process does, clients wait in the kernel's queue, and none is refused. That is the only way to another program
//! or configuration without a gap. The engine's own upgrade, where two processes serve at once while one hands its sockets to
//! the other, is not used: the audit log is one chain with one writer, and the old process would go on recording outcomes
//! while the new one begins.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};

use super::server::StartError;
use crate::config::Config;

/// Sockets that were handed over and are not used yet.
#[derive(Debug)]
pub(super) struct Sockets {
    handed: Vec<(SocketAddr, TcpListener)>,
    any: bool,
}

impl Sockets {
    /// Takes what `LISTEN_FDS` and `LISTEN_PID` hand over (`sd_listen_fds(3)`); a second call finds nothing.
    ///
    /// # Errors
    /// One of them is no TCP listener.
    pub(super) fn taken() -> Result<Self, StartError> {
        let mut given = ListenFd::from_env();
        let mut handed = Vec::new();
        for index in 0..given.len() {
            let unusable =
                |why: String| StartError::Socket(format!("socket {index} that was handed over is no TCP listener: {why}"));
            let listener = given.take_tcp_listener(index).map_err(|error| unusable(error.to_string()))?;
            let listener = listener.ok_or_else(|| unusable("it is taken".to_owned()))?;
            let address = listener.local_addr().map_err(|error| unusable(error.to_string()))?;
            handed.push((address, listener));
        }
        Ok(Self { any: !handed.is_empty(), handed })
    }

    /// The listener of `address` for clients: bound here only when nothing was handed over, because a port that the service
    /// manager does not hold would have the gap that it was called to close.
    ///
    /// # Errors
    /// It was not handed over though others were, or cannot be bound.
    pub(super) fn clients(&mut self, config: &Config, index: usize, address: SocketAddr) -> Result<TcpListener, StartError> {
        let refused = |source| {
            let place = config.places.of_key(&format!("listen.address.{index}"));
            StartError::Listen { address, key: "listen.address", place, source }
        };
        match self.take(address) {
            Some(listener) => ready(listener).map_err(refused),
            None if self.any => {
                let others: Vec<String> = self.handed.iter().map(|(other, _)| other.to_string()).collect();
                Err(StartError::Socket(format!(
                    "`listen.address` names {address}, but no such socket was handed over (left over: {})",
                    if others.is_empty() { "none".to_owned() } else { others.join(", ") }
                )))
            }
            None => bound(address, beside_ipv4(config, address)).map_err(refused),
        }
    }

    /// The listener of `address` for operators: handed over or bound.
    ///
    /// # Errors
    /// It cannot be bound.
    pub(super) fn operators(&mut self, config: &Config) -> Result<TcpListener, StartError> {
        let address = config.admin.address;
        let bound = self.take(address).map_or_else(|| bound(address, beside_ipv4(config, address)), ready);
        bound.map_err(|source| {
            let place = config.places.of_key("admin.address");
            StartError::Listen { address, key: "admin.address", place, source }
        })
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// A socket was handed over that the configuration does not name: whoever connects to it would wait for ever.
    pub(super) fn done(self) -> Result<(), StartError> {
        match self.handed.first() {
            None => Ok(()),
            Some((address, _)) => Err(StartError::Socket(format!(
                "a socket for {address} was handed over, but neither `listen.address` nor `admin.address` names it"
            ))),
        }
    }

    fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let place = self.handed.iter().position(|(handed, _)| *handed == address)?;
        Some(self.handed.remove(place).1)
    }
}

/// How many connections may wait to be accepted, as far as the kernel allows (`net.core.somaxconn`). The standard library asks for
/// 128; whoever comes then is not told, and tries again after a second: with that, every restart of a server whose thousands of
/// clients come back at once would be a slow one.
pub(super) const WAITING: i32 = 4096;

/// Whether the configuration also names an IPv4 address with the port of `address`: `[::]` would take that, too.
fn beside_ipv4(config: &Config, address: SocketAddr) -> bool {
    let mut all = config.listen.addresses.iter().chain([&config.admin.address]);
    address.is_ipv6() && all.any(|other| other.is_ipv4() && other.port() == address.port())
}

/// Binds at once: a taken port must end the start, not leave a process without a listener.
fn bound(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A connection of the process before this one that is not quite over must not keep the port.
    socket.set_reuse_address(true)?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    ready(socket.into())
}

fn ready(listener: TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn clients_that_come_all_at_once_wait_for_their_turn_instead_of_being_dropped() {
        let listener = bound("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts them. What the queue has no room for takes a second at least.
        let connected: Result<Vec<TcpStream>, _> =
            (0..500).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(900))).collect();
        assert_eq!(connected.unwrap().len(), 500);
    }
}
