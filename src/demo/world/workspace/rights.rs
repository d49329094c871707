//! The roles and permissions of the workspace, and what follows from them.

use jiff::Timestamp;

use super::{HELPDESK, Person, Room, RoomKind, Workspace};

/// Where a role is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// By a person, everywhere.
    Users,
    /// In a room.
    Subscriptions,
}

impl Scope {
    /// The text in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "Users",
            Self::Subscriptions => "Subscriptions",
        }
    }
}

/// One role.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its id; routes find a role by it alone.
    pub id: String,
    /// Its name; the built-in roles have the same id and name.
    pub name: String,
    /// Where it is held.
    pub scope: Scope,
    /// What it is shown as; a role without one counts as private.
    pub description: String,
    /// Whether it is built in.
    pub protected: bool,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// One permission and the roles that hold it.
#[derive(Debug, Clone)]
pub struct Permission {
    /// Its id.
    pub id: String,
    /// Roles by id.
    pub roles: Vec<String>,
    /// When it was last changed.
    pub updated: Timestamp,
}

impl Workspace {
    /// Lets exactly `roles` hold the permission.
    pub fn grant(&mut self, permission: &str, roles: &[&str]) {
        let granted = Permission {
            id: permission.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            updated: Timestamp::now(),
        };
        self.withdrawn.retain(|(id, _)| id != permission);
        match self.permissions.iter_mut().find(|known| known.id == permission) {
            Some(known) => *known = granted,
            None => self.permissions.push(granted),
        }
    }

    /// Deletes the permission, so that nobody holds it and lists of changes tell so.
    pub fn withdraw(&mut self, permission: &str) {
        self.permissions.retain(|known| known.id != permission);
        self.withdrawn.retain(|(id, _)| id != permission);
        self.withdrawn.push((permission.to_owned(), Timestamp::now()));
    }

    /// Whether one of the person's global roles holds the permission; with a license, a guest has only what guests may have.
    pub(in crate::demo) fn holds(&self, person: &Person, permission: &str) -> bool {
        if self.licensed && person.roles.iter().any(|role| role == "guest") && !GUEST_MAY.contains(&permission) {
            return false;
        }
        let granted = self.permissions.iter().find(|known| known.id == permission);
        granted.is_some_and(|known| known.roles.iter().any(|role| person.roles.contains(role)))
    }

    /// The server's `canAccessRoom`.
    pub(in crate::demo) fn can_access(&self, room: &Room, person: &Person) -> bool {
        if room.kind == RoomKind::Channel && self.holds(person, "view-c-room") {
            return true;
        }
        let joined = self.subscription(&person.id, &room.id).is_some_and(|entry| !entry.invited)
            && (self.holds(person, "view-joined-room") || self.holds(person, &format!("view-{}-room", room.kind.as_str())));
        let parent = room.parent.as_ref().and_then(|parent| self.room(parent));
        joined
            || parent.is_some_and(|parent| self.can_access(parent, person))
            || (room.kind == RoomKind::Livechat && self.holds(person, "view-livechat-rooms"))
    }
}

/// The only permissions that a guest can have under a license, whatever other roles say.
const GUEST_MAY: &[&str] = &["view-d-room", "view-joined-room", "view-p-room", "start-discussion"];

/// Long before anything a test does.
const INSTALLED: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// The built-in roles of an enterprise server and one custom role.
pub(super) fn roles() -> Vec<Role> {
    let role = |id: &str, name: &str, scope, description: &str, protected| Role {
        id: id.to_owned(),
        name: name.to_owned(),
        scope,
        description: description.to_owned(),
        protected,
        updated: INSTALLED,
    };
    let mut roles = vec![
        role("admin", "admin", Scope::Users, "Admin", true),
        role("owner", "owner", Scope::Subscriptions, "Owner", true),
        role("moderator", "moderator", Scope::Subscriptions, "Moderator", true),
        role("leader", "leader", Scope::Subscriptions, "Leader", true),
    ];
    let plain = ["user", "federated-external", "bot", "app", "guest", "anonymous", "auditor", "auditor-log"];
    let livechat = ["livechat-agent", "livechat-manager", "livechat-monitor"];
    roles.extend(plain.iter().chain(&livechat).map(|id| role(id, id, Scope::Users, "", true)));
    roles.push(role(HELPDESK, "helpdesk", Scope::Users, "Help desk", false));
    roles
}

/// The server's defaults.
pub(super) fn permissions() -> Vec<Permission> {
    let everyone_with = |roles: &[&str], ids: &[&str]| -> Vec<Permission> {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let held = |id: &&str| Permission { id: (*id).to_owned(), roles: roles.clone(), updated: INSTALLED };
        ids.iter().map(held).collect()
    };
    [
        everyone_with(&["admin", "auditor"], &["view-members-list-all-rooms", "can-audit"]),
        everyone_with(&["admin", "auditor-log"], &["can-audit-log"]),
        everyone_with(&["admin"], ADMIN_ONLY),
        everyone_with(&["admin", "user", "federated-external", "bot", "app", "anonymous"], &["view-c-room"]),
        everyone_with(&["admin", "user", "federated-external", "anonymous", "guest"], &["view-p-room"]),
        everyone_with(&["admin", "user", "federated-external", "bot", "app", "guest"], &["view-d-room"]),
        everyone_with(&["guest", "bot", "app", "anonymous"], &["view-joined-room"]),
        everyone_with(&["admin", "user", "federated-external", "anonymous"], &["preview-c-room"]),
        everyone_with(&["admin", "owner", "moderator", "user", "federated-external"], &["view-outside-room"]),
        everyone_with(&["admin", "owner", "moderator"], ROOM_STAFF),
        everyone_with(&["admin", "owner"], &["view-all-team-channels", "set-moderator", "set-owner", "set-leader"]),
        everyone_with(&["admin", "user"], &["create-personal-access-tokens"]),
        everyone_with(&["admin", "bot", "app"], &["api-bypass-rate-limit"]),
        everyone_with(&["livechat-manager", "livechat-monitor", "livechat-agent", "admin"], &["view-l-room"]),
        everyone_with(&["livechat-manager", "livechat-monitor", "admin"], &["view-livechat-manager", "view-livechat-rooms"]),
    ]
    .concat()
}

const ADMIN_ONLY: &[&str] = &[
    "access-permissions",
    "access-setting-permissions",
    "assign-admin-role",
    "assign-roles",
    "view-other-user-channels",
    "view-full-other-user-info",
    "view-room-administration",
    "view-user-administration",
    "edit-other-user-info",
    "edit-other-user-active-status",
    "logout-other-user",
    "delete-user",
    "create-user",
    "view-all-teams",
    "view-moderation-console",
    "user-generate-access-token",
];

const ROOM_STAFF: &[&str] = &[
    "view-broadcast-member-list",
    "add-team-member",
    "edit-team-member",
    "remove-user",
    "mute-user",
    "ban-user",
    "create-invite-links",
];

#[cfg(test)]
mod tests {
    use super::super::{ALICE, AUDREY, BOARDROOM, BOB, EVE, GUS, TOWN_SQUARE};
    use super::*;

    fn may(workspace: &Workspace, person: &str, permission: &str) -> bool {
        workspace.holds(workspace.person(person).unwrap(), permission)
    }

    #[test]
    fn each_person_holds_what_the_defaults_say() {
        let workspace = Workspace::new();
        for (person, permission, expected) in [
            (ALICE, "access-permissions", true),
            (AUDREY, "access-permissions", false),
            (AUDREY, "view-members-list-all-rooms", true),
            (BOB, "view-members-list-all-rooms", false),
            (BOB, "view-c-room", true),
            (GUS, "view-c-room", false),
            (ALICE, "no-such-permission", false),
        ] {
            assert_eq!(may(&workspace, person, permission), expected, "{person} {permission}");
        }
    }

    #[test]
    fn a_licensed_guest_has_nothing_beyond_a_guest_even_with_another_role() {
        let mut workspace = Workspace::new();
        workspace.set_roles(GUS, &["guest", "admin"]);
        assert!(!may(&workspace, GUS, "access-permissions"));
        workspace.licensed = false;
        assert!(may(&workspace, GUS, "access-permissions"));
    }

    #[test]
    fn a_private_room_opens_to_its_members_and_a_public_one_to_view_c_room() {
        let workspace = Workspace::new();
        let access =
            |person: &str, room: &str| workspace.can_access(workspace.room(room).unwrap(), workspace.person(person).unwrap());
        assert!(access(BOB, BOARDROOM));
        assert!(!access(ALICE, BOARDROOM), "an administrator has no way in by role");
        assert!(access(EVE, TOWN_SQUARE));
        assert!(!access(GUS, TOWN_SQUARE));
    }
}
