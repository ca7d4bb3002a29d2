//! Patterns of paths: `*` and `?` within a name, `**` for any number of directories.
//!
//! In: an absolute pattern, and the names in directories. Out: the files that match. Invariants: no link is followed
//! below the pattern's fixed beginning; at most [`DIRECTORIES`] directories, at most [`DEPTH`] deep, are looked into.
//! As in a shell, a name that begins with a dot is matched only by a pattern whose own name begins with one.

use std::path::{Path, PathBuf};

use crate::logs::env::{Entry, Kind};

/// Directories that one pattern looks into at most.
pub const DIRECTORIES: usize = 4096;

/// Levels below the fixed beginning that `**` looks into.
pub const DEPTH: usize = 16;

/// A pattern that can be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// The longest beginning without a wildcard, and never the file itself.
    base: PathBuf,
    /// What follows, name by name.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// One name.
    Name(String),
    /// `**`.
    Any,
}

/// A file that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Its directory.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// What it is: never a directory.
    pub kind: Kind,
}

impl Glob {
    /// Reads a pattern. The error says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if !pattern.starts_with('/') {
            return Err("is not an absolute path".to_owned());
        }
        let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        let Some(last) = names.last() else { return Err("names no file".to_owned()) };
        if pattern.ends_with('/') || *last == "**" {
            return Err("names no file: end it with a file's name, such as *.log".to_owned());
        }
        if names.contains(&"..") {
            return Err("must not contain ..".to_owned());
        }
        if let Some(odd) = names.iter().find(|name| name.contains("**") && **name != "**") {
            return Err(format!("has ** within the name {odd}; it must stand alone between two slashes"));
        }
        let fixed = names[..names.len() - 1].iter().take_while(|name| !is_wild(name)).count();
        let base = names[..fixed].iter().fold(PathBuf::from("/"), |base, name| base.join(name));
        let part = |name: &&str| if *name == "**" { Part::Any } else { Part::Name((*name).to_owned()) };
        let mut parts: Vec<Part> = names[fixed..].iter().map(part).collect();
        parts.dedup_by(|a, b| *a == Part::Any && *b == Part::Any);
        Ok(Self { base, parts })
    }

    /// The directory below which everything lies that can match.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The pattern names one file.
    pub fn is_literal(&self) -> bool {
        matches!(&self.parts[..], [Part::Name(name)] if !is_wild(name))
    }

    /// True when a path matches.
    pub fn matches(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.base) else { return false };
        let names: Option<Vec<&str>> = rest.iter().map(|name| name.to_str()).collect();
        names.is_some_and(|names| matches(&self.parts, &names))
    }

    /// Finds what matches. `list` gives the names in a directory, or `None` when there are none to be had; each
    /// directory that was looked into is appended to `seen`.
    pub fn find(
        &self,
        list: &mut dyn FnMut(&Path) -> Option<Vec<Entry>>,
        seen: &mut Vec<PathBuf>,
    ) -> Vec<Match> {
        let mut found = Vec::new();
        let mut open: Vec<(PathBuf, usize, usize)> = vec![(self.base.clone(), 0, 0)];
        let mut budget = DIRECTORIES;
        while let Some((dir, part, depth)) = open.pop() {
            if budget == 0 {
                break;
            }
            budget -= 1;
            let Some(entries) = list(&dir) else { continue };
            seen.push(dir.clone());
            for Entry { name, kind } in entries {
                let rest = &self.parts[part..];
                if kind == Kind::Directory {
                    if depth >= DEPTH {
                        continue;
                    }
                    match rest {
                        [Part::Any, ..] if !name.starts_with('.') => {
                            open.push((dir.join(&name), part, depth + 1));
                        }
                        [Part::Name(pattern), _, ..] if name_matches(pattern, &name) => {
                            open.push((dir.join(&name), part + 1, depth + 1));
                        }
                        _ => {}
                    }
                    // `**` may stand for no directory at all.
                    if let [Part::Any, Part::Name(pattern), _, ..] = rest
                        && name_matches(pattern, &name)
                    {
                        open.push((dir.join(&name), part + 2, depth + 1));
                    }
                    continue;
                }
                let last = match rest {
                    [Part::Name(pattern)] | [Part::Any, Part::Name(pattern)] => pattern,
                    _ => continue,
                };
                if name_matches(last, &name) {
                    found.push(Match { dir: dir.clone(), name, kind });
                }
            }
        }
        found.sort_by(|a, b| (&a.dir, &a.name).cmp(&(&b.dir, &b.name)));
        found.dedup();
        found
    }
}

fn is_wild(name: &str) -> bool {
    name.contains(['*', '?'])
}

fn matches(parts: &[Part], names: &[&str]) -> bool {
    match (parts, names) {
        ([], []) => true,
        ([Part::Any, rest @ ..], names) => (0..=names.len())
            .take_while(|skip| names[..*skip].iter().all(|name| !name.starts_with('.')))
            .any(|skip| matches(rest, &names[skip..])),
        ([Part::Name(pattern), parts @ ..], [name, names @ ..]) => {
            name_matches(pattern, name) && matches(parts, names)
        }
        _ => false,
    }
}

/// True when a name matches a pattern of `*` and `?`. Takes as many steps as the product of their lengths at most.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str) -> Glob {
        Glob::new(pattern).expect(pattern)
    }

    #[test]
    fn stars_stay_within_a_name_and_double_stars_do_not() {
        for (pattern, path, expected) in [
            ("/var/log/app/*.log", "/var/log/app/a.log", true),
            ("/var/log/app/*.log", "/var/log/app/x/a.log", false),
            ("/var/log/app/*.log", "/var/log/app/a.log.1", false),
            ("/var/log/app/*.log", "/var/log/app/.hidden.log", false),
            ("/var/log/app/.*.log", "/var/log/app/.hidden.log", true),
            ("/srv/**/*.log", "/srv/a.log", true),
            ("/srv/**/*.log", "/srv/a/b/c.log", true),
            ("/srv/**/*.log", "/srv/.git/c.log", false),
            ("/srv/*/logs/**/a?.log", "/srv/x/logs/ab.log", true),
            ("/srv/*/logs/**/a?.log", "/srv/x/logs/y/z/ab.log", true),
            ("/srv/*/logs/**/a?.log", "/srv/x/y/logs/ab.log", false),
            ("/a/*a*a*b", "/a/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("/one.log", "/one.log", true),
        ] {
            assert_eq!(glob(pattern).matches(Path::new(path)), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_begins_to_look_at_its_first_wildcard() {
        assert_eq!(glob("/var/log/app/*.log").base(), Path::new("/var/log/app"));
        assert_eq!(glob("/var/*/app/x.log").base(), Path::new("/var"));
        assert_eq!(glob("/var/log/x.log").base(), Path::new("/var/log"));
        assert!(glob("/var/log/x.log").is_literal());
        assert!(!glob("/var/log/x*").is_literal());
    }

    #[test]
    fn patterns_that_name_no_file_are_refused() {
        for bad in ["app.log", "/", "/var/log/", "/var/log/**", "/var/../etc/x", "/var/a**b/x.log"] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }
}
