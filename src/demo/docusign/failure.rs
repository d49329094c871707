//! The errors of the Rooms server, as far as they are known.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::CONTENT_TYPE;
use crate::demo::answer;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No token, or one that nobody holds.
    InvalidToken,
    /// The account's calls of this hour are used up; note the 400.
    HourlyLimit,
    /// The caller is not of this account.
    NotInAccount,
    /// The caller may not see this.
    LacksPermissions,
    /// A value has the wrong form.
    InvalidParameter,
    /// Nothing is there; the real server sends no body.
    NotFound,
    /// A dead token at the account server, which has errors of its own.
    AccountServer,
}

impl Failure {
    /// The answer; `reference` is what support would ask for.
    pub(super) fn answer(self, reference: &str) -> Response {
        let (status, code, message) = match self {
            Self::InvalidToken => (
                StatusCode::UNAUTHORIZED,
                "AUTHORIZATION_INVALID_TOKEN",
                "The access token provided is expired, revoked or malformed.",
            ),
            Self::HourlyLimit => (
                StatusCode::BAD_REQUEST,
                "HOURLY_APIINVOCATION_LIMIT_EXCEEDED",
                "The maximum number of hourly API invocations has been exceeded. The hourly limit is 3000.",
            ),
            Self::NotInAccount => (
                StatusCode::UNAUTHORIZED,
                "USER_DOES_NOT_BELONG_TO_SPECIFIED_ACCOUNT",
                "The specified User does not belong to the specified Account.",
            ),
            Self::LacksPermissions => (
                StatusCode::UNAUTHORIZED,
                "USER_LACKS_PERMISSIONS",
                "This user lacks sufficient permissions to access this resource.",
            ),
            Self::InvalidParameter => {
                (StatusCode::BAD_REQUEST, "INVALID_REQUEST_PARAMETER", "The request contained at least one invalid parameter.")
            }
            Self::NotFound => return StatusCode::NOT_FOUND.into_response(),
            Self::AccountServer => {
                let body = json!({"error": "internal_server_error", "reference_id": reference});
                return answer::json(StatusCode::UNAUTHORIZED, "application/json", &body);
            }
        };
        answer::json(status, CONTENT_TYPE, &json!({"errorCode": code, "message": message, "referenceId": reference}))
    }
}
