//! What PostgreSQL's programs say on standard error, made short, and what to do about it.

use std::path::Path;

use super::super::Error;

/// A reason is a line or a few, never a page.
const LONGEST: usize = 700;
/// Lines that belong to an error, after its first.
const CONTEXT: usize = 5;

/// The first error in `text` with what belongs to it; the last lines where there is none. In one line, and without
/// the data that the error is about: reasons are kept, and read by people who may not read the data.
pub(super) fn of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_error =
        |line: &&str| ["ERROR:", "FATAL:", "PANIC:", "error:"].iter().any(|word| line.contains(word));
    let first = lines.iter().position(is_error).unwrap_or(lines.len().saturating_sub(CONTEXT));
    let mut words = Vec::new();
    for (at, line) in lines[first..].iter().enumerate().take(CONTEXT) {
        if at > 0 && is_error(line) {
            break;
        }
        // What follows a server's error has a name, or is the rest of a value that has several lines.
        let belongs = at == 0 || BELONGS.iter().any(|name| line.starts_with(name));
        if belongs || !is_error(&lines[first]) {
            words.push(without_data(line));
        }
    }
    words.retain(|line| !line.is_empty());
    shorten(&words.join(" | "))
}

/// How lines begin that belong to an error.
const BELONGS: [&str; 8] =
    ["LINE ", "HINT:", "CONTEXT:", "COPY ", "DETAIL:", "Command was:", "pg_restore:", "initdb:"];

/// A line of the engine's without what may be somebody's data: tables, columns and line numbers stay.
pub(super) fn without_data(line: &str) -> String {
    let cut = |at: usize| format!("{} …", line[..at].trim_end_matches([' ', ':', '=']));
    let before = |words: &str| line.find(words).map_or_else(|| line.to_owned(), cut);
    if line.contains("DETAIL:") {
        // `Key (id)=(5) already exists.`; nothing else that it may say is as good as it is dangerous.
        return match line.find(")=(") {
            Some(at) => cut(at + 1),
            None if line.contains("Failed process was running: ") => {
                let (name, statement) = line.split_once("running: ").unwrap_or_default();
                format!("{name}running: {} …", statement.split(' ').next().unwrap_or_default())
            }
            None => String::new(),
        };
    }
    if line.contains("STATEMENT:") || line.contains("QUERY:") || line.contains("JSON data") {
        return String::new();
    }
    if let Some(statement) = line.strip_prefix("LINE ").or(line.strip_prefix("Command was:")) {
        let from_the_middle = statement.contains(": ...");
        let values = ["VALUES", "values", "'", "$"].iter().filter_map(|words| line.find(words)).min();
        return if from_the_middle { String::new() } else { values.map_or_else(|| line.to_owned(), cut) };
    }
    if line.contains("SQL statement \"") {
        return before(" \"");
    }
    // `invalid input syntax for type integer: "…"`, `COPY t, line 5: "…"`, `value "…" is out of range`.
    ["at or near \"'", "at or near \"$", ": \"", "value \"", "Token \""]
        .iter()
        .filter_map(|words| Some(line.find(words)? + words.find('"').unwrap_or_default()))
        .min()
        .map_or_else(|| line.to_owned(), cut)
}

/// Cuts a text that is too long, between two characters.
pub(super) fn shorten(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{} …", &text[..end])
}

/// Whether the file system was full.
pub(super) fn is_no_space(text: &str) -> bool {
    // The hint comes when less was written than asked for, without the error behind it.
    text.lines().filter(|line| !line.contains(SHARED_MEMORY)).any(|line| {
        ["No space left on device", "Disk quota exceeded", "Check free disk space"]
            .iter()
            .any(|words| line.contains(words))
    })
}

/// A program's failure, told as what it is where that can be seen.
pub(super) fn explain(err: Error, data: &Path) -> Error {
    match err {
        Error::Program { said, .. } if is_no_space(&said) => Error::NoSpace { path: data.to_owned() },
        Error::Program { program, said } => {
            let said = with_advice(said);
            Error::Program { program, said }
        }
        other => other,
    }
}

/// Adds what to do, where we know.
pub(super) fn with_advice(said: String) -> String {
    let advice = [
        (
            "role \"",
            "does not exist",
            "dump with pg_dump --no-owner --no-acl, or create the role at the top of the dump",
        ),
        ("extension \"", "is not available", "install the extension beside the engine, or dump without it"),
        (
            "could not open extension control file",
            "",
            "install the extension beside the engine, or dump without it",
        ),
        (
            SHARED_MEMORY,
            "",
            "there is too little room in /dev/shm: mount a larger one (emptyDir with medium: Memory), or use less: --engine-arg -c --engine-arg max_parallel_workers=0",
        ),
        (
            "could not look up effective user ID",
            "",
            "give the user a name: run as the engine's own (999 in the official image), mount an /etc/passwd that has it, or use an image with nss_wrapper",
        ),
        ("invalid locale name", "", "install that locale beside the engine, or dump without --create"),
        ("unrecognized configuration parameter", "", NEWER),
        ("unsupported version (", "", NEWER),
        (
            "could not access file",
            "No such file",
            "install the library beside the engine, or dump without it",
        ),
    ];
    match advice.iter().find(|(a, b, _)| said.contains(a) && said.contains(b)) {
        Some((.., advice)) => format!("{said}: {advice}"),
        None => said,
    }
}

/// Not a file of the data's: a container has little room in /dev/shm.
const SHARED_MEMORY: &str = "could not resize shared memory segment";

const NEWER: &str = "the dump was made by a newer PostgreSQL: use an engine at least as new (--bin-dir)";

/// `psql:<stdin>:12: ERROR:  …` → line 12 and the rest.
pub(super) fn split_line_number(said: &str) -> Option<(u64, &str)> {
    let rest = said.strip_prefix("psql:<stdin>:")?;
    let (line, rest) = rest.split_once(':')?;
    Some((line.parse().ok()?, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told_with_its_context() {
        let text = "psql:<stdin>:1: WARNING:  odd\npsql:<stdin>:3: ERROR:  syntax error at or near \"selec\"\nLINE 1: selec 2;\n        ^\npsql:<stdin>:9: ERROR:  later\n";
        let said = of(text);
        assert_eq!(said, "psql:<stdin>:3: ERROR:  syntax error at or near \"selec\" | LINE 1: selec 2;");
        assert_eq!(split_line_number(&said).unwrap().0, 3);
    }

    #[test]
    fn data_stays_out_of_reasons() {
        let cases = [
            ("ERROR:  invalid input syntax for type integer: \"secret\"", "type integer …"),
            ("ERROR:  value \"77123\" is out of range for type smallint", "ERROR:  value …"),
            ("ERROR:  unterminated quoted string at or near \"'secret\"", "at or near …"),
            ("CONTEXT:  COPY customer, line 5: \"7\tsecret\"", "COPY customer, line 5 …"),
            ("CONTEXT:  COPY customer, line 5, column id: \"secret\"", "line 5, column id …"),
            ("DETAIL:  Key (id)=(77123) already exists.", "DETAIL:  Key (id) …"),
            ("LINE 1: INSERT INTO t VALUES (77123, 'secret');", "LINE 1: INSERT INTO t …"),
            ("LINE 1: UPDATE t SET x = 'secret';", "LINE 1: UPDATE t SET x …"),
            ("Command was: INSERT INTO t VALUES (77123);", "INSERT INTO t …"),
            ("CONTEXT:  SQL statement \"INSERT INTO t VALUES (77123)\"", "SQL statement …"),
            (
                "DETAIL:  Failed process was running: INSERT INTO t VALUES (77123);",
                "DETAIL:  Failed process was running: INSERT …",
            ),
        ];
        for (line, end) in cases {
            let said = without_data(line);
            assert!(said.ends_with(end) && !said.contains("secret") && !said.contains("77123"), "{said}");
        }
        for line in [
            "DETAIL:  Failing row contains (77123, secret).",
            "LINE 9: ...t', 77123, 'secret');",
            "STATEMENT:  INSERT INTO t VALUES (77123)",
            "CONTEXT:  JSON data, line 1: {secret",
        ] {
            assert_eq!(without_data(line), "", "{line}");
        }
        // A value of several lines goes on where nothing says so.
        let said = of(
            "ERROR:  null value in column \"a\" of relation \"t\" violates not-null constraint\nDETAIL:  Failing row contains (1, x\nsecret).\nCONTEXT:  COPY t, line 1: \"1\tx\"\n",
        );
        assert_eq!(
            said,
            "ERROR:  null value in column \"a\" of relation \"t\" violates not-null constraint | CONTEXT:  COPY t, line 1 …"
        );
        for line in ["ERROR:  role \"bob\" does not exist", "ERROR:  relation \"t\" already exists"] {
            assert_eq!(without_data(line), line);
        }
    }

    #[test]
    fn an_endless_error_is_cut() {
        let said = of(&format!("ERROR: {}", "ü".repeat(10_000)));
        assert!(said.len() < LONGEST + 10, "{}", said.len());
    }

    #[test]
    fn known_errors_come_with_advice() {
        assert!(with_advice("ERROR:  role \"bob\" does not exist".into()).contains("--no-owner"));
        assert!(
            with_advice("ERROR: unrecognized configuration parameter \"transaction_timeout\"".into())
                .contains("--bin-dir")
        );
        assert_eq!(with_advice("ERROR: odd".into()), "ERROR: odd");
    }

    #[test]
    fn a_full_dev_shm_is_not_a_full_volume() {
        let shared = "ERROR:  could not resize shared memory segment \"/PostgreSQL.1\" to 67146080 bytes: No space left on device";
        assert!(!is_no_space(shared));
        assert!(with_advice(of(shared)).contains("/dev/shm"), "{}", with_advice(of(shared)));
        assert!(is_no_space(&format!("{shared}\nPANIC:  could not write to file: No space left on device")));
    }
}
