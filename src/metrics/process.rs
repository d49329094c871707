//! What counts in the whole process, whichever registry shows it.

use std::sync::LazyLock;

use prometheus::IntCounter;

/// A counter that is there unless its name could not be, which a test rules out.
type Common = LazyLock<Option<IntCounter>>;

static LOG_LINES_DROPPED: Common = LazyLock::new(|| {
    IntCounter::new("rolegate_log_lines_dropped_total", "Lines of the process log that could not be written.").ok()
});

static PANICS: Common =
    LazyLock::new(|| IntCounter::new("rolegate_panics_total", "Panics, each of them a bug; the process log tells where.").ok());

/// A line of the process log could not be written.
pub fn log_line_dropped() {
    LOG_LINES_DROPPED.iter().for_each(IntCounter::inc);
}

/// Something in this process panicked.
pub fn panicked() {
    PANICS.iter().for_each(IntCounter::inc);
}

/// The counters of the process, for the page of metrics.
pub(super) fn counters() -> impl Iterator<Item = &'static IntCounter> {
    LOG_LINES_DROPPED.iter().chain(PANICS.iter())
}
