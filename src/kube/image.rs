//! Image references as pods write them, and the version that they stand for.
//!
//! In: `spec.containers[].image`. Out: name, tag and digest, borrowed. Invariant: what is not of the reference's form
//! gives nothing, and no part is longer than the form allows.
//!
//! Source: github.com/distribution/reference, `reference.go`, whose grammar the semantic conventions refer to.

/// Longest name that the grammar allows: `NameTotalLengthMax`.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;
/// Longest digest taken: algorithm, colon and 512 bits in hex, with room.
const MAX_DIGEST: usize = 256;

/// The parts of an image reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Image<'a> {
    /// Registry and repository, as written: `registry.example:5000/shop/api`. Empty when only a digest is given.
    pub(super) name: &'a str,
    /// Tag.
    pub(super) tag: Option<&'a str>,
    /// Digest: `sha256:…`.
    pub(super) digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    /// Reads a reference. `None` when it is not one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if is_digest(text) {
            return Some(Self { name: "", tag: None, digest: Some(text) });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((end, tag)) => (&rest[..last + end.len()], Some(tag)),
            None => (rest, None),
        };
        let valid = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        valid.then_some(Self { name, tag, digest })
    }

    /// `service.version` as the semantic conventions compute it: `<tag>@<digest>`, `<digest>` or `<tag>`.
    pub(super) fn version(&self) -> Option<String> {
        match (self.tag, self.digest) {
            (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
            (None, Some(digest)) => Some(digest.to_owned()),
            (Some(tag), None) => Some(tag.to_owned()),
            (None, None) => None,
        }
    }
}

/// Looser than the grammar about where separators may stand, as nothing depends on it.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:[]".contains(&b))
        && !text.starts_with('/')
        && !text.ends_with('/')
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    text.len() <= MAX_DIGEST
        && algorithm.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b))
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9371d6e4b89ab34401c256250e5383fc8c28a11ffed83c1cf64492ba63517879";

    #[test]
    fn a_reference_has_name_tag_and_digest() {
        let whole = format!("ghcr.io/shop/api:1.4.2@{DIGEST}");
        let untagged = format!("ghcr.io/shop/api@{DIGEST}");
        for (text, name, tag, digest) in [
            ("registry.local/nodeapp:1", "registry.local/nodeapp", Some("1"), None),
            ("nginx", "nginx", None, None),
            ("nginx:1.27-alpine", "nginx", Some("1.27-alpine"), None),
            ("localhost:5000/shop/api", "localhost:5000/shop/api", None, None),
            ("localhost:5000/shop/api:v1", "localhost:5000/shop/api", Some("v1"), None),
            ("[::1]:5000/api:v1", "[::1]:5000/api", Some("v1"), None),
            (&whole, "ghcr.io/shop/api", Some("1.4.2"), Some(DIGEST)),
            (&untagged, "ghcr.io/shop/api", None, Some(DIGEST)),
            (DIGEST, "", None, Some(DIGEST)),
        ] {
            assert_eq!(Image::parse(text), Some(Image { name, tag, digest }), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_gives_nothing() {
        let long = format!("a:{}", "x".repeat(129));
        for text in
            ["", ":", "a:", "a:-x", "a b", "a:x\r\n", "é:1", "/a", "a/", "a@sha256:12", "a:b:c", &long]
        {
            assert_eq!(Image::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_version_is_tag_and_digest() {
        let version = |text: &str| Image::parse(text).and_then(|image| image.version());
        assert_eq!(version("api:1.4.2").as_deref(), Some("1.4.2"));
        assert_eq!(version(&format!("api@{DIGEST}")).as_deref(), Some(DIGEST));
        assert_eq!(
            version(&format!("api:1.4.2@{DIGEST}")),
            Some("1.4.2@sha256:9371d6e4b89ab34401c256250e5383fc8c28a11ffed83c1cf64492ba63517879".into())
        );
        assert_eq!(version("api"), None);
    }
}
