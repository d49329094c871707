//! How a file that people named is read: a regular one, whole, and within a bound.
//!
//! What stands at a path may be a named pipe without a writer, a device without an end, or a link to either. Opening the first
//! and reading the second would not return, and a thread that must live would be lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The content of the regular file at `path`, of at most `most` bytes.
///
/// # Errors
/// It is not a regular file, is longer, or cannot be read; the text says which.
pub fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Before it is opened: opening a device can have effects.
    regular(&fs::metadata(path)?)?;
    // The path may lead to another file by now: a pipe is opened without waiting for its writer, and the second check finds it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    if metadata.len() > most {
        return Err(too_long(&format!("is {} bytes long", metadata.len()), most));
    }
    whole(file, most)
}

/// The content of the regular file at `path`, of at most `most` bytes, which is text.
///
/// # Errors
/// Those of [`bytes()`], and the place of the first byte that is not UTF-8.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    utf8(bytes(path, most)?)
}

/// The text that a command line names by `path`, of at most `most` bytes: a regular file, or what a shell makes of
/// `<(command)` and a program of its standard input.
///
/// # Errors
/// It is longer, is not UTF-8, or cannot be read; the text says which.
pub fn argument(path: &Path, most: u64) -> io::Result<String> {
    utf8(argument_bytes(path, most)?)
}

/// The same, whatever its encoding.
///
/// # Errors
/// It is longer, or cannot be read; the text says which.
pub fn argument_bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_char_device() { whole(File::open(path)?, most) } else { bytes(path, most) }
}

fn regular(metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let other = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    };
    Err(io::Error::other(format!("is not a regular file but {other}")))
}

/// Reads to the end, and no further than `most`: files grow while they are read, and some in `/proc` say that they are empty.
fn whole(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most { Err(too_long("is longer", most)) } else { Ok(content) }
}

fn too_long(is: &str, most: u64) -> io::Error {
    io::Error::other(format!("{is}; at most {most} bytes are read"))
}

fn utf8(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("is not UTF-8 in line {line}"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_not_a_regular_file_is_named_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        symlink("/dev/zero", path("endless")).unwrap();
        symlink("pipe", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for (name, why) in [
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
            ("directory", "a directory"),
            ("endless", "a device"),
            ("link", "a named pipe"),
            ("dangling", "No such file"),
            ("loop", "symbolic links"),
            ("absent", "No such file"),
        ] {
            let told = text(&path(name), 1000).unwrap_err().to_string();
            assert!(told.contains(why), "{name}: {told}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_bound_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (length, fits) in [(0, true), (9, true), (10, true), (11, false), (5000, false)] {
            fs::write(&path, vec![b'a'; length]).unwrap();
            assert_eq!(text(&path, 10).is_ok(), fits, "{length}");
            assert_eq!(argument(&path, 10).is_ok(), fits, "{length}");
        }
        assert!(text(&path, 10).unwrap_err().to_string().contains("5000 bytes"));
        // A file that says that it is empty and has no end within the bound.
        assert!(bytes(Path::new("/proc/self/maps"), 10).unwrap_err().to_string().contains("longer"));
        assert!(argument(Path::new("/dev/zero"), 1000).unwrap_err().to_string().contains("longer"));
    }

    #[test]
    fn the_line_that_is_not_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"one\ntwo\nM\xfcller\n").unwrap();
        assert_eq!(text(&path, 100).unwrap_err().to_string(), "is not UTF-8 in line 3");
    }
}
