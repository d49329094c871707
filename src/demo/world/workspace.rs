//! A Rocket.Chat workspace: who is there, in which rooms, with which roles, and what those roles may do.

mod rights;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use jiff::Timestamp;

pub use rights::{Permission, Role, Scope};

/// alice: admin and user; owner of [`TOWN_SQUARE`], no member of [`BOARDROOM`].
pub const ALICE: &str = "aLiceXPnMktTFbNpw";
/// audrey: auditor and user.
pub const AUDREY: &str = "audreyD4sK2mVx9Qw";
/// bob: user; moderator of [`TOWN_SQUARE`], owner of [`BOARDROOM`].
pub const BOB: &str = "bobJKa7R9zu2DinBh";
/// carol: user; moderator of [`BOARDROOM`].
pub const CAROL: &str = "caroL5fRTXMt7DMJb";
/// eve: user; in no room but [`GENERAL`].
pub const EVE: &str = "eve6GFJ3tbmHiyHba";
/// gus: guest; in no room at all.
pub const GUS: &str = "gus8kQw3ErTy5UiOp";

/// The public room that everyone but gus is in.
pub const GENERAL: &str = "GENERAL";
/// A public room: alice owns it, bob moderates it, carol and audrey are members.
pub const TOWN_SQUARE: &str = "66cd971f6fcbb8e8b3cf8e69";
/// A private room: bob owns it, carol moderates it, nobody else is in.
pub const BOARDROOM: &str = "658282732dd9f928ad989e98";
/// The direct room of bob and carol.
pub const DIRECT: &str = "bobJKa7R9zu2DinBhcaroL5fRTXMt7DMJb";

/// The custom role "helpdesk", which nobody holds at the start.
pub const HELPDESK: &str = "653ec9873c7460e18e6f";

/// One account of the workspace.
#[derive(Debug, Clone)]
pub struct Person {
    /// 17 letters and digits.
    pub id: String,
    /// The login name.
    pub username: String,
    /// The display name.
    pub name: String,
    /// The only e-mail address.
    pub email: String,
    /// The password in clear: this is a sample.
    pub password: String,
    /// Global roles by id.
    pub roles: Vec<String>,
    /// `online`, `away`, `busy` or `offline`.
    pub status: String,
    /// A deactivated account keeps its data; [`Workspace::deactivate`] also takes its tokens.
    pub active: bool,
}

/// What kind of room it is; the text is Rocket.Chat's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomKind {
    /// A public channel, `c`.
    Channel,
    /// A private group, `p`.
    Private,
    /// A direct room, `d`.
    Direct,
    /// A chat of the livechat, `l`.
    Livechat,
}

impl RoomKind {
    /// The letter in answers and in the names of permissions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "c",
            Self::Private => "p",
            Self::Direct => "d",
            Self::Livechat => "l",
        }
    }
}

/// One room.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its id.
    pub id: String,
    /// Its name; empty for a direct room.
    pub name: String,
    /// Who may find it.
    pub kind: RoomKind,
    /// The room that it is a discussion of.
    pub parent: Option<String>,
}

/// One person in one room.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Its own id, 24 hexadecimal digits.
    pub id: String,
    /// The room.
    pub room: String,
    /// The person.
    pub person: String,
    /// Roles in this room by id.
    pub roles: Vec<String>,
    /// Whether the person has not accepted yet.
    pub invited: bool,
}

/// One use of audit/rooms.members, which the real server writes to its own audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audition {
    /// Who looked.
    pub person: String,
    /// Into which room.
    pub room: String,
    /// With which filter.
    pub filter: String,
    /// How many members matched.
    pub results: usize,
}

/// The limiter of calls: per address, route and method, over a minute.
#[derive(Debug, Clone, Default)]
pub struct Limiter {
    /// Calls a minute; `None` switches it off. The real default is 10.
    pub calls: Option<u32>,
    pub(in crate::demo) counted: HashMap<(IpAddr, String), (Instant, u32)>,
}

/// The whole workspace.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The accounts.
    pub people: Vec<Person>,
    /// The rooms.
    pub rooms: Vec<Room>,
    /// Who is in which room.
    pub subscriptions: Vec<Subscription>,
    /// The roles that exist.
    pub roles: Vec<Role>,
    /// Which roles hold which permission; [`grant`](Self::grant) and [`withdraw`](Self::withdraw) keep the time stamps right.
    pub permissions: Vec<Permission>,
    /// The server's own audit log.
    pub auditions: Vec<Audition>,
    /// Whether the enterprise modules are licensed; the audit route and the rule for guests need it.
    pub licensed: bool,
    /// The setting `UI_Use_Real_Name`.
    pub real_names: bool,
    /// Off at the start.
    pub limiter: Limiter,
    pub(in crate::demo) withdrawn: Vec<(String, Timestamp)>,
    joined: usize,
    tokens: HashMap<String, String>,
    bearers: HashMap<String, String>,
}

impl Workspace {
    /// The workspace at the start: tokens `<name>-token`, OAuth access tokens `<name>-bearer`, passwords `<name>-password`.
    #[must_use]
    pub fn new() -> Self {
        let people = vec![
            person(ALICE, "alice", "Alice Liddell", &["admin", "user"], "online"),
            person(AUDREY, "audrey", "Audrey Munson", &["auditor", "user"], "online"),
            person(BOB, "bob", "Bob Cratchit", &["user"], "away"),
            person(CAROL, "carol", "Carol Kennicott", &["user"], "online"),
            person(EVE, "eve", "Eve Harrington", &["user"], "offline"),
            person(GUS, "gus", "Gus Trenor", &["guest"], "offline"),
        ];
        let tokens = people.iter().map(|person| (format!("{}-token", person.username), person.id.clone())).collect();
        let bearers = people.iter().map(|person| (format!("{}-bearer", person.username), person.id.clone())).collect();
        let mut workspace = Self {
            people,
            rooms: vec![
                room(GENERAL, "general", RoomKind::Channel),
                room(TOWN_SQUARE, "town-square", RoomKind::Channel),
                room(BOARDROOM, "boardroom", RoomKind::Private),
                room(DIRECT, "", RoomKind::Direct),
            ],
            subscriptions: Vec::new(),
            roles: rights::roles(),
            permissions: rights::permissions(),
            auditions: Vec::new(),
            licensed: true,
            real_names: false,
            limiter: Limiter::default(),
            withdrawn: Vec::new(),
            joined: 0,
            tokens,
            bearers,
        };
        for (room, person, roles) in [
            (GENERAL, ALICE, &[][..]),
            (GENERAL, AUDREY, &[]),
            (GENERAL, BOB, &[]),
            (GENERAL, CAROL, &[]),
            (GENERAL, EVE, &[]),
            (TOWN_SQUARE, ALICE, &["owner"]),
            (TOWN_SQUARE, BOB, &["moderator"]),
            (TOWN_SQUARE, CAROL, &[]),
            (TOWN_SQUARE, AUDREY, &[]),
            (BOARDROOM, BOB, &["owner"]),
            (BOARDROOM, CAROL, &["moderator"]),
            (DIRECT, BOB, &[]),
            (DIRECT, CAROL, &[]),
        ] {
            workspace.join(person, room, roles);
        }
        workspace
    }

    /// The account with this id.
    #[must_use]
    pub fn person(&self, id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.id == id)
    }

    /// The account with this id, to be changed.
    pub fn person_mut(&mut self, id: &str) -> Option<&mut Person> {
        self.people.iter_mut().find(|person| person.id == id)
    }

    /// The room with this id.
    #[must_use]
    pub fn room(&self, id: &str) -> Option<&Room> {
        self.rooms.iter().find(|room| room.id == id)
    }

    /// The person's place in the room.
    #[must_use]
    pub fn subscription(&self, person: &str, room: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|entry| entry.person == person && entry.room == room)
    }

    /// Puts the person into the room with these roles, replacing an earlier membership.
    pub fn join(&mut self, person: &str, room: &str, roles: &[&str]) {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        match self.subscriptions.iter_mut().find(|entry| entry.person == person && entry.room == room) {
            Some(entry) => (entry.roles, entry.invited) = (roles, false),
            None => {
                self.joined += 1;
                let id = format!("668c75b2b319fc80b{:07x}", self.joined);
                let (room, person) = (room.to_owned(), person.to_owned());
                self.subscriptions.push(Subscription { id, room, person, roles, invited: false });
            }
        }
    }

    /// Invites the person into the room, who has not accepted yet.
    pub fn invite(&mut self, person: &str, room: &str) {
        self.join(person, room, &[]);
        let entries = self.subscriptions.iter_mut().filter(|entry| entry.person == person && entry.room == room);
        entries.for_each(|entry| entry.invited = true);
    }

    /// Opens a room without members: a discussion of `parent`, or a chat of the livechat.
    pub fn open(&mut self, id: &str, kind: RoomKind, parent: Option<&str>) {
        let parent = parent.map(str::to_owned);
        self.rooms.push(Room { id: id.to_owned(), name: id.to_owned(), kind, parent });
    }

    /// Takes the person out of the room.
    pub fn leave(&mut self, person: &str, room: &str) {
        self.subscriptions.retain(|entry| entry.person != person || entry.room != room);
    }

    /// Replaces the person's global roles.
    pub fn set_roles(&mut self, person: &str, roles: &[&str]) {
        if let Some(person) = self.person_mut(person) {
            person.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        }
    }

    /// Adds `count` ordinary users `member001`…, all in [`GENERAL`], so that lists have pages.
    pub fn crowd(&mut self, count: usize) {
        for number in 1..=count {
            let id = format!("crowd{number:012}");
            let (username, name) = (format!("member{number:03}"), format!("Member {number}"));
            self.people.push(person(&id, &username, &name, &["user"], "offline"));
            self.tokens.insert(format!("{username}-token"), id.clone());
            self.join(&id, GENERAL, &[]);
        }
    }

    /// Whose session token it is.
    #[must_use]
    pub fn token_owner(&self, token: &str) -> Option<&str> {
        self.tokens.get(token).map(String::as_str)
    }

    /// Whose OAuth access token it is.
    #[must_use]
    pub fn bearer_owner(&self, token: &str) -> Option<&str> {
        self.bearers.get(token).map(String::as_str)
    }

    /// A new session token for the person: 43 letters, digits, `-` and `_`. `None` without a source of random bytes.
    pub fn issue(&mut self, person: &str) -> Option<String> {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = [0_u8; 43];
        getrandom::fill(&mut random).ok()?;
        let letter = |byte: &u8| LETTERS.get(usize::from(byte % 64)).map(|letter| char::from(*letter));
        let token: String = random.iter().filter_map(letter).collect();
        self.tokens.insert(token.clone(), person.to_owned());
        Some(token)
    }

    /// Ends a session token or an OAuth access token.
    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
        self.bearers.remove(token);
    }

    /// Deactivates the account and ends all its tokens, as the real server does.
    pub fn deactivate(&mut self, person: &str) {
        self.tokens.retain(|_, owner| owner != person);
        self.bearers.retain(|_, owner| owner != person);
        if let Some(person) = self.person_mut(person) {
            person.active = false;
        }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

fn person(id: &str, username: &str, name: &str, roles: &[&str], status: &str) -> Person {
    Person {
        id: id.to_owned(),
        username: username.to_owned(),
        name: name.to_owned(),
        email: format!("{username}@example.org"),
        password: format!("{username}-password"),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        status: status.to_owned(),
        active: true,
    }
}

fn room(id: &str, name: &str, kind: RoomKind) -> Room {
    Room { id: id.to_owned(), name: name.to_owned(), kind, parent: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_the_real_server() {
        for person in Workspace::new().people {
            assert_eq!(person.id.len(), 17, "{}", person.username);
            assert!(person.id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", person.username);
        }
        let mut workspace = Workspace::new();
        workspace.crowd(3);
        assert!(workspace.people.iter().all(|person| person.id.len() == 17));
        assert!(workspace.subscriptions.iter().all(|entry| entry.id.len() == 24));
    }

    #[test]
    fn only_bob_and_carol_are_in_the_boardroom() {
        let workspace = Workspace::new();
        let inside: Vec<_> = workspace.subscriptions.iter().filter(|entry| entry.room == BOARDROOM).collect();
        assert_eq!(inside.iter().map(|entry| entry.person.as_str()).collect::<Vec<_>>(), [BOB, CAROL]);
        assert!(workspace.subscriptions.iter().all(|entry| entry.person != GUS));
    }

    #[test]
    fn a_login_token_is_new_each_time_and_ends_when_it_is_revoked() {
        let mut workspace = Workspace::new();
        let (first, second) = (workspace.issue(BOB).unwrap(), workspace.issue(BOB).unwrap());
        assert_ne!(first, second);
        assert_eq!((first.len(), workspace.token_owner(&first)), (43, Some(BOB)));
        workspace.revoke(&first);
        assert_eq!((workspace.token_owner(&first), workspace.token_owner(&second)), (None, Some(BOB)));
        workspace.deactivate(BOB);
        assert_eq!((workspace.token_owner(&second), workspace.token_owner("bob-token")), (None, None));
    }
}
