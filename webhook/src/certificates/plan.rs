//! What has to be done about a certificate of our own, and when. Pure: the clock is an argument.
//!
//! The API server must trust an authority before anything that it signed is served, and as long as anybody still serves
//! something that it signed. So a change of authorities takes three steps with time between them: the new one is made known
//! beside the old one; then it signs; then the old one is forgotten.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Validity;

/// How long what is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// An authority.
    pub authority: Duration,
    /// A certificate.
    pub certificate: Duration,
    /// How long everybody is given to learn of a change.
    pub overlap: Duration,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The authority that signs from now on.
    pub authority: Validity,
    /// Since when it is known.
    pub authority_since: Timestamp,
    /// Others are trusted too: those before it.
    pub others: bool,
    /// The certificate; none that could be served: none.
    pub certificate: Option<StoredCertificate>,
}

/// A certificate, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// When it is valid.
    pub validity: Validity,
    /// Since when it is there.
    pub since: Timestamp,
    /// The newest authority signed it.
    pub by_newest: bool,
    /// It has the names under which the API server calls.
    pub names: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An authority and a certificate, where there is nothing.
    Begin,
    /// A new authority, beside the old one.
    NewAuthority,
    /// A new certificate by the newest authority.
    NewCertificate,
    /// The authorities before the newest are trusted no more.
    ForgetOthers,
}

/// What to do now. `told`: the API server has all authorities that are stored.
pub fn plan(stored: Option<&Stored>, now: Timestamp, policy: &Policy, told: bool) -> Option<Step> {
    let Some(stored) = stored.filter(|stored| stored.authority.until > now) else { return Some(Step::Begin) };
    let good = |certificate: &&StoredCertificate| certificate.names && certificate.validity.until > now;
    let Some(certificate) = stored.certificate.as_ref().filter(good) else {
        return Some(Step::NewCertificate);
    };
    let overlap = SignedDuration::try_from(policy.overlap).unwrap_or(SignedDuration::MAX);
    let passed = |since: Timestamp| now.duration_since(since) >= overlap;
    if late(&stored.authority, now) && !stored.others && certificate.by_newest {
        return Some(Step::NewAuthority);
    }
    match certificate.by_newest {
        false if told && passed(stored.authority_since) => Some(Step::NewCertificate),
        false => None,
        true if stored.others && passed(certificate.since) => Some(Step::ForgetOthers),
        true if late(&certificate.validity, now) => Some(Step::NewCertificate),
        true => None,
    }
}

/// Whether the last third of a time has begun.
fn late(validity: &Validity, now: Timestamp) -> bool {
    let whole = validity.until.duration_since(validity.from);
    validity.until.duration_since(now) < whole / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn valid(from: i64, until: i64) -> Validity {
        Validity { from: at(from), until: at(until) }
    }

    const POLICY: Policy = Policy {
        authority: Duration::from_secs(900),
        certificate: Duration::from_secs(300),
        overlap: Duration::from_secs(10),
    };

    fn stored(certificate: Option<StoredCertificate>) -> Stored {
        Stored { authority: valid(0, 900), authority_since: at(0), others: false, certificate }
    }

    const fn certificate(validity: Validity, since: Timestamp) -> StoredCertificate {
        StoredCertificate { validity, since, by_newest: true, names: true }
    }

    #[test]
    fn it_begins_with_nothing_and_renews_in_the_last_third() {
        assert_eq!(plan(None, at(0), &POLICY, true), Some(Step::Begin));
        let fresh = stored(Some(certificate(valid(0, 300), at(0))));
        assert_eq!(plan(Some(&fresh), at(100), &POLICY, true), None);
        assert_eq!(plan(Some(&fresh), at(201), &POLICY, true), Some(Step::NewCertificate));
        assert_eq!(plan(Some(&fresh), at(901), &POLICY, true), Some(Step::Begin));
        assert_eq!(plan(Some(&stored(None)), at(1), &POLICY, false), Some(Step::NewCertificate));
        let other_names = StoredCertificate { names: false, ..certificate(valid(0, 300), at(0)) };
        assert_eq!(plan(Some(&stored(Some(other_names))), at(1), &POLICY, true), Some(Step::NewCertificate));
    }

    #[test]
    fn a_new_authority_signs_only_when_the_api_server_knows_it_and_the_old_one_stays_for_a_while() {
        let mut now = stored(Some(certificate(valid(590, 890), at(590))));
        assert_eq!(plan(Some(&now), at(601), &POLICY, true), Some(Step::NewAuthority));
        now.authority = valid(601, 1501);
        now.authority_since = at(601);
        now.others = true;
        now.certificate.as_mut().unwrap().by_newest = false;
        assert_eq!(plan(Some(&now), at(605), &POLICY, true), None, "not everybody has heard of it");
        assert_eq!(plan(Some(&now), at(611), &POLICY, false), None, "the API server has not");
        assert_eq!(plan(Some(&now), at(611), &POLICY, true), Some(Step::NewCertificate));
        now.certificate = Some(certificate(valid(611, 911), at(611)));
        assert_eq!(plan(Some(&now), at(615), &POLICY, true), None, "somebody may still serve the old one");
        assert_eq!(plan(Some(&now), at(621), &POLICY, true), Some(Step::ForgetOthers));
    }

    proptest! {
        /// Followed for a long time, however seldom it is looked at: what is served is always trusted and never over.
        #[test]
        fn what_is_served_is_always_valid_and_trusted(pauses in proptest::collection::vec(1i64..30, 200)) {
            let mut now = 1_000;
            let mut state: Option<Stored> = None;
            for pause in pauses {
                while let Some(step) = plan(state.as_ref(), at(now), &POLICY, true) {
                    let made = Some(certificate(valid(now, now + 300), at(now)));
                    state = Some(match (step, state.take()) {
                        (Step::Begin, before) => {
                            prop_assert!(before.is_none(), "begun anew");
                            Stored { authority: valid(now, now + 900), authority_since: at(now), others: false, certificate: made }
                        }
                        (Step::NewAuthority, Some(before)) => Stored {
                            authority: valid(now, now + 900), authority_since: at(now), others: true,
                            certificate: before.certificate.map(|c| StoredCertificate { by_newest: false, ..c }),
                        },
                        (Step::NewCertificate, Some(before)) => Stored { certificate: made, ..before },
                        (Step::ForgetOthers, Some(before)) => {
                            prop_assert!(before.certificate.unwrap().by_newest, "what is served is trusted no more");
                            Stored { others: false, ..before }
                        }
                        (_, None) => unreachable!(),
                    });
                }
                now += pause;
                let certificate = state.as_ref().unwrap().certificate.unwrap();
                prop_assert!(certificate.validity.until > at(now), "what is served is over");
            }
        }
    }
}
