//! What lends pools and takes the census of them for a whole run, where `hack/test` has started it: `hack/lib/keeper.py`.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// A connection to it.
#[derive(Debug)]
pub(crate) struct Keeper(BufReader<UnixStream>);

impl Keeper {
    /// The one of the cluster of `conf`; none where nobody started one.
    pub fn of(conf: &Path) -> Option<Keeper> {
        let path = conf.with_file_name("keeper.sock");
        match UnixStream::connect(&path) {
            Ok(stream) => Some(Keeper(BufReader::new(stream))),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            // A run goes on without it, more slowly; hack/test tells that it ended.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    /// Its answer.
    pub fn ask(&mut self, request: &Value) -> Value {
        let answered = writeln!(self.0.get_mut(), "{request}").and_then(|()| {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            Ok(serde_json::from_str::<Value>(&line)?)
        });
        let answer = answered.unwrap_or_else(|error| panic!("ask {request}: {error}"));
        assert!(answer.get("error").is_none(), "ask {request}: {answer}");
        answer
    }
}
