//! The trash of a rados namespace: removal in two steps, the first of which is fast.

use std::ffi::c_int;
use std::ptr;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result, check};
use crate::ffi::{self, cstring};
use crate::names::{ImageId, ImageName};
use crate::namespace::Namespace;
use crate::object::{WriteOp, read_class};
use crate::wire;

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    /// Its id: what it is restored or removed by.
    pub id: ImageId,
    /// The name it had.
    pub name: String,
    /// Who moved it there.
    pub source: TrashSource,
    /// When it was moved there, by the mover's clock.
    pub deleted_at: SystemTime,
    /// Until when it is kept from removal without force.
    pub deferred_until: SystemTime,
}

/// Who moved an image to the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashSource {
    /// A user, [`Namespace::trash_move`] included.
    User,
    /// Mirroring.
    Mirroring,
    /// A migration.
    Migration,
    /// `rbd_remove`, on its way.
    Removing,
    /// A user, as the parent of clones.
    UserParent,
    /// One that this crate doesn't know.
    Other(u32),
}

impl Namespace {
    /// Moves an image to the trash: its name is free at once, its clones and whoever has it open go on. Without force it
    /// isn't removed before `delay` (whole seconds) is over.
    ///
    /// Implements: `rbd_trash_move`.
    pub fn trash_move(&self, image: &ImageName, delay: Duration) -> Result<()> {
        const MOVE: &str = "move to trash image";
        let name = cstring(image.as_str(), MOVE)?;
        // SAFETY: the context is live, the name lives through the call.
        let code = unsafe { rbd_sys::rbd_trash_move(self.raw(), name.as_ptr(), delay.as_secs()) };
        check(code, MOVE, || self.at(image)).map(drop)
    }

    /// The same at once, for an image of which the caller knows who has it open and that nobody else may begin to: neither is it
    /// opened for this, nor its lock waited for, and whoever has it open goes on. Each of its three steps may be repeated, as long
    /// as the name leads to the image.
    ///
    /// Implements: class methods `rbd.trash_add` and `rbd.dir_remove_image`, `rados_remove`.
    pub fn trash_move_at_once(&self, image: &ImageName, id: &ImageId) -> Result<()> {
        const MOVE: &str = "move to trash image";
        let done = |code: c_int, fine: c_int| match -code == fine {
            true => Ok(()),
            false => check(code, MOVE, || self.at(image)).map(drop),
        };
        let entry = encode_entry(image, id, SystemTime::now());
        let mut add = WriteOp::new();
        add.exec(c"rbd", c"trash_add", &entry);
        done(add.run(self, &c"rbd_trash".to_owned()), libc::EEXIST)?;
        let mut forget = WriteOp::new();
        forget.exec(c"rbd", c"dir_remove_image", &encode_names(image, id));
        done(forget.run(self, &c"rbd_directory".to_owned()), libc::ENOENT)?;
        // The last one: as long as it is there, the name leads here.
        match self.remove_object(&format!("rbd_id.{image}")) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Finishes a move to the trash, if one of an image of this name was cut short where librbd takes its steps in another order: the
    /// name leads nowhere any more, and the directory still has it, so that no image of this name can be made. Whether it was so.
    ///
    /// Implements: class methods `rbd.dir_get_id` and `rbd.dir_remove_image`.
    pub fn finish_trash_move(&self, image: &ImageName) -> Result<bool> {
        const LOOK: &str = "look in the directory for image";
        const FORGET: &str = "remove from the directory image";
        let directory = c"rbd_directory".to_owned();
        let mut input = Vec::new();
        wire::encode_bytes(&mut input, image.as_str().as_bytes());
        let listed = match read_class(self, &directory, c"rbd", c"dir_get_id", &input) {
            Err(code) if -code == libc::ENOENT => return Ok(false),
            Err(code) => return Err(Error::new(LOOK, self.at(image), -code)),
            Ok(listed) => wire::decode_string(&listed),
        };
        let id = ImageId::new(
            listed.map_err(|why| Error::new(LOOK, self.at(image), libc::EBADMSG).because(why))?,
        )?;
        if !self.is_in_trash(&id)? {
            return Ok(false);
        }
        // Nothing else: the name may lead to another image by now.
        let mut forget = WriteOp::new();
        forget.exec(c"rbd", c"dir_remove_image", &encode_names(image, &id));
        match forget.run(self, &directory) {
            code if [libc::ENOENT, libc::ESTALE].contains(&-code) => {}
            code => drop(check(code, FORGET, || self.at(image))?),
        }
        Ok(true)
    }

    /// Whether an image is in the trash, though a move that was cut short may have left its name.
    ///
    /// Implements: class method `rbd.trash_get`.
    pub fn is_in_trash(&self, id: &ImageId) -> Result<bool> {
        let mut input = Vec::new();
        wire::encode_bytes(&mut input, id.as_str().as_bytes());
        match read_class(self, &c"rbd_trash".to_owned(), c"rbd", c"trash_get", &input) {
            Err(code) if -code == libc::ENOENT => Ok(false),
            Err(code) => {
                Err(Error::new("look in the trash for image", self.at(format_args!("(id {id})")), -code))
            }
            Ok(_) => Ok(true),
        }
    }

    /// What is in the trash.
    ///
    /// Implements: `rbd_trash_list`.
    pub fn trash(&self) -> Result<Vec<TrashEntry>> {
        let empty = rbd_sys::rbd_trash_image_info_t {
            id: ptr::null_mut(),
            name: ptr::null_mut(),
            source: rbd_sys::rbd_trash_image_source_t::RBD_TRASH_IMAGE_SOURCE_USER,
            deletion_time: 0,
            deferment_end_time: 0,
        };
        let mut infos = ffi::grow(empty, 32, |infos, len| {
            // SAFETY: the array has `len` entries.
            unsafe { rbd_sys::rbd_trash_list(self.raw(), infos, len) }
        })
        .map_err(|code| Error::new("list trash of", self.to_string(), code))?;
        // SAFETY: librbd filled every entry.
        let entries = infos.iter().map(|info| unsafe { TrashEntry::copied(info) }).collect();
        // SAFETY: the entries that librbd filled, given back once.
        unsafe { rbd_sys::rbd_trash_list_cleanup(infos.as_mut_ptr(), infos.len()) };
        entries
    }

    /// Removes an image from the trash for good. Refused while somebody has it open ([`Error::is_busy`]), while it has
    /// snapshots ([`Error::is_not_empty`]), and, without `force`, while it is deferred ([`Error::is_permission`]).
    ///
    /// Implements: `rbd_trash_remove`.
    pub fn trash_remove(&self, id: &ImageId, force: bool) -> Result<()> {
        const REMOVE: &str = "remove from trash image";
        let text = cstring(id.as_str(), REMOVE)?;
        // SAFETY: the context is live, the id lives through the call.
        let code = unsafe { rbd_sys::rbd_trash_remove(self.raw(), text.as_ptr(), force) };
        check(code, REMOVE, || self.at(format_args!("(id {id})"))).map(drop)
    }

    /// Takes an image out of the trash under a name, which must be free.
    ///
    /// Implements: `rbd_trash_restore`.
    pub fn trash_restore(&self, id: &ImageId, name: &ImageName) -> Result<()> {
        const RESTORE: &str = "restore from trash image";
        let key = cstring(id.as_str(), RESTORE)?;
        let text = cstring(name.as_str(), RESTORE)?;
        // SAFETY: the context is live, both strings live through the call.
        let code = unsafe { rbd_sys::rbd_trash_restore(self.raw(), key.as_ptr(), text.as_ptr()) };
        check(code, RESTORE, || format!("{} as {name}", self.at(format_args!("(id {id})")))).map(drop)
    }
}

fn encode_names(image: &ImageName, id: &ImageId) -> Vec<u8> {
    let mut out = Vec::new();
    wire::encode_bytes(&mut out, image.as_str().as_bytes());
    wire::encode_bytes(&mut out, id.as_str().as_bytes());
    out
}

/// An id and a `cls::rbd::TrashImageSpec`: source, name, when it was moved there and until when it is kept, state.
fn encode_entry(image: &ImageName, id: &ImageId, now: SystemTime) -> Vec<u8> {
    /// `TRASH_IMAGE_SOURCE_USER`, `TRASH_IMAGE_STATE_NORMAL`
    const USER_NORMAL: (u8, u8) = (0, 0);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX).to_le_bytes();
    let time = [seconds, now.subsec_nanos().to_le_bytes()].concat();
    let mut entry = vec![USER_NORMAL.0];
    wire::encode_bytes(&mut entry, image.as_str().as_bytes());
    entry.extend([time.clone(), time, vec![USER_NORMAL.1]].concat());
    let mut out = Vec::new();
    wire::encode_bytes(&mut out, id.as_str().as_bytes());
    out.extend(wire::encode_structure(2, 1, &entry));
    out
}

impl TrashEntry {
    /// # Safety
    /// The strings of `info` are null or end with a NUL, and live for the call.
    unsafe fn copied(info: &rbd_sys::rbd_trash_image_info_t) -> Result<Self> {
        // SAFETY: passed on from the caller.
        let (id, name) = unsafe { (ffi::owned(info.id), ffi::owned(info.name)) };
        Ok(Self {
            id: ImageId::new(id)?,
            name,
            source: TrashSource::of(info.source),
            deleted_at: at_second(info.deletion_time),
            deferred_until: at_second(info.deferment_end_time),
        })
    }
}

impl TrashSource {
    fn of(source: rbd_sys::rbd_trash_image_source_t) -> Self {
        use rbd_sys::rbd_trash_image_source_t as Source;
        match source {
            Source::RBD_TRASH_IMAGE_SOURCE_USER => Self::User,
            Source::RBD_TRASH_IMAGE_SOURCE_MIRRORING => Self::Mirroring,
            Source::RBD_TRASH_IMAGE_SOURCE_MIGRATION => Self::Migration,
            Source::RBD_TRASH_IMAGE_SOURCE_REMOVING => Self::Removing,
            Source::RBD_TRASH_IMAGE_SOURCE_USER_PARENT => Self::UserParent,
            Source(other) => Self::Other(other),
        }
    }
}

fn at_second(time: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0))
}
