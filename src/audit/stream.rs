//! The standard output as a place for lines: it may be a pipe that nobody reads, and no write may wait for that.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{SendFlags, send};

use super::sink::Medium;

/// What a pipe takes whole or not at all (`PIPE_BUF` of Linux).
const WHOLE: usize = 4096;

/// The standard output without the buffer of the standard library, which would keep bytes whose write failed.
///
/// A flag on the descriptor that was inherited would bind others who have it too, a shell or the process log. So each kind of
/// output is asked in its own way not to wait.
#[derive(Debug)]
pub(super) enum Stream {
    /// A pipe, opened once more for us alone.
    Pipe(File),
    /// A socket, as a service manager hands it over: it is told with each call.
    Socket(File),
    /// Anything else, or a pipe that cannot be opened again: it is asked whether it has room before it is written to. A
    /// regular file and a terminal always or nearly always have.
    Asked(File),
}

impl Stream {
    /// Writes to `output`.
    pub(super) fn new(output: File) -> Self {
        let kind = output.metadata().map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_fifo() => match reopened(&output) {
                Ok(pipe) => Self::Pipe(pipe),
                Err(_) => Self::Asked(output),
            },
            Ok(kind) if kind.is_socket() => Self::Socket(output),
            _ => Self::Asked(output),
        }
    }
}

impl Medium for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = whole(bytes);
        match self {
            Self::Pipe(pipe) => Write::write(pipe, bytes),
            Self::Socket(socket) => Ok(send(&*socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
            Self::Asked(output) => {
                has_room(output)?;
                Write::write(output, bytes)
            }
        }
    }

    /// What went down a stream cannot come back, but a newline ends it. Only a line longer than a pipe takes at once is ever
    /// torn.
    fn mend(&mut self, _count: u64) -> io::Result<()> {
        self.write(b"\n").map(drop)
    }
}

/// As many whole lines of `lines` as a pipe takes at once, or the first one if it is longer.
fn whole(lines: &[u8]) -> &[u8] {
    let head = lines.get(..WHOLE).unwrap_or(lines);
    let newline = memchr::memrchr(b'\n', head).or_else(|| memchr::memchr(b'\n', lines));
    newline.and_then(|newline| lines.get(..=newline)).unwrap_or(lines)
}

/// The pipe opened once more, so that not to wait is a flag of ours alone. Nobody reads it yet, or it is somebody else's: then it
/// cannot be.
fn reopened(pipe: &File) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new().write(true).custom_flags(flags).open(format!("/proc/self/fd/{}", pipe.as_raw_fd()))
}

fn has_room(output: &File) -> io::Result<()> {
    let mut asked = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    // Where the other end is gone, writing says so.
    match asked.iter().any(|asked| !asked.revents().is_empty()) {
        true => Ok(()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Each kind of stream, with its other end.
    fn kinds() -> Vec<(Stream, File)> {
        let file = |end: OwnedFd| File::from(end);
        let (pipe_reader, pipe_writer) = pipe().unwrap();
        let (asked_reader, asked_writer) = pipe().unwrap();
        let (socket, other) = UnixStream::pair().unwrap();
        vec![
            (Stream::new(file(pipe_writer.into())), file(pipe_reader.into())),
            (Stream::Asked(file(asked_writer.into())), file(asked_reader.into())),
            (Stream::new(file(socket.into())), file(other.into())),
        ]
    }

    #[test]
    fn each_kind_of_output_is_told_not_to_wait_in_its_own_way() {
        let kinds = kinds();
        assert!(matches!(kinds[0].0, Stream::Pipe(_)) && matches!(kinds[2].0, Stream::Socket(_)));
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Stream::new(file), Stream::Asked(_)));
    }

    #[test]
    fn a_stream_that_nobody_reads_takes_whole_lines_until_it_is_full_and_goes_on_when_it_is_read() {
        for (mut stream, mut other) in kinds() {
            let line = [&[b'x'; 999][..], b"\n"].concat();
            let lines = line.repeat(3);
            let mut written = 0;
            let error = loop {
                match stream.write(&lines) {
                    Ok(count) => written += count,
                    Err(error) => break error,
                }
                assert!(written < 10 << 20, "it is never full");
            };
            assert_eq!((error.kind(), written % line.len()), (io::ErrorKind::WouldBlock, 0), "{stream:?}");
            let mut read = vec![0; written];
            other.read_exact(&mut read).unwrap();
            assert!(read == line.repeat(written / line.len()));
            assert_eq!(stream.write(&lines).unwrap(), lines.len());
            drop(other);
            let gone = loop {
                match stream.write(&lines) {
                    Ok(_) => {}
                    Err(error) => break error.kind(),
                }
            };
            assert!(matches!(gone, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{stream:?}: {gone:?}");
        }
    }

    #[test]
    fn the_descriptor_that_was_inherited_is_not_changed() {
        let (_reader, writer) = pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let inherited = File::from(writer.try_clone().unwrap());
        let _stream = Stream::new(File::from(writer));
        assert!(!rustix::fs::fcntl_getfl(&inherited).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn whole_lines_go_together_as_far_as_a_pipe_takes_them_at_once() {
        for (lines, taken) in
            [(vec![1000; 3], 3000), (vec![1000; 5], 4000), (vec![4096], 4096), (vec![5000, 10], 5000), (vec![10, 5000], 10)]
        {
            let lines: Vec<u8> = lines.iter().flat_map(|length| [vec![b'x'; length - 1], vec![b'\n']].concat()).collect();
            assert_eq!(whole(&lines).len(), taken);
        }
        assert_eq!(whole(b"\n"), b"\n");
    }
}
