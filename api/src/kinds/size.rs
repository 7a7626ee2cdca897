//! Sizes as Kubernetes writes them: `50Gi`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Ttl;

const UNITS: [(&str, u64); 7] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// A number of bytes: a whole number of at most seven digits and its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    text: String,
    bytes: u64,
}

/// Why a size was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a size at all.
    #[error("{0:?} is not a size: write a whole number with Ki, Mi, Gi, Ti, M, G or T, e.g. 50Gi")]
    Form(String),
    /// Not a size that an object of RADOS may have.
    #[error("{0:?} is not a size of objects: write a power of two from 4Ki to 32Mi, e.g. 64Ki")]
    Object(String),
}

impl Size {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl TryFrom<String> for Size {
    type Error = SizeError;

    fn try_from(text: String) -> Result<Self, SizeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        match (number.parse::<u64>(), factor) {
            (Ok(number), Some(factor)) if digits <= 7 && !text.starts_with('0') => {
                Ok(Self { bytes: number * factor, text })
            }
            _ => Err(SizeError::Form(text.chars().take(40).collect())),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.text
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 9, "pattern": "^[1-9][0-9]{0,6}(Ki|Mi|Gi|Ti|M|G|T)$" })
    }
}

/// The size of an RBD image's objects: a power of two from 4Ki to 32Mi.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectSize(Size);

impl ObjectSize {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

impl TryFrom<String> for ObjectSize {
    type Error = SizeError;

    fn try_from(text: String) -> Result<Self, SizeError> {
        let size = Size::try_from(text)?;
        match size.bytes.is_power_of_two() && (4 << 10..=32 << 20).contains(&size.bytes) {
            true => Ok(Self(size)),
            false => Err(SizeError::Object(size.text)),
        }
    }
}

impl From<ObjectSize> for String {
    fn from(size: ObjectSize) -> String {
        size.0.text
    }
}

impl JsonSchema for ObjectSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ObjectSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^((4|8|16|32|64|128|256|512)Ki|(1|2|4|8|16|32)Mi)$";
        json_schema!({ "type": "string", "maxLength": 5, "pattern": pattern })
    }
}

impl JsonSchema for Ttl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ttl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^([1-9][0-9]{0,2}d)?([1-9][0-9]{0,3}h)?([1-9][0-9]{0,5}m)?([1-9][0-9]{0,7}s)?$";
        json_schema!({ "type": "string", "minLength": 2, "maxLength": 25, "pattern": pattern })
    }
}
