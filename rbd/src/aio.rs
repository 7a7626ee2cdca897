//! Reads and writes without waiting: as futures, or with a callback for servers.
//!
//! Every operation owns its buffer and a reference to the open image until librbd is done with both, so a future may be
//! dropped at any time: the operation goes on, and its result is thrown away.

use std::ffi::{c_char, c_int, c_void};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::callback::CallbackGuard;
use crate::error::{Error, Result, check_len};
use crate::image::{Handle, Image};

/// The most bytes of one operation: what comes back must fit a C `int`.
pub const MAX_IO: usize = 1 << 30;

/// How many operations of an image librbd still works on.
#[derive(Default)]
pub(crate) struct InFlight {
    count: Mutex<usize>,
    idle: Condvar,
}

impl InFlight {
    fn begin(self: &Arc<Self>) -> Ticket {
        *lock(&self.count) += 1;
        Ticket(self.clone())
    }

    /// Waits until there are none.
    pub(crate) fn wait(&self) {
        let mut count = lock(&self.count);
        while *count > 0 {
            count = self.idle.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One operation in flight.
struct Ticket(Arc<InFlight>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut count = lock(&self.0.count);
        *count -= 1;
        if *count == 0 {
            self.0.idle.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do once: gets librbd's verdict and the buffer back.
type Done = Box<dyn FnOnce(Result<usize>, Vec<u8>) + Send>;

/// One operation while librbd has it. The order of the fields is the order in which they go: first whatever the
/// callback holds, then the image, then the ticket that lets `close` go on.
struct Operation {
    done: Option<Done>,
    buffer: Vec<u8>,
    name: &'static str,
    handle: Arc<Handle>,
    _ticket: Ticket,
}

impl Operation {
    fn finish(mut self, code: isize) {
        let result = check_len(code, self.name, || self.handle.label().to_owned());
        let buffer = std::mem::take(&mut self.buffer);
        if let Some(done) = self.done.take() {
            // A panic must not unwind into librbd. The panic hook has told about it already.
            let _ = catch_unwind(AssertUnwindSafe(move || done(result, buffer)));
        }
    }
}

/// librbd calls this once per operation, on a thread of its own.
unsafe extern "C" fn completed(completion: rbd_sys::rbd_completion_t, argument: *mut c_void) {
    let _guard = CallbackGuard::enter();
    // SAFETY: librbd hands over the completion that was made with this argument, after it is done with the buffer; the
    // box was leaked for this call, which comes once. Our reference to the completion is given back here.
    let (operation, code) = unsafe {
        let code = rbd_sys::rbd_aio_get_return_value(completion);
        rbd_sys::rbd_aio_release(completion);
        (*Box::from_raw(argument.cast::<Operation>()), code)
    };
    operation.finish(code);
}

/// Hands an operation to librbd. `start` gets the image, the buffer's address and length, and the completion.
fn submit(
    image: &Image,
    name: &'static str,
    buffer: Vec<u8>,
    done: Done,
    start: impl FnOnce(rbd_sys::rbd_image_t, *mut c_char, usize, rbd_sys::rbd_completion_t) -> c_int,
) {
    let handle = image.handle.clone();
    let raw = handle.raw();
    let ticket = image.in_flight.begin();
    let mut operation = Box::new(Operation { done: Some(done), buffer, name, handle, _ticket: ticket });
    let (data, len) = (operation.buffer.as_mut_ptr().cast::<c_char>(), operation.buffer.len());
    if len > MAX_IO {
        return operation.finish(-(libc::EINVAL as isize));
    }
    let argument = Box::into_raw(operation);
    let mut completion = ptr::null_mut();
    // SAFETY: the callback fits the argument's type; librbd writes the completion.
    let code =
        unsafe { rbd_sys::rbd_aio_create_completion(argument.cast(), Some(completed), &mut completion) };
    let code = if code < 0 { code } else { start(raw, data, len, completion) };
    if code < 0 {
        // SAFETY: librbd didn't take the operation, so the callback never comes and both are still ours.
        let operation = unsafe {
            if !completion.is_null() {
                rbd_sys::rbd_aio_release(completion);
            }
            *Box::from_raw(argument)
        };
        operation.finish(code as isize);
    }
}

/// The callback forms. `done` runs on a thread of librbd (or on the caller's, if the operation is refused at once): it
/// must be quick, and must call nothing that waits for the cluster.
impl Image {
    /// Reads `len` bytes at `offset`; fewer come back only at the image's end.
    ///
    /// Implements: `rbd_aio_read`.
    pub fn aio_read(&self, offset: u64, len: usize, done: impl FnOnce(Result<Vec<u8>>) + Send + 'static) {
        if len > MAX_IO {
            return done(Err(self.too_long("read image", len)));
        }
        self.aio_read_into(offset, vec![0; len], done);
    }

    /// Reads as many bytes as `buffer` has, into it, and hands it back cut to what was read.
    ///
    /// Implements: `rbd_aio_read`.
    pub fn aio_read_into(
        &self,
        offset: u64,
        buffer: Vec<u8>,
        done: impl FnOnce(Result<Vec<u8>>) + Send + 'static,
    ) {
        let done: Done = Box::new(move |result, mut buffer| {
            done(result.map(|len| {
                buffer.truncate(len);
                buffer
            }));
        });
        submit(self, "read image", buffer, done, |image, data, len, completion| {
            // SAFETY: the image is open; buffer and completion live until librbd calls back.
            unsafe { rbd_sys::rbd_aio_read(image, offset, len, data, completion) }
        });
    }

    /// Writes all of `data` at `offset`.
    ///
    /// Implements: `rbd_aio_write`.
    pub fn aio_write(&self, offset: u64, data: Vec<u8>, done: impl FnOnce(Result<()>) + Send + 'static) {
        submit(self, "write image", data, unit(done), |image, data, len, completion| {
            // SAFETY: the image is open; buffer and completion live until librbd calls back.
            unsafe { rbd_sys::rbd_aio_write(image, offset, len, data, completion) }
        });
    }

    /// Gives `len` bytes at `offset` back to the pool. Whole objects read as zeros afterwards; parts of objects may keep
    /// their data (see [`Image::aio_write_zeroes`]). In a clone it hides the parent's data.
    ///
    /// Implements: `rbd_aio_discard`.
    pub fn aio_discard(&self, offset: u64, len: u64, done: impl FnOnce(Result<()>) + Send + 'static) {
        submit(self, "discard in image", Vec::new(), unit(done), |image, _, _, completion| {
            // SAFETY: the image is open; the completion lives until librbd calls back.
            unsafe { rbd_sys::rbd_aio_discard(image, offset, len, completion) }
        });
    }

    /// Makes `len` bytes at `offset` read as zeros, without storing them where possible.
    ///
    /// Implements: `rbd_aio_write_zeroes`.
    pub fn aio_write_zeroes(&self, offset: u64, len: u64, done: impl FnOnce(Result<()>) + Send + 'static) {
        let Ok(len) = usize::try_from(len) else {
            return done(Err(self.too_long("zero in image", usize::MAX)));
        };
        submit(self, "zero in image", Vec::new(), unit(done), |image, _, _, completion| {
            // SAFETY: the image is open; the completion lives until librbd calls back.
            unsafe { rbd_sys::rbd_aio_write_zeroes(image, offset, len, completion, 0, 0) }
        });
    }

    /// Calls back when everything that was completed before is on disk.
    ///
    /// Implements: `rbd_aio_flush`.
    pub fn aio_flush(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        submit(self, "flush image", Vec::new(), unit(done), |image, _, _, completion| {
            // SAFETY: the image is open; the completion lives until librbd calls back.
            unsafe { rbd_sys::rbd_aio_flush(image, completion) }
        });
    }

    fn too_long(&self, operation: &'static str, len: usize) -> Error {
        Error::invalid(
            operation,
            self.label(),
            format!("{len} bytes are more than one operation takes ({MAX_IO})"),
        )
    }
}

/// The futures. They begin at once, and go on when dropped.
impl Image {
    /// Reads `len` bytes at `offset`; fewer come back only at the image's end.
    pub fn read(&self, offset: u64, len: usize) -> Aio<Vec<u8>> {
        Aio::start(|done| self.aio_read(offset, len, done))
    }

    /// Reads as many bytes as `buffer` has, into it, and hands it back cut to what was read.
    pub fn read_into(&self, offset: u64, buffer: Vec<u8>) -> Aio<Vec<u8>> {
        Aio::start(|done| self.aio_read_into(offset, buffer, done))
    }

    /// Writes all of `data` at `offset`.
    pub fn write(&self, offset: u64, data: Vec<u8>) -> Aio<()> {
        Aio::start(|done| self.aio_write(offset, data, done))
    }

    /// Gives `len` bytes at `offset` back to the pool, see [`Image::aio_discard`].
    pub fn discard(&self, offset: u64, len: u64) -> Aio<()> {
        Aio::start(|done| self.aio_discard(offset, len, done))
    }

    /// Makes `len` bytes at `offset` read as zeros.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Aio<()> {
        Aio::start(|done| self.aio_write_zeroes(offset, len, done))
    }

    /// Ready when everything that was completed before is on disk.
    pub fn flush(&self) -> Aio<()> {
        Aio::start(|done| self.aio_flush(done))
    }
}

fn unit(done: impl FnOnce(Result<()>) + Send + 'static) -> Done {
    Box::new(move |result, _buffer| done(result.map(drop)))
}

/// An operation under way. Await it, or [`Aio::wait`] for it; dropping it abandons only the answer.
#[must_use = "the operation's error is lost unless it is awaited"]
pub struct Aio<T> {
    slot: Arc<Slot<T>>,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    result: Option<Result<T>>,
    waker: Option<Waker>,
}

type SlotFiller<T> = Box<dyn FnOnce(Result<T>) + Send>;

impl<T: Send + 'static> Aio<T> {
    fn start(begin: impl FnOnce(SlotFiller<T>)) -> Self {
        let state = State { result: None, waker: None };
        let slot = Arc::new(Slot { state: Mutex::new(state), ready: Condvar::new() });
        let fill = slot.clone();
        begin(Box::new(move |result| fill.fill(result)));
        Self { slot }
    }

    /// Blocks until it is over. Never inside an aio callback.
    pub fn wait(self) -> Result<T> {
        let mut state = lock(&self.slot.state);
        loop {
            match state.result.take() {
                Some(result) => return result,
                None => state = self.slot.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl<T> Slot<T> {
    fn fill(&self, result: Result<T>) {
        let waker = {
            let mut state = lock(&self.state);
            state.result = Some(result);
            state.waker.take()
        };
        self.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Aio<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.slot.state);
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
