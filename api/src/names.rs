//! (being written)
use std::fmt;
/// (being written)
#[derive(Debug)] pub struct DatabaseName(String);
/// (being written)
#[derive(Debug)] pub struct GoldenImageName(String);
/// (being written)
#[derive(Debug)] pub struct CloneName(String);
/// (being written)
#[derive(Debug)] pub struct ImageRef;
/// (being written)
#[derive(Debug)] pub struct Version;
/// (being written)
#[derive(Debug)] pub struct NameError;
impl fmt::Display for DatabaseName { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) } }
