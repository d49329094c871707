//! Networks that an operator names: one that no client is ever in is a fault, told before it matters.

use rolegate::config::{Config, Flags};

/// What is said of a configuration with this section.
fn told(section: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rolegate.toml");
    let upstream = "[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:3000\"\n\n";
    std::fs::write(&path, format!("{upstream}{section}\n")).unwrap();
    Config::load(Some(&path), &Flags::default()).err().map(|faults| faults.to_string()).unwrap_or_default()
}

#[test]
fn a_network_that_no_client_is_ever_in_is_a_fault_with_its_place_and_the_way_out() {
    for (written, fault, hint) in [
        ("[\"::ffff:10.0.0.0/104\"]", "`::ffff:10.0.0.0/104` holds no client's address", "write `10.0.0.0/8`"),
        ("[\"::ffff:0:0/96\"]", "`::ffff:0:0/96` holds no client's address", "write `0.0.0.0/0`"),
        ("[\"::ffff:10.0.0.7\"]", "`::ffff:10.0.0.7` holds no client's address", "write `10.0.0.7/32`"),
        ("[\"10.0.0.7/8\"]", "`10.0.0.7/8` has bits set behind its prefix", "write `10.0.0.0/8` for the whole network"),
        ("[\"2001:db8::1/32\"]", "`2001:db8::1/32` has bits set behind its prefix", "`2001:db8::1/128` for the one address"),
    ] {
        for section in [format!("[networks]\noffice = {written}"), format!("[listen]\ntrusted_proxies = {written}")] {
            let told = told(&section);
            assert!(told.contains("rolegate.toml:6:"), "{section}: {told}");
            assert!(told.contains(fault) && told.contains(hint), "{section}: {told}");
        }
    }
    let empty = told("[networks]\noffice = []");
    assert!(empty.contains("rolegate.toml:6:10: the network `office` holds no address"), "{empty}");
}

#[test]
fn networks_and_single_addresses_are_taken_as_they_are() {
    let nets = r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "2001:db8::7", "0.0.0.0/0", "::/0", "64:ff9b::/96"]"#;
    assert_eq!(told(&format!("[networks]\noffice = {nets}\n[listen]\ntrusted_proxies = {nets}")), "");
    assert_eq!(told("[listen]\ntrusted_proxies = []"), "");
}
