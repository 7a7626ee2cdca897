//! An S3 server that does not keep its word.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it does wrong.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    /// Closes each connection after so many bytes of the body.
    CutsAfter(usize),
    /// As above, and ignores the range it is asked for.
    CutsAndStartsOver(usize),
    /// Cuts once, and holds another object by then.
    Changes(usize),
    /// Cuts, and holds another object by then, but does not look at the ETag it is asked for.
    ChangesUnseen(usize),
    /// Cuts, and gives objects no ETag.
    CutsWithoutEtag(usize),
    /// Cuts, and does not say how long an object is.
    CutsWithoutLength(usize),
    /// Accepts, and says nothing.
    Silent,
    /// Says 503 to everything.
    Busy,
}

/// A server that holds `object` at every key. It lives until the test ends.
pub struct Liar {
    pub endpoint: String,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    pub fn start(object: Vec<u8>, lie: Lie) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (object, seen) = (object.clone(), seen.clone());
                std::thread::spawn(move || answer(connection.unwrap(), &object, lie, &seen));
            }
        });
        Liar { endpoint, requests }
    }

    pub fn ranges(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(mut connection: TcpStream, object: &[u8], lie: Lie, seen: &Mutex<Vec<String>>) {
    let mut range = None;
    let mut if_match = None;
    for line in BufReader::new(connection.try_clone().unwrap()).lines() {
        let line = line.unwrap().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').parse::<usize>().ok();
        }
        if let Some(value) = line.strip_prefix("if-match: ") {
            if_match = Some(value.to_owned());
        }
    }
    seen.lock().unwrap().push(format!("{range:?} {if_match:?}"));
    let mut begin = range.unwrap_or(0);
    match lie {
        Lie::Silent => {
            let _ = connection.read(&mut [0]); // until the other side gives up
            return;
        }
        Lie::Busy => {
            let _ = connection
                .write_all(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        Lie::Changes(_) if range.is_some() => {
            let _ = connection.write_all(
                b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
            return;
        }
        Lie::CutsAndStartsOver(_) => begin = 0,
        _ => {}
    }
    let (Lie::CutsAfter(cut)
    | Lie::CutsAndStartsOver(cut)
    | Lie::Changes(cut)
    | Lie::ChangesUnseen(cut)
    | Lie::CutsWithoutEtag(cut)
    | Lie::CutsWithoutLength(cut)) = lie
    else {
        return;
    };
    let body = &object[begin..];
    let status = if begin > 0 { "206 Partial Content" } else { "200 OK" };
    let of = format!("content-range: bytes {begin}-{}/{}\r\n", object.len() - 1, object.len());
    let length = format!("content-length: {}\r\n", body.len());
    let etag = match lie {
        Lie::CutsWithoutEtag(_) => "",
        Lie::ChangesUnseen(_) if begin > 0 => "etag: \"e2\"\r\n",
        _ => "etag: \"e1\"\r\n",
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{}{etag}{}connection: close\r\n\r\n",
        if matches!(lie, Lie::CutsWithoutLength(_)) { "" } else { &length },
        if begin > 0 { &of } else { "" }
    );
    let _ = connection.write_all(head.as_bytes());
    let _ = connection.write_all(&body[..body.len().min(cut)]);
}
