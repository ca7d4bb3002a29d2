//! Credentials: basic or bearer, in config or in files that are read again when they change. Bearer tokens that are
//! granted for a client's secret are [`oauth2`](super::oauth2)'s.
//!
//! Invariant: a secret is never shown by `Debug`, `Display` or `Serialize`; a file that cannot be read keeps the
//! last good credential.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use parking_lot::Mutex;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::Error;
use super::oauth2::OAuth2;

/// A credential file larger than this is not a credential.
const MAX_FILE: u64 = 64 << 10;

/// Text that is shown as `<redacted>` everywhere.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    /// A secret.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text itself, for the wire only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "password"})
    }
}

/// Credentials: `username` with a password, a bearer token, or `oauth2`. A file is read again when it changes, and at
/// once after the backend answered 401.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// User name for basic authentication.
    pub username: Option<String>,
    /// Password for basic authentication.
    pub password: Option<Secret>,
    /// File with the password; a trailing newline does not count.
    pub password_file: Option<PathBuf>,
    /// Bearer token.
    pub token: Option<Secret>,
    /// File with the bearer token; a trailing newline does not count.
    pub token_file: Option<PathBuf>,
    /// Bearer tokens by OAuth 2.0 client credentials, renewed before they expire and once after a 401.
    pub oauth2: Option<OAuth2>,
}

#[derive(Debug)]
enum Source {
    /// Tokens are granted, elsewhere.
    Granted,
    Fixed(HeaderValue),
    BasicFile {
        username: String,
        path: PathBuf,
    },
    BearerFile {
        path: PathBuf,
    },
}

/// What identifies one state of a file: a swapped symlink target changes it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink) struct FileStamp(Option<(SystemTime, u64, u64, u64)>);

impl FileStamp {
    /// The state of the file now.
    pub(super) fn of(path: &Path) -> Self {
        let read = |meta: fs::Metadata| Some((meta.modified().ok()?, meta.len(), meta.dev(), meta.ino()));
        Self(fs::metadata(path).ok().and_then(read))
    }
}

#[derive(Debug)]
struct Loaded {
    header: Option<HeaderValue>,
    stamp: FileStamp,
    checked: Option<Instant>,
    failing: bool,
}

/// The `Authorization` header of one endpoint, kept up to date.
#[derive(Debug)]
pub struct Credential {
    source: Option<Source>,
    loaded: Mutex<Loaded>,
}

impl Credential {
    /// Checks that the settings name at most one credential. User information of the URL counts as one.
    pub fn new(auth: &Auth, user_info: Option<(String, Secret)>) -> Result<Self, Error> {
        let basic = auth.username.is_some() || auth.password.is_some() || auth.password_file.is_some();
        let bearer = auth.token.is_some() || auth.token_file.is_some();
        let oauth2 = auth.oauth2.is_some();
        let kinds = [basic, bearer, oauth2, user_info.is_some()];
        if kinds.into_iter().filter(|kind| *kind).count() > 1 {
            return Err(Error::Auth(
                "more than one kind of credential; keep one of username and password, a token, or oauth2",
            ));
        }
        let invalid = Error::Auth("the credential has bytes that no header can carry");
        let source =
            match (&auth.username, &auth.password, &auth.password_file, &auth.token, &auth.token_file) {
                (None, None, None, None, None) => match user_info {
                    None => oauth2.then_some(Source::Granted),
                    Some((user, password)) => {
                        Some(Source::Fixed(basic_header(&user, password.expose()).ok_or(invalid)?))
                    }
                },
                (Some(user), Some(password), None, ..) => {
                    Some(Source::Fixed(basic_header(user, password.expose()).ok_or(invalid)?))
                }
                (Some(user), None, Some(path), ..) => {
                    Some(Source::BasicFile { username: user.clone(), path: path.clone() })
                }
                (Some(_), None, None, ..) => {
                    return Err(Error::Auth("username needs password or password_file"));
                }
                (Some(_), Some(_), Some(_), ..) => {
                    return Err(Error::Auth("password and password_file exclude each other"));
                }
                (None, _, _, Some(_), Some(_)) => {
                    return Err(Error::Auth("token and token_file exclude each other"));
                }
                (None, None, None, Some(token), None) => {
                    Some(Source::Fixed(bearer_header(token.expose()).ok_or(invalid)?))
                }
                (None, None, None, None, Some(path)) => Some(Source::BearerFile { path: path.clone() }),
                (None, ..) => return Err(Error::Auth("password needs username")),
            };
        let loaded = Loaded { header: None, stamp: FileStamp(None), checked: None, failing: false };
        Ok(Self { source, loaded: Mutex::new(loaded) })
    }

    /// True when requests carry a credential.
    pub fn is_some(&self) -> bool {
        self.source.is_some()
    }

    /// Looks at the file at the next request, whenever the last look was.
    pub fn distrust(&self) {
        let mut loaded = self.loaded.lock();
        loaded.checked = None;
        loaded.stamp = FileStamp(None);
    }

    /// The header to send. Looks at the file at most every `every`.
    pub fn header(&self, every: Duration) -> Result<Option<HeaderValue>, Error> {
        let (what, path) = match &self.source {
            None | Some(Source::Granted) => return Ok(None),
            Some(Source::Fixed(header)) => return Ok(Some(header.clone())),
            Some(Source::BasicFile { path, .. }) => ("auth.password_file", path),
            Some(Source::BearerFile { path }) => ("auth.token_file", path),
        };
        let mut loaded = self.loaded.lock();
        let now = Instant::now();
        if loaded.checked.is_some_and(|at| now.duration_since(at) < every) && loaded.header.is_some() {
            return Ok(loaded.header.clone());
        }
        loaded.checked = Some(now);
        let stamp = FileStamp::of(path);
        if stamp == loaded.stamp && loaded.header.is_some() {
            return Ok(loaded.header.clone());
        }
        match self.read(path) {
            Ok(header) => {
                loaded.header = Some(header);
                loaded.stamp = stamp;
                loaded.failing = false;
                Ok(loaded.header.clone())
            }
            Err(why) => {
                let error = Error::File { what, path: path.display().to_string(), why };
                if loaded.header.is_none() {
                    return Err(error);
                }
                if !std::mem::replace(&mut loaded.failing, true) {
                    tracing::warn!(%error, "keeping the last good credential");
                }
                Ok(loaded.header.clone())
            }
        }
    }

    fn read(&self, path: &Path) -> Result<HeaderValue, String> {
        let text = read_secret(path)?;
        let secret = text.expose().trim_end_matches(['\n', '\r']);
        let header = match &self.source {
            Some(Source::BasicFile { username, .. }) => basic_header(username, secret),
            _ => bearer_header(secret),
        };
        header.ok_or_else(|| "it has bytes that no header can carry".to_owned())
    }
}

/// The text of a credential file, which is not empty.
pub(super) fn read_secret(path: &Path) -> Result<Secret, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let text = Secret::new(text);
    match text.expose() {
        long if long.len() as u64 > MAX_FILE => Err(format!("more than {MAX_FILE} bytes is no credential")),
        blank if blank.trim_end_matches(['\n', '\r']).is_empty() => Err("it is empty".to_owned()),
        _ => Ok(text),
    }
}

/// A header value that is never shown.
pub(super) fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Authorization` with a bearer token.
pub(super) fn bearer_header(token: &str) -> Option<HeaderValue> {
    sensitive(format!("Bearer {}", token.trim()))
}

fn basic_header(username: &str, password: &str) -> Option<HeaderValue> {
    if username.contains(':') {
        return None;
    }
    sensitive(format!("Basic {}", base64(format!("{username}:{password}").as_bytes())))
}

/// Standard base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Undoes percent encoding. `None` when the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}
