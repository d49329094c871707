//! The file of the log in its directory: claimed for one process, rotated, and missed when it is taken away.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;

/// Where the file lies and which file it is.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it was opened and is expected to be.
    pub(super) path: PathBuf,
    /// The size that it is not written past.
    pub(super) rotate_bytes: u64,
    /// The number of the first line in it, or of the line that will be.
    pub(super) first: u64,
    /// Whether the operator knows that it cannot be rotated.
    pub(super) warned: bool,
    /// The file that is being written, by whatever name it has now.
    file: File,
    identity: Identity,
}

/// What tells a file from another one of the same name: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// What became of the file since it was last looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is there.
    There,
    /// It lies elsewhere, with everything that was written to it.
    Moved,
    /// It is not there any more, or not all of it; in words.
    Lost(&'static str),
}

impl Place {
    /// Opens the file at `path` for this process alone; makes it (0600) and its directory (0700) where they are missing.
    ///
    /// # Errors
    /// It is no regular file, another process has it, or the operating system refuses.
    pub(super) fn claim(path: &Path, rotate_bytes: u64) -> Result<(Self, File), OpenError> {
        let (file, identity) = claim(path)?;
        let held = file.try_clone().map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok((Self { path: path.to_owned(), rotate_bytes, first: 1, warned: false, file: held, identity }, file))
    }

    /// Moves the file aside and starts a new one, whose first line will have the number `first`. Gives back where the old one
    /// lies, and the new one.
    ///
    /// # Errors
    /// The rotated name is taken, or the operating system refuses; the file then is where it was.
    pub(super) fn rotate(&mut self, first: u64) -> io::Result<(PathBuf, File)> {
        let aside = self.move_aside()?;
        match claim(&self.path).map_err(io::Error::other).and_then(|(file, identity)| self.take(file, identity, first)) {
            Ok(file) => Ok((aside, file)),
            Err(error) => {
                // Somebody may have put a file there meanwhile, and that one is not ours to replace.
                if is_free(&self.path)? {
                    fs::rename(aside, &self.path)?;
                }
                Err(error)
            }
        }
    }

    /// From now on `file` is the one, and its first line will have the number `first`.
    fn take(&mut self, file: File, identity: Identity, first: u64) -> io::Result<File> {
        self.file = file.try_clone()?;
        self.identity = identity;
        self.first = first;
        self.warned = false;
        Ok(file)
    }

    /// Looks whether the file of `bytes` bytes that is being written is still the one at the path.
    ///
    /// # Errors
    /// The path cannot be looked at.
    pub(super) fn look(&self, bytes: u64) -> io::Result<Sight> {
        match fs::metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) != self.identity => self.elsewhere(bytes, "the file was replaced"),
            Ok(metadata) if metadata.len() < bytes => Ok(Sight::Lost("the file was shortened")),
            Ok(_) => Ok(Sight::There),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.elsewhere(bytes, "the file was removed"),
                _ => Err(error),
            },
        }
    }

    /// What became of the file that is not at its path: as long as it has a name somewhere and all its bytes, it was moved, as
    /// who rotates logs does it. (On NFS a removed file that is open keeps a name until it is closed, and passes for moved.)
    fn elsewhere(&self, bytes: u64, lost: &'static str) -> io::Result<Sight> {
        let metadata = self.file.metadata()?;
        Ok(match metadata.nlink() > 0 && metadata.len() >= bytes {
            true => Sight::Moved,
            false => Sight::Lost(lost),
        })
    }

    /// Starts a new file after [`Sight::Moved`] or [`Sight::Lost`]. What lies at the path, be it a rest of the old file or
    /// another one, stays untouched under the name that rotation would have given it; only an empty file that was put there is
    /// taken, and loses the permissions that the file before it did not have.
    ///
    /// # Errors
    /// Another process has the file at the path, that name is taken, or the operating system refuses.
    pub(super) fn renew(&mut self, first: u64) -> io::Result<File> {
        let ours = fs::metadata(&self.path).is_ok_and(|metadata| Identity::of(&metadata) == self.identity);
        if ours {
            return self.rotate(first).map(|(_, file)| file);
        }
        let (file, identity) = claim(&self.path).map_err(io::Error::other)?;
        let found = file.metadata()?;
        if found.len() > 0 {
            return self.rotate(first).map(|(_, file)| file);
        }
        let (found, before) = (found.permissions().mode() & 0o777, self.file.metadata()?.permissions().mode() & 0o777);
        if found & !before != 0
            && let Err(error) = file.set_permissions(fs::Permissions::from_mode(found & before))
        {
            tracing::warn!(%error, file = %self.path.display(), "the audit log may be read by more people than before");
        }
        self.take(file, identity, first)
    }

    /// Renames the file to its rotated name.
    fn move_aside(&self) -> io::Result<PathBuf> {
        let aside = rotated(&self.path, self.first);
        if !is_free(&aside)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", aside.display())));
        }
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}

/// The rotated files beside `path` with the numbers that their names give them, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn rotated_files(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split('.').find_map(number));
        if let Some(number) = number
            && rotated(path, number).file_name() == Some(&name)
        {
            found.push((number, rotated(path, number)));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The name beside `path` of the rotated file whose first line has the number `first`.
fn rotated(path: &Path, first: u64) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{first:020}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The number in the part of a rotated file's name that holds it.
fn number(part: &str) -> Option<u64> {
    (part.len() == 20 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok()).flatten()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn is_free(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn claim(path: &Path) -> Result<(File, Identity), OpenError> {
    let refused = |source| OpenError::Io { path: path.to_owned(), source };
    let in_use = || OpenError::InUse { path: path.to_owned() };
    let directory = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
    // Looked at before it is opened, because opening a pipe waits for its reader.
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(OpenError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(refused)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => in_use(),
        TryLockError::Error(source) => refused(source),
    })?;
    // Between opening and locking, the process that had it may have rotated it: then that process goes on elsewhere.
    let identity = Identity::of(&file.metadata().map_err(refused)?);
    match fs::metadata(path) {
        Ok(metadata) if Identity::of(&metadata) == identity => Ok((file, identity)),
        Ok(_) => Err(in_use()),
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_named_after_its_first_line() {
        assert_eq!(rotated(Path::new("a/audit.jsonl"), 42), Path::new("a/audit.00000000000000000042.jsonl"));
        assert_eq!(rotated(Path::new("audit"), 42), Path::new("audit.00000000000000000042"));
        assert_eq!(rotated(Path::new("a.b.c"), 42), Path::new("a.b.00000000000000000042.c"));
    }

    #[test]
    fn only_rotated_files_of_this_very_log_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        assert_eq!(rotated_files(&path).unwrap(), []);
        for name in [
            "audit.00000000000000000009.jsonl",
            "audit.00000000000000000010.jsonl",
            "audit.00000000000000000011.jsonl.gz",
            "audit.12.jsonl",
            "other.00000000000000000013.jsonl",
            "audit.99999999999999999999.jsonl",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let file = |number: u64| (number, folder.path().join(format!("audit.{number:020}.jsonl")));
        assert_eq!(rotated_files(&path).unwrap(), [file(9), file(10)]);
    }
}
