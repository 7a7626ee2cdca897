//! A JSON patch (RFC 6902), made step by step.

use serde::Serialize;
use serde_json::Value;

/// A JSON patch: what is changed, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patch(Vec<Operation>);

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

impl Patch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a member to an object, or an element to an array (last part of the path: `-`).
    pub fn add(&mut self, path: String, value: Value) {
        self.0.push(Operation { op: "add", path, value: Some(value) });
    }

    /// Puts something else where something is.
    pub fn replace(&mut self, path: String, value: Value) {
        self.0.push(Operation { op: "replace", path, value: Some(value) });
    }

    /// Takes something away.
    pub fn remove(&mut self, path: String) {
        self.0.push(Operation { op: "remove", path, value: None });
    }

    /// Adds an element to the array at `path`, which is made where `exists` says that it is missing; then it does exist.
    pub fn append(&mut self, path: &str, exists: &mut bool, value: Value) {
        match std::mem::replace(exists, true) {
            true => self.add(format!("{path}/-"), value),
            false => self.add(path.to_owned(), Value::Array(vec![value])),
        }
    }
}

/// A key as one part of a path.
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
