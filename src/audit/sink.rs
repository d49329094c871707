//! The end of the log where lines leave the process: whole ones or none.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::OpenError;
use super::file::{Place, Sight};
use super::stream::Stream;

/// What takes the bytes; a trait so that tests can make a write stop half-way.
pub(super) trait Medium: Debug + Send {
    /// Takes some of `bytes`, from their beginning, in one call to the kernel; [`io::ErrorKind::WouldBlock`] when there is no
    /// room for them now.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Sees to it that the `count` bytes of a torn line, which were written last, do not run into the next line.
    fn mend(&mut self, count: u64) -> io::Result<()>;
}

/// A file can take the torn line back; the length is asked anew, because others may have appended.
impl Medium for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn mend(&mut self, count: u64) -> io::Result<()> {
        let length = self.metadata()?.len();
        self.set_len(length.saturating_sub(count))
    }
}

/// Writes whole lines to a medium, and takes back what a failure left of one.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) medium: Box<dyn Medium>,
    /// Where the file lies; nothing for a stream.
    pub(super) place: Option<Place>,
    /// The length of the file, or what went down the stream.
    pub(super) bytes: u64,
    /// Lines in the file, or sent down the stream.
    pub(super) records: u64,
    /// How many files this process has begun after the first.
    pub(super) begun: u64,
    /// Bytes of half a line at the end, which must go before anything else is written.
    torn: u64,
}

/// A write that failed; `whole` bytes of it are whole lines and stay.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) cause: io::Error,
    pub(super) whole: usize,
}

impl Output {
    /// The standard output.
    ///
    /// # Errors
    /// It is closed.
    pub(super) fn stdout() -> Result<Self, OpenError> {
        let handle = io::stdout().as_fd().try_clone_to_owned();
        let handle = handle.map_err(|source| OpenError::Io { path: "-".into(), source })?;
        Ok(Self::stream(File::from(handle)))
    }

    /// Something that lines are sent down.
    pub(super) fn stream(stream: File) -> Self {
        Self { medium: Box::new(Stream::new(stream)), place: None, bytes: 0, records: 0, begun: 0, torn: 0 }
    }

    /// A file that lies at `place` with `records` lines in `bytes` bytes.
    pub(super) fn file(file: File, place: Place, bytes: u64, records: u64) -> Self {
        Self { medium: Box::new(file), place: Some(place), bytes, records, begun: 0, torn: 0 }
    }

    /// Writes `lines`, `records` of them, each with its newline, of which the first has the number `first`: in one call to
    /// the kernel unless that takes only a part. A file that would grow past its size is rotated before.
    ///
    /// # Errors
    /// What the kernel said, and how many of the bytes are whole lines that stay. Half a line does not stay.
    pub(super) fn append(&mut self, lines: &[u8], records: usize, first: u64) -> Result<(), Partial> {
        self.mend().map_err(|cause| Partial { cause, whole: 0 })?;
        self.rotate_before(lines.len(), first);
        let mut rest = lines;
        let cause = loop {
            match self.medium.write(rest) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if rest.is_empty() {
                self.count(lines.len(), records);
                return Ok(());
            }
        };
        let written = lines.get(..lines.len() - rest.len()).unwrap_or_default();
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        self.count(whole, count_lines(written.get(..whole).unwrap_or_default()));
        self.torn = (written.len() - whole) as u64;
        // A failure here is met again before the next write.
        let _ = self.mend();
        Err(Partial { cause, whole })
    }

    /// Rotates the file when `length` more bytes would take it past its size. A failure costs no record: the file
    /// goes on growing, and the next write tries again.
    fn rotate_before(&mut self, length: usize, first: u64) {
        let Some(place) = &mut self.place else { return };
        if self.bytes == 0 || self.bytes.saturating_add(length as u64) <= place.rotate_bytes {
            return;
        }
        // Renaming would take another file for this one; the next look at the path sees to that.
        if !matches!(place.look(self.bytes), Ok(Sight::There)) {
            return;
        }
        match place.rotate(first) {
            Ok((_, file)) => self.replace(file),
            Err(error) if !place.warned => {
                tracing::warn!(%error, file = %place.path.display(), "the audit log could not be rotated and grows on");
                place.warned = true;
            }
            Err(_) => {}
        }
    }

    /// Begins a new file whatever the size of this one, for lines from the number `first` on. Gives back where this one lies
    /// now, and how many lines it holds; nothing when it holds none.
    ///
    /// # Errors
    /// There is no file, or [`Place::rotate`] says.
    pub(super) fn rotate(&mut self, first: u64) -> io::Result<Option<(PathBuf, u64)>> {
        let Some(place) = &mut self.place else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the standard output cannot be rotated"));
        };
        if self.bytes == 0 {
            return Ok(None);
        }
        let (aside, file) = place.rotate(first)?;
        let records = self.records;
        self.replace(file);
        Ok(Some((aside, records)))
    }

    /// Looks whether the file is still where it was put.
    ///
    /// # Errors
    /// Its path cannot be looked at.
    pub(super) fn look(&self) -> io::Result<Sight> {
        self.place.as_ref().map_or(Ok(Sight::There), |place| place.look(self.bytes))
    }

    /// Starts a new file in place of one that was lost, for lines from the number `first` on.
    ///
    /// # Errors
    /// [`Place::renew`] says.
    pub(super) fn renew(&mut self, first: u64) -> io::Result<()> {
        if let Some(place) = &mut self.place {
            let file = place.renew(first)?;
            self.replace(file);
        }
        Ok(())
    }

    fn replace(&mut self, file: File) {
        self.medium = Box::new(file);
        self.bytes = 0;
        self.records = 0;
        self.begun += 1;
        self.torn = 0;
    }

    fn count(&mut self, bytes: usize, records: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.records = self.records.saturating_add(records as u64);
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn > 0 {
            self.medium.mend(self.torn)?;
            self.torn = 0;
        }
        Ok(())
    }
}

/// How many lines end in `bytes`.
pub(super) fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_torn_line_on_a_stream_is_ended_before_the_next_one_begins() {
        let (mut reader, writer) = pipe().unwrap();
        let mut output = Output::stream(File::from(OwnedFd::from(writer)));
        output.append(b"one\n", 1, 1).unwrap();
        output.medium.write(b"tw").unwrap();
        output.torn = 2;
        output.append(b"two\nthree\n", 2, 2).unwrap();
        assert_eq!((output.bytes, output.records), (14, 3));
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntw\ntwo\nthree\n");
    }
}
