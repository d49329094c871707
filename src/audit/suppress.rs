//! Refusals of callers that nobody knows cost nothing to send: of each address so many a second are recorded, or the records of
//! ten seconds at once, and the others are counted and told together.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{Entry, Object};
use crate::metrics::{Metrics, RecordKind};
use crate::model::Reason;

/// The records of so long may come at once, so that a page that opens thirty calls after its login has ended, or a person who
/// tries something, is recorded call by call.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How long refusals are counted before a record tells of them. A process that dies takes the counts of this long along.
const INTERVAL: Duration = Duration::from_secs(10);

/// How many addresses are kept apart; what comes from further ones meanwhile counts as one.
const ADDRESSES: usize = 1024;

/// All addresses together leave as many records a second as so many of them.
const TOGETHER: u32 = 100;

/// How often addresses are looked for that can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Decides which refusals are recorded, and counts the others.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Time that one record of an address takes up.
    cost: Duration,
    table: Mutex<Table>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Table {
    sources: HashMap<Source, Tally>,
    /// Addresses that are not known, or for which there was no room.
    others: Tally,
    /// What was recorded of all of them.
    all: Pace,
    swept: Option<Instant>,
}

/// Where a request comes from, as far as it is told from others: an IPv4 address, or the network of an IPv6 address (/64),
/// of which one person has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6(u64),
}

#[derive(Debug, Default)]
struct Tally {
    recorded: Pace,
    suppressed: Option<Suppressed>,
}

/// How far records have come ahead of their pace (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Pace {
    /// When they would end if each had taken its time.
    ends: Option<Instant>,
}

/// Refusals of one address that left no records of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suppressed {
    source: Option<Source>,
    /// When the first one came, by the clock that only goes forward.
    began: Instant,
    since: Timestamp,
    until: Timestamp,
    reasons: BTreeMap<Reason, u64>,
}

impl Refusals {
    /// Records `limit` refusals a second of each address, at least 1.
    pub(super) fn new(limit: u32, metrics: Metrics) -> Self {
        let table = Table { sources: HashMap::new(), others: Tally::default(), all: Pace::default(), swept: None };
        Self { cost: Duration::from_secs(1) / limit.max(1), table: Mutex::new(table), metrics }
    }

    /// Whether a refusal of `client` for `reason` is recorded, which came at a moment by both clocks. If not, it is counted.
    pub(super) fn records(&self, client: Option<IpAddr>, reason: Reason, at: Instant, time: Timestamp) -> bool {
        let source = client.map(Source::of);
        let mut table = self.table.lock();
        let table = &mut *table;
        let (one, all) = (self.cost, self.cost / TOGETHER);
        let room = table.all.has_room(at, all);
        let (source, tally) = table.tally(source, at);
        if room && tally.recorded.has_room(at, one) {
            tally.recorded.take(at, one);
            table.all.take(at, all);
            return true;
        }
        let reasons = BTreeMap::from([(reason, 1)]);
        tally.add(Suppressed { source, began: at, since: time, until: time, reasons });
        self.metrics.audit_suppressed(reason);
        false
    }

    /// What was counted long enough at `at`, or `all` of it. It is not counted here any more.
    pub(super) fn due(&self, at: Instant, all: bool) -> Vec<Suppressed> {
        let mut table = self.table.lock();
        let Table { sources, others, .. } = &mut *table;
        let is_due = |suppressed: &mut Suppressed| all || at.saturating_duration_since(suppressed.began) >= INTERVAL;
        let tallies = sources.values_mut().chain([others]);
        tallies.filter_map(|tally| tally.suppressed.take_if(is_due)).collect()
    }

    /// Counts again what could not be recorded.
    pub(super) fn give_back(&self, suppressed: Suppressed) {
        let mut table = self.table.lock();
        let (source, tally) = table.tally(suppressed.source, suppressed.began);
        tally.add(Suppressed { source, ..suppressed });
    }
}

impl Table {
    /// Where the refusals of `source` are counted, and as whose.
    fn tally(&mut self, source: Option<Source>, at: Instant) -> (Option<Source>, &mut Tally) {
        let Some(known) = source else { return (None, &mut self.others) };
        if self.sources.len() >= ADDRESSES && !self.sources.contains_key(&known) {
            self.sweep(at);
            if self.sources.len() >= ADDRESSES {
                return (None, &mut self.others);
            }
        }
        (source, self.sources.entry(known).or_default())
    }

    /// Forgets addresses of which nothing is owed, and that could have the records of ten seconds at once again.
    fn sweep(&mut self, at: Instant) {
        if self.swept.is_some_and(|swept| at.saturating_duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(at);
        self.sources.retain(|_, tally| tally.suppressed.is_some() || !tally.recorded.ahead(at).is_zero());
    }
}

impl Pace {
    /// Whether there can be one more record, which takes up `cost`.
    fn has_room(&self, at: Instant, cost: Duration) -> bool {
        self.ahead(at) + cost <= AT_ONCE
    }

    fn take(&mut self, at: Instant, cost: Duration) {
        self.ends = Some(self.ends.map_or(at, |ends| ends.max(at)) + cost);
    }

    fn ahead(&self, at: Instant) -> Duration {
        self.ends.map_or(Duration::ZERO, |ends| ends.saturating_duration_since(at))
    }
}

impl Tally {
    fn add(&mut self, more: Suppressed) {
        match &mut self.suppressed {
            None => self.suppressed = Some(more),
            Some(suppressed) => {
                suppressed.began = suppressed.began.min(more.began);
                suppressed.since = suppressed.since.min(more.since);
                suppressed.until = suppressed.until.max(more.until);
                for (reason, count) in more.reasons {
                    let counted = suppressed.reasons.entry(reason).or_default();
                    *counted = counted.saturating_add(count);
                }
            }
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(network) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*network) << 64)),
        }
    }
}

impl Suppressed {
    /// How many there were.
    fn records(&self) -> u64 {
        self.reasons.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Entry for Suppressed {
    fn kind(&self) -> RecordKind {
        RecordKind::Suppressed
    }

    fn time(&self) -> Timestamp {
        self.until
    }

    fn fields(&self, fields: &mut Object<'_>) -> io::Result<()> {
        fields.field("client").optional(self.source.map(|source| source.to_string()).as_deref());
        fields.field("since").text(&format!("{:.6}", self.since));
        fields.field("until").text(&format!("{:.6}", self.until));
        fields.field("refusals").number(self.records());
        fields.field("reasons").object(|fields| {
            for (reason, count) in &self.reasons {
                fields.field(reason.as_str()).number(*count);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table, and the moment that offsets count from.
    fn refusals(limit: u32) -> (Refusals, Instant, Metrics) {
        let metrics = Metrics::new().unwrap();
        (Refusals::new(limit, metrics.clone()), Instant::now(), metrics)
    }

    fn time(millis: u64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + i64::try_from(millis).unwrap()).unwrap()
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn sum(suppressed: &[Suppressed]) -> u64 {
        suppressed.iter().map(Suppressed::records).sum()
    }

    #[test]
    fn so_many_a_second_of_one_address_are_recorded_and_the_others_counted_by_reason() {
        let (refusals, start, metrics) = refusals(3);
        let at = |millis| start + Duration::from_millis(millis);
        let mut recorded = 0;
        for millis in 0..2000 {
            let reason = if millis % 2 == 0 { Reason::CredentialMissing } else { Reason::TargetAmbiguous };
            recorded += u64::from(refusals.records(address("203.0.113.7"), reason, at(millis), time(millis)));
        }
        assert_eq!(recorded, 35, "thirty at once, and three a second from then on");
        assert!(
            refusals.records(address("203.0.113.8"), Reason::CredentialMissing, at(1500), time(1500)),
            "others are not touched"
        );
        assert_eq!(refusals.due(at(10_029), false), [], "counted for ten seconds");
        let due = refusals.due(at(10_030), false);
        let [suppressed] = &due[..] else { panic!("{due:?}") };
        assert_eq!(suppressed.records(), 1965);
        let fields = Object::read(|fields| suppressed.fields(fields)).unwrap();
        let expected = serde_json::json!({
            "client": "203.0.113.7", "since": "2023-11-14T22:13:20.030000Z", "until": "2023-11-14T22:13:21.999000Z",
            "refusals": 1965, "reasons": {"target_ambiguous": 983, "credential_missing": 982},
        });
        assert_eq!(serde_json::Value::Object(fields), expected);
        assert_eq!(refusals.due(at(99_000), true), [], "told once");
        assert!(metrics.page().unwrap().contains(r#"rolegate_audit_suppressed_total{reason="credential_missing"} 982"#));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_what_it_is() {
        let (refusals, start, _) = refusals(1);
        let records =
            |text| (0..10).filter(|_| refusals.records(address(text), Reason::CredentialMissing, start, time(0))).count();
        for (text, recorded) in
            [("2001:db8::1", 10), ("2001:db8::ffff:2", 0), ("2001:db8:0:1::1", 10), ("192.0.2.1", 10), ("::ffff:192.0.2.1", 0)]
        {
            assert_eq!(records(text), recorded, "{text}");
        }
        let mut told: Vec<String> =
            refusals.due(start, true).iter().map(|suppressed| suppressed.source.unwrap().to_string()).collect();
        told.sort();
        assert_eq!(told, ["192.0.2.1", "2001:db8::/64"]);
    }

    #[test]
    fn many_addresses_need_no_more_room_and_leave_no_more_records_than_a_hundred() {
        let (refusals, start, _) = refusals(10);
        let mut recorded = 0;
        for number in 0..100_000_u32 {
            let client = Some(IpAddr::V4(Ipv4Addr::from_bits(number % 5000)));
            recorded += u64::from(refusals.records(client, Reason::CredentialMissing, start, time(0)));
        }
        assert_eq!(recorded, 10_000);
        assert!(refusals.table.lock().sources.len() <= ADDRESSES);
        let due = refusals.due(start, true);
        assert!(due.len() <= ADDRESSES + 1);
        assert_eq!(recorded + sum(&due), 100_000);
        let later = start + Duration::from_secs(20);
        assert!(refusals.records(address("2001:db8::1"), Reason::CredentialMissing, later, time(20_000)));
        assert_eq!(refusals.table.lock().sources.len(), 1, "a source is forgotten once its record was made");
    }

    proptest! {
        #[test]
        fn what_is_recorded_and_what_is_told_together_are_all_refusals_whatever_the_order_they_come_in(
            limit in 1_u32..4,
            turns in prop::collection::vec(
                prop_oneof![
                    20 => (0_u64..30_000, 0_u8..6, 0_usize..Reason::ALL.len()).prop_map(|(at, who, why)| (at, Some((who, why)), false)),
                    1 => (0_u64..60_000, any::<bool>()).prop_map(|(at, fails)| (at, None, fails)),
                ],
                0..400,
            ),
            ordered: bool,
        ) {
            let (refusals, start, _) = refusals(limit);
            let mut turns = turns;
            if ordered {
                turns.sort_by_key(|(at, ..)| *at);
            }
            let (mut made, mut recorded, mut told) = (0_u64, 0_u64, 0_u64);
            let mut by_client: HashMap<u8, u32> = HashMap::new();
            for (millis, refusal, fails) in turns {
                let at = start + Duration::from_millis(millis);
                match refusal {
                    Some((who, why)) => {
                        // The last one is of an address that is not known.
                        let client = (who < 5).then(|| IpAddr::V4(Ipv4Addr::new(192, 0, 2, who)));
                        made += 1;
                        if refusals.records(client, Reason::ALL[why], at, time(millis)) {
                            recorded += 1;
                            *by_client.entry(who).or_default() += 1;
                        }
                    }
                    None => {
                        for suppressed in refusals.due(at, false) {
                            if fails {
                                refusals.give_back(suppressed);
                            } else {
                                told += suppressed.records();
                            }
                        }
                    }
                }
            }
            told += sum(&refusals.due(start, true));
            prop_assert_eq!(recorded + told, made);
            // The records of ten seconds at once, and of the thirty seconds that pass.
            prop_assert!(by_client.values().all(|count| *count <= 40 * limit));
        }
    }
}
