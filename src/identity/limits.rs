//! How many lookups may be under way at once: in all, and for one client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts the lookups of one upstream; nobody waits here.
#[derive(Debug)]
pub(super) struct Limits {
    total: usize,
    per_address: usize,
    under_way: Mutex<UnderWay>,
}

/// The right to one lookup, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<Limits>,
    client: IpAddr,
}

#[derive(Debug, Default)]
struct UnderWay {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Limits {
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { total, per_address, under_way: Mutex::default() })
    }

    /// The right to one more lookup for `client`, unless there are too many.
    pub(super) fn permit(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        let mut under_way = self.under_way.lock();
        let of_client = under_way.by_address.get(&client).copied().unwrap_or(0);
        if under_way.total >= self.total || of_client >= self.per_address {
            return None;
        }
        under_way.total += 1;
        under_way.by_address.insert(client, of_client + 1);
        Some(Permit { limits: Arc::clone(self), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut under_way = self.limits.under_way.lock();
        under_way.total = under_way.total.saturating_sub(1);
        match under_way.by_address.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                under_way.by_address.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_refused_above_either_bound_and_given_back_when_dropped() {
        let limits = Limits::new(3, 2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let first = limits.permit(one).unwrap();
        let second = limits.permit(one).unwrap();
        assert!(limits.permit(one).is_none(), "two for one address");
        let third = limits.permit(other).unwrap();
        assert!(limits.permit(other).is_none(), "three in all");
        drop((first, second, third));
        assert!(limits.under_way.lock().by_address.is_empty(), "an address without lookups is forgotten");
        assert!(limits.permit(other).is_some());
    }
}
