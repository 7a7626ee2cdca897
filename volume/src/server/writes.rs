//! Writes on their way to librbd: a bounded number of bytes at a time, the others wait here.
//!
//! The kernel has up to a hundred requests of 1 MiB under way when it writes out its page cache. librbd writes no faster for
//! having them all, but what it has it writes, even if the volume is abandoned meanwhile; and it keeps a copy of each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use fuser::{Errno, ReplyWrite};

use super::files::failed;
use super::images::OpenImage;

/// How many bytes librbd is given that it has not acknowledged. It acknowledges what fits into its cache at once: this only
/// has to keep it busy while that is full.
const UNACKNOWLEDGED: usize = 1 << 20;

/// A write that the kernel waits for.
pub(super) struct Write {
    pub offset: u64,
    pub data: Vec<u8>,
    pub reply: ReplyWrite,
}

/// The writes of one image.
#[derive(Default)]
pub(super) struct Writes(Mutex<Queue<Write>>);

/// What waits, in the order in which it came, and how much is sent.
struct Queue<T> {
    /// Bytes that librbd has and didn't acknowledge.
    sent: usize,
    waiting: VecDeque<(usize, T)>,
    abandoned: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { sent: 0, waiting: VecDeque::new(), abandoned: false }
    }
}

impl<T> Queue<T> {
    /// Gives it back where everything was thrown away.
    fn push(&mut self, len: usize, item: T) -> Result<(), T> {
        if self.abandoned {
            return Err(item);
        }
        self.waiting.push_back((len, item));
        Ok(())
    }

    /// The next that may go: one in any case, so that none is too large.
    fn next(&mut self) -> Option<T> {
        let (len, _) = self.waiting.front()?;
        if self.sent > 0 && self.sent + len > UNACKNOWLEDGED {
            return None;
        }
        self.sent += len;
        self.waiting.pop_front().map(|(_, item)| item)
    }

    fn acknowledged(&mut self, len: usize) {
        self.sent -= len;
    }

    fn abandon(&mut self) -> VecDeque<(usize, T)> {
        self.abandoned = true;
        std::mem::take(&mut self.waiting)
    }
}

impl Writes {
    fn queue(&self) -> MutexGuard<'_, Queue<Write>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants them any more: from now on every write fails, and those that wait here do beside whatever comes next. The kernel
    /// takes its time with each of them.
    pub fn abandon(&self) {
        let waiting = self.queue().abandon();
        let fail = move || waiting.into_iter().for_each(|(_, write)| write.reply.error(Errno::EIO));
        if let Err(error) = thread::Builder::new().name("abandon".to_owned()).spawn(fail) {
            // Dropped with the closure, each was answered with an error.
            tracing::debug!(%error, "no thread to fail what waits");
        }
    }

    /// Whether they fail since nobody wants them.
    pub fn are_abandoned(&self) -> bool {
        self.queue().abandoned
    }
}

/// Writes, and answers when librbd has acknowledged it.
pub(super) fn write(open: &Arc<OpenImage>, write: Write) {
    // In a statement of its own: the lock is not held while anything is answered or sent.
    let pushed = open.writes.queue().push(write.data.len(), write);
    match pushed {
        Ok(()) => send_waiting(open),
        Err(write) => write.reply.error(Errno::EIO),
    }
}

fn send_waiting(open: &Arc<OpenImage>) {
    loop {
        let next = open.writes.queue().next();
        let Some(write) = next else { return };
        send(open, write);
    }
}

fn send(open: &Arc<OpenImage>, Write { offset, data, reply }: Write) {
    let (len, asked) = (data.len(), Arc::clone(open));
    open.image.aio_write(offset, data, move |result| {
        match result {
            Ok(()) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
            Err(e) => reply.error(failed(&asked, "write", &e)),
        }
        asked.writes.queue().acknowledged(len);
        send_waiting(&asked);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: usize = UNACKNOWLEDGED / 2;

    #[test]
    fn librbd_has_no_more_than_it_needs_and_nothing_is_too_large() {
        let mut queue = Queue::default();
        for (len, item) in [(5 * HALF, 'a'), (HALF, 'b'), (HALF, 'c'), (4096, 'd')] {
            queue.push(len, item).unwrap();
        }
        assert_eq!((queue.next(), queue.next()), (Some('a'), None));
        queue.acknowledged(5 * HALF);
        assert_eq!((queue.next(), queue.next(), queue.next()), (Some('b'), Some('c'), None));
        queue.acknowledged(HALF);
        assert_eq!((queue.next(), queue.next()), (Some('d'), None));
    }

    #[test]
    fn what_is_abandoned_is_never_sent() {
        let mut queue = Queue::default();
        (0..4).for_each(|n| queue.push(HALF, n).unwrap());
        assert_eq!((queue.next(), queue.next(), queue.next()), (Some(0), Some(1), None));
        assert_eq!(queue.abandon(), [(HALF, 2), (HALF, 3)]);
        queue.acknowledged(HALF);
        assert_eq!((queue.push(HALF, 4), queue.next()), (Err(4), None));
    }
}
