//! The client's own admin socket: where librados tells its performance counters.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The socket is served by a thread of this process, so it answers at once or never.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is believed.
const MAX_ANSWER: u32 = 64 << 20;

/// Sends one command and returns the JSON answer.
///
/// Protocol: the command as JSON, ended by a NUL; the answer is its length as a big-endian `u32`, then the text.
pub(crate) fn ask(socket: &Path, command: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = command.to_string().into_bytes();
    request.push(0);
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_ANSWER {
        return Err(io::Error::other(format!("an answer of {length} bytes is not believable")));
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answered_with(bytes: &'static [u8]) -> io::Result<Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [1];
            while byte != [0] {
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(bytes).unwrap();
            request
        });
        let answer = ask(&path, &serde_json::json!({"prefix": "perf dump"}));
        assert_eq!(server.join().unwrap(), b"{\"prefix\":\"perf dump\"}\0");
        answer
    }

    #[test]
    fn an_answer_is_read_whole() {
        assert_eq!(answered_with(b"\0\0\0\x08{\"a\": 1}").unwrap()["a"], 1);
    }

    #[test]
    fn a_short_or_absurd_answer_is_an_error_not_a_hang() {
        assert!(answered_with(b"\0\0\0\x08{\"a\"").is_err());
        assert!(answered_with(b"\xff\xff\xff\xff").is_err());
        assert!(answered_with(b"\0").is_err());
    }
}
