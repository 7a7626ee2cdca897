//! Named clones have one user at a time, on whichever node: leases that end by themselves.
//!
//! Two RADOS locks on the clone's own header, which vanish with it:
//!
//! - `aldaas-lease` has one holder, named `<node>/<volume>`: the node that uses the clone, or is about to
//! - `aldaas-ttl` has any number: while one of them lasts, the clone is kept
//!
//! The node's plugin takes both before it attaches the clone, renews both while it is attached, and at the end drops the
//! first and renews the second. Their time is the OSD's alone: no clock of a node is compared with another one's.
//!
//! A plugin that is away for longer than its lease leaves a watcher without a lease: its pod may still be writing. Another
//! node that wants the clone watches it for the length of a whole lease, in which a plugin that comes back would have taken
//! its lease again, and then fences it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aldaas_api::CloneName;
use aldaas_rbd as rbd;

use crate::{Error, Result, Store};

/// The lock of the one who uses the clone.
const LEASE: &str = "aldaas-lease";
/// The lock of all for whom the clone is kept.
const TTL: &str = "aldaas-ttl";
/// What whoever removes the clone calls its hold.
const REMOVAL: &str = "-/removal";
/// How long a removal keeps others from taking a lease: much longer than the moment it needs.
const REMOVAL_TIME: Duration = Duration::from_secs(60);
/// How often a lease of our own is taken over in one try.
const TAKEOVERS: usize = 3;
/// For how long a fenced client stays fenced. A machine that comes back later than this has forgotten what it wanted to write.
const FENCED: Duration = Duration::from_secs(24 * 3600);

/// Who uses a named clone: a volume on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The node.
    pub node: String,
    /// The CSI volume id.
    pub volume: String,
}

/// How long a user's sign of life counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long the lease lasts from its last renewal; it is renewed a few times in it.
    pub lease: Duration,
    /// How long the clone is kept beyond that.
    pub ttl: Duration,
}

/// Whose turn it is to attach a named clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Ours.
    Free,
    /// Somebody else's.
    Wait {
        /// Who that is, for people.
        by: String,
    },
    /// Nobody's any more, but these clients have it open and nobody answers for them: they must be kept from writing first.
    Fence {
        /// Their addresses, for [`Store::fence`].
        addresses: Vec<String>,
    },
}

/// Who may attach a named clone now. `alone` is for how long these watchers were seen without anybody else's lease
/// ([`Alone`]), `lease` how long a lease lasts. What an earlier try of ours left counts as nobody's.
pub fn decide(
    me: &Lease,
    leases: &[Lease],
    watchers: &[rbd::Watcher],
    alone: Duration,
    lease: Duration,
) -> Turn {
    let others: Vec<String> = leases.iter().filter(|other| *other != me).map(Lease::to_string).collect();
    if !others.is_empty() {
        return Turn::Wait { by: others.join(", ") };
    }
    let addresses: Vec<String> = watchers.iter().map(|watcher| watcher.address.clone()).collect();
    if addresses.is_empty() {
        Turn::Free
    } else if alone >= lease {
        Turn::Fence { addresses }
    } else {
        Turn::Wait { by: format!("{}, of which no node has said anything lately", addresses.join(", ")) }
    }
}

/// For how long the watchers of a clone have been seen without anybody else's lease, by our own clock. It begins anew with
/// every lease and every new watcher.
#[derive(Clone, Debug, Default)]
pub struct Alone {
    since: Option<Instant>,
    /// The last look: what was in between is not known.
    last: Option<Instant>,
    watchers: BTreeSet<String>,
}

impl Alone {
    /// Takes in what was seen at `now`. After a pause as long as a lease it begins anew: somebody may have renewed theirs in it.
    pub fn observe(
        &mut self,
        me: &Lease,
        leases: &[Lease],
        watchers: &[rbd::Watcher],
        now: Instant,
        lease: Duration,
    ) -> Duration {
        let watchers: BTreeSet<String> = watchers.iter().map(|watcher| watcher.address.clone()).collect();
        if watchers.is_empty() || leases.iter().any(|lease| lease != me) {
            *self = Self::default();
            return Duration::ZERO;
        }
        let paused = self.last.is_none_or(|last| now.saturating_duration_since(last) >= lease);
        if paused || !watchers.is_subset(&self.watchers) {
            self.since = None;
        }
        self.last = Some(now);
        self.watchers = watchers;
        now.saturating_duration_since(*self.since.get_or_insert(now))
    }
}

impl Store {
    /// Looks whose turn it is, and takes the lease if it is ours: of any number that ask at once, one is told
    /// [`Turn::Free`]. It is asked again and again, with the same `alone`, until it is ours or there is no more time.
    ///
    /// A clone that was made just now needs no such question: [`Store::take_lease`] is enough.
    pub fn take_turn(&self, id: &rbd::ImageId, me: &Lease, terms: &Terms, alone: &mut Alone) -> Result<Turn> {
        let leases = self.leases(id)?;
        let watchers = self.clone_watchers(id)?;
        let seen = alone.observe(me, &leases, &watchers, Instant::now(), terms.lease);
        let turn = decide(me, &leases, &watchers, seen, terms.lease);
        if turn != Turn::Free {
            return Ok(turn);
        }
        match self.take_lease(id, me, terms) {
            Ok(()) => Ok(Turn::Free),
            Err(Error::Leased(by)) => Ok(Turn::Wait { by }),
            Err(error) => Err(error),
        }
    }

    /// Takes the lease, or renews it, and keeps the clone for `terms.ttl` beyond it. [`Error::Leased`] if another has it.
    /// One that an earlier connection of ours left is taken over. A clone that is gone stays gone.
    pub fn take_lease(&self, id: &rbd::ImageId, me: &Lease, terms: &Terms) -> Result<()> {
        let cookie = me.to_string();
        let lease = lock(LEASE, rbd::LockKind::Exclusive, &cookie, terms.lease);
        let ttl = lock(TTL, rbd::LockKind::Shared, &cookie, terms.ttl.saturating_add(terms.lease));
        for _ in 0..TAKEOVERS {
            match self.clones.lock_image(id, &[lease, ttl]) {
                Err(error) if error.is_busy() => {}
                other => return Ok(other?),
            }
            let lockers = self.clones.image_lockers(id, LEASE)?;
            if let Some(other) = lockers.iter().find(|locker| locker.cookie != cookie) {
                return Err(Error::Leased(who(other)));
            }
            for earlier in &lockers {
                match self.clones.break_image_lock(id, LEASE, earlier) {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        // Two plugins of one node take it from each other, or a removal has given up one of its two locks.
        Err(Error::Leased("somebody who takes or drops it at this moment".to_owned()))
    }

    /// Gives the lease back. The clone is kept for `keep` from now on, or, with none, no longer than others want it kept.
    pub fn drop_lease(&self, id: &rbd::ImageId, me: &Lease, keep: Option<Duration>) -> Result<()> {
        let cookie = me.to_string();
        let ttl = match keep {
            Some(keep) => self.clones.lock_image(id, &[lock(TTL, rbd::LockKind::Shared, &cookie, keep)]),
            None => self.clones.unlock_image(id, TTL, &cookie),
        };
        absent_is_fine(ttl)?;
        // Those that an earlier connection of ours took, too.
        for mine in self.lockers(id, LEASE)?.iter().filter(|locker| locker.cookie == cookie) {
            absent_is_fine(self.clones.break_image_lock(id, LEASE, mine))?;
        }
        Ok(())
    }

    /// Who has a lease that has not run out: nobody or one. Nobody, if the clone is gone.
    pub fn leases(&self, id: &rbd::ImageId) -> Result<Vec<Lease>> {
        let lockers = self.lockers(id, LEASE)?;
        Ok(lockers.iter().map(|locker| Lease::of_cookie(&locker.cookie)).collect())
    }

    /// Whether a clone's TTL, counted from its last user's last sign of life, has not run out.
    pub fn is_kept(&self, id: &rbd::ImageId) -> Result<bool> {
        Ok(!self.lockers(id, TTL)?.is_empty())
    }

    /// Keeps clients from ever writing again, whatever of them is still on its way. They are clients of one image each:
    /// whatever else runs on their nodes goes on.
    pub fn fence(&self, addresses: &[String]) -> Result<()> {
        let cluster = self.clones.pool().cluster();
        let ours = cluster.addresses()?;
        // We ourselves look into a clone now and then.
        for address in addresses.iter().filter(|address| !ours.contains(*address)) {
            tracing::warn!(%address, "fencing a client of a named clone");
            cluster.blocklist_add(address, FENCED)?;
        }
        Ok(())
    }

    /// From here on nobody can take a lease of the clone, unless somebody has one or the clone is to be kept.
    pub(crate) fn claim_for_removal(&self, name: &CloneName, id: &rbd::ImageId) -> Result<()> {
        let locks = [LEASE, TTL].map(|name| lock(name, rbd::LockKind::Exclusive, REMOVAL, REMOVAL_TIME));
        match self.clones.lock_image(id, &locks) {
            Err(error) if error.is_busy() => {
                let holders = [self.lockers(id, LEASE)?, self.lockers(id, TTL)?].concat();
                let users: BTreeSet<String> = holders.iter().map(who).collect();
                let users = users.into_iter().collect::<Vec<_>>().join(", ");
                Err(Error::InUse { image: format!("clone/{name}"), users })
            }
            Err(error) if error.is_not_found() => Ok(()),
            other => Ok(other?),
        }
    }

    pub(crate) fn unclaim_for_removal(&self, id: &rbd::ImageId) {
        for lock in [LEASE, TTL] {
            if let Err(error) = absent_is_fine(self.clones.unlock_image(id, lock, REMOVAL)) {
                tracing::debug!(%error, "a claim for removal runs out by itself");
            }
        }
    }

    fn lockers(&self, id: &rbd::ImageId, lock: &str) -> Result<Vec<rbd::Locker>> {
        match self.clones.image_lockers(id, lock) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => Ok(other?),
        }
    }
}

impl Lease {
    /// A node's name holds no `/`.
    fn of_cookie(cookie: &str) -> Self {
        let (node, volume) = cookie.split_once('/').unwrap_or(("", cookie));
        Self { node: node.to_owned(), volume: volume.to_owned() }
    }
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.node, self.volume)
    }
}

fn lock<'a>(name: &'a str, kind: rbd::LockKind, cookie: &'a str, duration: Duration) -> rbd::ImageLock<'a> {
    rbd::ImageLock { name, kind, cookie, description: "aldaas: a named clone is in use", duration }
}

/// A holder for people.
fn who(locker: &rbd::Locker) -> String {
    match locker.cookie.as_str() {
        REMOVAL => "whoever removes it".to_owned(),
        cookie => cookie.to_owned(),
    }
}

fn absent_is_fine(result: rbd::Result<()>) -> rbd::Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHILE: Duration = Duration::from_secs(90);

    fn lease(node: u8, volume: u8) -> Lease {
        Lease { node: format!("node-{node}"), volume: format!("csi-{volume}") }
    }

    fn watcher(number: u8) -> rbd::Watcher {
        rbd::Watcher { address: format!("10.0.0.{number}:0/1"), client_id: number.into(), cookie: 1 }
    }

    fn leases() -> impl Strategy<Value = Vec<Lease>> {
        prop::collection::vec((0..3u8, 0..2u8).prop_map(|(node, volume)| lease(node, volume)), 0..3)
    }

    fn watchers() -> impl Strategy<Value = Vec<rbd::Watcher>> {
        prop::collection::vec((0..4u8).prop_map(watcher), 0..3)
    }

    #[test]
    fn a_lease_reads_back_whatever_its_volume_is_called() {
        for lease in [lease(1, 1), Lease { node: "n".into(), volume: "a/b".into() }] {
            assert_eq!(Lease::of_cookie(&lease.to_string()), lease);
        }
        assert_eq!(Lease::of_cookie("?").volume, "?");
    }

    proptest! {
        #[test]
        fn nobody_is_fenced_or_overtaken_who_has_a_lease(
            leases in leases(),
            watchers in watchers(),
            alone in (0u64..200).prop_map(Duration::from_secs),
        ) {
            let me = lease(0, 0);
            let others = leases.iter().any(|lease| *lease != me);
            match decide(&me, &leases, &watchers, alone, WHILE) {
                Turn::Free => prop_assert!(!others && watchers.is_empty()),
                Turn::Fence { addresses } => {
                    prop_assert!(!others && alone >= WHILE);
                    prop_assert_eq!(addresses.len(), watchers.len());
                }
                Turn::Wait { by } => {
                    prop_assert!(others || (!watchers.is_empty() && alone < WHILE));
                    prop_assert!(!by.is_empty());
                }
            }
        }

        /// The time counted never is longer than that since somebody else last had a lease, or since the watcher that came
        /// last was first seen.
        #[test]
        fn time_alone_is_never_counted_too_long(
            seen in prop::collection::vec((leases(), watchers(), 0u64..60), 1..20),
        ) {
            let me = lease(0, 0);
            let start = Instant::now();
            let (mut alone, mut now) = (Alone::default(), start);
            let mut first_seen = std::collections::BTreeMap::new();
            for (leases, watchers, later) in seen {
                now += Duration::from_secs(later);
                let addresses: BTreeSet<_> = watchers.iter().map(|watcher| watcher.address.clone()).collect();
                if leases.iter().any(|lease| *lease != me) {
                    first_seen.clear();
                } else {
                    first_seen.retain(|address, _| addresses.contains(address));
                    for address in addresses {
                        first_seen.entry(address).or_insert(now);
                    }
                }
                let longest = first_seen.values().max().map_or(Duration::ZERO, |since| now - *since);
                prop_assert!(alone.observe(&me, &leases, &watchers, now, WHILE) <= longest);
            }
        }
    }

    #[test]
    fn a_watcher_that_stays_is_fenced_when_a_lease_s_length_has_passed() {
        let (me, start) = (lease(0, 0), Instant::now());
        let (own, theirs) = ([lease(0, 0)], [lease(1, 1)]);
        let watchers = [watcher(1)];
        let mut alone = Alone::default();
        let mut at = |leases: &[Lease], seconds| {
            let seen = alone.observe(&me, leases, &watchers, start + Duration::from_secs(seconds), WHILE);
            decide(&me, leases, &watchers, seen, WHILE)
        };
        assert!(matches!(at(&theirs, 0), Turn::Wait { .. }));
        assert!(matches!(at(&[], 10), Turn::Wait { .. }));
        assert!(matches!(at(&own, 60), Turn::Wait { .. }));
        assert!(matches!(at(&theirs, 95), Turn::Wait { .. }), "its plugin came back");
        assert!(matches!(at(&[], 96), Turn::Wait { .. }));
        assert!(matches!(at(&[], 185), Turn::Wait { .. }));
        assert_eq!(at(&[], 186), Turn::Fence { addresses: vec!["10.0.0.1:0/1".into()] });
    }
}
