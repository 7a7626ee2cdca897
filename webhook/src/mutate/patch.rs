//! A JSON patch (RFC 6902), written as it is made.

use serde::Serialize;

/// A JSON patch: what is changed, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// The operations as JSON, with commas between, without the brackets.
    text: Vec<u8>,
}

#[derive(Serialize)]
struct Operation<'a, T> {
    op: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<T>,
}

impl Patch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The patch as JSON.
    pub fn json(&self) -> Vec<u8> {
        [b"[", &self.text[..], b"]"].concat()
    }

    fn push(&mut self, op: &'static str, path: &str, value: Option<impl Serialize>) {
        self.text.reserve(256);
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        // Text and maps of text, into memory: nothing of it can fail.
        let _ = serde_json::to_writer(&mut self.text, &Operation { op, path, value });
    }

    /// Adds a member to an object, or an element to an array (last part of the path: `-`).
    pub fn add(&mut self, path: &str, value: impl Serialize) {
        self.push("add", path, Some(value));
    }

    /// Puts something else where something is.
    pub fn replace(&mut self, path: &str, value: impl Serialize) {
        self.push("replace", path, Some(value));
    }

    /// Takes something away.
    pub fn remove(&mut self, path: &str) {
        self.push("remove", path, None::<()>);
    }

    /// Adds an element to the array at `path`, which is made where `exists` says that it is missing; then it does exist.
    pub fn append(&mut self, path: &str, exists: &mut bool, value: impl Serialize) {
        match std::mem::replace(exists, true) {
            true => self.add(&format!("{path}/-"), value),
            false => self.add(path, [value]),
        }
    }
}

/// A key as one part of a path.
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
