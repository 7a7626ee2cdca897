//! What users write on their pods: the keys `aldaas/…`, as annotations or labels.
//!
//! | key | value |
//! |---|---|
//! | [`DB`] | `[database:]latest` or `[database:]<golden image>`; several, with commas between |
//! | [`DATABASE`] | the database where [`DB`] names none; on the pod or its namespace |
//! | [`CONTAINER`], [`TTL`], [`CLONE`] | one value, or one for each database: `orders=30m,users=2h` |
//!
//! One parser reads them for every program. An annotation goes before a label of the same key.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::{CloneName, DatabaseName, ImageRef, NameError, Ttl, Version, ttl::TtlError};

/// What all keys begin with.
pub const PREFIX: &str = "aldaas/";
/// Key: which databases the pod gets a clone of.
pub const DB: &str = "aldaas/db";
/// Key: the database, where [`DB`] names none.
pub const DATABASE: &str = "aldaas/database";
/// Key: the container that gets the mount.
pub const CONTAINER: &str = "aldaas/container";
/// Key: the idle time after which the clone is reaped.
pub const TTL: &str = "aldaas/ttl";
/// Key: the name of a clone that outlives the pod.
pub const CLONE: &str = "aldaas/clone";
/// Key that the webhook writes: the golden images that the pod's clones are made of.
pub const IMAGE: &str = "aldaas/image";
/// Key that the webhook writes: which annotations it carried from a Deployment, StatefulSet or Job into the template.
pub const CARRIED: &str = "aldaas/carried";
/// Label of namespaces in which the webhook is asked, on Kubernetes before 1.28; see [`WEBHOOK_ENABLED`].
pub const WEBHOOK: &str = "aldaas/webhook";
/// The value of [`WEBHOOK`].
pub const WEBHOOK_ENABLED: &str = "enabled";

/// The keys that users write on pods, or on what makes pods.
pub const ASKED: [&str; 5] = [DB, DATABASE, CONTAINER, TTL, CLONE];
/// The keys that the webhook writes.
pub const WRITTEN: [&str; 2] = [IMAGE, CARRIED];

/// Longest value that is read, in bytes.
pub const VALUE_MAX: usize = 1024;
/// Most databases of one pod.
pub const DATABASES_MAX: usize = 8;

/// Annotations or labels.
pub type Map = BTreeMap<String, String>;

/// One clone that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The database.
    pub database: DatabaseName,
    /// Which of its images.
    pub version: Version,
    /// The container that gets it.
    pub container: Option<String>,
    /// The idle time after which it is reaped.
    pub ttl: Option<Ttl>,
    /// The name under which it outlives the pod.
    pub clone: Option<CloneName>,
}

impl Asked {
    /// `orders:latest`
    pub fn reference(&self) -> ImageRef {
        ImageRef { database: Some(self.database.clone()), version: self.version.clone() }
    }

    /// The name of its volume in the pod.
    pub fn volume_name(&self) -> String {
        format!("aldaas-{}", self.database)
    }
}

/// Why what stands on a pod could not be read. Its text shows the right form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Longer than anything that is meant.
    #[error("{key} has {length} bytes, more than {VALUE_MAX}: write e.g. {}", example(key))]
    TooLong {
        /// The key.
        key: &'static str,
        /// Its length.
        length: usize,
    },
    /// Nothing, or a comma too many.
    #[error("{key} is {value:?}, where a value is missing: write e.g. {}", example(key))]
    Empty {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// A name that is none.
    #[error("{key}: {error}")]
    Name {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
    /// A time that is none.
    #[error("{TTL}: {0}")]
    Ttl(#[from] TtlError),
    /// A container's name that is none.
    #[error(
        "{CONTAINER}: {0:?} is not a container's name: write the name of one of the pod's containers, e.g. db"
    )]
    Container(String),
    /// Nothing says which database.
    #[error(
        "{DB} is \"latest\", which names no database: write {DB}: DATABASE:latest, e.g. orders:latest, or set \
         {DATABASE} on the pod or its namespace"
    )]
    NoDatabase,
    /// The same database twice.
    #[error("{DB} names database {0} twice: a pod gets one clone of a database")]
    Twice(DatabaseName),
    /// Too many databases.
    #[error("{DB} names {0} databases: a pod gets at most {DATABASES_MAX}")]
    TooMany(usize),
    /// A value for a database that the pod does not ask for.
    #[error("{key} has a value for database {database}, but {DB} does not name it")]
    NotAsked {
        /// The key.
        key: &'static str,
        /// The database.
        database: DatabaseName,
    },
    /// Two values for one database.
    #[error("{key} has two values for database {database}")]
    Again {
        /// The key.
        key: &'static str,
        /// The database.
        database: DatabaseName,
    },
    /// Pairs and bare values in one list.
    #[error("{key} is {value:?}: write one value, or one for each database, e.g. {}", pairs(key))]
    Mixed {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// A clone can't be of two databases.
    #[error(
        "{CLONE} gives the same name {name} to clones of several databases: write one for each, e.g. {}",
        pairs(CLONE)
    )]
    SharedClone {
        /// The name.
        name: CloneName,
    },
}

fn example(key: &str) -> &'static str {
    match key {
        DATABASE => "orders",
        CONTAINER => "db",
        TTL => "30m",
        CLONE => "pr-123",
        _ => "orders:latest",
    }
}

fn pairs(key: &str) -> &'static str {
    match key {
        CONTAINER => "orders=db,users=users-db",
        TTL => "orders=30m,users=2h",
        _ => "orders=pr-123-orders,users=pr-123-users",
    }
}

/// What stands on an object: its annotations and labels.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    annotations: Option<&'a Map>,
    labels: Option<&'a Map>,
}

impl<'a> Keys<'a> {
    /// Of an object with these.
    pub fn new(annotations: Option<&'a Map>, labels: Option<&'a Map>) -> Self {
        Self { annotations, labels }
    }

    /// The value of a key, from the annotation or else the label.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let of = |map: Option<&'a Map>| map.and_then(|map| map.get(key)).map(String::as_str);
        of(self.annotations).or_else(|| of(self.labels))
    }

    /// A label that says something else than the annotation of the same key, and so is not heeded.
    pub fn contradiction(&self) -> Option<&'static str> {
        let both = |key: &&str| Some((self.annotations?.get(*key)?, self.labels?.get(*key)?));
        // A label can't hold `:`, so it names the version only.
        let version =
            |text: &str| text.rsplit_once(':').map_or(text, |(_, version)| version).trim().to_owned();
        let differ = |key: &&str| both(key).is_some_and(|(one, other)| version(one) != version(other));
        ASKED.into_iter().find(differ)
    }

    /// Keys with our prefix that mean nothing: most likely misspelt.
    pub fn unknown(&self) -> impl Iterator<Item = &'a str> {
        let all = self.annotations.into_iter().chain(self.labels).flat_map(|map| map.keys());
        all.map(String::as_str)
            .filter(|key| key.starts_with(PREFIX) && !ASKED.contains(key) && !WRITTEN.contains(key))
    }

    /// What is asked for: nothing where the key [`DB`] is missing. `default` is the namespace's [`DATABASE`].
    ///
    /// # Errors
    /// When it can't be read.
    pub fn asked(&self, default: Option<&str>) -> Result<Vec<Asked>, KeyError> {
        let Some(text) = self.get(DB) else { return Ok(Vec::new()) };
        let mut asked = Vec::new();
        for part in list(DB, text)? {
            let reference: ImageRef = part.parse().map_err(|error| KeyError::Name { key: DB, error })?;
            let database = match reference.database {
                Some(database) => database,
                None => self.default_database(default)?,
            };
            if asked.iter().any(|other: &Asked| other.database == database) {
                return Err(KeyError::Twice(database));
            }
            let version = reference.version;
            asked.push(Asked { database, version, container: None, ttl: None, clone: None });
        }
        if asked.len() > DATABASES_MAX {
            return Err(KeyError::TooMany(asked.len()));
        }
        self.each(CONTAINER, &mut asked, container, |asked, value| asked.container = Some(value))?;
        self.each(TTL, &mut asked, |text| Ok(text.parse::<Ttl>()?), |asked, value| asked.ttl = Some(value))?;
        let clone = |text: &str| text.parse().map_err(|error| KeyError::Name { key: CLONE, error });
        self.each(CLONE, &mut asked, clone, |asked, value: CloneName| asked.clone = Some(value))?;
        match shared_clone(&asked) {
            Some(name) => Err(KeyError::SharedClone { name: name.clone() }),
            None => Ok(asked),
        }
    }

    fn default_database(&self, default: Option<&str>) -> Result<DatabaseName, KeyError> {
        let text = self.get(DATABASE).or(default).ok_or(KeyError::NoDatabase)?;
        checked_length(DATABASE, text)?;
        text.trim().parse().map_err(|error| KeyError::Name { key: DATABASE, error })
    }

    /// Reads a key that has one value, or one for each database.
    fn each<T: Clone>(
        &self,
        key: &'static str,
        asked: &mut [Asked],
        read: impl Fn(&str) -> Result<T, KeyError>,
        set: impl Fn(&mut Asked, T),
    ) -> Result<(), KeyError> {
        let Some(text) = self.get(key) else { return Ok(()) };
        let parts = list(key, text)?;
        if let [value] = parts[..]
            && !value.contains('=')
        {
            let value = read(value)?;
            asked.iter_mut().for_each(|asked| set(asked, value.clone()));
            return Ok(());
        }
        let mut seen = Vec::new();
        for part in parts {
            let mixed = || KeyError::Mixed { key, value: text.to_owned() };
            let (database, value) = part.split_once('=').ok_or_else(mixed)?;
            let database: DatabaseName =
                database.trim().parse().map_err(|error| KeyError::Name { key, error })?;
            if seen.contains(&database) {
                return Err(KeyError::Again { key, database });
            }
            let Some(asked) = asked.iter_mut().find(|asked| asked.database == database) else {
                return Err(KeyError::NotAsked { key, database });
            };
            set(asked, read(value.trim())?);
            seen.push(database);
        }
        Ok(())
    }
}

fn checked_length(key: &'static str, text: &str) -> Result<(), KeyError> {
    match text.len() {
        length if length > VALUE_MAX => Err(KeyError::TooLong { key, length }),
        _ => Ok(()),
    }
}

fn list<'a>(key: &'static str, text: &'a str) -> Result<Vec<&'a str>, KeyError> {
    checked_length(key, text)?;
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    match parts.iter().any(|part| part.is_empty()) {
        true => Err(KeyError::Empty { key, value: text.to_owned() }),
        false => Ok(parts),
    }
}

/// A DNS label, as Kubernetes wants containers to be called.
fn container(text: &str) -> Result<String, KeyError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-') && !text.is_empty();
    match good && text.bytes().all(inner) {
        true => Ok(text.to_owned()),
        false => Err(KeyError::Container(text.chars().take(80).collect())),
    }
}

fn shared_clone(asked: &[Asked]) -> Option<&CloneName> {
    let mut names: Vec<_> = asked.iter().filter_map(|asked| asked.clone.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

impl FromStr for Asked {
    type Err = KeyError;

    /// Reads one [`DB`] value that names its database.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let map = Map::from([(DB.to_owned(), text.to_owned())]);
        let mut asked = Keys::new(Some(&map), None).asked(None)?;
        match asked.len() {
            1 => Ok(asked.remove(0)),
            several => Err(KeyError::TooMany(several)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn asked(pairs: &[(&str, &str)]) -> Result<Vec<Asked>, KeyError> {
        Keys::new(Some(&map(pairs)), None).asked(None)
    }

    fn message(pairs: &[(&str, &str)]) -> String {
        asked(pairs).unwrap_err().to_string()
    }

    const IMAGE_NAME: &str = "orders-20261123t033000z";

    #[test]
    fn one_annotation_asks_for_one_clone() {
        let all = asked(&[(DB, "orders:latest"), (TTL, "30m"), (CLONE, "pr-1"), (CONTAINER, "db")]).unwrap();
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!((one.reference().to_string().as_str(), &one.version), ("orders:latest", &Version::Latest));
        assert_eq!((one.ttl.unwrap().to_string().as_str(), one.container.as_deref()), ("30m", Some("db")));
        assert_eq!(
            (one.clone.as_ref().unwrap().as_str(), one.volume_name().as_str()),
            ("pr-1", "aldaas-orders")
        );
        assert_eq!(asked(&[(DB, IMAGE_NAME)]).unwrap()[0].database.as_str(), "orders");
        assert_eq!(asked(&[]).unwrap(), []);
        assert_eq!(asked(&[(TTL, "nonsense")]).unwrap(), [], "without aldaas/db nothing is asked");
    }

    #[test]
    fn the_database_may_stand_on_the_pod_or_its_namespace() {
        let label = map(&[(DB, "latest")]);
        let of = |annotations: &Map, default| Keys::new(Some(annotations), Some(&label)).asked(default);
        assert_eq!(of(&map(&[]), Some("orders")).unwrap()[0].database.as_str(), "orders");
        assert_eq!(of(&map(&[(DATABASE, "users")]), Some("orders")).unwrap()[0].database.as_str(), "users");
        assert_eq!(of(&map(&[(DB, "web:latest")]), Some("orders")).unwrap()[0].database.as_str(), "web");
        assert_eq!(of(&map(&[]), None), Err(KeyError::NoDatabase));
        assert!(of(&map(&[]), Some("../x")).unwrap_err().to_string().contains("aldaas/database"));
    }

    #[test]
    fn several_databases_have_each_their_own_values() {
        let both = "orders:latest, users:latest";
        let all =
            asked(&[(DB, both), (CONTAINER, "orders=a,users=b"), (TTL, "1h"), (CLONE, "users=u")]).unwrap();
        let of = |i: usize| (all[i].container.as_deref(), all[i].ttl.is_some(), all[i].clone.is_some());
        assert_eq!((of(0), of(1)), ((Some("a"), true, false), (Some("b"), true, true)));
        assert!(message(&[(DB, both), (CLONE, "pr-1")]).contains("orders=pr-123-orders"));
        assert!(message(&[(DB, both), (TTL, "orders=1h,2h")]).contains("orders=30m,users=2h"));
        assert!(message(&[(DB, both), (TTL, "web=1h")]).contains("does not name it"));
        assert!(message(&[(DB, both), (TTL, "users=1h,users=2h")]).contains("two values"));
        assert!(message(&[(DB, "orders:latest,orders:latest")]).contains("twice"));
        let many: Vec<_> = (0..9).map(|i| format!("d{i}:latest")).collect();
        assert!(message(&[(DB, &many.join(","))]).contains("at most 8"));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_right_form() {
        for (pairs, part) in [
            (&[(DB, "orders")][..], "orders:latest"),
            (&[(DB, "")], "e.g. orders:latest"),
            (&[(DB, "orders:latest,")], "a value is missing"),
            (&[(DB, "latest")], "orders:latest"),
            (&[(DB, "../etc:latest")], "not a database name"),
            (&[(DB, "örders:latest")], "not a database name"),
            (&[(DB, "orders:latest\u{0}")], "names no image"),
            (&[(DB, "orders:latest"), (TTL, "soon")], "30m"),
            (&[(DB, "orders:latest"), (CLONE, "PR/1")], "pr-123"),
            (&[(DB, "orders:latest"), (CONTAINER, "../db")], "e.g. db"),
        ] {
            assert!(message(pairs).contains(part), "{}", message(pairs));
        }
        let long = message(&[(DB, &"x".repeat(10 * 1024))]);
        assert!(long.contains("10240") && long.len() < 200, "{long}");
    }

    #[test]
    fn labels_that_contradict_and_misspelt_keys_are_found() {
        let keys = |annotation: &str, label: &str| {
            let (annotations, labels) = (map(&[(DB, annotation)]), map(&[(DB, label)]));
            Keys::new(Some(&annotations), Some(&labels)).contradiction()
        };
        assert_eq!(keys("orders:latest", "latest"), None);
        assert_eq!(keys("orders:latest", IMAGE_NAME), Some(DB));
        let annotations = map(&[("aldaas/tll", "1h"), (TTL, "1h"), (IMAGE, "x"), ("app/db", "x")]);
        assert_eq!(Keys::new(Some(&annotations), None).unknown().collect::<Vec<_>>(), ["aldaas/tll"]);
    }

    proptest! {
        #[test]
        fn no_value_makes_the_parser_panic_or_its_message_long(
            db in ".{0,60}", ttl in "[a-z0-9=,: ]{0,30}", clone in ".{0,30}", container in ".{0,30}", default in ".{0,20}",
        ) {
            let annotations = map(&[(DB, &db), (TTL, &ttl), (CLONE, &clone), (CONTAINER, &container)]);
            if let Err(error) = Keys::new(Some(&annotations), None).asked(Some(&default)) {
                prop_assert!(error.to_string().len() < 1500);
            }
        }

        #[test]
        fn what_is_asked_for_reads_back(database in "[a-z]{1,10}", second in 0i64..4_000_000_000, latest: bool) {
            prop_assume!(database != "latest");
            let database: DatabaseName = database.parse().unwrap();
            let image = crate::GoldenImageName::new(&database, jiff::Timestamp::from_second(second).unwrap());
            let version = if latest { Version::Latest } else { Version::Image(image) };
            let text = ImageRef { database: Some(database), version }.to_string();
            prop_assert_eq!(text.parse::<Asked>().unwrap().reference().to_string(), text);
        }
    }
}
