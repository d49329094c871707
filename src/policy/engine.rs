//! The engine: the policies of one provider, indexed by action, and the answer to one query.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cedar_policy::{Authorizer, Entities, EntityTypeName, EntityUid, PolicyId, PolicySet, Request, Response};

use crate::model::{Decision, Record, Resource, Subject};
use crate::policy::answer::{Answer, Effect, PolicyInfo};
use crate::policy::compiled::{Compiled, Names};
use crate::policy::context::{self, ContextError, Reads};
use crate::policy::domain::ActionShape;
use crate::policy::principal::{Cedar, Given, Principal, PrincipalError, Standing, Types, entity};

/// The checked policies of one provider. Immutable and shareable; made by [`Engine::compile`].
pub struct Engine {
    pub(super) authorizer: Authorizer,
    pub(super) types: Arc<Types>,
    pub(super) action_entities: Arc<Entities>,
    pub(super) names: Names,
    pub(super) actions: HashMap<String, Indexed>,
    pub(super) policies: Vec<Arc<PolicyInfo>>,
}

/// One action with the policies that can apply to it.
pub(super) struct Indexed {
    pub(super) shape: ActionShape,
    pub(super) uid: EntityUid,
    pub(super) resource: EntityTypeName,
    pub(super) reads: Reads,
    pub(super) policies: PolicySet,
    /// The same policies, where Cedar need not be asked.
    pub(super) compiled: Option<Compiled>,
    /// By id, in the order of the files.
    pub(super) infos: HashMap<PolicyId, (usize, Arc<PolicyInfo>)>,
}

/// One question: may this caller do this to that?
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The action's name.
    pub action: &'a str,
    /// Who asks; prepared by the same engine.
    pub principal: &'a Principal,
    /// What it is about, of the type that the action declares.
    pub resource: &'a Resource,
    /// The validated parameters, `context.params`.
    pub params: &'a Record,
    /// Whether the resource is the caller itself, `context.self`; needed where the action's policies read it.
    pub is_self: Option<bool>,
    /// The facts by name, `context.<fact>`; needed are those that the action's policies read.
    pub facts: &'a [(&'a str, &'a Record)],
    /// The named networks that the caller's address is in, `context.networks`.
    pub networks: &'a [&'a str],
    /// What the upstream's tables say about this query, `context.table`.
    pub table: &'a Record,
}

/// Why a query cannot be put to the policies.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    #[error("unknown action `{0}`")]
    Action(String),
    #[error("the caller was prepared for another set of policies")]
    Principal,
    #[error(transparent)]
    Caller(PrincipalError),
    #[error("the resource is a `{0}`, but the action declares `{1}`")]
    Resource(String, String),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("the request could not be built: {0}")]
    Request(String),
}

impl Engine {
    /// Prepares a caller. Names that no policy knows do no harm.
    #[must_use]
    pub fn principal(&self, standing: Arc<dyn Standing>) -> Principal {
        Principal::prepare(standing, &self.types, &self.names, &self.action_entities)
    }

    /// Prepares a caller of whom this is given: its roles are the subject's, its permissions those that the roles hold.
    #[must_use]
    pub fn principal_given(&self, subject: &Subject, permissions: &[impl AsRef<str>]) -> Principal {
        let permissions = permissions.iter().map(|permission| permission.as_ref().to_owned()).collect();
        self.principal(Arc::new(Given { subject: subject.clone(), permissions }))
    }

    /// Whether this engine prepared `principal`.
    #[must_use]
    pub fn prepared(&self, principal: &Principal) -> bool {
        principal.belongs_to(&self.action_entities)
    }

    /// Answers one query. Never fails: what cannot be evaluated is denied, and the answer's `errors` say why.
    #[must_use]
    pub fn authorize(&self, query: &Query<'_>) -> Answer {
        let action = match self.action(query) {
            Ok(action) => action,
            Err(error) => return Answer::unanswerable(error.to_string()),
        };
        if let Some(answer) = action.compiled.as_ref().and_then(|compiled| compiled.answer(query)) {
            return answer;
        }
        let asked = query.principal.cedar().map_err(|error| QueryError::Caller(error.clone()));
        match asked.and_then(|caller| Ok((action.request(query, caller)?, &caller.entities))) {
            Ok((request, entities)) => action.answer(&self.authorizer.is_authorized(&request, &action.policies, entities)),
            Err(error) => Answer::unanswerable(error.to_string()),
        }
    }

    /// Which parts of the context the policies of `action` read; `None` for an unknown action.
    #[must_use]
    pub fn reads(&self, action: &str) -> Option<&Reads> {
        self.actions.get(action).map(|action| &action.reads)
    }

    /// The actions with a policy that only Cedar can decide; each of their decisions takes some microseconds more.
    pub fn left_to_cedar(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter(|(_, action)| action.compiled.is_none()).map(|(name, _)| name.as_str())
    }

    /// Every policy, in the order of the files.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyInfo> {
        self.policies.iter().map(AsRef::as_ref)
    }

    /// The action that a query is about, if the query can be put to its policies.
    fn action(&self, query: &Query<'_>) -> Result<&Indexed, QueryError> {
        let action = self.actions.get(query.action).ok_or_else(|| QueryError::Action(query.action.to_owned()))?;
        // With the action entities of other policies in its store, groups of actions could silently be empty.
        if !query.principal.belongs_to(&self.action_entities) {
            return Err(QueryError::Principal);
        }
        // The index has left out policies for resources of other types.
        if query.resource.kind != action.shape.resource {
            return Err(QueryError::Resource(query.resource.kind.clone(), action.shape.resource.clone()));
        }
        context::check(query, &action.shape, &action.reads)?;
        Ok(action)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("actions", &self.actions.len())
            .field("policies", &self.policies.len())
            .finish_non_exhaustive()
    }
}

impl Indexed {
    /// The query as Cedar is asked.
    pub(super) fn request(&self, query: &Query<'_>, caller: &Cedar) -> Result<Request, QueryError> {
        let context = context::build(query, &self.shape, &self.reads)?;
        let resource = entity(&self.resource, &query.resource.id);
        // No schema here: the context is checked while it is built, and Cedar would miss the keys that nobody reads.
        Request::new(caller.uid.clone(), self.uid.clone(), resource, context, None)
            .map_err(|error| QueryError::Request(error.to_string()))
    }

    pub(super) fn answer(&self, response: &Response) -> Answer {
        let mut errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        let mut reasons = Vec::new();
        for id in response.diagnostics().reason() {
            match self.infos.get(id) {
                Some(reason) => reasons.push(reason),
                None => errors.push(format!("a policy without a record decided: `{id}`")),
            }
        }
        errors.sort();
        reasons.sort_by_key(|(position, _)| *position);
        let permitted = response.decision() == cedar_policy::Decision::Allow;
        // Cedar skips a policy whose evaluation fails; a skipped forbid must not become a permit.
        let decision = if permitted && errors.is_empty() { Decision::Permit } else { Decision::Deny };
        let effect = if decision == Decision::Permit { Effect::Permit } else { Effect::Forbid };
        let determining: Vec<_> =
            reasons.into_iter().map(|(_, info)| info).filter(|info| info.effect == effect).map(Arc::clone).collect();
        let answer = if decision == Decision::Permit { Answer::permitted(determining) } else { Answer::denied(determining) };
        Answer { errors, ..answer }
    }
}
