//! What was decided, why, and under which conditions: closed lists whose texts stand in metrics, records and case files alike.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Gives an enum its one text form for labels, records and files.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$item])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every one, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The text in metric labels, audit records and case files.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// A verdict.
    Decision {
        /// The request may go on.
        Permit = "permit",
        /// It may not.
        Deny = "deny",
    }
}

words! {
    /// Whether a verdict is carried out or only noted.
    Mode {
        /// A denied request is refused.
        Enforce = "enforce",
        /// A denied request goes on as received; the record says so.
        Observe = "observe",
    }
}

words! {
    /// The way by which a request reached an action.
    Door {
        /// A route of its own.
        Rest = "rest",
        /// A method named in a request body.
        MethodCall = "method_call",
        /// A WebSocket message.
        Ddp = "ddp",
        /// A SockJS fallback transport.
        Sockjs = "sockjs",
        /// No action matched.
        None = "none",
    }
}

words! {
    /// Why a request was refused.
    Reason {
        /// The two sides of the connection could read its bounds differently (RFC 9112 §6.3, §11.2).
        FramingInvalid = "framing_invalid",
        /// No upstream serves this `Host`.
        HostUnknown = "host_unknown",
        /// A header that identifies or routes has more than one reading.
        HeaderAmbiguous = "header_ambiguous",
        /// The target has more than one reading.
        TargetAmbiguous = "target_ambiguous",
        /// The path is guarded, and this method on it is not declared.
        MethodNotDeclared = "method_not_declared",
        /// No action or route declares the path, and the operator closed the rest.
        RouteUnlisted = "route_unlisted",
        /// More body than the action takes.
        BodyTooLarge = "body_too_large",
        /// No credential was sent.
        CredentialMissing = "credential_missing",
        /// Several credentials were sent, and the upstream might use another one than rolegate.
        CredentialAmbiguous = "credential_ambiguous",
        /// The upstream does not know the credential.
        CredentialRefused = "credential_refused",
        /// A required parameter is absent.
        ParamMissing = "param_missing",
        /// A parameter's value is outside its bounds.
        ParamInvalid = "param_invalid",
        /// The action has no parameter of this name.
        ParamUnknown = "param_unknown",
        /// A parameter was given more than once, or several of which one is allowed.
        ParamRepeated = "param_repeated",
        /// The upstream limits how often facts may be looked up.
        FactsLimited = "facts_limited",
        /// A fact could not be looked up.
        FactsUnavailable = "facts_unavailable",
        /// No policy permits it.
        PolicyDenied = "policy_denied",
        /// A policy forbids it.
        PolicyForbidden = "policy_forbidden",
        /// A policy could not be evaluated.
        PolicyError = "policy_error",
        /// The record could not be written.
        AuditUnavailable = "audit_unavailable",
        /// Too many lookups are under way.
        Overloaded = "overloaded",
        /// A fault of rolegate itself.
        Internal = "internal",
    }
}

/// What a permit demands to be done along with it; from an annotation of the policy that decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Obligation {
    /// Leave the parameter of this name out of the forwarded request.
    Without(String),
    /// Leave what this JSON pointer names out of the answer.
    Redact(String),
}
