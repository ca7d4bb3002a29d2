//! `${env:VAR}`, `${env:VAR:-default}` and `${file:/path}` inside strings of an already parsed config.
//!
//! In: one string. Out: the string with each reference replaced. Replacing after parsing means that no value can
//! change the structure of the config. What a reference yields is not looked at again.
//! Anything else that begins with `$` is left alone; `$${env:…}` writes a reference literally.

use std::fs::File;
use std::io::Read;

/// Bytes that a referenced file may have.
const FILE_LIMIT: u64 = 1 << 20;

/// A reference that cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    /// The reference as it stands in the string.
    pub(super) reference: String,
    /// The cause.
    pub(super) message: String,
    /// What to do.
    pub(super) help: String,
}

/// A string with its references replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The string.
    pub(super) text: String,
    /// What was put in, as `env:NAME` or `file:/path`.
    pub(super) taken_from: String,
}

/// Replaces the references in `text`; `None` when it has none.
pub(super) fn expand(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Expanded>, Unresolved> {
    let mut out = String::new();
    let mut sources: Vec<&str> = Vec::new();
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let reference = &rest[at..];
        let escaped = rest[..at].ends_with('$');
        let body = &reference[2..];
        if !(body.starts_with("env:") || body.starts_with("file:")) {
            out.push_str(&rest[..at + 2]);
            rest = body;
            continue;
        }
        changed = true;
        if escaped {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = body;
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = body.find('}') else {
            return Err(Unresolved {
                reference: reference.to_owned(),
                message: "a reference is not closed".to_owned(),
                help: "close it with }, or write $${ for a literal ${".to_owned(),
            });
        };
        let whole = &reference[..end + 3];
        let body = &body[..end];
        let (value, source) = match body.split_once(':') {
            Some(("env", inner)) => {
                let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d)));
                (variable(whole, name, default, env)?, &body[..4 + name.len()])
            }
            Some((_, path)) => (file(whole, path)?, body),
            None => unreachable!("the body begins with env: or file:"),
        };
        out.push_str(&value);
        sources.push(source);
        rest = &reference[end + 3..];
    }
    if !changed {
        return Ok(None);
    }
    out.push_str(rest);
    sources.dedup();
    Ok(Some(Expanded { text: out, taken_from: sources.join(", ") }))
}

fn variable(
    whole: &str,
    name: &str,
    default: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Unresolved> {
    let error = |message: String, help: String| Unresolved { reference: whole.to_owned(), message, help };
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid {
        return Err(error(
            format!("{name:?} is not the name of an environment variable"),
            "write ${env:NAME} or ${env:NAME:-default}".to_owned(),
        ));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        // As in a shell, `:-` also covers a variable that is set to nothing.
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(error(
            format!("environment variable {name} is not set"),
            format!("set {name}, or give a default: ${{env:{name}:-default}}"),
        )),
    }
}

fn file(whole: &str, path: &str) -> Result<String, Unresolved> {
    let error = |message: String, help: &str| Unresolved {
        reference: whole.to_owned(),
        message,
        help: help.to_owned(),
    };
    if !path.starts_with('/') {
        return Err(error(format!("{path:?} is not an absolute path"), "write ${file:/path/to/file}"));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)).map_err(|cause| {
        error(format!("cannot read {path}: {cause}"), "mount the file where the agent can read it")
    })?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(error(format!("{path} is larger than 1MiB"), "refer to a file that holds one value"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| error(format!("{path} is not valid UTF-8"), "refer to a text file"))?;
    // Secrets written by an editor or `echo` end in a newline that is no part of them.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("loki".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${env:HOST}\"\n[sink]".to_owned()),
            _ => None,
        }
    }

    fn text(input: &str) -> String {
        expand(input, &env).expect("resolves").map_or_else(|| input.to_owned(), |expanded| expanded.text)
    }

    #[test]
    fn variables_and_defaults_are_put_in() {
        assert_eq!(text("http://${env:HOST}:3100"), "http://loki:3100");
        assert_eq!(text("${env:NONE:-a:b}-${env:EMPTY:-x}-${env:EMPTY}"), "a:b-x-");
    }

    #[test]
    fn a_value_is_never_looked_at_again() {
        assert_eq!(text("${env:TRICK}"), "${env:HOST}\"\n[sink]");
    }

    #[test]
    fn other_dollars_are_left_alone_and_a_doubled_one_escapes() {
        assert_eq!(text("^$|${1}|$$|${name}"), "^$|${1}|$$|${name}");
        assert_eq!(text("$${env:HOST}"), "${env:HOST}");
    }

    #[test]
    fn an_unset_variable_is_named() {
        let error = expand("a${env:NONE}", &env).expect_err("unset");
        assert_eq!(error.reference, "${env:NONE}");
        assert_eq!(error.message, "environment variable NONE is not set");
        assert!(expand("${env:NONE", &env).is_err());
        assert!(expand("${env:}", &env).is_err());
        assert!(expand("${file:relative}", &env).is_err());
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_newline() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), "s3cret\r\n").expect("written");
        let expanded = expand(&format!("${{file:{}}}", file.path().display()), &env);
        assert_eq!(expanded.expect("reads").expect("changed").text, "s3cret");
    }
}
