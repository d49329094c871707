//! A caller as policies see it, prepared once and asked about often.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid};

use crate::model::Subject;
use crate::policy::compiled::Names;

/// A caller whose roles and permissions stand ready for one engine. Immutable; a clone shares them.
#[derive(Clone)]
pub struct Principal(Arc<Prepared>);

struct Prepared {
    id: Arc<str>,
    /// The numbers of the roles and permissions that policies name.
    held: Box<[u32]>,
    uid: EntityUid,
    entities: Entities,
    actions: Arc<Entities>,
}

/// Why a caller could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the caller's roles and permissions could not be prepared: {0}")]
pub struct PrincipalError(String);

/// The entity types that every domain has.
#[derive(Debug, Clone)]
pub(super) struct Types {
    pub(super) user: EntityTypeName,
    pub(super) role: EntityTypeName,
    pub(super) permission: EntityTypeName,
}

impl Principal {
    /// Puts the caller beside an engine's action entities.
    pub(super) fn prepare(
        subject: &Subject,
        permissions: &[impl AsRef<str>],
        types: &Types,
        names: &Names,
        actions: &Arc<Entities>,
    ) -> Result<Self, PrincipalError> {
        let held = names.held(subject.roles.iter().map(|role| &**role), permissions.iter().map(AsRef::as_ref));
        let roles = subject.roles.iter().map(|role| entity(&types.role, role));
        let permissions = permissions.iter().map(|permission| entity(&types.permission, permission.as_ref()));
        let parents: HashSet<EntityUid> = roles.chain(permissions).collect();
        let uid = entity(&types.user, &subject.id);
        let user = Entity::new_no_attrs(uid.clone(), parents);
        let entities = Entities::clone(actions).add_entities([user], None).map_err(|error| PrincipalError(error.to_string()))?;
        Ok(Self(Arc::new(Prepared { id: Arc::clone(&subject.id), held, uid, entities, actions: Arc::clone(actions) })))
    }

    pub(super) fn id(&self) -> &str {
        &self.0.id
    }

    /// Whether the caller has the role or permission of this number.
    pub(super) fn holds(&self, number: u32) -> bool {
        self.0.held.binary_search(&number).is_ok()
    }

    pub(super) fn uid(&self) -> &EntityUid {
        &self.0.uid
    }

    pub(super) fn entities(&self) -> &Entities {
        &self.0.entities
    }

    /// Whether the engine with these action entities prepared it.
    pub(super) fn belongs_to(&self, actions: &Arc<Entities>) -> bool {
        Arc::ptr_eq(&self.0.actions, actions)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Principal").field(&self.0.id).finish()
    }
}

/// The entity of this type and id; unlike parsing, this takes every id.
pub(super) fn entity(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}
