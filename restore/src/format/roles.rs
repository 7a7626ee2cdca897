//! The roles that a dump takes for granted.
//!
//! A dump of one database names the roles that own its tables and may use them, but does not make them. Rather than
//! fail there, or throw owners and grants away, the guard makes each role on its first mention: without login, as a
//! name that things can belong to. Only lines that `pg_dump` writes are understood; other mentions of a missing role
//! fail the restore with the engine's own words.

/// Words that name no role, or one that is there.
const NOBODY: [&str; 7] =
    ["public", "none", "default", "current_user", "current_role", "session_user", "postgres"];

/// The roles in one line that is one whole statement, as they are written there.
pub(super) fn named_in(line: &[u8]) -> Vec<String> {
    let Some(statement) = line.strip_suffix(b";").and_then(|line| std::str::from_utf8(line).ok()) else {
        return Vec::new();
    };
    let mut roles = Vec::new();
    if statement.starts_with("ALTER ") {
        roles.extend(statement.rsplit_once(" OWNER TO ").and_then(|(_, role)| role_at(role)));
    }
    let defaults = statement.strip_prefix("ALTER DEFAULT PRIVILEGES FOR ROLE ");
    roles.extend(defaults.and_then(role_at));
    if statement.starts_with("GRANT ") || defaults.is_some() {
        roles.extend(statement.rsplit_once(" TO ").and_then(|(_, role)| role_at(role)));
    }
    if statement.starts_with("REVOKE ") || defaults.is_some() {
        roles.extend(statement.rsplit_once(" FROM ").and_then(|(_, role)| role_at(role)));
    }
    roles.extend(statement.strip_prefix("SET SESSION AUTHORIZATION ").and_then(role_at));
    roles.retain(|role| !is_there(role));
    roles
}

/// Whether nobody need make it: the engine keeps all names that begin with `pg_` for itself.
fn is_there(role: &str) -> bool {
    let name = match role.strip_prefix('"') {
        Some(rest) => rest.trim_end_matches('"').to_owned(),
        None => role.to_ascii_lowercase(),
    };
    name.starts_with("pg_") || NOBODY.contains(&name.as_str())
}

/// A statement that makes `role` unless it is there; it stands on the same line as the one that needs it.
pub(super) fn make(role: &str) -> String {
    format!("DO $aldaas$BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END$aldaas$; ")
}

/// The role's name at the beginning of `text`, quotes included; none where it is written in a way that pg_dump does not.
fn role_at(text: &str) -> Option<String> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, rest) = quoted.split_once('"')?;
        let plain = !name.is_empty() && !name.contains(['$', '\\']) && !rest.starts_with('"');
        return plain.then(|| format!("\"{name}\""));
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let ends_well = text[end..].is_empty() || text[end..].starts_with(' ');
    (end > 0 && ends_well && !text.starts_with(|c: char| c.is_ascii_digit())).then(|| text[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_where_pg_dump_writes_them() {
        let cases = [
            ("ALTER TABLE public.a OWNER TO bob;", vec!["bob"]),
            ("ALTER FUNCTION f(a text) OWNER TO \"Bob Smith\";", vec!["\"Bob Smith\""]),
            ("GRANT SELECT ON TABLE public.a TO reader WITH GRANT OPTION;", vec!["reader"]),
            ("REVOKE ALL ON SCHEMA public FROM PUBLIC;", vec![]),
            ("REVOKE ALL ON TABLE a FROM bob;", vec!["bob"]),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE bob IN SCHEMA s GRANT SELECT ON TABLES TO eve;",
                vec!["bob", "eve"],
            ),
            ("SET SESSION AUTHORIZATION DEFAULT;", vec![]),
            ("ALTER SCHEMA public OWNER TO postgres;", vec![]),
            ("ALTER TABLE a OWNER TO \"we\"\"ird\";", vec![]),
            ("ALTER TABLE a OWNER TO \"$aldaas$\";", vec![]),
            ("INSERT INTO t VALUES (' OWNER TO bob');", vec![]),
            ("ALTER TABLE a OWNER TO bob", vec![]),
            ("GRANT SELECT ON TABLE a TO pg_monitor;", vec![]),
            ("GRANT SELECT ON TABLE a TO \"pg_monitor\";", vec![]),
            ("GRANT SELECT ON TABLE a TO PG_Monitor;", vec![]),
            ("GRANT ALL ON SCHEMA public TO public;", vec![]),
            ("ALTER TABLE a OWNER TO current_user;", vec![]),
            ("ALTER TABLE a OWNER TO \"Public\";", vec!["\"Public\""]),
        ];
        for (line, roles) in cases {
            assert_eq!(named_in(line.as_bytes()), roles, "{line}");
        }
    }
}
