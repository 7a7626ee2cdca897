//! Which object size a clone has unless told otherwise. Why: `docs/adr/0004-object-size.md`.

/// The first write to an object copies all of it: small enough that a light session copies little.
const SMALLEST: u64 = 256 << 10;
/// RBD's own.
const LARGEST: u64 = 4 << 20;
/// The object map has an entry for each, which is made, loaded and removed with the clone.
const MOST_OBJECTS: u64 = 1 << 18;

/// Bytes of an object of a clone of `size` bytes.
///
/// ```
/// assert_eq!(aldaas_golden::default_object_size(50 << 30), 256 << 10);
/// assert_eq!(aldaas_golden::default_object_size(1 << 40), 4 << 20);
/// ```
pub fn default_object_size(size: u64) -> u64 {
    let at_least = size.div_ceil(MOST_OBJECTS).clamp(SMALLEST, LARGEST);
    at_least.next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_has_small_objects_and_never_too_many() {
        const GIB: u64 = 1 << 30;
        for (size, objects) in [
            (0, 256 << 10),
            (64 * GIB, 256 << 10),
            (64 * GIB + 1, 512 << 10),
            (256 * GIB, 1 << 20),
            (1024 * GIB, 4 << 20),
            (u64::MAX, 4 << 20),
        ] {
            assert_eq!(default_object_size(size), objects, "{size}");
        }
    }
}
