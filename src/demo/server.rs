//! A sample server: listening, counting, behaving, answering.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::behaviour::{Behaviour, Hold};
use super::connection::{Doorway, Lines, Peer};
use super::journal::{Journal, Seen};
use super::world::World;
use super::{docusign, matrix, rocketchat};

/// A running sample server; dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Sample {
    shared: Arc<Shared>,
    address: SocketAddr,
    url: String,
    lines: Lines,
    accepting: JoinHandle<()>,
}

impl Sample {
    /// A Rocket.Chat workspace on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn rocketchat() -> io::Result<Self> {
        Self::serve(System::RocketChat, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// A DocuSign Rooms account, with its account server, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn docusign() -> io::Result<Self> {
        Self::serve(System::DocusignRooms, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// A Matrix homeserver with Synapse's admin API, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn matrix() -> io::Result<Self> {
        Self::serve(System::Matrix, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// A Rocket.Chat workspace on a listener of the caller's; to be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener cannot be made non-blocking.
    pub async fn rocketchat_on(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::serve(System::RocketChat, TcpListener::from_std(listener)?)
    }

    /// A DocuSign Rooms account on a listener of the caller's; to be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener cannot be made non-blocking.
    pub async fn docusign_on(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::serve(System::DocusignRooms, TcpListener::from_std(listener)?)
    }

    /// `http://address:port`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request that arrived since the start or [`forget`](Self::forget), in order; the last 100,000 of them.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.journal.all()
    }

    /// How many of them were for `path` as the server reads it, whatever came of them.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        self.shared.journal.count(path)
    }

    /// How many requests arrived so far, forgotten ones included.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.shared.journal.arrivals()
    }

    /// The requests that arrived after the first `seen` ones, as far as they are remembered; `seen` is moved on.
    #[must_use]
    pub fn since(&self, seen: &mut u64) -> Vec<Seen> {
        self.shared.journal.since(seen)
    }

    /// Returns once [`count`](Self::count) of `path` is at least `count`.
    pub async fn until_seen(&self, path: &str, count: usize) {
        self.shared.journal.until(path, count).await;
    }

    /// Empties the list.
    pub fn forget(&self) {
        self.shared.journal.forget();
    }

    /// Reads or changes the people, rooms, roles, tokens and settings; no request is answered meanwhile.
    pub fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.shared.world.lock())
    }

    /// From now on every request for `path`, as the server reads it, meets `behaviour` instead of an earlier one.
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        self.shared.behaviours.lock().insert(path.to_owned(), behaviour);
    }

    /// From now on every request for `path` waits until the returned hold is released.
    #[must_use = "only the hold can release what waits"]
    pub fn hold(&self, path: &str) -> Hold {
        let hold = Hold::new();
        self.behave(path, Behaviour::Hold(hold.clone()));
        hold
    }

    /// Ends every behaviour for requests to come; those that wait go on waiting.
    pub fn calm(&self) {
        self.shared.behaviours.lock().clear();
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lines.accepted()
    }

    /// Cuts every open connection, idle or not, and goes on listening.
    pub fn hang_up(&self) {
        self.lines.cut();
    }

    fn serve(system: System, listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (journal, behaviours) = (Journal::new(), Mutex::default());
        let shared = Arc::new(Shared { system, world: Mutex::new(World::new()), journal, behaviours });
        let lines = Lines::default();
        let doorway = Doorway::new(listener, lines.clone());
        let router = Router::new().fallback(arrive).with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<Peer>();
        let accepting = tokio::spawn(async move {
            // It never returns, and an error of one connection ends only that connection.
            let _ = axum::serve(doorway, service).await;
        });
        Ok(Self { shared, address, url: format!("http://{address}"), lines, accepting })
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.accepting.abort();
        self.lines.cut();
    }
}

/// Which server is played.
#[derive(Debug, Clone, Copy)]
enum System {
    RocketChat,
    DocusignRooms,
    Matrix,
}

/// What the requests share with the [`Sample`].
#[derive(Debug)]
struct Shared {
    system: System,
    world: Mutex<World>,
    journal: Journal,
    behaviours: Mutex<HashMap<String, Behaviour>>,
}

/// Takes every request: notes it before anything is decided, then behaves, then answers.
async fn arrive(State(shared): State<Arc<Shared>>, ConnectInfo(peer): ConnectInfo<Peer>, request: Request) -> Response {
    let path = match shared.system {
        System::RocketChat => rocketchat::target::read(request.uri().path()).path,
        System::DocusignRooms => docusign::target::read(request.uri().path()),
        System::Matrix => matrix::path(request.uri().path()),
    };
    let seen = Seen {
        method: request.method().clone(),
        target: request.uri().to_string(),
        path,
        headers: request.headers().clone(),
        when: Instant::now(),
    };
    shared.journal.note(seen.clone());

    let behaviour = shared.behaviours.lock().get(&seen.path).cloned();
    match behaviour {
        Some(Behaviour::Answer { status, headers, body }) => return scripted(status, &headers, body.into()),
        Some(Behaviour::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Behaviour::Hold(hold)) => hold.pass().await,
        Some(Behaviour::Close) => {
            // The answer below is what makes the connection notice: writing it fails.
            peer.line.cut();
            return StatusCode::NO_CONTENT.into_response();
        }
        Some(Behaviour::Call(call)) => call(&seen),
        None => {}
    }
    match shared.system {
        System::RocketChat => rocketchat::answer(&shared.world, peer.address, request).await,
        System::DocusignRooms => docusign::answer(&shared.world, request),
        System::Matrix => matrix::answer(&shared.world, request).await,
    }
}

/// The answer that a test asked for.
fn scripted(status: u16, headers: &[(String, String)], body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
