//! Which golden images are kept. Days and weeks are UTC's, weeks begin on Monday.

use std::collections::BTreeSet;

use aldaas_api::GoldenImageName;
use aldaas_api::kinds::Retention;
use jiff::civil::{Date, ISOWeekDate};
use jiff::tz::TimeZone;

/// Of these ready images of one database, the ones to keep: the newest `keep`, and the newest of each of the last days and weeks
/// that have one. The newest of all is always among them.
pub fn kept<'a>(
    retention: &Retention,
    ready: impl IntoIterator<Item = &'a GoldenImageName>,
) -> BTreeSet<GoldenImageName> {
    let mut newest_first: Vec<&GoldenImageName> = ready.into_iter().collect();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let mut kept: BTreeSet<GoldenImageName> =
        newest_first.iter().take(count(retention.keep).max(1)).map(|name| (*name).clone()).collect();
    kept.extend(newest_of_each(&newest_first, count(retention.keep_daily), day));
    kept.extend(newest_of_each(&newest_first, count(retention.keep_weekly), week));
    kept
}

/// The newest of each of the last `periods` periods in which there is one.
fn newest_of_each<P: PartialEq>(
    newest_first: &[&GoldenImageName],
    periods: usize,
    period: impl Fn(&GoldenImageName) -> P,
) -> Vec<GoldenImageName> {
    let mut last = None;
    let mut newest = Vec::new();
    for name in newest_first {
        let of = Some(period(name));
        if newest.len() < periods && last != of {
            newest.push((*name).clone());
        }
        last = of;
    }
    newest
}

fn day(name: &GoldenImageName) -> Date {
    name.timestamp().to_zoned(TimeZone::UTC).date()
}

fn week(name: &GoldenImageName) -> (i16, i8) {
    let week: ISOWeekDate = day(name).iso_week_date();
    (week.year(), week.week())
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn image(text: &str) -> GoldenImageName {
        format!("orders-{text}z").parse().unwrap()
    }

    fn rule(keep: u32, keep_daily: u32, keep_weekly: u32) -> Retention {
        Retention { keep, keep_daily, keep_weekly, failed_ttl: None }
    }

    #[test]
    fn days_and_weeks_keep_the_newest_of_each() {
        let all =
            ["20261118t010000", "20261121t230000", "20261122t010000", "20261122t235959", "20261123t000000"]
                .map(image);
        let of = |retention| kept(&retention, &all).into_iter().collect::<Vec<_>>();
        assert_eq!(of(rule(1, 0, 0)), [all[4].clone()]);
        assert_eq!(of(rule(2, 0, 0)), all[3..]);
        // Monday the 23rd is another week than Sunday the 22nd.
        assert_eq!(of(rule(1, 0, 2)), [all[3].clone(), all[4].clone()]);
        assert_eq!(of(rule(1, 3, 0)), [all[1].clone(), all[3].clone(), all[4].clone()]);
        assert_eq!(of(rule(0, 0, 0)), [all[4].clone()], "the newest always stays");
    }

    proptest! {
        #[test]
        fn the_newest_stays_and_no_rule_keeps_more_than_it_says(
            hours in prop::collection::btree_set(0i64..24 * 400, 0..60),
            (keep, daily, weekly) in (0u32..9, 0u32..9, 0u32..9),
        ) {
            let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            let database = "orders".parse().unwrap();
            let all: Vec<_> = hours
                .iter()
                .map(|hour| GoldenImageName::new(&database, start + SignedDuration::from_hours(*hour)))
                .collect();
            let kept = kept(&rule(keep, daily, weekly), &all);
            prop_assert!(kept.iter().all(|name| all.contains(name)));
            prop_assert_eq!(kept.last(), all.last());
            prop_assert!(kept.len() <= (keep.max(1) + daily + weekly) as usize);
            prop_assert!(kept.len() >= all.len().min(keep.max(1) as usize));
            // What was decided once is not decided otherwise when the others have gone.
            prop_assert_eq!(super::kept(&rule(keep, daily, weekly), &kept), kept);
        }
    }
}
