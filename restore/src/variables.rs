//! Variables for somebody else's environment. They come in ours, under a prefix: so they are in nobody's command line,
//! and neither is what the engine gets in the way of what a command gets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Names and values. Values may be secret: they are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    /// Those of `all` whose names begin with `prefix`, without it.
    pub fn below(prefix: &str, all: impl Iterator<Item = (OsString, OsString)>) -> Variables {
        let mut found: Vec<(OsString, OsString)> = all
            .filter_map(|(name, value)| {
                let rest = name.as_bytes().strip_prefix(prefix.as_bytes()).filter(|rest| !rest.is_empty())?;
                Some((OsString::from_vec(rest.to_vec()), value))
            })
            .collect();
        found.sort();
        Variables(found)
    }

    /// For use with `Command::envs`.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_tells_for_whom_a_variable_is_and_values_are_never_shown() {
        let all = [("MASK_SALT", "secret"), ("MASK_", "x"), ("OTHER", "y"), ("MASKED", "z"), ("MASK_A", "")];
        let found = Variables::below("MASK_", all.iter().map(|(name, value)| (name.into(), value.into())));
        let names: Vec<_> = found.iter().collect();
        assert_eq!(names, [("A".as_ref(), "".as_ref()), ("SALT".as_ref(), "secret".as_ref())]);
        assert_eq!(format!("{found:?}"), r#"{"A", "SALT"}"#);
    }
}
