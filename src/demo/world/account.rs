//! A DocuSign Rooms account: people by e-mail address, rooms with rosters, roles with flags.

use std::collections::HashMap;

/// The account that everybody but mallory belongs to.
pub const ACCOUNT: &str = "39b2c83e-7d4f-4e0b-9d3a-1f2e3d4c5b6a";
/// Mallory's account, of which this server holds nothing else.
pub const OTHER_ACCOUNT: &str = "7a1d5c02-9b3e-4f68-8c41-d2e6f0a9b753";

/// Bob (agent) and carol (contributor) are in this room.
pub const ROOM: i32 = 1234;
/// Carol is in this room, with 129 guests of the account: more than one page.
pub const LARGE_ROOM: i32 = 5678;
/// Nobody is in this room.
pub const EMPTY_ROOM: i32 = 9999;

/// The role of administrators.
pub const DEFAULT_ADMIN: i32 = 101;
/// The role of agents.
pub const AGENT: i32 = 102;
/// The role of contributors.
pub const CONTRIBUTOR: i32 = 103;
/// An external role, for people outside the company.
pub const BUYER: i32 = 104;

/// One who can log in.
#[derive(Debug, Clone)]
pub struct Person {
    /// The account server's id.
    pub subject: String,
    /// The Rooms server's id.
    pub user: i32,
    /// The only thing that joins the two ids.
    pub email: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Accounts this person belongs to; the real server sometimes tells none.
    pub accounts: Vec<String>,
    /// The company role.
    pub role: i32,
    /// `Contributor`, `Office`, `Region`, `Company` or `Admin`: all but the first see rooms without being on the roster.
    pub access_level: String,
    /// Whether an administrator locked this person out.
    pub locked_out: bool,
}

/// A person's place in a room.
#[derive(Debug, Clone)]
pub struct RoomUser {
    /// The Rooms server's id.
    pub user: i32,
    /// E-mail address.
    pub email: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// The role in this room.
    pub role: i32,
}

/// One room.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its id.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Who is in it.
    pub roster: Vec<RoomUser>,
}

/// One role.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its id.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Whether people outside the company may hold it.
    pub external: bool,
    /// The flags that are true; all others of [`FLAGS`] are false.
    pub flags: Vec<String>,
}

/// What a person in the account hears about a room that is not theirs to see; the real answer is not documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// 401 `USER_LACKS_PERMISSIONS`, as the sibling product says.
    LackPermissions,
    /// 404 without a body.
    FindNothing,
}

/// The whole account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who can log in.
    pub people: Vec<Person>,
    /// The rooms.
    pub rooms: Vec<Room>,
    /// The roles.
    pub roles: Vec<Role>,
    /// What strangers to a room hear.
    pub strangers: Strangers,
    /// Whether `nextUri` and `priorUri` name scheme and host; which form the real server uses is not documented.
    pub absolute_links: bool,
    /// Whether the hourly limit is used up, so that every call of the Rooms API is refused with 400.
    pub exhausted: bool,
    pub(in crate::demo) calls: u32,
    tokens: HashMap<String, String>,
}

impl Account {
    /// The account at the start; tokens are `<name>-ds-token`.
    #[must_use]
    pub fn new() -> Self {
        let people = vec![
            person("alice", 11, ("Alice", "Liddell"), ACCOUNT, DEFAULT_ADMIN, "Admin"),
            person("bob", 12, ("Bob", "Cratchit"), ACCOUNT, AGENT, "Contributor"),
            person("carol", 13, ("Carol", "Kennicott"), ACCOUNT, CONTRIBUTOR, "Contributor"),
            person("eve", 15, ("Eve", "Harrington"), ACCOUNT, CONTRIBUTOR, "Contributor"),
            person("mallory", 16, ("Mallory", "Archer"), OTHER_ACCOUNT, DEFAULT_ADMIN, "Admin"),
        ];
        let name = |person: &Person| person.email.split('@').next().unwrap_or_default().to_owned();
        let tokens = people.iter().map(|person| (format!("{}-ds-token", name(person)), person.email.clone())).collect();
        let guests = (1..=129).map(|number| RoomUser {
            user: 1000 + number,
            email: format!("guest{number:03}@example.net"),
            first_name: format!("Guest{number:03}"),
            last_name: format!("Of The House {}", number % 7),
            role: BUYER,
        });
        let mut account = Self {
            people,
            rooms: vec![
                Room { id: ROOM, name: "12 Elm Street".into(), roster: Vec::new() },
                Room { id: LARGE_ROOM, name: "Harbour Tower".into(), roster: guests.collect() },
                Room { id: EMPTY_ROOM, name: "The Vacant Lot".into(), roster: Vec::new() },
            ],
            roles: roles(),
            strangers: Strangers::LackPermissions,
            absolute_links: false,
            exhausted: false,
            calls: 0,
            tokens,
        };
        account.join("bob@example.org", ROOM, AGENT);
        account.join("carol@example.org", ROOM, CONTRIBUTOR);
        account.join("carol@example.org", LARGE_ROOM, CONTRIBUTOR);
        account
    }

    /// The person with this e-mail address, in any case of letters.
    #[must_use]
    pub fn person(&self, email: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.email.eq_ignore_ascii_case(email))
    }

    /// The person with this e-mail address, to be changed.
    pub fn person_mut(&mut self, email: &str) -> Option<&mut Person> {
        self.people.iter_mut().find(|person| person.email.eq_ignore_ascii_case(email))
    }

    /// The room with this id.
    #[must_use]
    pub fn room(&self, id: i32) -> Option<&Room> {
        self.rooms.iter().find(|room| room.id == id)
    }

    /// The role with this id.
    #[must_use]
    pub fn role(&self, id: i32) -> Option<&Role> {
        self.roles.iter().find(|role| role.id == id)
    }

    /// Puts a person of the account on the room's roster with this role, replacing an earlier entry.
    pub fn join(&mut self, email: &str, room: i32, role: i32) {
        let Some(person) = self.person(email).cloned() else { return };
        self.leave(email, room);
        if let Some(room) = self.rooms.iter_mut().find(|known| known.id == room) {
            room.roster.push(RoomUser {
                user: person.user,
                email: person.email,
                first_name: person.first_name,
                last_name: person.last_name,
                role,
            });
        }
    }

    /// Takes the person off the room's roster.
    pub fn leave(&mut self, email: &str, room: i32) {
        if let Some(room) = self.rooms.iter_mut().find(|known| known.id == room) {
            room.roster.retain(|entry| !entry.email.eq_ignore_ascii_case(email));
        }
    }

    /// Makes `token` one of the person's.
    pub fn issue(&mut self, token: &str, email: &str) {
        self.tokens.insert(token.to_owned(), email.to_owned());
    }

    /// Ends the token.
    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    /// Whose token it is.
    #[must_use]
    pub fn token_owner(&self, token: &str) -> Option<&Person> {
        self.tokens.get(token).and_then(|email| self.person(email))
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::new()
    }
}

fn person(name: &str, user: i32, (first, last): (&str, &str), account: &str, role: i32, access_level: &str) -> Person {
    Person {
        subject: format!("4799e5e9-0000-4000-8000-{user:012}"),
        user,
        email: format!("{name}@example.org"),
        first_name: first.to_owned(),
        last_name: last.to_owned(),
        accounts: vec![account.to_owned()],
        role,
        access_level: access_level.to_owned(),
        locked_out: false,
    }
}

fn roles() -> Vec<Role> {
    let all: Vec<&str> = FLAGS.to_vec();
    let role = |id, name: &str, external, flags: &[&str]| Role {
        id,
        name: name.to_owned(),
        external,
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    vec![
        role(DEFAULT_ADMIN, "Default Admin", false, &all),
        role(AGENT, "Agent", false, &["canAddUsersToRooms", "canCreateRooms", "canViewAndEditRoomDetails", "canAddDocuments"]),
        role(CONTRIBUTOR, "Contributor", false, &["canViewRoomDetails", "canAddDocuments"]),
        role(BUYER, "Buyer", true, &["canViewRoomDetails"]),
    ]
}

/// The flags of a role, in the order of the published definition.
pub const FLAGS: &[&str] = &[
    "canAddUsersToRooms",
    "canCreateRooms",
    "canSubmitRoomsForReview",
    "canCloseRooms",
    "canReopenRooms",
    "canDeleteOwnedRooms",
    "autoAccessToRooms",
    "canExportRoomActivityDetailsPeople",
    "canCopyRoomDetails",
    "canEditAnyRoomRole",
    "canEditInvitedRoomRole",
    "canEditRoomSide",
    "canManageAnyUserRoomAccess",
    "canManageInvitedUserRoomAccess",
    "isHiddenInRoom",
    "canManageRoomOwners",
    "canDeleteRooms",
    "canConnectToMortgageCadence",
    "autoAccessToRoomsInOfficeOnly",
    "canViewRoomDetails",
    "canViewAndEditRoomDetails",
    "canSendRoomDetailsToLoneWolf",
    "canAddDocuments",
    "canAddDocumentsFromFormGroups",
    "canAddDocumentsFromFormLibraries",
    "documentsViewableByOthersInRoomFromOffice",
    "documentsAutoOwnedByPeers",
    "canDeleteOwnedDocuments",
    "canDeleteSignedDocuments",
    "canDeleteUnsignedDocuments",
    "canManageSharedDocs",
    "canManageFormGroups",
    "canShareDocsNotOwned",
    "canCreateFormTemplates",
    "canManageFormPackets",
    "canAddTasksToAnyTaskLists",
    "canEditEditableTasks",
    "canEditAnyTasks",
    "canDeleteDeletableTasks",
    "canDeleteAnyTasks",
    "canApplyTaskList",
    "canRemoveAnyTaskList",
    "canSubmitTaskList",
    "canAutoSubmitTaskList",
    "canReviewTaskList",
    "canAutoApproveTaskList",
    "canManageTaskTemplatesForAllRegionsAllOffices",
    "canApplyRoomTemplates",
    "canAddTasksToRooms",
    "canReviewAnyTask",
    "canManageDocsOnAnyTask",
    "canAddMemberAndSetRoleLowerAccessLevel",
    "canAddMemberAndSetRoleSameAccessLevel",
    "canChangeMemberRoleLowerAccessLevel",
    "canChangeMemberRoleSameAccessLevel",
    "canManageMemberLowerAccessLevel",
    "canManageMemberSameAccessLevel",
    "canRemoveCompanyMemberLowerAccessLevel",
    "canRemoveCompanyMemberSameAccessLevel",
    "canManageAccount",
    "canManageLogo",
    "canManageRolesAndPermissions",
    "canManageRoomDetails",
    "canManageRoomTemplates",
    "canManageIntegrationSettings",
    "canExportCompanyUsageReport",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rosters_are_as_the_stories_tell() {
        let account = Account::new();
        let names = |room| account.room(room).unwrap().roster.iter().map(|entry| entry.first_name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(ROOM), ["Bob", "Carol"]);
        assert!(names(LARGE_ROOM).len() > 100 && names(LARGE_ROOM).contains(&"Carol"));
        assert!(names(EMPTY_ROOM).is_empty());
        assert_eq!(account.token_owner("mallory-ds-token").unwrap().accounts, [OTHER_ACCOUNT]);
        assert_eq!(FLAGS.len(), 66);
    }
}
