//! The families of error bodies that the server answers with, key order included.

use http::StatusCode;
use serde_json::{Value, json};

/// Why a route did not answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Failure {
    /// No session: the oldest form, which the API reference still prints.
    pub(super) fn anonymous() -> Self {
        let body = json!({"status": "error", "message": "You must be logged in to do this."});
        Self { status: StatusCode::UNAUTHORIZED, body }
    }

    /// Wrong user or password.
    pub(super) fn bad_login() -> Self {
        let body = json!({"success": false, "status": "error", "error": "Unauthorized", "message": "Unauthorized"});
        Self { status: StatusCode::UNAUTHORIZED, body }
    }

    /// A query that does not fit the schema of a typed route.
    pub(super) fn query(messages: &str) -> Self {
        Self::bad(json!({"success": false, "errorType": "error-invalid-params", "error": messages}))
    }

    /// A body that does not fit the schema of a typed route.
    pub(super) fn body(messages: &str) -> Self {
        Self::bad(json!({"success": false, "errorType": "invalid-params", "error": messages}))
    }

    /// A query that does not fit the schema of a route of the older kind.
    pub(super) fn legacy_query(messages: &str) -> Self {
        Self::meteor(Some(messages), "invalid-params", None)
    }

    /// A query over the parser's limits.
    pub(super) fn too_much() -> Self {
        Self::plain("Invalid query parameters")
    }

    /// What a handler throws.
    pub(super) fn meteor(reason: Option<&str>, code: &str, details: Option<Value>) -> Self {
        let error = reason.map_or_else(|| format!("[{code}]"), |reason| format!("{reason} [{code}]"));
        let mut body = json!({"success": false, "error": error, "errorType": code});
        if let (Some(details), Some(body)) = (details, body.as_object_mut()) {
            body.insert("details".to_owned(), details);
        }
        Self::bad(body)
    }

    /// What a handler returns as a failure with a text.
    pub(super) fn plain(error: &str) -> Self {
        Self::bad(json!({"success": false, "error": error}))
    }

    /// The same with a type.
    pub(super) fn typed(error: &str, kind: &str) -> Self {
        Self::bad(json!({"success": false, "error": error, "errorType": kind}))
    }

    /// The route needs a permission that the caller has not.
    pub(super) fn permission() -> Self {
        let error = "User does not have the permissions required for this action [error-unauthorized]";
        Self { status: StatusCode::FORBIDDEN, body: json!({"success": false, "error": error}) }
    }

    /// A handler's own refusal, before version 9.
    pub(super) fn forbidden() -> Self {
        Self { status: StatusCode::FORBIDDEN, body: json!({"success": false, "error": "unauthorized"}) }
    }

    /// A handler found nothing.
    pub(super) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, body: json!({"success": false, "error": "Resource not found"}) }
    }

    /// The route belongs to a module that is not licensed.
    pub(super) fn unlicensed() -> Self {
        Self::meteor(Some("This is an enterprise feature"), "error-action-not-allowed", None)
    }

    /// Too many calls.
    pub(super) fn limited(seconds: u64) -> Self {
        let error = format!(
            "Error, too many requests. Please slow down. You must wait {seconds} seconds before trying this endpoint again. \
             [error-too-many-requests]"
        );
        Self { status: StatusCode::TOO_MANY_REQUESTS, body: json!({"success": false, "error": error}) }
    }

    /// The server itself failed.
    pub(super) fn internal() -> Self {
        let body = json!({"success": false, "error": "Internal server error"});
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body }
    }

    fn bad(body: Value) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_as_the_real_server_sends_it_byte_for_byte() {
        let details = json!({"method": "getRoomRoles"});
        for (failure, status, body) in [
            (Failure::anonymous(), 401, r#"{"status":"error","message":"You must be logged in to do this."}"#),
            (
                Failure::query("must have required property 'rid'"),
                400,
                r#"{"success":false,"errorType":"error-invalid-params","error":"must have required property 'rid'"}"#,
            ),
            (
                Failure::body("must have required property 'message'"),
                400,
                r#"{"success":false,"errorType":"invalid-params","error":"must have required property 'message'"}"#,
            ),
            (
                Failure::legacy_query("must have required property 'roomId'"),
                400,
                r#"{"success":false,"error":"must have required property 'roomId' [invalid-params]","errorType":"invalid-params"}"#,
            ),
            (Failure::too_much(), 400, r#"{"success":false,"error":"Invalid query parameters"}"#),
            (
                Failure::meteor(Some("Invalid room"), "error-invalid-room", Some(details)),
                400,
                r#"{"success":false,"error":"Invalid room [error-invalid-room]","errorType":"error-invalid-room","details":{"method":"getRoomRoles"}}"#,
            ),
            (
                Failure::meteor(None, "error-invalid-roleId", None),
                400,
                r#"{"success":false,"error":"[error-invalid-roleId]","errorType":"error-invalid-roleId"}"#,
            ),
            (
                Failure::permission(),
                403,
                r#"{"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}"#,
            ),
            (Failure::forbidden(), 403, r#"{"success":false,"error":"unauthorized"}"#),
            (Failure::not_found(), 404, r#"{"success":false,"error":"Resource not found"}"#),
            (
                Failure::unlicensed(),
                400,
                r#"{"success":false,"error":"This is an enterprise feature [error-action-not-allowed]","errorType":"error-action-not-allowed"}"#,
            ),
            (
                Failure::limited(7),
                429,
                r#"{"success":false,"error":"Error, too many requests. Please slow down. You must wait 7 seconds before trying this endpoint again. [error-too-many-requests]"}"#,
            ),
            (Failure::bad_login(), 401, r#"{"success":false,"status":"error","error":"Unauthorized","message":"Unauthorized"}"#),
        ] {
            assert_eq!((failure.status.as_u16(), failure.body.to_string().as_str()), (status, body));
        }
    }
}
