//! How long: `30m`, `1h30m`, `2d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest time that anybody may ask for: a year.
const MAX: u64 = 365 * 24 * 3600;
const UNITS: [(char, u64); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

/// A span of time in whole seconds, from one second to a year, as users write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ttl(u64);

/// Why a time was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time: write whole numbers with d, h, m or s, the largest first, up to 365d, e.g. 30m or 1h30m"
)]
pub struct TtlError(String);

impl Ttl {
    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Ttl {
    type Err = TtlError;

    fn from_str(text: &str) -> Result<Self, TtlError> {
        let refuse = || TtlError(text.chars().take(40).collect());
        let (mut total, mut rest, mut units) = (0_u64, text, UNITS.iter());
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, behind) = rest.split_at(digits);
            let unit = behind.chars().next().ok_or_else(refuse)?;
            // Each unit once, and the largest first: the iterator goes on from where it found the last.
            let (_, seconds) = units.find(|(name, _)| *name == unit).ok_or_else(refuse)?;
            let number: u64 = number.parse().map_err(|_| refuse())?;
            total = number.checked_mul(*seconds).and_then(|n| n.checked_add(total)).ok_or_else(refuse)?;
            rest = &behind[unit.len_utf8()..];
        }
        match (1..=MAX).contains(&total) {
            true => Ok(Self(total)),
            false => Err(refuse()),
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (name, seconds) in UNITS {
            if rest >= seconds {
                write!(f, "{}{name}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Ttl {
    type Error = TtlError;
    fn try_from(text: String) -> Result<Self, TtlError> {
        text.parse()
    }
}

impl From<Ttl> for String {
    fn from(ttl: Ttl) -> String {
        ttl.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("45s", 45), ("365d", MAX)] {
            assert_eq!(text.parse(), Ok(Ttl(seconds)), "{text}");
        }
        for bad in
            ["", "30", "m", "-1m", "1m1h", "1h1h", "1.5h", "0s", "366d", "1w", "1m ", "99999999999999999999d"]
        {
            assert!(bad.parse::<Ttl>().is_err(), "{bad:?}");
        }
        assert!("soon".parse::<Ttl>().unwrap_err().to_string().contains("e.g. 30m"));
    }

    proptest! {
        #[test]
        fn every_time_reads_back(seconds in 1..=MAX) {
            prop_assert_eq!(Ttl(seconds).to_string().parse(), Ok(Ttl(seconds)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,20}") {
            let _ = text.parse::<Ttl>();
        }
    }
}
