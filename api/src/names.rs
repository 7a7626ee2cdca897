//! What a database, a golden image and a clone may be called, and how a user names one: `orders:latest`.
//!
//! Every name is checked once, where it enters the program; behind that, its type says what it is.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest name of a database: with a timestamp behind it, it still fits a Kubernetes label value (63 characters).
pub const DATABASE_NAME_MAX: usize = 40;
/// Longest name of a clone; a CSI volume handle (68 characters) fits, and CSI strings end at 128 bytes.
pub const CLONE_NAME_MAX: usize = 100;
/// How the time stands in a golden image's name, always UTC.
const TIMESTAMP_FORMAT: &str = "%Y%m%dt%H%M%Sz";
/// `20261123t033000z`
const TIMESTAMP_LEN: usize = 16;

/// Why a name was refused. Its text says what the right form is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a database name.
    #[error(
        "{0:?} is not a database name: use lower-case letters, digits and '-', starting with a letter and ending \
         with a letter or digit, at most {DATABASE_NAME_MAX} characters, e.g. orders"
    )]
    Database(String),
    /// Not a golden image name.
    #[error("{0:?} is not a golden image name: it is DATABASE-TIMESTAMP (UTC), e.g. orders-20261123t033000z")]
    GoldenImage(String),
    /// Not a clone name.
    #[error(
        "{0:?} is not a clone name: use lower-case letters, digits, '-' and '.', starting and ending with a letter \
         or digit, at most {CLONE_NAME_MAX} characters, e.g. pr-123"
    )]
    Clone(String),
    /// Not a reference to an image.
    #[error("{0:?} names no image: write DATABASE:latest or DATABASE:IMAGE, e.g. orders:latest")]
    Reference(String),
    /// `orders:web-20261123t033000z`
    #[error(
        "golden image {image} is not one of database {database:?}: write {image} alone, or the right database"
    )]
    Mismatch {
        /// What stood before the colon.
        database: String,
        /// What stood behind it.
        image: String,
    },
}

/// A name of a database: a DNS label that starts with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(String);

/// A golden image's name: its database, and the UTC second in which its build began. Names of one database sort by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GoldenImageName {
    database: DatabaseName,
    timestamp: String,
}

/// A clone's name, which is also the name of its RBD image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CloneName(String);

/// Which golden image of a database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest ready one.
    Latest,
    /// This one and no other.
    Image(GoldenImageName),
}

/// What a user asks for: `[database:]latest` or `[database:]<golden image>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// The database, where the text names one (a golden image's name always does).
    pub database: Option<DatabaseName>,
    /// Which of its images.
    pub version: Version,
}

impl GoldenImageName {
    /// The name of an image of `database` whose build begins at `at` (cut to the second).
    pub fn new(database: &DatabaseName, at: Timestamp) -> Self {
        Self { database: database.clone(), timestamp: at.strftime(TIMESTAMP_FORMAT).to_string() }
    }

    /// The database this is an image of.
    pub fn database(&self) -> &DatabaseName {
        &self.database
    }

    /// When its build began.
    pub fn timestamp(&self) -> Timestamp {
        parse_timestamp(&self.timestamp).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    if text.len() != TIMESTAMP_LEN {
        return None;
    }
    let time = jiff::civil::DateTime::strptime(TIMESTAMP_FORMAT, text).ok()?;
    let stamp = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    // strptime is lenient (spaces, short fields): only the one canonical spelling is a name.
    (stamp.strftime(TIMESTAMP_FORMAT).to_string() == text).then_some(stamp)
}

fn is_dns_like(text: &str, max: usize, inner: &[u8]) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= max
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || inner.contains(b))
}

impl FromStr for DatabaseName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        // `latest` is the word for a version; a database of that name could never be told from it.
        if starts_well && text != "latest" && is_dns_like(text, DATABASE_NAME_MAX, b"-") {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Database(text.to_owned()))
        }
    }
}

impl FromStr for GoldenImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::GoldenImage(text.to_owned());
        let (database, timestamp) = text.rsplit_once('-').ok_or_else(refuse)?;
        parse_timestamp(timestamp).ok_or_else(refuse)?;
        let database = database.parse().map_err(|_| refuse())?;
        Ok(Self { database, timestamp: timestamp.to_owned() })
    }
}

impl FromStr for CloneName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_dns_like(text, CLONE_NAME_MAX, b"-.") && !text.contains("..") {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Clone(text.to_owned()))
        }
    }
}

impl FromStr for ImageRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (database, version) = match text.split_once(':') {
            Some((database, version)) => (Some(database.parse::<DatabaseName>()?), version),
            None => (None, text),
        };
        if version == "latest" {
            return Ok(Self { database, version: Version::Latest });
        }
        let image: GoldenImageName = version.parse().map_err(|_| NameError::Reference(text.to_owned()))?;
        match database {
            Some(database) if database != image.database => {
                Err(NameError::Mismatch { database: database.0, image: image.to_string() })
            }
            _ => Ok(Self { database: Some(image.database.clone()), version: Version::Image(image) }),
        }
    }
}

impl fmt::Display for GoldenImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.database, self.timestamp)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            write!(f, "{database}:")?;
        }
        match &self.version {
            Version::Latest => f.write_str("latest"),
            Version::Image(image) => image.fmt(f),
        }
    }
}

/// What the two names that wrap one string have in common.
macro_rules! plain_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
plain_name!(DatabaseName);
plain_name!(CloneName);

impl CloneName {
    /// A name that this room made itself, and so is one.
    pub(crate) fn from_checked(name: String) -> Self {
        debug_assert!(name.parse::<Self>().is_ok());
        Self(name)
    }
}

/// serde goes through the parser, so that no name enters unchecked.
macro_rules! checked_serde {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }
    )*};
}
checked_serde!(DatabaseName, GoldenImageName, CloneName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_golden_image_name_is_its_database_and_its_second() {
        let at = "2026-11-23T03:30:00.7Z".parse().unwrap();
        let name = GoldenImageName::new(&"orders".parse().unwrap(), at);
        assert_eq!(name.to_string(), "orders-20261123t033000z");
        assert_eq!(name.timestamp(), "2026-11-23T03:30:00Z".parse().unwrap());
        assert_eq!(
            "my-orders-20261123t033000z".parse::<GoldenImageName>().unwrap().database().as_str(),
            "my-orders"
        );
    }

    #[test]
    fn names_that_would_be_unsafe_or_unclear_are_refused() {
        for bad in [
            "",
            "Orders",
            "1orders",
            "or ders",
            "orders-",
            "../x",
            "a/b",
            "a@b",
            "latest",
            "ö",
            &"a".repeat(41),
        ] {
            assert!(bad.parse::<DatabaseName>().is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "orders",
            "orders-latest",
            "orders-20261323t033000z",
            "orders-20261123T033000Z",
            "-20261123t033000z",
        ] {
            assert!(bad.parse::<GoldenImageName>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a..b", "a/b", "A", "a@b", "-a", "a\n", &"a".repeat(101)] {
            assert!(bad.parse::<CloneName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reference_is_latest_or_one_image_with_or_without_its_database() {
        let image: GoldenImageName = "orders-20261123t033000z".parse().unwrap();
        let pinned = ImageRef { database: Some(image.database().clone()), version: Version::Image(image) };
        assert_eq!("orders-20261123t033000z".parse(), Ok(pinned.clone()));
        assert_eq!("orders:orders-20261123t033000z".parse(), Ok(pinned));
        assert_eq!("latest".parse(), Ok(ImageRef { database: None, version: Version::Latest }));
        assert_eq!("orders:latest".parse::<ImageRef>().unwrap().to_string(), "orders:latest");
    }

    #[test]
    fn a_wrong_reference_is_told_the_right_form() {
        let message = |text: &str| text.parse::<ImageRef>().unwrap_err().to_string();
        assert!(message("orders").contains("orders:latest"));
        assert!(message("orders:newest").contains("DATABASE:latest"));
        assert!(message("Orders:latest").contains("lower-case"));
        assert!(message("web:orders-20261123t033000z").contains("not one of database \"web\""));
    }

    proptest! {
        #[test]
        fn every_name_reads_back_as_it_was_written(database in "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,3}", second in 0i64..4_000_000_000) {
            prop_assume!(database != "latest");
            let database: DatabaseName = database.parse().unwrap();
            let name = GoldenImageName::new(&database, Timestamp::from_second(second).unwrap());
            prop_assert_eq!(name.to_string().parse::<GoldenImageName>().unwrap(), name);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            let _ = text.parse::<DatabaseName>();
            let _ = text.parse::<GoldenImageName>();
            let _ = text.parse::<CloneName>();
            let _ = text.parse::<ImageRef>();
        }
    }
}
