//! The errors of a homeserver, in Synapse's words.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::demo::answer;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No token was sent.
    MissingToken,
    /// A token that nobody holds.
    UnknownToken,
    /// The caller is not in the room, or there is no such room.
    NotInRoom,
    /// The route is for administrators of the server.
    NotServerAdmin,
    /// Nothing is there.
    NotFound,
    /// The server knows no such route, or not with this method.
    Unrecognized,
    /// The body is not JSON.
    NotJson,
    /// The body lacks what the route needs.
    MissingParameter,
}

impl Failure {
    /// The answer.
    pub(super) fn answer(self) -> Response {
        let (status, code, message) = match self {
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "Missing access token"),
            Self::UnknownToken => (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "Invalid access token passed."),
            Self::NotInRoom => (StatusCode::FORBIDDEN, "M_FORBIDDEN", "You aren't a member of the room."),
            Self::NotServerAdmin => (StatusCode::FORBIDDEN, "M_FORBIDDEN", "You are not a server admin"),
            Self::NotFound => (StatusCode::NOT_FOUND, "M_NOT_FOUND", "Not found"),
            Self::Unrecognized => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request"),
            Self::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON", "Content not JSON."),
            Self::MissingParameter => (StatusCode::BAD_REQUEST, "M_MISSING_PARAM", "Missing parameter: search_term"),
        };
        answer::json(status, "application/json", &json!({ "errcode": code, "error": message }))
    }
}
