use proptest::prelude::*;

use super::*;

fn guard(text: &str) -> Result<String, Error> {
    guard_in_pieces(text.as_bytes(), usize::MAX, Some("KEY"))
}

fn guard_in_pieces(text: &[u8], size: usize, key: Option<&str>) -> Result<String, Error> {
    let mut guard = SqlGuard::new(key.map(str::to_owned));
    let mut out = Vec::new();
    for piece in text.chunks(size.min(text.len().max(1))) {
        guard.push(piece, &mut out)?;
    }
    guard.finish(&mut out)?;
    let out = String::from_utf8_lossy(&out).into_owned();
    Ok(out.strip_suffix("DISCARD ALL;\n").expect("our last line").to_owned())
}

#[test]
fn a_database_that_the_dump_makes_is_seen_wherever_and_however_it_is_written() {
    let makes = |text: &str| {
        let mut guard = SqlGuard::new(None);
        let _ = guard.push(text.as_bytes(), &mut Vec::new());
        (guard.creates_database(), guard.may_have_left())
    };
    let late = format!("SELECT '{}';\nCREATE DATABASE x;\n", "x".repeat(2 * LONG));
    for text in ["CREATE DATABASE x;\n", "\u{feff}create\n  /* a */ database x;\n", &late] {
        assert_eq!(makes(text), (true, true), "{text}");
    }
    for text in
        ["SELECT '\nCREATE DATABASE x;\n';\n", "/*\nCREATE DATABASE x;\n*/\n", "-- CREATE DATABASE x;\n"]
    {
        assert_eq!(makes(text), (false, false), "{text}");
    }
    assert_eq!(makes("\\connect x\n"), (false, true));
}

const DUMP: &str = r#"--
-- PostgreSQL database dump
--

\restrict xyz

SET standard_conforming_strings = on;
/* a /* nested \! */ comment; */
CREATE FUNCTION f() RETURNS text AS $_$ SELECT 'it''s \! ; $$ '; $_$;
COMMENT ON TABLE a IS 'one;
\! in a string;
E''s';
INSERT INTO a VALUES (E'it\'s \\! fine', 'back\', "we\ird", $1, a$b$c);
COPY public.a (x, "from stdin") FROM stdin;
1	\N
\\. no end
a -- 'b
\.


SELECT 1; -- done \!
--
-- PostgreSQL database dump complete
--

\unrestrict xyz

"#;

#[test]
fn a_dump_goes_through_unchanged_but_for_restrict() {
    let expected = DUMP.replace("\\restrict xyz", "").replace("\\unrestrict xyz", "");
    assert_eq!(guard(DUMP).unwrap(), expected);
}

#[test]
fn the_size_of_the_pieces_changes_nothing() {
    let whole = guard(DUMP).unwrap();
    for size in 1..60 {
        assert_eq!(guard_in_pieces(DUMP.as_bytes(), size, Some("KEY")).unwrap(), whole, "{size}");
    }
}

#[test]
fn a_dump_without_its_last_lines_is_truncated() {
    let ends_at = DUMP.find("-- PostgreSQL database dump complete").unwrap();
    for cut in DUMP.find("SET").unwrap()..ends_at {
        assert!(
            matches!(guard(&DUMP[..cut]), Err(Error::Truncated(_) | Error::Command { .. })),
            "cut at {cut}"
        );
    }
}

#[test]
fn copy_data_without_an_end_is_truncated() {
    let err = guard("CREATE TABLE a (x int);\nCOPY a FROM stdin;\n1\n2\n").unwrap_err();
    assert!(err.to_string().contains("begins at line 3"), "{err}");
    assert!(guard("copy\n a\n from\tSTDIN with (format csv);\n1\n\\.\n").is_ok());
}

#[test]
fn statements_without_an_end_are_truncated() {
    for bad in ["SELECT 1", "SELECT 'a;\n", "SELECT $$ a;\n", "/* a", "SELECT \"a;", "SELECT (1;"] {
        assert!(matches!(guard(bad), Err(Error::Truncated(_))), "{bad}");
    }
    for good in ["SELECT 1;", "SELECT 1; -- end", "SELECT 1;\n/* end */\n", ""] {
        assert!(guard(good).is_ok(), "{good}");
    }
}

#[test]
fn commands_of_psql_are_refused() {
    for bad in [
        "\\! id",
        "\\i x",
        "\\copy a from x",
        "\\q",
        "\\set x `id`",
        "\\o |id",
        "  \\! id",
        "\\connect a b c d",
        "\\connect postgresql://x/y",
    ] {
        assert!(
            matches!(guard(&format!("SELECT 1;\n{bad}\n")), Err(Error::Command { line: 2, .. })),
            "{bad}"
        );
    }
    for bad in
        ["SELECT 1 \\g |id\n", "SELECT 1; \\! id\n", "SELECT 1 \\gexec\n", "SELECT 'a' \\; SELECT 2;\n"]
    {
        assert!(matches!(guard(bad), Err(Error::Command { line: 1, .. })), "{bad}");
    }
    let err = guard("\\connect \"dbname=x host=evil\"\n").unwrap_err();
    assert!(err.to_string().contains("\\connect"), "{err}");
}

#[test]
fn connect_goes_through_and_lines_are_still_counted() {
    let mut guard = SqlGuard::new(Some("KEY".into()));
    let mut out = Vec::new();
    guard.push(b"SELECT 1;\n\\connect orders\nSELECT 3;\n", &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "SELECT 1;\nDISCARD ALL;\n\\unrestrict KEY\n\\connect orders\n\\restrict KEY\nSELECT 3;\n"
    );
    assert_eq!([2, 4].map(|line| guard.is_end(line)), [true, false]);
    assert_eq!([1, 4, 6].map(|line| guard.line_in_dump(line)), [1, 2, 3]);
    assert_eq!(guard_in_pieces(b"\\connect a\n", 1, None).unwrap(), "DISCARD ALL;\n\\connect a\n");
    assert!(guard_in_pieces(b"\\connect -reuse-previous=on \"dbname='odd name'\"\n", 9, None).is_ok());
}

#[test]
fn owners_are_made_once_and_on_the_same_line() {
    let out =
        guard("ALTER TABLE a OWNER TO bob;\nALTER TABLE b OWNER TO bob;\nGRANT ALL ON TABLE a TO eve;\n")
            .unwrap();
    assert_eq!(out.matches("CREATE ROLE bob").count(), 1, "{out}");
    assert_eq!(out.matches("CREATE ROLE eve").count(), 1, "{out}");
    assert_eq!(out.lines().count(), 3);
    assert_eq!(
        guard("COPY a FROM stdin;\nALTER TABLE a OWNER TO bob;\n\\.\n")
            .unwrap()
            .matches("CREATE ROLE")
            .count(),
        0
    );
}

#[test]
fn long_lines_are_followed_too() {
    let long = "x".repeat(3 * LONG);
    let text = format!(
        "INSERT INTO a VALUES ('{long}', E'\\'{long}');\nCOPY a FROM stdin;\n{long}\\.\n\\.\nSELECT 1;\n"
    );
    assert_eq!(guard_in_pieces(text.as_bytes(), 10_000, None).unwrap(), text);
    let open = format!("COPY a FROM stdin;\n{long}\n");
    assert!(guard_in_pieces(open.as_bytes(), 10_000, None).is_err());
}

#[test]
fn old_strings_with_backslashes_are_followed() {
    assert!(guard("SET standard_conforming_strings = off;\nSELECT 'it\\'s', '\\\\';\n").is_ok());
}

proptest! {
    #[test]
    fn any_text_in_any_pieces_gives_the_same_answer(text in "[-a$'\"\\\\/*;()\nE.COPYFROMSTDINcopyfromstdin ]{0,80}", size in 1..10_usize) {
        let whole = guard_in_pieces(text.as_bytes(), usize::MAX, None);
        let pieces = guard_in_pieces(text.as_bytes(), size, None);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn copy_data_is_never_looked_into(rows in prop::collection::vec("[^\n]{0,40}", 0..10)) {
        prop_assume!(rows.iter().all(|row| row.trim_end_matches('\r') != "\\."));
        let text = format!("COPY a FROM stdin;\n{}\n\\.\n", rows.join("\n"));
        prop_assert_eq!(guard(&text).unwrap(), text);
    }
}
