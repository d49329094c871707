//! What an operator or an author of policies writes: each mistake is told where it was made and with a way out, and what `check`
//! passes, the gate starts and serves with.

mod certificates;
mod extremes;
mod mistakes;
mod notes;
mod start;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A configuration without a fault before the provider `small`, in which everything that the format has stands once.
const PLAIN: &str = "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[[upstream]]\n\
                     url = \"http://127.0.0.1:9\"\nprovider = \"small\"\n[policies]\ndirectory = \"policies\"\n\
                     [networks]\noffice = [\"10.0.0.0/8\"]\n";

/// A folder with a configuration and the provider `small`.
struct Folder(TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let small = folder.path().join("policies/small");
        fs::create_dir_all(&small).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/small")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), small.join(entry.file_name())).unwrap();
        }
        fs::write(folder.path().join("rolegate.toml"), config).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces `from` by `to` in the file `name`.
    fn change(&self, name: &str, from: &str, to: &str) -> String {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} does not contain `{from}`");
        let text = text.replacen(from, to, 1);
        fs::write(self.path(name), &text).unwrap();
        text
    }

    /// Runs `rolegate check` with more arguments.
    fn check(&self, more: &[&str], code: i32) -> crate::support::program::Ended {
        let arguments = [&["check", "--config", "rolegate.toml"], more].concat();
        let ended = crate::support::Program::new(&arguments).within(self.0.path()).run();
        assert_eq!(ended.code, code, "{}\n{}", ended.out, ended.err);
        ended
    }
}

/// The line and column, from 1, at which `needle` first stands in `text`.
fn place(text: &str, needle: &str) -> String {
    let before = &text[..text.find(needle).unwrap_or_else(|| panic!("no `{needle}`"))];
    format!("{}:{}", before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap().chars().count() + 1)
}
