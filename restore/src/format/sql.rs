//! The guard over plain SQL on its way to `psql`.
//!
//! It follows the text as `psql` does (strings, dollar quotes, comments, COPY data) and
//! - finds a dump whose end is missing: `psql` itself takes a COPY that never ends for a complete one;
//! - lets no command of psql through but `\connect` (`pg_dump -C`); `\restrict` (newer versions of `pg_dump`) is taken
//!   out, as psql runs restricted by a key of our own. So even a text that this guard misreads runs none;
//! - proves at the end that no transaction is open: the server would roll it back, and nobody would notice;
//! - remembers whether the dump made a database or went to another one, and takes the one role out of a whole server's
//!   dump (`pg_dumpall`) that is there already;
//! - makes the roles to which a dump gives its tables (see [`super::roles`]), so that owners and grants survive.
//!
//! Line numbers are psql's; [`SqlGuard::line_in_dump`] tells them back into the dump's.

use std::collections::HashSet;

use super::{Error, roles};

/// Longer lines are followed, but not looked at as a whole: nothing of interest is that long.
const LONG: usize = 64 << 10;
/// So much of a statement is remembered, to know a COPY when its end comes.
const STATEMENT: usize = 64 << 10;

/// A statement that fails within a transaction: what was not committed is lost when the connection ends.
const NO_TRANSACTION: &str = "DISCARD ALL;";

/// What encloses the next byte.
#[derive(Clone, Debug, PartialEq, Eq)]
enum In {
    /// Nothing: it is SQL.
    Plain,
    /// `'…'`; the flag says that a backslash escapes (`E'…'`).
    Quote { escapes: bool, escaped: bool },
    /// Just behind a `'`: the end, unless another one follows.
    QuoteEnd { escapes: bool },
    /// `"…"`
    Name,
    /// `$…`: the tag of a dollar quote, perhaps.
    Tag(Vec<u8>),
    /// `$tag$…`; how much of the closing tag has been seen.
    Dollar { tag: Vec<u8>, seen: usize },
    /// `-- …`
    Line,
    /// `/* … */`, nested
    Block { depth: u32 },
}

/// Follows a dump. See the module.
#[derive(Debug)]
pub struct SqlGuard {
    /// A line that is not complete yet.
    carry: Vec<u8>,
    /// The carry is the rest of a long line whose beginning went through.
    torn: bool,
    state: In,
    previous: u8,
    /// The last byte closed a pair (`/*`, `*/`): it begins no other.
    paired: bool,
    statement: Vec<u8>,
    parens: u32,
    /// A COPY statement ended: data begins on the next line.
    copy_next: bool,
    /// COPY data, and the line where it began.
    copy: Option<u64>,
    /// `standard_conforming_strings` is off.
    backslashes: bool,
    line: u64,
    headers: u32,
    trailers: u32,
    roles: HashSet<String>,
    /// The key of psql's restricted mode.
    key: Option<String>,
    /// Lines of psql (not of the dump) that we put in.
    added: Vec<u64>,
    /// Lines of psql with [`NO_TRANSACTION`].
    ends: Vec<u64>,
    /// The dump made a database, …
    creates: bool,
    /// … or went to another one.
    connects: bool,
    /// It holds all databases of a server, and its roles (`pg_dumpall`).
    cluster: bool,
}

impl SqlGuard {
    /// Begins. `key` is the one with which psql was restricted, where it can be.
    #[must_use]
    pub fn new(key: Option<String>) -> SqlGuard {
        SqlGuard {
            carry: Vec::new(),
            torn: false,
            state: In::Plain,
            previous: b'\n',
            paired: false,
            statement: Vec::new(),
            parens: 0,
            copy_next: false,
            copy: None,
            backslashes: false,
            line: 1,
            headers: 0,
            trailers: 0,
            roles: HashSet::new(),
            key,
            added: Vec::new(),
            ends: Vec::new(),
            creates: false,
            connects: false,
            cluster: false,
        }
    }

    /// Takes the next piece of the dump; what psql shall read is added to `out`.
    ///
    /// # Errors
    /// When the dump holds a command that is refused.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if self.carry.is_empty() {
                self.take_line(line, out)?;
            } else {
                self.carry.extend_from_slice(line);
                let mut carry = std::mem::take(&mut self.carry);
                self.take_line(&carry, out)?;
                carry.clear();
                self.carry = carry;
            }
        }
        self.carry.extend_from_slice(rest);
        if self.carry.len() > LONG {
            let part = std::mem::take(&mut self.carry);
            self.follow(&part, out)?;
            self.torn = true;
        }
        Ok(())
    }

    /// The dump is over.
    ///
    /// # Errors
    /// When it ended where no dump ends.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if !self.carry.is_empty() {
            let mut last = std::mem::take(&mut self.carry);
            last.push(b'\n');
            self.take_line(&last, out)?;
        }
        if let Some(line) = self.copy {
            let what = format!("the table data that begins at line {line} has no end (\\.)");
            return Err(Error::Truncated(what));
        }
        if self.headers > self.trailers {
            return Err(Error::Truncated(
                "pg_dump's last line (\"PostgreSQL database dump complete\") is missing".into(),
            ));
        }
        match self.state {
            In::Plain | In::Line if self.statement.trim_ascii().is_empty() => {
                self.add_line(NO_TRANSACTION, out);
                Ok(())
            }
            In::Plain | In::Line => Err(Error::Truncated("the last statement has no end (;)".into())),
            _ => Err(Error::Truncated("it ends within a quoted text or a comment".into())),
        }
    }

    /// Whether a statement that failed at psql's line `line` is ours, which proves that no transaction is open.
    #[must_use]
    pub fn is_end(&self, line: u64) -> bool {
        self.ends.contains(&line)
    }

    /// Whether the dump makes a database.
    #[must_use]
    pub fn creates_database(&self) -> bool {
        self.creates || self.cluster
    }

    /// Whether some of the dump may have gone to another database than the one psql began with.
    #[must_use]
    pub fn may_have_left(&self) -> bool {
        self.creates || self.connects || self.cluster
    }

    /// The line of the dump that is psql's line `line`.
    #[must_use]
    pub fn line_in_dump(&self, line: u64) -> u64 {
        line - self.added.iter().filter(|added| **added < line).count() as u64
    }

    /// Puts a line of our own before the one that comes next.
    fn add_line(&mut self, text: &str, out: &mut Vec<u8>) {
        let line = self.line + self.added.len() as u64;
        self.added.push(line);
        if text == NO_TRANSACTION {
            self.ends.push(line);
        }
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let whole = !std::mem::take(&mut self.torn);
        if self.copy.is_some() {
            out.extend_from_slice(line);
            if whole && matches!(line, b"\\.\n" | b"\\.\r\n") {
                self.copy = None;
            }
        } else if whole && self.state == In::Plain && self.statement.is_empty() {
            self.take_first_line(line, out)?;
        } else {
            self.follow(line, out)?;
        }
        self.line += 1;
        if std::mem::take(&mut self.copy_next) {
            self.copy = Some(self.line);
        }
        Ok(())
    }

    /// A line on which a statement may begin: here stands whatever is of interest.
    fn take_first_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let text = line.trim_ascii();
        match text {
            [b'\\', ..] => return self.command(text, out),
            b"-- PostgreSQL database dump" => self.headers += 1,
            b"-- PostgreSQL database dump complete" => self.trailers += 1,
            b"-- PostgreSQL database cluster dump" => {
                self.headers += 1;
                self.cluster = true;
            }
            b"-- PostgreSQL database cluster dump complete" => self.trailers += 1,
            // As in every server that nobody named otherwise, it is there.
            b"CREATE ROLE postgres;" if self.cluster => {
                out.push(b'\n');
                return Ok(());
            }
            b"SET standard_conforming_strings = off;" => self.backslashes = true,
            b"SET standard_conforming_strings = on;" => self.backslashes = false,
            _ => {
                for role in roles::named_in(text) {
                    if self.roles.insert(role.clone()) {
                        out.extend_from_slice(roles::make(&role).as_bytes());
                    }
                }
            }
        }
        self.follow(line, out)
    }

    /// A command of psql, on a line of its own.
    fn command(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let text = String::from_utf8_lossy(text);
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        match name {
            "\\restrict" | "\\unrestrict" => out.push(b'\n'),
            // Before a \connect to an odd name. Ours are UTF-8, and so are we.
            "\\encoding" if rest.trim() == "SQL_ASCII" => out.push(b'\n'),
            "\\connect" | "\\c" if connects_by_name(rest.trim()) => {
                self.connects = true;
                self.add_line(NO_TRANSACTION, out);
                if let Some(key) = self.key.clone() {
                    self.add_line(&format!("\\unrestrict {key}"), out);
                    out.extend_from_slice(format!("{text}\n\\restrict {key}\n").as_bytes());
                    self.added.push(self.line + self.added.len() as u64 + 1);
                } else {
                    out.extend_from_slice(format!("{text}\n").as_bytes());
                }
            }
            _ => return Err(self.refused(name)),
        }
        Ok(())
    }

    fn refused(&self, command: &str) -> Error {
        let command: String = command.chars().take(20).collect();
        let advice = match command.as_str() {
            "\\connect" | "\\c" => {
                "it may name a database of the same server only; make the dump with pg_dump"
            }
            "\\i" | "\\ir" | "\\include" | "\\copy" => "a dump must hold all its data; make it with pg_dump",
            _ => "a dump is restored without anybody watching; make it with pg_dump, or take that line out",
        };
        Error::Command { line: self.line, command, advice }
    }

    /// Passes SQL on, and keeps track of where it is.
    fn follow(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if self.copy.is_none() {
            for (at, byte) in text.iter().enumerate() {
                self.byte(*byte, &text[at..])?;
                self.previous = if std::mem::take(&mut self.paired) { 0 } else { *byte };
            }
        }
        out.extend_from_slice(text);
        Ok(())
    }

    fn byte(&mut self, byte: u8, rest: &[u8]) -> Result<(), Error> {
        match &mut self.state {
            In::Plain => return self.plain(byte, rest),
            In::Quote { escapes, escaped } => match byte {
                _ if *escaped => *escaped = false,
                b'\\' if *escapes => *escaped = true,
                b'\'' => self.state = In::QuoteEnd { escapes: *escapes },
                _ => {}
            },
            In::QuoteEnd { escapes } => {
                if byte == b'\'' {
                    self.state = In::Quote { escapes: *escapes, escaped: false };
                } else {
                    self.state = In::Plain;
                    return self.plain(byte, rest);
                }
            }
            In::Name if byte == b'"' => self.state = In::Plain,
            In::Name => {}
            In::Tag(tag) => match byte {
                b'$' => {
                    tag.push(b'$');
                    self.state = In::Dollar { tag: std::mem::take(tag), seen: 0 };
                }
                b'_' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => tag.push(byte),
                b'0'..=b'9' if tag.len() > 1 => tag.push(byte),
                _ => {
                    self.state = In::Plain;
                    return self.plain(byte, rest);
                }
            },
            In::Dollar { tag, seen } => {
                *seen = if byte == tag[*seen] { *seen + 1 } else { usize::from(byte == b'$') };
                if *seen == tag.len() {
                    self.state = In::Plain;
                }
            }
            In::Line if byte == b'\n' => self.state = In::Plain,
            In::Line => {}
            In::Block { depth } => match (self.previous, byte) {
                (b'*', b'/') => {
                    *depth -= 1;
                    self.paired = true;
                    if *depth == 0 {
                        self.state = In::Plain;
                    }
                }
                (b'/', b'*') => {
                    *depth += 1;
                    self.paired = true;
                }
                _ => {}
            },
        }
        Ok(())
    }

    fn plain(&mut self, byte: u8, rest: &[u8]) -> Result<(), Error> {
        let in_word = self.previous.is_ascii_alphanumeric() || matches!(self.previous, b'_' | b'$' | 0x80..);
        match byte {
            b'\'' => {
                let escapes = self.backslashes || self.escape_prefix();
                self.state = In::Quote { escapes, escaped: false };
                self.remember(b'\'');
            }
            b'"' => {
                self.state = In::Name;
                self.remember(b'"');
            }
            b'$' if !in_word => self.state = In::Tag(vec![b'$']),
            b'-' if self.previous == b'-' => {
                self.statement.pop();
                self.state = In::Line;
            }
            b'*' if self.previous == b'/' => {
                self.statement.pop();
                self.state = In::Block { depth: 1 };
                self.paired = true;
            }
            b'(' | b')' => {
                self.parens = if byte == b'(' { self.parens + 1 } else { self.parens.saturating_sub(1) };
                self.remember(byte);
            }
            b';' if self.parens == 0 => {
                self.copy_next |= is_copy_from_stdin(&self.statement);
                self.creates |= is_create_database(&self.statement);
                self.statement.clear();
            }
            b'\\' => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                return Err(self.refused(&String::from_utf8_lossy(&rest[..end])));
            }
            _ => self.remember(byte),
        }
        Ok(())
    }

    /// Whether the quote that begins here is `E'…'`.
    fn escape_prefix(&self) -> bool {
        match self.statement.as_slice() {
            [.., before, b'e' | b'E'] => {
                !(before.is_ascii_alphanumeric() || matches!(before, b'_' | b'$' | 0x80..))
            }
            _ => false,
        }
    }

    /// Keeps the statement's text without what is quoted, blanks as one space.
    fn remember(&mut self, byte: u8) {
        let byte = if byte.is_ascii_whitespace() { b' ' } else { byte };
        if byte == b' ' && self.statement.last().is_none_or(|last| *last == b' ') {
            return;
        }
        if self.statement.len() >= STATEMENT {
            // Only the last bytes matter from here on, for `E'`.
            self.statement.truncate(STATEMENT - 8);
        }
        self.statement.push(byte);
    }
}

/// `COPY … FROM STDIN …`, the only statement after which data follows.
fn is_copy_from_stdin(statement: &[u8]) -> bool {
    let statement = statement.to_ascii_lowercase();
    statement.starts_with(b"copy ") && memchr::memmem::find(&statement, b" from stdin").is_some()
}

/// `CREATE DATABASE …`, perhaps as the first statement of a text that begins with a byte order mark.
fn is_create_database(statement: &[u8]) -> bool {
    const WORDS: &[u8] = b"create database ";
    let statement = statement.strip_prefix(b"\xef\xbb\xbf").unwrap_or(statement);
    statement.get(..WORDS.len()).is_some_and(|words| words.eq_ignore_ascii_case(WORDS))
}

/// `\connect name`, or the form that pg_dump writes for odd names: `-reuse-previous=on "dbname='odd name'"`.
fn connects_by_name(rest: &str) -> bool {
    match rest.strip_prefix("-reuse-previous=on ") {
        Some(info) => {
            let name = info.strip_prefix("\"dbname='").and_then(|rest| rest.strip_suffix("'\""));
            name.is_some_and(|name| !name.replace("\\'", "").replace("''", "").contains(['\'', '`']))
        }
        None => {
            let odd = |c: char| c.is_whitespace() || matches!(c, '=' | '`' | '\\' | '\'' | ':' | '/');
            let quoted = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            !rest.is_empty() && !rest.starts_with('-') && !quoted.unwrap_or(rest).contains(odd)
        }
    }
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
