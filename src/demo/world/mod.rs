//! The people and rooms of the sample servers; tests change them while the servers run.

pub mod account;
pub mod homeserver;
pub mod workspace;

pub use account::Account;
pub use homeserver::Homeserver;
pub use workspace::Workspace;

/// Everything a sample server knows. Each server has a world of its own and uses the part that is its.
#[derive(Debug, Clone)]
pub struct World {
    /// The Rocket.Chat workspace.
    pub workspace: Workspace,
    /// The DocuSign Rooms account.
    pub account: Account,
    /// The Matrix homeserver.
    pub homeserver: Homeserver,
}

impl World {
    /// The world at the start.
    #[must_use]
    pub fn new() -> Self {
        Self { workspace: Workspace::new(), account: Account::new(), homeserver: Homeserver::new() }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
