//! Names under which facts are kept: keyed hashes that hold no credential and leave no input out.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hmac::digest::FixedOutput;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::plan::{FactPlan, Plan, Source};
use super::scope::Scope;
use crate::model::Credential;

/// The first half of HMAC-SHA-256 (RFC 2104 §5 allows no less) of everything that an answer depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 16]);

impl Key {
    /// The key with this first byte and this last number.
    #[cfg(test)]
    pub(super) fn of(first: u8, last: u32) -> Self {
        let [a, b, c, d] = last.to_ne_bytes();
        Self([first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    }

    /// The rest when it is divided by `count`; 0 when that is 0.
    pub(super) fn rest(&self, count: usize) -> usize {
        let Self([.., a, b, c, d]) = *self;
        usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(0).checked_rem(count).unwrap_or(0)
    }
}

/// A key is a keyed hash already: its first half is what a map needs of it, and nobody outside can choose it.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self([a, b, c, d, e, f, g, h, ..]) = *self;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Takes a [`Key`]'s hash for what it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Nothing but keys comes here, and they are one number each.
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(8) ^ number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Makes the keys of one upstream, with a random key of this process.
pub(super) struct Keyring {
    keyed: Hmac<Sha256>,
    upstream: String,
    /// How every caller's key of the plan in use begins.
    callers: ArcSwapOption<Beginning>,
}

/// The fields that the keys of one plan have in common.
struct Beginning {
    provider: String,
    digest: [u8; 32],
    fields: Fields,
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes for the key of the fact cache: {0}")]
pub struct NoEntropy(getrandom::Error);

impl Keyring {
    pub(super) fn new(upstream: String) -> Result<Self, NoEntropy> {
        // HMAC pads a key to its block of 64 bytes with zeros, so this is HMAC under the 32 random bytes.
        let mut block = [0; 64];
        getrandom::fill(block.split_at_mut(32).0).map_err(NoEntropy)?;
        Ok(Self { keyed: Hmac::new(&block.into()), upstream, callers: ArcSwapOption::empty() })
    }

    /// Where the caller that `credential` proves is kept.
    pub(super) fn caller(&self, plan: &Plan, credential: &Credential, host: Option<&str>) -> Key {
        let known = self.callers.load();
        if let Some(known) = known.as_ref().filter(|known| known.digest == plan.digest && known.provider == plan.provider) {
            return known.fields.clone().credential(credential).host(host).key();
        }
        let fields = self.fields("caller", plan);
        let beginning = Beginning { provider: plan.provider.clone(), digest: plan.digest, fields: fields.clone() };
        self.callers.store(Some(Arc::new(beginning)));
        fields.credential(credential).host(host).key()
    }

    /// Where a table is kept: one for all callers.
    pub(super) fn table(&self, plan: &Plan, table: &str, host: Option<&str>) -> Key {
        self.fields("table", plan).text(table).host(host).key()
    }

    /// Where a fact is kept: whatever its steps may fill into a placeholder is part of the key.
    pub(super) fn fact(
        &self,
        plan: &Plan,
        fact: &FactPlan,
        credential: &Credential,
        scope: &Scope<'_>,
        host: Option<&str>,
    ) -> Key {
        let mut fields = self.fields("fact", plan).credential(credential).text(&fact.name).text(&scope.subject.id);
        for step in &fact.steps {
            if let Source::Caller(attribute) = &step.source {
                fields = fields.list(&scope.caller(attribute));
            }
            for name in step.placeholders() {
                fields = match name.strip_prefix("caller.") {
                    Some(attribute) => fields.list(&scope.caller(attribute)),
                    None => fields.optional(scope.input(name)),
                };
            }
        }
        fields.host(host).key()
    }

    /// An address of the caller's own, in the unique local range `fd00::/8`: the upstream counts its lookups apart.
    pub(super) fn address(&self, credential: &Credential) -> IpAddr {
        let Key(octets) = Fields(self.keyed.clone()).text("address").text(&self.upstream).credential(credential).key();
        IpAddr::V6(Ipv6Addr::from_bits(Ipv6Addr::from(octets).to_bits() & (u128::MAX >> 8) | (0xfd << 120)))
    }

    fn fields(&self, purpose: &str, plan: &Plan) -> Fields {
        let fields = Fields(self.keyed.clone()).text(purpose).text(&self.upstream).text(&plan.provider);
        fields.bytes(&plan.digest)
    }
}

/// Fields on their way into a key, each behind its length, so that no two lists of fields are the same bytes.
#[derive(Clone)]
struct Fields(Hmac<Sha256>);

impl Fields {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// The last field, where there is one: what stands before says how many there are.
    fn host(self, host: Option<&str>) -> Self {
        match host {
            Some(host) => self.text(host),
            None => self,
        }
    }

    fn optional(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text("is").text(text),
            None => self.text("none"),
        }
    }

    fn list(self, texts: &[&str]) -> Self {
        let counted = self.bytes(&(texts.len() as u64).to_be_bytes());
        texts.iter().fold(counted, |fields, text| fields.text(text))
    }

    fn credential(self, credential: &Credential) -> Self {
        let counted = self.bytes(&(credential.headers.len() as u64).to_be_bytes());
        credential.headers.iter().fold(counted, |fields, (name, value)| fields.text(name).text(value.reveal()))
    }

    fn key(self) -> Key {
        let hash: [u8; 32] = self.0.finalize_fixed().into();
        let mut key = [0; 16];
        key.iter_mut().zip(hash).for_each(|(byte, hashed)| *byte = hashed);
        Key(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, second, third, fourth, ..]) = self;
        f.write_str(&hex::encode([*first, *second, *third, *fourth]))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{bearer, rooms_plan};
    use crate::model::{Secret, Subject};

    fn pair(first: (&str, &str), second: (&str, &str)) -> Credential {
        let headers = [first, second].map(|(name, value)| (name.into(), Secret::new(value)));
        Credential { headers: headers.into() }
    }

    #[test]
    fn bytes_moved_from_one_field_to_the_next_make_another_key() {
        let ring = Keyring::new("http://chat".into()).unwrap();
        let plan = rooms_plan();
        let key = |first, second| ring.caller(&plan, &pair(first, second), None);
        let honest = key(("x-user-id", "ab"), ("x-auth-token", "cd"));
        assert_eq!(honest, key(("x-user-id", "ab"), ("x-auth-token", "cd")));
        assert_ne!(honest, key(("x-user-id", "abc"), ("x-auth-token", "d")));
        assert_ne!(honest, key(("x-user-id", "a"), ("x-auth-token", "bcd")));
        assert_ne!(honest, key(("x-user-i", "dab"), ("x-auth-token", "cd")));
        assert_ne!(honest, key(("x-auth-token", "cd"), ("x-user-id", "ab")));
        assert_ne!(
            honest,
            Keyring::new("http://chat".into()).unwrap().caller(&plan, &pair(("x-user-id", "ab"), ("x-auth-token", "cd")), None),
            "another process"
        );
    }

    #[test]
    fn the_beginning_that_keys_have_in_common_is_that_of_their_plan() {
        let ring = Keyring::new("http://chat".into()).unwrap();
        let plan = rooms_plan();
        let other = Plan { digest: [9; 32], ..(*plan).clone() };
        let third = Plan { provider: "another".into(), ..(*plan).clone() };
        let keys = || [&*plan, &other, &third].map(|plan| ring.caller(plan, &bearer("t"), None));
        let first = keys();
        assert_eq!(first, keys());
        let [one, two, three] = first;
        assert!(one != two && two != three && one != three);
        let afresh = [&*plan, &other, &third].map(|plan| ring.fields("caller", plan).credential(&bearer("t")).key());
        assert_eq!(first, afresh);
    }

    #[test]
    fn every_input_of_a_fact_and_every_text_of_the_caller_it_uses_is_part_of_its_key() {
        let ring = Keyring::new("http://chat".into()).unwrap();
        let plan = rooms_plan();
        let fact = plan.fact("roster").unwrap();
        let key = |room: Option<&str>, email: &str, token: &str, plan: &Plan| {
            let attributes = [("email".to_owned(), vec![email.to_owned()])].into();
            let subject = Subject { id: "u1".into(), attributes, ..Subject::default() };
            let inputs: Vec<(&str, &str)> = room.map(|room| ("room", room)).into_iter().collect();
            ring.fact(plan, fact, &bearer(token), &Scope::new(&subject, &inputs), None)
        };
        let honest = key(Some("r1"), "a@b", "t", &plan);
        assert_eq!(honest, key(Some("r1"), "a@b", "t", &plan));
        assert_ne!(honest, key(Some("r2"), "a@b", "t", &plan));
        assert_ne!(honest, key(None, "a@b", "t", &plan));
        assert_ne!(key(Some(""), "a@b", "t", &plan), key(None, "a@b", "t", &plan));
        assert_ne!(honest, key(Some("r1"), "c@b", "t", &plan));
        assert_ne!(honest, key(Some("r1"), "a@b", "u", &plan));
        assert_ne!(honest, key(Some("r1"), "a@b", "t", &Plan { digest: [9; 32], ..(*plan).clone() }));
        let namesake = FactPlan { name: "second roster".into(), ..fact.clone() };
        let subject = Subject { id: "u1".into(), ..Subject::default() };
        let of = |fact: &FactPlan| ring.fact(&plan, fact, &bearer("t"), &Scope::new(&subject, &[("room", "r1")]), None);
        assert_ne!(of(fact), of(&namesake), "two facts of one plan with the same steps");
    }

    #[test]
    fn what_one_virtual_host_knows_is_kept_apart_from_what_another_does() {
        let ring = Keyring::new("http://chat".into()).unwrap();
        let plan = rooms_plan();
        let fact = plan.fact("roster").unwrap();
        let subject = Subject { id: "u1".into(), ..Subject::default() };
        let keys = |host| {
            let scope = Scope::new(&subject, &[("room", "r1")]);
            [
                ring.caller(&plan, &bearer("t"), host),
                ring.table(&plan, "permissions", host),
                ring.fact(&plan, fact, &bearer("t"), &scope, host),
            ]
        };
        let [one, other, none] = [Some("a.example"), Some("b.example"), None].map(keys);
        for (index, key) in one.iter().enumerate() {
            assert!(*key == keys(Some("a.example"))[index] && *key != other[index] && *key != none[index]);
        }
    }

    #[test]
    fn a_callers_address_is_its_own_and_unique_local() {
        let ring = Keyring::new("http://chat".into()).unwrap();
        let address = ring.address(&bearer("a"));
        assert_eq!(address, ring.address(&bearer("a")));
        assert_ne!(address, ring.address(&bearer("b")));
        let IpAddr::V6(address) = address else { panic!("{address} is not IPv6") };
        assert_eq!(address.octets()[0], 0xfd);
    }
}
