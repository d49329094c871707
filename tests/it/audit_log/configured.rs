//! What `[audit]` may say of files and floods, and what of it means nothing.

use crate::support::Program;

/// What `rolegate check` says of an `[audit]` section: its exit code, and its words.
fn check(section: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[[upstream]]\nprovider = \"rocketchat\"\nurl = \"http://127.0.0.1:3000\"\n[audit]\n{section}\n");
    std::fs::write(folder.path().join("rolegate.toml"), text).unwrap();
    let ended = Program::new(&["check", "--config", "rolegate.toml"]).within(folder.path()).run();
    (ended.code, format!("{}{}", ended.out, ended.err))
}

#[test]
fn the_keys_of_files_and_floods_are_checked_with_their_place() {
    for (section, code, says) in [
        ("keep = 1\nkeep_age = \"90d\"\nrefusals_per_address = 1", 0, ""),
        ("keep_age = \"1h 30m\"", 0, ""),
        ("keep = 0", 3, "rolegate.toml:5:8: `audit.keep`: must be at least 1"),
        ("keep = -1", 3, "rolegate.toml:5:8"),
        ("keep = \"all\"", 3, "rolegate.toml:5:8"),
        ("keep_age = \"0s\"", 3, "rolegate.toml:5:12: `audit.keep_age`: `0s` is shorter than 1ms"),
        ("keep_age = \"90\"", 3, "rolegate.toml:5:12: `audit.keep_age`: `90` is not a duration"),
        ("refusals_per_address = 0", 3, "rolegate.toml:5:24: `audit.refusals_per_address`: must be at least 1"),
        ("keeps = 3", 3, "rolegate.toml:5:1"),
        ("path = \"-\"\nkeep = 3", 3, "rolegate.toml:6:8: `keep` counts rotated files, and the standard output has none"),
        ("path = \"-\"\nkeep_age = \"1d\"", 3, "rolegate.toml:6:12: `keep_age` is about rotated files"),
    ] {
        let (found, told) = check(section);
        assert!(found == code && told.contains(says), "{section}: {found}: {told}");
    }
}
