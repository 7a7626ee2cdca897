//! kubelets before Kubernetes 1.26 name the socket's path as the authority of their gRPC calls, which is not a valid one, and
//! the HTTP/2 library that we serve with refuses such calls. On a unix socket the authority says nothing, so that it is replaced
//! on its way in by one that is valid.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// What every HTTP/2 client says first: 24 bytes.
const PREFACE: usize = 24;
/// A frame's length, kind, flags and stream.
const FRAME: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Larger frames than HTTP/2 allows unasked are for the server to refuse.
const LARGEST: usize = 1 << 16;
/// The static table's entry `:authority`.
const AUTHORITY: usize = 1;
/// A literal of three bytes. No longer than any path, so that the server's table of headers never holds less than the client thinks.
const VALID: &[u8] = b"\x03csi";

/// The connections to a socket, with authorities that the server takes.
pub fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    UnixListenerStream::new(listener).map(|stream| stream.map(Connection::new))
}

/// A connection of which only what the client sends is changed.
pub struct Connection {
    stream: UnixStream,
    /// Read, and not yet a whole frame.
    raw: Vec<u8>,
    /// For the server.
    seen: Vec<u8>,
    /// How much of `seen` it has taken.
    taken: usize,
    greeted: bool,
}

impl Connection {
    fn new(stream: UnixStream) -> Connection {
        Connection { stream, raw: Vec::new(), seen: Vec::new(), taken: 0, greeted: false }
    }

    /// Moves whatever is complete to the server's side.
    fn advance(&mut self) {
        if !self.greeted {
            if self.raw.len() < PREFACE {
                return;
            }
            self.seen.extend(self.raw.drain(..PREFACE));
            self.greeted = true;
        }
        while let Some(&[a, b, c, kind, flags, ..]) =
            self.raw.first_chunk::<FRAME>().map(|head| head.as_slice())
        {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > LARGEST {
                self.seen.append(&mut self.raw);
                return;
            }
            if self.raw.len() < FRAME + length {
                return;
            }
            let frame: Vec<u8> = self.raw.drain(..FRAME + length).collect();
            let changed = (kind == HEADERS).then(|| with_valid_authority(flags, &frame[FRAME..])).flatten();
            match changed {
                None => self.seen.extend(frame),
                Some(payload) => {
                    self.seen.extend(&(payload.len() as u32).to_be_bytes()[1..]);
                    self.seen.extend(&frame[3..FRAME]);
                    self.seen.extend(payload);
                }
            }
        }
    }
}

/// The payload of a HEADERS frame with another authority; nothing: it stays as it is.
fn with_valid_authority(flags: u8, payload: &[u8]) -> Option<Vec<u8>> {
    if flags & PADDED != 0 {
        return None;
    }
    let mut at = if flags & PRIORITY != 0 { 5 } else { 0 };
    while at < payload.len() {
        let first = payload[at];
        // Indexed; literal to be indexed; size of the table; literal that is not.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (name, mut next) = number(payload, at, prefix)?;
        if literal {
            if name == 0 {
                next = after_text(payload, next)?;
            }
            let end = after_text(payload, next)?;
            if name == AUTHORITY {
                return Some([&payload[..next], VALID, &payload[end..]].concat());
            }
            next = end;
        }
        at = next;
    }
    None
}

/// The number that begins in the low `prefix` bits of the byte `at`, and where it ends.
fn number(bytes: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let most = (1 << prefix) - 1;
    let mut value = usize::from(*bytes.get(at)?) & most;
    let mut next = at + 1;
    if value < most {
        return Some((value, next));
    }
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(next)?;
        next += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, next));
        }
    }
    None
}

/// Where the text that begins `at` ends.
fn after_text(bytes: &[u8], at: usize) -> Option<usize> {
    let (length, start) = number(bytes, at, 7)?;
    let end = start.checked_add(length)?;
    (end <= bytes.len()).then_some(end)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.seen.len() {
            this.seen.clear();
            this.taken = 0;
            let mut bytes = [0; 8192];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.raw.extend_from_slice(read.filled());
            this.advance();
        }
        let rest = &this.seen[this.taken..];
        let count = rest.len().min(into.remaining());
        into.put_slice(&rest[..count]);
        this.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:method POST`, `:authority` with this text, `:path /x`, `te: trailers` under a new name.
    fn block(authority: &[u8]) -> Vec<u8> {
        let length = authority.len() as u8;
        [&[0x83, 0x41, length][..], authority, b"\x44\x02/x", b"\x40\x02te\x08trailers"].concat()
    }

    #[test]
    fn a_path_as_authority_is_replaced_and_all_else_stays() {
        let given = block(b"/var/lib/kubelet/plugins_registry/csi.aldaas.dev-reg.sock");
        assert_eq!(with_valid_authority(0, &given), Some(block(b"csi")));
        let prioritised = |block: Vec<u8>| [&[0; 5][..], &block].concat();
        assert_eq!(with_valid_authority(PRIORITY, &prioritised(given)), Some(prioritised(block(b"csi"))));
        assert_eq!(with_valid_authority(0, b"\x83\x44\x02/x"), None);
    }

    #[test]
    fn what_is_no_block_of_headers_is_left_to_the_server() {
        let given = block(b"/var/lib/kubelet");
        for end in 3..10 {
            assert_eq!(with_valid_authority(0, &given[..end]), None, "{end} bytes");
        }
        assert_eq!(with_valid_authority(0, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
    }

    #[tokio::test]
    async fn frames_arrive_however_they_are_cut() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let frame = |kind: u8, payload: &[u8]| {
            let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
            frame.extend([kind, 4, 0, 0, 0, 1]);
            frame.extend(payload);
            frame
        };
        let said = |authority: &[u8]| {
            [
                [b'P'; PREFACE].to_vec(),
                frame(4, &[]),
                frame(HEADERS, &block(authority)),
                frame(0, &[7; 20_000]),
            ]
            .concat()
        };
        let (mut client, server) = UnixStream::pair().unwrap();
        let sent = said(b"/run/some.sock");
        let writer = tokio::spawn(async move {
            for piece in sent.chunks(7) {
                client.write_all(piece).await.unwrap();
            }
        });
        let mut received = Vec::new();
        Connection::new(server).read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert_eq!(received, said(b"csi"));
    }
}
