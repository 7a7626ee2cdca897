//! Container images and engines: which container runs the engine, which version, and where it looks for its data.

use super::object::{Container, Env};

/// How well a container's image fits an engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The last part of the name is the same: a mirror of it, most likely.
    Name,
    /// The same repository, another version.
    Repository,
    /// The same image.
    Same,
}

/// A container image's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reference<'a> {
    host: &'a str,
    /// Without `library/`, where Docker's own images are.
    path: &'a str,
    tag: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn new(image: &'a str) -> Self {
        const DOCKER: &str = "docker.io";
        let image = image.split_once('@').map_or(image, |(name, _)| name);
        let slash = image.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match image[slash..].find(':') {
            Some(at) => (&image[..slash + at], Some(&image[slash + at + 1..])),
            None => (image, None),
        };
        let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => (DOCKER, name),
        };
        let host = if host == "index.docker.io" { DOCKER } else { host };
        let path = if host == DOCKER { path.strip_prefix("library/").unwrap_or(path) } else { path };
        Self { host, path, tag }
    }

    fn base(&self) -> &'a str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// How well `image` fits the engine's.
pub fn fit(image: &str, engine: &str) -> Option<Fit> {
    let (one, other) = (Reference::new(image), Reference::new(engine));
    match () {
        () if image.is_empty() || engine.is_empty() => None,
        () if image == engine || (one == other && one.tag.is_some()) => Some(Fit::Same),
        () if (one.host, one.path) == (other.host, other.path) => Some(Fit::Repository),
        () if one.base() == other.base() => Some(Fit::Name),
        () => None,
    }
}

/// The number that a version begins with: 15 of `15.8-alpine`.
pub fn major(version: &str) -> Option<u32> {
    let digits = version.len() - version.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    version[..digits].parse().ok()
}

/// The major version that an image's tag names.
pub fn image_major(image: &str) -> Option<u32> {
    Reference::new(image).tag.and_then(major)
}

/// Whether the tags of an engine's images tell the engine's version, and not that of something in or around it: those of the
/// official images do, and those of others if they agree with the version that is known.
pub fn tags_are_versions(engine: &str, known: u32) -> bool {
    let plausible = |major: u32| (9..100).contains(&major);
    match image_major(engine) {
        Some(major) => major == known || (Reference::new(engine).base() == "postgres" && plausible(major)),
        None => Reference::new(engine).base() == "postgres",
    }
}

/// Whether the official images look there for their data when nobody says otherwise.
fn looks_there(image: &str, mount: &str) -> bool {
    let reference = Reference::new(image);
    match reference.tag.and_then(major) {
        _ if (reference.host, reference.path) != ("docker.io", "postgres") => false,
        None => false,
        Some(..=17) => mount == "/var/lib/postgresql/data",
        Some(major) => mount == format!("/var/lib/postgresql/{major}/docker"),
    }
}

/// The variable that tells Postgres where its data is.
pub const DATA_VARIABLE: &str = "PGDATA";

/// What has to be done about [`DATA_VARIABLE`].
#[derive(Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Nothing: the engine looks at the mount.
    Right,
    /// It has to be added.
    Missing,
    /// The element of `env` has to be replaced; what it said.
    Wrong(usize, Option<&'a str>),
}

/// Whether the engine in a container finds its data at `mount`.
pub fn data<'a>(container: &'a Container, mount: &str) -> Data<'a> {
    let env = container.env.as_deref().unwrap_or_default();
    // Of several of the same name the last one holds.
    let last = env.iter().enumerate().rfind(|(_, env)| env.name == DATA_VARIABLE);
    match last {
        Some((_, Env { value: Some(value), .. })) if is(value, mount) => Data::Right,
        Some((at, env)) => Data::Wrong(at, env.value.as_deref()),
        None if container.env_from.is_empty() && looks_there(&container.image, mount) => Data::Right,
        None => Data::Missing,
    }
}

/// Another data directory that the container's arguments name: they go before the variable.
pub fn other_data<'a>(container: &'a Container, mount: &str) -> Option<&'a str> {
    let words: Vec<&str> = container.command.iter().chain(&container.args).map(String::as_str).collect();
    let named = words.iter().enumerate().find_map(|(at, word)| match *word {
        "-D" | "--pgdata" => words.get(at + 1).copied(),
        word => word.strip_prefix("-D").or_else(|| word.strip_prefix("--pgdata=")),
    });
    named.filter(|path| path.starts_with('/') && !is(path, mount))
}

/// Whether a path means the same as one that [`normal`] gave.
pub fn is(path: &str, mount: &str) -> bool {
    let plain = path.starts_with('/') && !path.ends_with('/') && !path.contains("//") && !path.contains("/.");
    path == mount || (!plain && normal(path) == mount)
}

/// A path without what means nothing in it.
pub fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_fit_by_name_whatever_registry_or_version() {
        for (image, engine, expected) in [
            ("postgres:15.8", "postgres:15.8", Some(Fit::Same)),
            ("docker.io/library/postgres:15.8", "postgres:15.8", Some(Fit::Same)),
            ("postgres:15.8@sha256:00", "postgres:15.8", Some(Fit::Same)),
            ("postgres:16", "postgres:15.8", Some(Fit::Repository)),
            ("postgres", "library/postgres:15", Some(Fit::Repository)),
            ("mirror.corp:5000/db/postgres:15", "postgres:15", Some(Fit::Name)),
            ("web:15", "postgres:15", None),
            ("", "postgres:15", None),
        ] {
            assert_eq!(fit(image, engine), expected, "{image}");
        }
        assert_eq!(image_major("mirror.corp:5000/db/postgres:15.8-alpine"), Some(15));
        assert_eq!(image_major("mirror.corp:5000/db/postgres"), None);
        assert_eq!(image_major("postgres:latest"), None);
    }

    #[test]
    fn tags_of_other_products_are_no_versions_of_the_engine() {
        for (engine, expected) in [
            ("postgres:15.8", true),
            ("mirror.corp/db/postgres:16", true),
            ("postgres@sha256:00", true),
            ("corp.io/pg:15-3", true),
            ("timescale/timescaledb:2.14.2-pg15", false),
            ("corp.io/postgres:1.4.0", false),
            ("corp.io/pg", false),
        ] {
            assert_eq!(tags_are_versions(engine, 15), expected, "{engine}");
        }
    }

    #[test]
    fn paths_are_compared_by_what_they_mean() {
        for path in ["/a/b", "/a/b/", "//a//b", "/a/./b", "/a/x/../b", "a/b", "/../a/b"] {
            assert_eq!(normal(path), "/a/b", "{path}");
            assert!(is(path, "/a/b") && !is(path, "/a"), "{path}");
        }
        assert_eq!(normal(""), "/");
    }

    #[test]
    fn the_engine_is_told_where_its_data_is_only_where_it_would_not_find_it() {
        let data_of = |image: &str, env: &[(&str, &str)], mount: &str| {
            let env = env.iter().map(|(n, v)| Env { name: (*n).into(), value: Some((*v).into()) }).collect();
            let container = Container { image: image.into(), env: Some(env), ..Container::default() };
            match data(&container, mount) {
                Data::Right => "right",
                Data::Missing => "missing",
                Data::Wrong(..) => "wrong",
            }
        };
        let old = "/var/lib/postgresql/data";
        assert_eq!(data_of("postgres:15", &[], old), "right");
        assert_eq!(data_of("postgres:18", &[], old), "missing");
        assert_eq!(data_of("postgres:18", &[], "/var/lib/postgresql/18/docker"), "right");
        assert_eq!(data_of("postgres", &[], old), "missing");
        assert_eq!(data_of("corp/pg:15", &[], old), "missing");
        assert_eq!(data_of("postgres:15", &[("PGDATA", "/var/lib/postgresql/data/")], old), "right");
        assert_eq!(data_of("postgres:15", &[("PGDATA", "/var/lib/postgresql/data/pgdata")], old), "wrong");
        assert_eq!(data_of("postgres:15", &[("PGDATA", "/x"), ("PGDATA", old)], old), "right");
    }

    #[test]
    fn arguments_that_name_another_directory_are_seen() {
        let with = |args: &[&str]| {
            let args = args.iter().map(|&arg| arg.to_owned()).collect();
            let container = Container { args, ..Container::default() };
            other_data(&container, "/data").map(str::to_owned)
        };
        assert_eq!(with(&["postgres", "-D", "/else"]), Some("/else".into()));
        assert_eq!(with(&["postgres", "-D/else"]), Some("/else".into()));
        assert_eq!(with(&["--pgdata=/data/"]), None);
        assert_eq!(with(&["java", "-Dfoo=bar"]), None);
    }
}
