//! What PostgreSQL's programs say on standard error, made short, and what to do about it.

use std::path::Path;

use super::super::Error;

/// A reason is a line or a few, never a page.
const LONGEST: usize = 700;
/// Lines that belong to an error, after its first.
const CONTEXT: usize = 5;

/// The first error in `text` with what belongs to it; the last lines where there is none. In one line.
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
        if !line.chars().all(|c| c == '^' || c.is_whitespace()) {
            words.push(*line);
        }
    }
    shorten(&words.join(" | "))
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
    ["No space left on device", "Disk quota exceeded", "Check free disk space"]
        .iter()
        .any(|words| text.contains(words))
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
}
