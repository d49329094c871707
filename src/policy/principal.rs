//! A caller as policies see it, prepared once and asked about often.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid};

use crate::model::Subject;
use crate::policy::compiled::Names;

/// What a caller is known to hold, for as long as anybody may ask.
pub trait Standing: Send + Sync {
    /// Its id.
    fn id(&self) -> &str;
    /// Its roles.
    fn roles(&self) -> Vec<&str>;
    /// The permissions that those give it.
    fn permissions(&self) -> Vec<&str>;
}

/// What a caller is said to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Who it is.
    pub subject: Subject,
    /// The permissions that its roles give it.
    pub permissions: Vec<String>,
}

impl Standing for Given {
    fn id(&self) -> &str {
        &self.subject.id
    }

    fn roles(&self) -> Vec<&str> {
        self.subject.roles.iter().map(|role| &**role).collect()
    }

    fn permissions(&self) -> Vec<&str> {
        self.permissions.iter().map(String::as_str).collect()
    }
}

/// A caller whose roles and permissions stand ready for one engine. Immutable; a clone shares them.
#[derive(Clone)]
pub struct Principal(Arc<Prepared>);

struct Prepared {
    standing: Arc<dyn Standing>,
    /// The numbers of the roles and permissions that policies name.
    held: Box<[u32]>,
    types: Arc<Types>,
    actions: Arc<Entities>,
    /// The caller as Cedar knows it, which takes some kilobytes and is hardly ever needed.
    cedar: OnceLock<Result<Cedar, PrincipalError>>,
}

/// A caller in Cedar's own terms.
pub(super) struct Cedar {
    pub(super) uid: EntityUid,
    /// The caller beside the engine's action entities.
    pub(super) entities: Entities,
}

/// Why a caller could not be put in Cedar's terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the caller's roles and permissions could not be prepared: {0}")]
pub(super) struct PrincipalError(String);

/// The entity types that every domain has.
#[derive(Debug, Clone)]
pub(super) struct Types {
    pub(super) user: EntityTypeName,
    pub(super) role: EntityTypeName,
    pub(super) permission: EntityTypeName,
}

impl Principal {
    /// Finds out what of all that the caller holds the policies name.
    pub(super) fn prepare(standing: Arc<dyn Standing>, types: &Arc<Types>, names: &Names, actions: &Arc<Entities>) -> Self {
        let held = names.held(standing.roles().into_iter(), standing.permissions().into_iter());
        let (types, actions) = (Arc::clone(types), Arc::clone(actions));
        Self(Arc::new(Prepared { standing, held, types, actions, cedar: OnceLock::new() }))
    }

    /// The caller as Cedar is asked about it.
    ///
    /// # Errors
    /// Cedar refuses it; treat the caller as denied.
    pub(super) fn cedar(&self) -> Result<&Cedar, &PrincipalError> {
        self.0.cedar.get_or_init(|| self.0.cedar()).as_ref()
    }

    pub(super) fn id(&self) -> &str {
        self.0.standing.id()
    }

    /// Whether the caller has the role or permission of this number.
    pub(super) fn holds(&self, number: u32) -> bool {
        self.0.held.binary_search(&number).is_ok()
    }

    /// Whether the engine with these action entities prepared it.
    pub(super) fn belongs_to(&self, actions: &Arc<Entities>) -> bool {
        Arc::ptr_eq(&self.0.actions, actions)
    }
}

impl Prepared {
    fn cedar(&self) -> Result<Cedar, PrincipalError> {
        let Types { user, role, permission } = &*self.types;
        let roles = self.standing.roles().into_iter().map(|id| entity(role, id));
        let permissions = self.standing.permissions().into_iter().map(|id| entity(permission, id));
        let parents: HashSet<EntityUid> = roles.chain(permissions).collect();
        let uid = entity(user, self.standing.id());
        let caller = Entity::new_no_attrs(uid.clone(), parents);
        let entities = Entities::clone(&self.actions).add_entities([caller], None);
        Ok(Cedar { uid, entities: entities.map_err(|error| PrincipalError(error.to_string()))? })
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Principal").field(&self.id()).finish()
    }
}

/// The entity of this type and id; unlike parsing, this takes every id.
pub(super) fn entity(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}
