//! Names that Ceph accepts and that can't be mistaken for something else in a `pool/namespace/image@snapshot` path.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The longest image name that fits in librbd's object names with room to spare.
const MAX_NAME: usize = 255;

fn validate(kind: &'static str, name: &str) -> Result<()> {
    let why = if name.is_empty() {
        "the name is empty"
    } else if name.len() > MAX_NAME {
        "the name is longer than 255 bytes"
    } else if name.contains(['/', '@']) {
        "the name may hold neither `/` nor `@`: they separate the parts of a path"
    } else if name.chars().any(char::is_control) {
        "the name holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::invalid(kind, format!("{name:?}"), why))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Takes the name if it is one: not empty, at most 255 bytes, no `/`, no `@`, no control characters.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                validate($kind, &name)?;
                Ok(Self(name))
            }

            /// The name as it stands in Ceph.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = Error;

            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// The name of a pool.
    PoolName,
    "name pool"
);
name!(
    /// The name of an image within its rados namespace.
    ImageName,
    "name image"
);
name!(
    /// An image's id: given by librbd, never changed, the same in and out of the trash.
    ImageId,
    "take image id"
);

/// A snapshot's or rados namespace's name, checked by the same rule.
pub(crate) fn check_part(kind: &'static str, name: &str) -> Result<()> {
    validate(kind, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_break_a_path_are_refused() {
        for bad in ["", "a/b", "a@b", "a\0b", "a\nb", &"x".repeat(256)] {
            let error = ImageName::new(bad).unwrap_err();
            assert!(error.is_invalid(), "{bad:?} gave {error}");
        }
        assert_eq!(ImageName::new("orders-20261123t033000z").unwrap().as_str(), "orders-20261123t033000z");
    }

    proptest! {
        #[test]
        fn an_accepted_name_reads_back_and_has_no_separator(name in "\\PC{0,40}") {
            if let Ok(image) = ImageName::new(name.clone()) {
                prop_assert_eq!(image.to_string(), name.clone());
                prop_assert!(!name.contains(['/', '@']) && !name.is_empty());
                prop_assert_eq!(name.parse::<ImageName>().unwrap(), image);
            }
        }
    }
}
