//! The FUSE side: one flat directory, one regular file for each image.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use aldaas_rbd as rbd;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, SessionACL, WriteFlags,
};

use super::DISPATCHERS;
use super::images::{Images, OpenImage};
use super::writes::{self, Write};

/// Nothing is remembered by the kernel: files appear and disappear, and only attaching looks them up.
const NO_CACHING: Duration = Duration::ZERO;
/// Largest request: as many pages as the kernel gives one FUSE request.
const MAX_REQUEST: u32 = 1 << 20;
/// Requests in flight that the kernel counts as background (direct I/O of a loop device does).
const MAX_BACKGROUND: u16 = 512;
/// A loop device takes its discard granularity from the file system's block size. Freeing less than this gives
/// nothing back to the cluster worth a request.
const BLOCK_SIZE: u32 = 64 << 10;

const FALLOC_KEEP_SIZE: i32 = 1;
const FALLOC_PUNCH_HOLE: i32 = 2;
const FALLOC_ZERO_RANGE: i32 = 16;

pub(super) struct Files {
    images: Arc<Images>,
}

/// Begins to serve on a mounted `/dev/fuse`.
pub(super) fn session(images: Arc<Images>, device: OwnedFd) -> io::Result<Session<Files>> {
    let mut config = Config::default();
    config.n_threads = Some(DISPATCHERS);
    config.clone_fd = true;
    config.acl = SessionACL::All;
    Session::from_fd(Files { images }, device, SessionACL::All, config)
}

fn attributes(inode: u64, size: u64, kind: FileType, perm: u16) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn of_image(open: &OpenImage) -> FileAttr {
    let perm = if open.read_only { 0o400 } else { 0o600 };
    attributes(open.inode, open.size, FileType::RegularFile, perm)
}

fn of_root() -> FileAttr {
    attributes(INodeNo::ROOT.0, 0, FileType::Directory, 0o700)
}

/// Replies to a request with the result of a librbd operation, and logs what the kernel will report as an I/O error.
fn finish(open: &OpenImage, operation: &str, result: Result<(), rbd::Error>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(failed(open, operation, &e)),
    }
}

pub(super) fn failed(open: &OpenImage, operation: &str, error: &rbd::Error) -> Errno {
    static LOG: Throttle = Throttle::new();
    if error.is_blocklisted() {
        open.cut_off.store(true, Ordering::Release);
    }
    if let Some(unsaid) = LOG.may_speak(Instant::now()) {
        tracing::error!(image = %open.spec, %error, unsaid, "{operation}");
    }
    Errno::from_i32(error.errno)
}

/// Lets one of many messages through at a time: a cluster that is away fails every request, and the log is in memory.
struct Throttle(Mutex<Option<Spoken>>);

struct Spoken {
    at: Instant,
    /// Messages held back since.
    unsaid: u64,
}

impl Throttle {
    const PAUSE: Duration = Duration::from_secs(1);

    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// How many were held back since the last one, if it is time for another.
    fn may_speak(&self, now: Instant) -> Option<u64> {
        let mut spoken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match spoken.as_mut() {
            Some(last) if now.saturating_duration_since(last.at) < Self::PAUSE => {
                last.unsaid += 1;
                None
            }
            _ => spoken.replace(Spoken { at: now, unsaid: 0 }).map_or(Some(0), |last| Some(last.unsaid)),
        }
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is a wish: an older kernel without it serves slower, not wrongly.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.set_max_write(MAX_REQUEST);
        if let Err(largest) = config.set_max_readahead(MAX_REQUEST) {
            let _ = config.set_max_readahead(largest);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found =
            name.to_str().filter(|_| parent == INodeNo::ROOT).and_then(|name| self.images.by_name(name));
        match found {
            Some(open) => reply.entry(&NO_CACHING, &of_image(&open), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if ino == INodeNo::ROOT {
            return reply.attr(&NO_CACHING, &of_root());
        }
        match self.images.by_inode(ino.0) {
            Some(open) => reply.attr(&NO_CACHING, &of_image(&open)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let dots = [(1, FileType::Directory, ".".to_owned()), (1, FileType::Directory, "..".to_owned())];
        let files = self
            .images
            .all()
            .into_iter()
            .filter_map(|open| Some((open.inode, FileType::RegularFile, open.spec.file_name().ok()?)));
        let entries = dots.into_iter().chain(files).zip(1u64..);
        for ((inode, kind, name), next) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(INodeNo(inode), next, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Some(open) = self.images.open_file(ino.0) else { return reply.error(Errno::ENOENT) };
        if open.read_only && flags.acc_mode() != OpenAccMode::O_RDONLY {
            self.images.release_file(ino.0);
            return reply.error(Errno::EROFS);
        }
        // The loop device's page cache is the one to keep; a second one below it would only cost memory.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.images.release_file(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(open) = self.images.by_inode(ino.0) else { return reply.error(Errno::EIO) };
        let len = open.size.saturating_sub(offset).min(u64::from(size));
        if len == 0 {
            return reply.data(&[]);
        }
        let asked = Arc::clone(&open);
        open.image.aio_read(offset, len as usize, move |result| match result {
            Ok(data) => reply.data(&data),
            Err(e) => reply.error(failed(&asked, "read", &e)),
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(open) = self.images.by_inode(ino.0) else { return reply.error(Errno::EIO) };
        if offset.saturating_add(data.len() as u64) > open.size {
            return reply.error(Errno::ENOSPC);
        }
        writes::write(&open, Write { offset, data: data.to_vec(), reply });
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.flush_image(ino, reply);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.flush_image(ino, reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(open) = self.images.by_inode(ino.0) else { return reply.error(Errno::EIO) };
        let length = length.min(open.size.saturating_sub(offset));
        if open.read_only {
            return reply.error(Errno::EROFS);
        }
        if length == 0 {
            return reply.ok();
        }
        let asked = Arc::clone(&open);
        match mode & !FALLOC_KEEP_SIZE {
            // Who punches a hole is promised zeroes: the loop device sends "write zeroes" as a hole too. librbd's
            // discard would leave what is below its granularity; this frees whole objects just the same.
            FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE => {
                open.image
                    .aio_write_zeroes(offset, length, move |result| finish(&asked, "zero", result, reply));
            }
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let images = self.images.all();
        let blocks = images.iter().map(|open| open.size).sum::<u64>() / u64::from(BLOCK_SIZE);
        reply.statfs(blocks, 0, 0, images.len() as u64, 0, BLOCK_SIZE, 255, BLOCK_SIZE);
    }
}

impl Files {
    fn flush_image(&self, ino: INodeNo, reply: ReplyEmpty) {
        match self.images.by_inode(ino.0) {
            Some(open) if !open.read_only && !open.writes.are_abandoned() => {
                let asked = Arc::clone(&open);
                open.image.aio_flush(move |result| finish(&asked, "flush", result, reply));
            }
            Some(open) if open.read_only => reply.ok(),
            // What it held is on no disk, and nobody wants it there.
            _ => reply.error(Errno::EIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_errors_one_a_second_is_logged_and_the_others_are_counted() {
        let (log, start) = (Throttle::new(), Instant::now());
        let at = |ms| log.may_speak(start + Duration::from_millis(ms));
        assert_eq!((at(0), at(1), at(999)), (Some(0), None, None));
        assert_eq!((at(1000), at(1001), at(5000)), (Some(2), None, Some(1)));
    }
}
