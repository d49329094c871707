//! What the decision point answers, and what it tells about the policies behind an answer.

use std::sync::Arc;

use crate::model::{Decision, Obligation, Reason};

/// The verdict on one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the request may go on.
    pub decision: Decision,
    /// The permits behind a permit or the forbids behind a denial, in the order of their files; empty when nothing permits.
    pub determining: Vec<Arc<PolicyInfo>>,
    /// What kept the query or a policy from being evaluated; any such fault makes the answer a denial.
    pub errors: Vec<String>,
    /// What every permit behind a permit demands, sorted; empty on a denial.
    pub obligations: Vec<Obligation>,
}

impl Answer {
    /// Why it was denied; `None` for a permit.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self.decision {
            Decision::Permit => None,
            Decision::Deny if !self.errors.is_empty() => Some(Reason::PolicyError),
            Decision::Deny if !self.determining.is_empty() => Some(Reason::PolicyForbidden),
            Decision::Deny => Some(Reason::PolicyDenied),
        }
    }

    /// What `permits` permit.
    pub(super) fn permitted(permits: Vec<Arc<PolicyInfo>>) -> Self {
        // All of them, not those of the first: whoever wrote one of the permits relies on what it leaves out.
        let mut obligations: Vec<Obligation> = permits.iter().flat_map(|info| info.obligations.iter().cloned()).collect();
        obligations.sort();
        obligations.dedup();
        Self { decision: Decision::Permit, determining: permits, errors: Vec::new(), obligations }
    }

    /// What `forbids` forbid, or else what nothing permits.
    pub(super) fn denied(forbids: Vec<Arc<PolicyInfo>>) -> Self {
        Self { decision: Decision::Deny, determining: forbids, errors: Vec::new(), obligations: Vec::new() }
    }

    /// The denial of a query that could not be evaluated.
    pub(super) fn unanswerable(error: String) -> Self {
        Self { decision: Decision::Deny, determining: Vec::new(), errors: vec![error], obligations: Vec::new() }
    }
}

/// One policy as its author wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInfo {
    /// Its `@id`, unique in the engine.
    pub id: String,
    /// The file it stands in, as [`Source::file`](super::Source::file) names it.
    pub file: String,
    /// The line it begins on, annotations included; from 1.
    pub line: usize,
    /// What it does when it matches.
    pub effect: Effect,
    /// Its `@reason`, for the operator.
    pub reason: Option<String>,
    /// What it demands when it permits, sorted.
    pub obligations: Vec<Obligation>,
    /// The actions its scope can apply to, in the order of the domain.
    pub actions: Vec<String>,
}

/// What a policy does when it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It permits, unless something forbids.
    Permit,
    /// It forbids, whatever permits.
    Forbid,
}
