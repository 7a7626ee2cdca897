//! Magic bytes, and whether a text is SQL.

use super::{Compression, Content, Error, HEAD, tar};

/// What the outermost layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Something else, compressed.
    Compressed(Compression),
    /// Something an engine can read.
    Content(Content),
}

/// Magic bytes of what is known, but cannot be read yet.
const UNSUPPORTED: [(&[u8], &str, &str); 4] = [
    (b"\x02\x21\x4c\x18", "lz4's old format", "lz4 -dc"),
    (b"\x5d\0\0", "lzma's old format", "xz --format=lzma -dc"),
    (b"PK\x03\x04", "zip", "unzip -p"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x -so"),
];

/// Magic bytes of what people upload by mistake.
const MISTAKES: [(&[u8], &str); 10] = [
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "an SQLite database file"),
    (b"<?xml", "an XML document"),
    (b"<!DOCTYPE", "a web page: was a login page downloaded instead?"),
    (b"<html", "a web page: was a login page downloaded instead?"),
    (b"{", "a JSON document"),
    (b"#!", "a script"),
];

/// Words with which a statement of a dump begins.
const WORDS: [&str; 47] = [
    "abort",
    "alter",
    "analyze",
    "begin",
    "call",
    "close",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "declare",
    "delete",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "insert",
    "listen",
    "lock",
    "merge",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "reset",
    "revoke",
    "rollback",
    "security",
    "load",
    "savepoint",
    "select",
    "set",
    "show",
    "start",
    "truncate",
    "update",
    "vacuum",
    "values",
    "with",
];

/// Looks at the first bytes of a layer. `whole` says that there are no more.
///
/// # Errors
/// When it is nothing that can be restored; the error says what it is instead.
pub fn detect(head: &[u8], whole: bool) -> Result<Found, Error> {
    if head.is_empty() {
        return Err(Error::Empty);
    }
    if let Some(compression) = Compression::of(head) {
        return Ok(Found::Compressed(compression));
    }
    if head.starts_with(b"PGDMP") {
        return Ok(Found::Content(Content::PgCustom));
    }
    if let Some((_, name, tool)) = UNSUPPORTED.iter().find(|(magic, ..)| head.starts_with(magic)) {
        let pipe = format!("{tool} DUMP | aldaas-restore restore --from - …");
        return Err(Error::Unsupported(format!(
            "the dump is compressed with {name}, which is not supported: use zstd or gzip, or {pipe}"
        )));
    }
    if tar::is_one(head) {
        return tar::content(head).map(Found::Content);
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        let advice = "PowerShell's > writes that: use pg_dump --file instead";
        return Err(Error::Unsupported(format!(
            "the dump is text in UTF-16, which no engine reads: {advice}"
        )));
    }
    if let Some((_, what)) = MISTAKES.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Error::NotADump(format!("it looks like {what}")));
    }
    if head.contains(&0) {
        return Err(Error::NotADump("it holds binary data of no known kind".into()));
    }
    text(head, whole).map(|()| Found::Content(Content::PlainSql))
}

/// Whether a text is SQL that PostgreSQL may understand.
fn text(head: &[u8], whole: bool) -> Result<(), Error> {
    if head.starts_with(b"-- MySQL dump") || head.starts_with(b"-- MariaDB dump") || head.starts_with(b"/*M!")
    {
        return Err(Error::Unsupported(
            "the dump is one of MySQL or MariaDB, which is not supported yet".into(),
        ));
    }
    match first_word(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head)) {
        Some(word) if word == "\\" || WORDS.contains(&word.to_ascii_lowercase().as_str()) => Ok(()),
        Some(word) => {
            Err(Error::NotADump(format!("it is text, but begins with {word:?} where SQL has a statement")))
        }
        // Nothing but comments so far.
        None if !whole && head.len() >= HEAD => Ok(()),
        None => Err(Error::NotADump("it holds not one statement".into())),
    }
}

/// The first word that is neither blank nor comment; `\` for a command of psql.
fn first_word(mut text: &[u8]) -> Option<String> {
    loop {
        text = text.trim_ascii_start();
        if let Some(rest) = text.strip_prefix(b"--") {
            text = &rest[memchr::memchr(b'\n', rest)?..];
        } else if let Some(rest) = text.strip_prefix(b"/*") {
            text = &rest[memchr::memmem::find(rest, b"*/")? + 2..];
        } else if let Some(rest) = text.strip_prefix(b";") {
            text = rest;
        } else {
            break;
        }
    }
    if text.first()? == &b'\\' {
        return Some("\\".into());
    }
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && *byte < 0x80)
        .unwrap_or(text.len())
        .max(1);
    Some(String::from_utf8_lossy(&text[..end.min(40)]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(head: &[u8]) -> String {
        detect(head, true).unwrap_err().to_string()
    }

    #[test]
    fn a_dump_is_known_by_its_content() {
        let sql = Ok(Found::Content(Content::PlainSql));
        assert_eq!(detect(b"--\n-- PostgreSQL database dump\n--\n\nSET x = 0;", true), sql);
        assert_eq!(detect(b"\xef\xbb\xbf/* hello */ ;\r\n create table t();", true), sql);
        assert_eq!(detect(b"\\restrict abc\n\nSET x = 0;", true), sql);
        assert_eq!(detect(b"PGDMP\x01\x0e\0", true), Ok(Found::Content(Content::PgCustom)));
        for (magic, compression) in [
            (&b"\x1f\x8b\x08"[..], Compression::Gzip),
            (b"\x28\xb5\x2f\xfd....", Compression::Zstd),
            (b"\x50\x2a\x4d\x18....", Compression::Zstd),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x04\x22\x4d\x18", Compression::Lz4),
            (b"BZh9", Compression::Bzip2),
        ] {
            assert_eq!(detect(magic, true), Ok(Found::Compressed(compression)));
        }
    }

    #[test]
    fn what_is_no_dump_is_told_in_plain_words() {
        assert!(message(b"").contains("the dump is empty"));
        assert!(message(b"\xff\xd8\xff\xe0\0\x10JFIF").contains("a JPEG image"));
        assert!(message(b"\0\x01\x02").contains("binary data"));
        assert!(message(b"Dear Sir or Madam,").contains("\"Dear\""));
        assert!(message(b"-- only a comment\n").contains("not one statement"));
        assert!(message(b"PK\x03\x04....").contains("zip"));
        assert!(message(b"-- MySQL dump 10.13\n").contains("MySQL"));
        assert!(message(b"\xff\xfe-\0-\0").contains("PowerShell"));
    }

    #[test]
    fn whatever_the_bytes_are_looking_at_them_does_no_harm() {
        proptest::proptest!(|(head: Vec<u8>, whole: bool)| { let _ = detect(&head, whole); });
    }
}
