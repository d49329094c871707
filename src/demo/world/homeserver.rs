//! A Matrix homeserver: users with tokens, rooms with members, power levels and a history that some may read.

use std::collections::{BTreeMap, HashMap};

/// Bob made this room and rules it; carol is in it, dave was, frank is invited.
pub const COUNCIL: &str = "!council:example.org";
/// Bob is in this room, and everybody may read its history.
pub const NOTICE_BOARD: &str = "!notices:example.org";

/// What a user is to a room (client-server API, m.room.member).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// Is in it.
    Join,
    /// Was asked in and has not answered.
    Invite,
    /// Was in it and left, or refused the invitation.
    Leave,
    /// May not come back.
    Ban,
}

impl Membership {
    /// The word in an event's content.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }
}

/// One who can log in.
#[derive(Debug, Clone)]
pub struct User {
    /// The whole id, such as `@carol:example.org`.
    pub id: String,
    /// The name that people see.
    pub name: String,
    /// Whether this user is an administrator of the server.
    pub admin: bool,
}

/// One room.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The room version.
    pub version: String,
    /// Who made it.
    pub creator: String,
    /// Whether everybody may read its history; only its members otherwise.
    pub world_readable: bool,
    /// What each user is to it.
    pub members: BTreeMap<String, Membership>,
    /// The power level of each user who has one of their own; all others have 0.
    pub levels: BTreeMap<String, i64>,
}

/// The whole homeserver.
#[derive(Debug, Clone)]
pub struct Homeserver {
    /// Who can log in.
    pub users: Vec<User>,
    /// The rooms.
    pub rooms: Vec<Room>,
    tokens: HashMap<String, String>,
}

impl Homeserver {
    /// The homeserver at the start; tokens are `<name>-mx-token`.
    #[must_use]
    pub fn new() -> Self {
        let names = ["alice", "bob", "carol", "dave", "eve", "frank"];
        let users = names.map(|name| User { id: id(name), name: titled(name), admin: name == "alice" });
        let room = |room: &str, name: &str, world_readable, members: &[(&str, Membership)]| Room {
            id: room.to_owned(),
            name: name.to_owned(),
            version: "11".to_owned(),
            creator: id("bob"),
            world_readable,
            members: members.iter().map(|(name, membership)| (id(name), *membership)).collect(),
            levels: BTreeMap::from([(id("bob"), 100)]),
        };
        let (join, invite, leave) = (Membership::Join, Membership::Invite, Membership::Leave);
        Self {
            rooms: vec![
                room(COUNCIL, "Council", false, &[("bob", join), ("carol", join), ("dave", leave), ("frank", invite)]),
                room(NOTICE_BOARD, "Notice board", true, &[("bob", join)]),
            ],
            tokens: names.iter().map(|name| (format!("{name}-mx-token"), id(name))).collect(),
            users: users.into(),
        }
    }

    /// The user with this id.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    /// The room with this id.
    #[must_use]
    pub fn room(&self, id: &str) -> Option<&Room> {
        self.rooms.iter().find(|room| room.id == id)
    }

    /// The room with this id, to be changed.
    pub fn room_mut(&mut self, id: &str) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.id == id)
    }

    /// Ends the token.
    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    /// Whose token it is.
    #[must_use]
    pub fn token_owner(&self, token: &str) -> Option<&User> {
        self.tokens.get(token).and_then(|id| self.user(id))
    }
}

impl Default for Homeserver {
    fn default() -> Self {
        Self::new()
    }
}

fn id(name: &str) -> String {
    format!("@{name}:example.org")
}

/// `carol` as `Carol`.
fn titled(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rooms_are_as_the_stories_tell() {
        let server = Homeserver::new();
        let council = server.room(COUNCIL).unwrap();
        let of = |name: &str| council.members.get(&id(name)).copied();
        assert_eq!(of("carol"), Some(Membership::Join));
        assert_eq!((of("dave"), of("frank"), of("eve")), (Some(Membership::Leave), Some(Membership::Invite), None));
        assert!(!council.world_readable && server.room(NOTICE_BOARD).unwrap().world_readable);
        assert_eq!(server.users.iter().filter(|user| user.admin).map(|user| user.name.as_str()).collect::<Vec<_>>(), ["Alice"]);
        assert_eq!(server.token_owner("eve-mx-token").unwrap().id, "@eve:example.org");
    }
}
