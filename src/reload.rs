//! The rules in force, and how others take their place: read aside, checked, rehearsed, then one pointer is swapped; a set
//! that fails leaves the last good one where it is, and says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use jiff::Timestamp;
use notify::Watcher;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::audit::{AuditLog, Event};
use crate::config::{Config, Places, ReloadBy, Upstream, unfit_upstreams};
use crate::metrics::{Metrics, RecordKind};
use crate::model::{Fault, Faults, Place};
use crate::pipeline::{Site, rehearse};
use crate::rules::{Ruleset, Sources};

/// How long a folder must be still before it is read: an editor writes in several steps.
const STILL: Duration = Duration::from_millis(100);
/// How long a folder that is never still is waited for.
const RESTLESS: Duration = Duration::from_millis(400);
/// How often the folder is compared with what runs even when nothing told of a change: not every file system tells, and none
/// tells of what is written to memory that is mapped. With the time that reading takes it is less than a second.
const GLANCE: Duration = Duration::from_millis(700);
/// How long reading and compiling may take before the metrics say that what runs may not be what is on disk.
const SLOW: Duration = Duration::from_secs(20);

/// The rules of one moment, put together with the upstreams they judge for.
#[derive(Debug)]
pub struct Live {
    /// The revision.
    pub revision: String,
    /// One for each upstream of the configuration, in its order.
    pub sites: Vec<Site>,
}

/// The rules in force.
#[derive(Debug)]
pub struct Current {
    live: ArcSwap<Live>,
    folder: Option<PathBuf>,
    by: ReloadBy,
    upstreams: Vec<Arc<Upstream>>,
    networks: Arc<[(String, Vec<IpNet>)]>,
    places: Places,
    status: Mutex<Status>,
    /// One reload at a time; the last to begin reads the newest files.
    turn: Mutex<()>,
    /// How often a reload was asked for.
    asked: watch::Sender<u64>,
    /// How many of these are over.
    answered: watch::Sender<u64>,
    /// Changes with the status.
    noted: watch::Sender<()>,
    metrics: Metrics,
}

/// How the last reload went.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// When it was tried, in RFC 3339.
    pub time: String,
    /// Whether the rules that run are those it read.
    pub succeeded: bool,
    /// Every fault, as `check` prints it.
    pub error: Option<String>,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The files are those that run.
    Same,
    /// Others run now.
    Swapped,
}

impl Current {
    /// Reads, checks and rehearses the rules that `config` names.
    ///
    /// # Errors
    /// Every fault, a failing case included.
    pub fn load(config: &Config, metrics: Metrics) -> Result<Self, Faults> {
        let upstreams: Vec<Arc<Upstream>> = config.upstreams.iter().cloned().map(Arc::new).collect();
        let networks: Arc<[(String, Vec<IpNet>)]> = config.networks.clone().into();
        let folder = config.policies.directory.clone();
        let places = config.places.clone();
        let sources = read(folder.as_deref(), &places)?;
        let live = live(&sources, &upstreams, &networks, &places)?;
        metrics.policy(&live.revision);
        metrics.policy_matches_disk(true);
        metrics.reload(Some(seconds(Timestamp::now())));
        Ok(Self {
            live: ArcSwap::from_pointee(live),
            folder,
            by: config.policies.reload,
            upstreams,
            networks,
            places,
            status: Mutex::new(Status { time: Timestamp::now().to_string(), succeeded: true, error: None }),
            turn: Mutex::new(()),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            noted: watch::Sender::new(()),
            metrics,
        })
    }

    /// The rules in force now; a request keeps what it was given.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// How the last reload went.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Changes whenever [`Current::status`] does.
    #[must_use]
    pub fn noted(&self) -> watch::Receiver<()> {
        self.noted.subscribe()
    }

    /// Reads the files again and, if they are other ones and good, puts them in force.
    ///
    /// # Errors
    /// Every fault; what ran goes on running.
    pub fn reload(&self, audit: &AuditLog) -> Result<Reloaded, Faults> {
        let _turn = self.turn.lock();
        let before = self.live().revision.clone();
        let outcome = read(self.folder.as_deref(), &self.places).and_then(|sources| {
            if sources.revision == before {
                return Ok(Reloaded::Same);
            }
            let live = survived(|| live(&sources, &self.upstreams, &self.networks, &self.places))?;
            self.live.store(Arc::new(live));
            Ok(Reloaded::Swapped)
        });
        self.note(audit, &before, &outcome);
        outcome
    }

    /// Asks [`Current::watch`] for a reload.
    pub fn ask(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// Asks [`Current::watch`] for a reload and waits for its end, good or bad: of one that began after it was asked for, so that
    /// the files were read as they are now.
    pub async fn ask_and_wait(&self) {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        // The sender is ours, so it is never gone.
        drop(self.answered.subscribe().wait_for(|answered| *answered >= number).await);
    }

    /// Reloads whenever asked and, if the operator chose so, whenever the folder changes. Never returns.
    pub async fn watch(self: Arc<Self>, audit: Arc<AuditLog>) {
        let changed = Arc::new(Notify::new());
        let mut watching = Watching::new(Arc::clone(&changed));
        let mut refused: Option<String> = None;
        let mut asked = self.asked.subscribe();
        loop {
            let number = *asked.borrow_and_update();
            let told = number > *self.answered.borrow();
            let folder = self.folder.clone().filter(|_| self.by == ReloadBy::Watch);
            let by_watch = folder.is_some();
            let this = Arc::clone(&self);
            let audit = Arc::clone(&audit);
            let skip = refused.clone();
            // Reading a folder of another machine's and compiling a large set take long enough to be kept from the threads that
            // serve requests.
            let mut looking = tokio::task::spawn_blocking(move || {
                // Followed before it is read: what changes while it is read, or while rules are compiled, is told.
                if let Some(folder) = &folder {
                    watching.follow(folder);
                }
                (this.look(&audit, told, by_watch, skip), watching)
            });
            let done = match tokio::time::timeout(SLOW, &mut looking).await {
                Ok(done) => done,
                Err(_) => {
                    self.unread("reading the policy folder takes very long");
                    looking.await
                }
            };
            match done {
                Ok((seen, kept)) => (refused, watching) = (seen, kept),
                Err(error) => {
                    self.unread(&format!("reading the policy folder broke off: {error}"));
                    watching = Watching::new(Arc::clone(&changed));
                }
            }
            self.answered.send_replace(number);
            tokio::select! {
                _ = asked.changed() => {}
                () = changed.notified(), if by_watch => {
                    let still = async { while tokio::time::timeout(STILL, changed.notified()).await.is_ok() {} };
                    // Still or not, it is read now.
                    let _ = tokio::time::timeout(RESTLESS, still).await;
                    watching.doubt();
                }
                () = tokio::time::sleep(GLANCE), if self.folder.is_some() => {}
            }
        }
    }

    /// What is on disk is not known; the running rules stay.
    fn unread(&self, why: &str) {
        tracing::error!("{why}; the running rules stay");
        self.metrics.policy_matches_disk(false);
        self.metrics.reload(None);
        *self.status.lock() = Status { time: Timestamp::now().to_string(), succeeded: false, error: Some(why.to_owned()) };
        self.noted.send_replace(());
    }

    /// Compares the folder with what runs, and reloads when that is wanted. Gives back the state of the folder that was
    /// refused, so that the same fault is not told every time.
    fn look(&self, audit: &AuditLog, told: bool, by_watch: bool, refused: Option<String>) -> Option<String> {
        let found = match read(self.folder.as_deref(), &self.places) {
            Ok(sources) => sources.revision,
            Err(faults) => faults.to_string(),
        };
        let same = found == self.live().revision;
        self.metrics.policy_matches_disk(same);
        if told || (by_watch && !same && refused.as_ref() != Some(&found)) || (by_watch && same && refused.is_some()) {
            return self.reload(audit).err().map(|_| found);
        }
        refused
    }

    fn note(&self, audit: &AuditLog, before: &str, outcome: &Result<Reloaded, Faults>) {
        let time = Timestamp::now();
        let revision = self.live().revision.clone();
        let error = outcome.as_ref().err().map(ToString::to_string);
        match outcome {
            Ok(Reloaded::Same) => tracing::info!(revision, "rules read again: nothing changed"),
            Ok(Reloaded::Swapped) => tracing::info!(before, revision, "rules replaced"),
            Err(faults) => tracing::error!(running = revision, faults = %faults, "rules refused; the last good ones stay"),
        }
        if matches!(outcome, Ok(Reloaded::Swapped)) {
            self.metrics.policy(&revision);
        }
        self.metrics.policy_matches_disk(outcome.is_ok());
        self.metrics.reload(outcome.is_ok().then(|| seconds(time)));
        let mut fields = serde_json::Map::new();
        fields.insert("succeeded".into(), outcome.is_ok().into());
        fields.insert("policy_revision".into(), revision.into());
        fields.insert("previous_revision".into(), before.into());
        fields.insert("error".into(), error.clone().into());
        drop(audit.record(Event { kind: RecordKind::Reload, time, fields }));
        *self.status.lock() = Status { time: time.to_string(), succeeded: outcome.is_ok(), error };
        self.noted.send_replace(());
    }
}

fn read(folder: Option<&Path>, places: &Places) -> Result<Sources, Faults> {
    folder.map_or_else(|| Ok(Sources::built_in()), |folder| Sources::named(folder, &places.of_key("policies.directory")))
}

/// A fault in place of a panic, so that a set that the compiler cannot bear is refused like any other, and told once.
fn survived<T>(compile: impl FnOnce() -> Result<T, Faults>) -> Result<T, Faults> {
    let broke_off = |_| Fault::new(Place::file("policies"), "compiling broke off; the log holds why").into();
    catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|panic| Err(broke_off(panic)))
}

fn live(
    sources: &Sources,
    upstreams: &[Arc<Upstream>],
    networks: &Arc<[(String, Vec<IpNet>)]>,
    places: &Places,
) -> Result<Live, Faults> {
    let names: Vec<String> = networks.iter().map(|(name, _)| name.clone()).collect();
    let ruleset = Ruleset::load(sources, &names)?;
    rehearse::failing(&ruleset).or(())?;
    unfit_upstreams(upstreams.iter().map(AsRef::as_ref), places, &ruleset).or(())?;
    let site = |upstream: &Arc<Upstream>| {
        let rules = ruleset.provider(&upstream.provider)?;
        Some(Site::new(Arc::clone(upstream), Arc::clone(rules), Arc::clone(networks)))
    };
    Ok(Live { revision: ruleset.revision.clone(), sites: upstreams.iter().filter_map(site).collect() })
}

#[expect(clippy::cast_precision_loss, reason = "a float holds every second of the next millions of years")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// Follows a folder through replacements: the folder, what is below it, where its name and those of its files lead, and the folder
/// above it.
struct Watching {
    changed: Arc<Notify>,
    watcher: Option<notify::RecommendedWatcher>,
    followed: Vec<PathBuf>,
}

impl Watching {
    fn new(changed: Arc<Notify>) -> Self {
        Self { changed, watcher: None, followed: Vec::new() }
    }

    /// A watch belongs to an inode: what changed may be another folder of the same name, which must be watched anew.
    fn doubt(&mut self) {
        self.followed.clear();
    }

    /// Watches `folder` as it is now.
    fn follow(&mut self, folder: &Path) {
        let above = folder.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let mut wanted: Vec<PathBuf> = above.map(Path::to_path_buf).into_iter().collect();
        // Beside the folder lie things that are none of ours, an audit log perhaps: their changes are passed over.
        let mut ours: Vec<PathBuf> = above.zip(folder.file_name()).map(|(above, name)| above.join(name)).into_iter().collect();
        if let Ok(real) = folder.canonicalize() {
            wanted.extend(real.parent().map(Path::to_path_buf));
            let below =
                std::fs::read_dir(&real).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
            let inside: Vec<PathBuf> = below.filter_map(|path| path.canonicalize().ok()).chain([real]).collect();
            wanted.extend(inside.iter().cloned());
            let files = inside.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
            let links = files.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())).map(|entry| entry.path());
            // A file that is a link is watched where it leads to. What it leads through is compared only.
            for target in links.filter_map(|path| path.canonicalize().ok()) {
                wanted.extend(target.parent().map(Path::to_path_buf));
                ours.push(target);
            }
            ours.extend(inside);
        }
        wanted.sort();
        wanted.dedup();
        if wanted == self.followed && self.watcher.is_some() {
            return;
        }
        let changed = Arc::clone(&self.changed);
        let told = move |event: notify::Result<notify::Event>| {
            let matters = event.map_or(true, |event| {
                // Reading a file is no change; our own reading would wake us for ever.
                !matches!(event.kind, notify::EventKind::Access(_))
                    && (event.paths.is_empty() || event.paths.iter().any(|path| ours.iter().any(|ours| path.starts_with(ours))))
            });
            if matters {
                changed.notify_one();
            }
        };
        match notify::recommended_watcher(told) {
            Ok(mut watcher) => {
                for path in &wanted {
                    if let Err(error) = watcher.watch(path, notify::RecursiveMode::NonRecursive) {
                        tracing::debug!(path = %path.display(), %error, "not watched; it is compared every second");
                    }
                }
                self.watcher = Some(watcher);
                self.followed = wanted;
            }
            Err(error) => tracing::warn!(%error, "the policy folder is not watched; it is compared every second"),
        }
    }
}
