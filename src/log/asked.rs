//! What `RUST_LOG` asks for, and how much of that is written.

use std::ffi::OsStr;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

/// What is written when nothing is asked for.
const USUAL: &str = "info";
/// The crate whose lines are written at every level.
const OURS: &str = "rolegate";
/// How the targets of the proxy engine begin.
const ENGINE: &str = "pingora";
/// How the targets of the library begin that watches the policy folder.
const WATCHER: &str = "notify";
/// Libraries that have something to say; other names are mistakes.
const OTHERS: &[&str] =
    &["h2", "hyper", "hyper_util", "log", "mio", "moka", "opentelemetry", "reqwest", "rustls", "tokio", "tower"];

/// What was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) allowed: Allowed,
    /// What of it is not done, and why.
    pub(super) complaints: Vec<String>,
}

/// Decides which lines are written.
///
/// Only this program's own lines are known to hold no credential and no content. The engine writes heads with all their fields
/// when it debugs, and targets with their queries in its errors: none of its lines is written. Libraries below it write what
/// they send and receive when they debug: no more than their `info` is written. Nothing in `RUST_LOG` changes that.
#[derive(Debug)]
pub(super) struct Allowed {
    asked: Targets,
}

impl Asked {
    /// Reads the value of `RUST_LOG`, if it has one: `level`, `target=level` and `target`, with commas between. What cannot be read
    /// is left out; when nothing is left, what is usual is written.
    pub(super) fn by(value: Option<&OsStr>) -> Self {
        let mut complaints = Vec::new();
        let mut good = Vec::new();
        let text = value.map(OsStr::to_string_lossy).unwrap_or_default();
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match fault(directive) {
                None => good.push(directive),
                Some(why) => complaints.push(format!("`{}` {why}", directive.escape_debug())),
            }
        }
        let asked = if good.is_empty() { USUAL.to_owned() } else { good.join(",") };
        let asked = asked.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
        Self { allowed: Allowed { asked }, complaints }
    }
}

/// Why `directive` is left out.
fn fault(directive: &str) -> Option<String> {
    // What names fields would write nothing else.
    let asked = directive.parse::<Targets>().ok().filter(|_| !directive.contains('['));
    let Some(asked) = asked else {
        let forms = "is not `level`, `target` or `target=level`, and is left out";
        return Some(format!("{forms}; levels are error, warn, info, debug, trace, off"));
    };
    let named = asked.iter().find(|(target, _)| !target.is_empty());
    let (target, level) = named?;
    let is_of = |name: &str| target.starts_with(name) || name.starts_with(target);
    if is_of(OURS) {
        None
    } else if target.starts_with(ENGINE) {
        Some("is left out: the lines of the proxy engine hold heads and contents, and are never written".into())
    } else if target.starts_with(WATCHER) {
        Some("is left out: what becomes of the policy folder is told by `rolegate::reload`".into())
    } else if !OTHERS.iter().any(|name| is_of(name)) {
        Some(format!("is left out: it is not a level, and nothing here is called `{}`", target.escape_debug()))
    } else if level > LevelFilter::INFO {
        Some(format!("is left out: no more than `info` of it is written; try `{target}=info`"))
    } else {
        None
    }
}

impl Allowed {
    /// Whether a line of `target` at `level` is written.
    fn allows(&self, target: &str, level: &Level) -> bool {
        let most = match target {
            _ if is_ours(target) => LevelFilter::TRACE,
            // The watcher tells of a folder that is gone, with the paths of the machine that built it.
            _ if target.starts_with(ENGINE) || target.starts_with(WATCHER) => LevelFilter::OFF,
            _ => LevelFilter::INFO,
        };
        *level <= most && self.asked.would_enable(target, level)
    }
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl<S: Subscriber> Layer<S> for Allowed {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.allows(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = self.asked.iter().map(|(_, level)| level);
        levels.chain(self.asked.default_level()).max()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

    fn asked(text: &str) -> Asked {
        Asked::by(Some(OsStr::new(text)))
    }

    #[test]
    fn what_is_asked_for_of_this_program_is_written() {
        for (text, target, most) in [
            ("", "rolegate::reload", Some(Level::INFO)),
            ("debug", "notify::inotify", None),
            ("debug", "rolegate::reload", Some(Level::DEBUG)),
            ("rolegate=trace", "rolegate", Some(Level::TRACE)),
            ("warn,rolegate::proxy=debug", "rolegate::proxy::gateway", Some(Level::DEBUG)),
            ("warn,rolegate::proxy=debug", "rolegate::audit", Some(Level::WARN)),
            ("off", "rolegate", None),
            ("ERROR", "rolegate", Some(Level::ERROR)),
            ("r=debug", "rolegate", Some(Level::DEBUG)),
            // What cannot be read is left out.
            ("bogus=zzz", "rolegate", Some(Level::INFO)),
            ("debug,bogus=zzz", "rolegate", Some(Level::DEBUG)),
            ("inof", "rolegate", Some(Level::INFO)),
            ("pingora_proxy=trace", "rolegate", Some(Level::INFO)),
            ("[{headers}]=trace", "rolegate", Some(Level::INFO)),
        ] {
            let allowed = asked(text).allowed;
            let found = LEVELS.iter().rfind(|level| allowed.allows(target, level)).copied();
            assert_eq!(found, most, "{text:?} for {target}");
        }
    }

    #[test]
    fn what_is_not_done_is_told() {
        for (text, told) in [
            ("", None),
            ("info,rolegate=trace", None),
            ("info,hyper=warn,", None),
            ("bogus=zzz", Some("`bogus=zzz` is not `level`")),
            ("inof", Some("nothing here is called `inof`")),
            ("rolegate=loud", Some("`rolegate=loud` is not")),
            ("pingora_core=debug", Some("the proxy engine")),
            ("h2=trace", Some("try `h2=info`")),
            ("notify=info", Some("the policy folder is told by `rolegate::reload`")),
            ("rolegate[span]=debug=x", Some("is not `level`")),
            ("[{headers}]=trace", Some("is not `level`")),
            ("a\nb", Some("`a\\nb`")),
        ] {
            let complaints = asked(text).complaints.join("; ");
            match told {
                None => assert_eq!(complaints, "", "{text:?}"),
                Some(told) => assert!(complaints.contains(told), "{text:?}: {complaints}"),
            }
        }
        assert_eq!(Asked::by(None).complaints, Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn nothing_makes_others_say_more_than_they_may(
            parts in prop::collection::vec(
                ("(|[a-z]|pingora(_core|_proxy|_pool)?(::[a-z_:]{0,12})?|h2|hyper|rustls|reqwest|rolegate|log|[a-z_:]{0,9})",
                 "(|=)", "(|trace|TRACE|debug|info|5|off|\\[x\\]=trace|[ -~]{0,6})"),
                0..5,
            ),
            any in "\\PC{0,40}",
        ) {
            let parts: Vec<String> = parts.into_iter().map(|(a, b, c)| format!("{a}{b}{c}")).collect();
            for text in [parts.join(","), any, format!("trace,{}", parts.join(","))] {
                let allowed = asked(&text).allowed;
                for target in ["pingora_core::protocols::http::v1::client", "pingora_proxy", "pingora", "pingora_pool::connection"] {
                    prop_assert!(LEVELS.iter().all(|level| !allowed.allows(target, level)), "{text:?} lets {target} speak");
                }
                for target in ["h2::codec", "hyper::proto", "rustls::conn", "reqwest", "log", "rolegates", "rolegate_x", "", "new"] {
                    let most = LEVELS.iter().rfind(|level| allowed.allows(target, level));
                    prop_assert!(most.is_none_or(|most| *most <= Level::INFO), "{text:?} lets {target} say {most:?}");
                }
            }
        }
    }
}
