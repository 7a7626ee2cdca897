//! What a program that mostly waits holds in memory.

use std::ffi::{c_int, c_void};
use std::ptr;

/// Lets go of what only the start of a program needed: freed memory, and the code of this program and its libraries. Code that
/// is needed again is mapped again, from the page cache as a rule; what is used once in a month is not held for ever.
///
/// Implements: `malloc_trim`, `dl_iterate_phdr`, `madvise`.
pub fn forget_the_start() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the function keeps to what is asked of it, and takes no data.
    unsafe {
        libc::dl_iterate_phdr(Some(forget_code), ptr::null_mut());
    }
}

/// Lets go of the code of one program or library. The list of them is locked meanwhile, so none of it can be unloaded.
unsafe extern "C" fn forget_code(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader hands us a valid description, with that many segments.
    let (base, segments) = unsafe {
        let info = &*info;
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let code = libc::PF_R | libc::PF_X;
    for segment in segments.iter().filter(|s| s.p_type == libc::PT_LOAD && s.p_flags == code) {
        let from = (base + segment.p_vaddr as usize) & !(page - 1);
        let to = base + segment.p_vaddr as usize + segment.p_memsz as usize;
        // SAFETY: the pages of a segment that was never writable are as they are in its file, so that nothing is lost with them,
        // and whoever runs in them gets them back from there. A refusal changes nothing.
        unsafe {
            libc::madvise(from as *mut c_void, to - from, libc::MADV_DONTNEED);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of this process' memory that is mapped from files.
    fn mapped() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn code_is_let_go_and_comes_back() {
        // Some code of librbd and of librados was run.
        let version = crate::librbd_version();
        let before = mapped();
        forget_the_start();
        let after = mapped();
        assert!(after < before / 2, "{before} KiB, then {after} KiB");
        assert_eq!(crate::librbd_version(), version);
    }
}
