//! The few ioctls that no safe crate offers: loop devices, FITRIM and the shutdown of a file system. The only file of this room with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::mem::size_of;
use std::os::fd::AsFd;

use rustix::io;
use rustix::ioctl::{self, NoArg, Setter, Updater, opcode};

const LOOP_CLR_FD: ioctl::Opcode = 0x4C01;
const LOOP_GET_STATUS64: ioctl::Opcode = 0x4C05;
const LOOP_CONFIGURE: ioctl::Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: ioctl::Opcode = 0x4C82;
/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` are the same.
const FS_SHUTDOWN: ioctl::Opcode = opcode::read::<u32>(b'X', 125);
const FITRIM: ioctl::Opcode = opcode::read_write::<FstrimRange>(b'X', 121);

/// `LO_FLAGS_READ_ONLY`.
pub(crate) const LO_READ_ONLY: u32 = 1;
/// `LO_FLAGS_DIRECT_IO`.
pub(crate) const LO_DIRECT_IO: u32 = 16;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo64 {
    fn new(flags: u32, file_name: [u8; 64]) -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

/// `struct fstrim_range` of `linux/fs.h`.
#[repr(C)]
struct FstrimRange {
    start: u64,
    len: u64,
    minlen: u64,
}

/// Asks `/dev/loop-control` for the number of a loop device that nobody uses (it may be taken a moment later).
pub(crate) fn loop_get_free(control: &File) -> io::Result<u32> {
    struct GetFree;
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns the number as the call's result.
    unsafe impl ioctl::Ioctl for GetFree {
        type Output = u32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> ioctl::Opcode {
            LOOP_CTL_GET_FREE
        }
        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(out: ioctl::IoctlOutput, _: *mut std::ffi::c_void) -> io::Result<u32> {
            u32::try_from(out).map_err(|_| io::Errno::INVAL)
        }
    }
    // SAFETY: no memory is passed; on any other file the kernel answers ENOTTY.
    unsafe { ioctl::ioctl(control, GetFree) }
}

/// Binds `backing` to the loop device in one step. `EBUSY`: somebody else was faster.
pub(crate) fn loop_configure(
    device: &File,
    backing: &File,
    name: &str,
    block_size: u32,
    flags: u32,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut file_name = [0; 64];
    let short = &name.as_bytes()[..name.len().min(63)];
    file_name[..short.len()].copy_from_slice(short);
    let info = LoopInfo64::new(flags, file_name);
    let fd = u32::try_from(backing.as_raw_fd()).map_err(|_| io::Errno::BADF)?;
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the kernel reads a `struct loop_config`, whose layout is asserted above; `backing` outlives the call.
    unsafe { ioctl::ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }
}

/// The device, `(major, minor)`, of the file system that the loop device's file is on.
pub(crate) fn loop_file_system(device: &File) -> io::Result<(u32, u32)> {
    let mut info = LoopInfo64::new(0, [0; 64]);
    // SAFETY: LOOP_GET_STATUS64 writes a `struct loop_info64`, whose layout is asserted above.
    unsafe { ioctl::ioctl(device, Updater::<LOOP_GET_STATUS64, LoopInfo64>::new(&mut info)) }?;
    // The kernel's own way to put both into one number.
    let (major, minor) = (info.device >> 8 & 0xfff, info.device & 0xff | info.device >> 12 & 0xf_ff00);
    Ok((u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0)))
}

/// Releases the loop device's backing file; where others have the device open, as soon as the last one closes it.
pub(crate) fn loop_clear(device: &File) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { ioctl::ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }
}

/// Discards all free space of the file system that holds `directory`; returns the bytes it discarded.
pub(crate) fn fitrim(directory: impl AsFd) -> io::Result<u64> {
    let mut range = FstrimRange { start: 0, len: u64::MAX, minlen: 0 };
    // SAFETY: FITRIM reads and writes a `struct fstrim_range`, which `range` is.
    unsafe { ioctl::ioctl(directory, Updater::<FITRIM, FstrimRange>::new(&mut range)) }?;
    Ok(range.len)
}

/// Ends all I/O of the file system that holds `directory`, its journal's too: what isn't written is lost, and the next
/// mount finds it as after a power cut.
pub(crate) fn shut_down_filesystem(directory: impl AsFd) -> io::Result<()> {
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: both file systems read one u32 of flags from the pointer.
    unsafe { ioctl::ioctl(directory, Setter::<FS_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
}
