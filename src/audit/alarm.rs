//! Wakes the threads of the log: at intervals, when there may be a file too many, and for the last time when the log ends.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What the threads of one log wait for.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ends: bool,
    /// Whether a file was begun or removed since that was last waited for.
    files: bool,
}

/// What a thread waits for besides the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Only that its time has come.
    Time,
    /// A file, too.
    Files,
}

impl Alarm {
    /// There is something to do for the thread that sees to old files.
    pub(super) fn files(&self) {
        self.state.lock().files = true;
        self.changed.notify_all();
    }

    /// The log ends.
    pub(super) fn end(&self) {
        self.state.lock().ends = true;
        self.changed.notify_all();
    }

    /// Waits for at most `time`; says whether the log goes on.
    pub(super) fn wait(&self, time: Duration, wait: Wait) -> bool {
        let mut state = self.state.lock();
        let files = wait == Wait::Files;
        self.changed.wait_while_for(&mut state, |state| !(state.ends || files && state.files), time);
        if files {
            state.files = false;
        }
        !state.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_thread_is_woken_for_files_only_when_it_waits_for_them_and_always_for_the_end() {
        let alarm = Alarm::default();
        alarm.files();
        assert!(alarm.wait(Duration::ZERO, Wait::Time), "its time has come");
        assert!(alarm.wait(LONG, Wait::Files), "what happened before it waited is not missed");
        alarm.end();
        assert!(!alarm.wait(LONG, Wait::Time));
        assert!(!alarm.wait(LONG, Wait::Files));
    }
}
