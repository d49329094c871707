//! The ports of a gate: one that is taken is told with its key, and listeners on IPv4 and IPv6 stand beside each other.

use std::net::{SocketAddr, TcpListener};

use rolegate::config::{Config, Flags};
use rolegate::proxy::Server;

use super::{Folder, PLAIN};

#[test]
fn a_port_that_another_process_has_is_told_with_its_key_and_how_to_find_that_process() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (from, place, key) in [
        ("[listen]\naddress = \"127.0.0.1:0\"", "rolegate.toml:2:11", "listen.address"),
        ("[admin]\naddress = \"127.0.0.1:0\"", "rolegate.toml:4:11", "admin.address"),
    ] {
        let folder = Folder::new(PLAIN);
        folder.change("rolegate.toml", from, &from.replace("127.0.0.1:0", &address.to_string()));
        let run = crate::support::Program::new(&["run", "--config", "rolegate.toml"]).within(folder.0.path()).run();
        assert_eq!(run.code, 1, "{}", run.err);
        let told = format!("{place}: `{key}`: cannot listen on {address}: Address already in use");
        assert!(run.err.contains(&told), "{}", run.err);
        assert!(run.err.contains(&format!("`ss -ltnp 'sport = :{}'` shows it", address.port())), "{}", run.err);
    }
}

#[tokio::test]
async fn the_same_port_on_all_of_ipv4_and_all_of_ipv6_is_two_listeners() {
    let free = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let folder = Folder::new(PLAIN);
    folder.change("rolegate.toml", "\"127.0.0.1:0\"", &format!("[\"[::]:{free}\", \"0.0.0.0:{free}\"]"));
    folder.check(&[], 0);
    let config = Config::load(Some(&folder.path("rolegate.toml")), &Flags::default()).unwrap();
    let running = Server::bind(config).and_then(Server::serve).unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{host}:{free}").parse().unwrap();
        tokio::net::TcpStream::connect(address).await.unwrap();
    }
    running.drain().await;
}
