//! The API's routes: what each needs, what it accepts, who handles it.

use http::Method;

use super::schema::{Kind, Schema, Shape};
use super::{Call, Outcome, guarded, lookups, session};
use crate::demo::world::Workspace;

/// Which methods a route answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and HEAD which runs the same handler.
    Get,
    /// POST.
    Post,
    /// All three.
    Both,
}

/// In which form a route tells that its query does not fit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    /// Routes with a schema of their own.
    Typed,
    /// Routes that call the validator themselves.
    Legacy,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) verb: Verb,
    pub(super) login: bool,
    pub(super) permissions: &'static [&'static str],
    pub(super) enterprise: bool,
    pub(super) schema: Schema,
    pub(super) family: Family,
    pub(super) handle: fn(&mut Workspace, &Call) -> Outcome,
}

/// The route that answers `method` on `path`.
pub(super) fn find(path: &str, method: &Method) -> Option<&'static Route> {
    let verb = match *method {
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST => Verb::Post,
        _ => return None,
    };
    ROUTES.iter().find(|route| route.path == path && (route.verb == verb || route.verb == Verb::Both))
}

/// Whether any method is answered on `path`.
pub(super) fn known(path: &str) -> bool {
    ROUTES.iter().any(|route| route.path == path)
}

/// A route for everybody who is logged in.
const fn get(path: &'static str, schema: Schema, handle: fn(&mut Workspace, &Call) -> Outcome) -> Route {
    Route { path, verb: Verb::Get, login: true, permissions: &[], enterprise: false, schema, family: Family::Typed, handle }
}

static ROUTES: &[Route] = &[
    Route {
        permissions: &["view-members-list-all-rooms"],
        enterprise: true,
        family: Family::Legacy,
        ..get("/api/v1/audit/rooms.members", Schema::One(&AUDIT), guarded::audit_room_members)
    },
    Route {
        permissions: &["access-permissions"],
        ..get("/api/v1/roles.getUsersInRole", Schema::One(&USERS_IN_ROLE), guarded::users_in_role)
    },
    get("/api/v1/rooms.roles", Schema::One(&ROOM_ROLES), guarded::room_roles),
    get("/api/v1/users.info", Schema::AnyOf(USERS_INFO), guarded::user_info),
    get("/api/v1/me", Schema::Open, lookups::me),
    get("/api/v1/permissions.listAll", Schema::Open, lookups::permissions),
    get("/api/v1/roles.list", Schema::Open, lookups::roles),
    get("/api/v1/roles.sync", Schema::Open, lookups::roles_since),
    get("/api/v1/subscriptions.getOne", Schema::One(&ROOM_ID), lookups::subscription),
    get("/api/v1/rooms.info", Schema::Open, lookups::room),
    get("/api/v1/channels.members", Schema::Open, lookups::channel_members),
    get("/api/v1/users.list", Schema::Open, lookups::users),
    Route { verb: Verb::Post, login: false, ..get("/api/v1/login", Schema::Open, session::login) },
    Route { verb: Verb::Both, ..get("/api/v1/logout", Schema::Open, session::logout) },
];

const AUDIT: Shape = Shape {
    required: &["roomId"],
    properties: &[
        ("roomId", Kind::FilledText),
        ("filter", Kind::Text),
        ("count", Kind::Number),
        ("offset", Kind::Number),
        ("sort", Kind::Text),
    ],
};

const USERS_IN_ROLE: Shape = Shape {
    required: &["role"],
    properties: &[
        ("count", Kind::NullableNumber),
        ("offset", Kind::NullableNumber),
        ("sort", Kind::NullableText),
        ("query", Kind::NullableText),
        ("role", Kind::Text),
        ("roomId", Kind::NullableText),
    ],
};

const ROOM_ROLES: Shape = Shape { required: &["rid"], properties: &[("rid", Kind::Text)] };

const ROOM_ID: Shape = Shape { required: &["roomId"], properties: &[("roomId", Kind::FilledText)] };

/// One selector each, in the order in which the validator tells their faults.
const USERS_INFO: &[Shape] = &[
    Shape {
        required: &["userId"],
        properties: &[("userId", Kind::Text), ("includeUserRooms", Kind::Text), ("fields", Kind::NullableText)],
    },
    Shape {
        required: &["username"],
        properties: &[("username", Kind::Text), ("includeUserRooms", Kind::Text), ("fields", Kind::NullableText)],
    },
    Shape {
        required: &["importId"],
        properties: &[("importId", Kind::Text), ("includeUserRooms", Kind::Text), ("fields", Kind::NullableText)],
    },
    Shape {
        required: &["email"],
        properties: &[("email", Kind::Text), ("includeUserRooms", Kind::Text), ("fields", Kind::NullableText)],
    },
    Shape {
        required: &["freeSwitchExtension"],
        properties: &[("freeSwitchExtension", Kind::Text), ("includeUserRooms", Kind::Text), ("fields", Kind::NullableText)],
    },
];
