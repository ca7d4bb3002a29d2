//! The closed sets of label values: classes of answers, and methods.
//!
//! In: a status as a number or as a library writes it. Out: a [`Class`] or a [`Method`], a small number each.

/// The classes of answers, in the order in which they are published.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];

/// Methods as OpenTelemetry knows them; every other one is the last. Source: OpenTelemetry semantic conventions,
/// `http.request.method`.
pub const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];

/// A class of answers: an index of [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class(u8);

impl Class {
    /// Served.
    pub const SUCCESS: Self = Self(1);
    /// The client asked for what is not there or not allowed.
    pub const CLIENT_ERROR: Self = Self(3);
    /// The service failed.
    pub const SERVER_ERROR: Self = Self(4);
    /// The client went away before it was answered.
    pub const ABORTED: Self = Self(5);

    /// The class of a status; nginx' 499 is a client that went away. `None` for what is no status.
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            499 => Some(Self::ABORTED),
            100..=599 => Some(Self((status / 100 - 1) as u8)),
            _ => None,
        }
    }

    /// The class of a status as libraries write it: `200`, `2xx`, `2`; `0` is a client that went away (Envoy).
    pub fn of_http(text: &[u8]) -> Option<Self> {
        match text {
            b"0" => Some(Self::ABORTED),
            [digit @ b'1'..=b'5'] => Some(Self(digit - b'1')),
            [digit @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => Some(Self(digit - b'1')),
            _ => Self::of_status(std::str::from_utf8(text).ok()?.parse().ok()?),
        }
    }

    /// The class of a gRPC code by its name or number. What the server did wrong is a list: everything else but `OK` is
    /// the client's, and `Canceled` a client that went away.
    /// Source: OpenTelemetry semantic conventions, "gRPC status", for server spans.
    pub fn of_grpc(text: &[u8]) -> Option<Self> {
        let is = |names: &[&str]| names.iter().any(|name| text.eq_ignore_ascii_case(name.as_bytes()));
        if text.is_empty() {
            None
        } else if is(&["OK", "0"]) {
            Some(Self::SUCCESS)
        } else if is(&["Canceled", "Cancelled", "1"]) {
            Some(Self::ABORTED)
        } else if is(&[
            "Unknown",
            "2",
            "DeadlineExceeded",
            "DEADLINE_EXCEEDED",
            "4",
            "Unimplemented",
            "12",
            "Internal",
            "13",
            "Unavailable",
            "14",
            "DataLoss",
            "DATA_LOSS",
            "15",
        ]) {
            Some(Self::SERVER_ERROR)
        } else {
            Some(Self::CLIENT_ERROR)
        }
    }

    /// The class of a span's status: `STATUS_CODE_ERROR` is a failure, all else is not.
    pub fn of_span(text: &[u8]) -> Option<Self> {
        let error = text.eq_ignore_ascii_case(b"STATUS_CODE_ERROR") || text.eq_ignore_ascii_case(b"Error");
        (!text.is_empty()).then_some(if error { Self::SERVER_ERROR } else { Self::SUCCESS })
    }

    /// Index in [`CLASSES`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The label value.
    pub const fn name(self) -> &'static str {
        CLASSES[self.0 as usize]
    }
}

/// A method: an index of [`METHODS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(u8);

impl Method {
    /// Not said, or not known.
    pub const OTHER: Self = Self(METHODS.len() as u8 - 1);
    /// All gRPC calls are POST requests.
    pub const POST: Self = Self(2);

    /// The method that `text` names, in either case.
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        let known = METHODS.iter().position(|name| text.eq_ignore_ascii_case(name.as_bytes()));
        known.map_or(Self::OTHER, |index| Self(index as u8))
    }

    /// The method at an index of [`METHODS`].
    pub fn at(index: u8) -> Option<Self> {
        (usize::from(index) < METHODS.len()).then_some(Self(index))
    }

    /// Index in [`METHODS`].
    pub const fn index(self) -> u8 {
        self.0
    }

    /// The label value.
    pub const fn name(self) -> &'static str {
        METHODS[self.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_its_class_however_it_is_written() {
        let http = |text: &str| Class::of_http(text.as_bytes()).map(Class::name);
        for (text, class) in [
            ("200", "2xx"),
            ("2xx", "2xx"),
            ("5XX", "5xx"),
            ("4", "4xx"),
            ("499", "aborted"),
            ("0", "aborted"),
        ] {
            assert_eq!(http(text), Some(class), "{text}");
        }
        for text in ["", "99", "600", "abc", "70000", "-200"] {
            assert_eq!(http(text), None, "{text}");
        }
        assert_eq!(Class::of_status(0), None);
    }

    #[test]
    fn only_the_servers_own_grpc_codes_are_its_errors() {
        let grpc = |text: &str| Class::of_grpc(text.as_bytes()).map(Class::name);
        for (text, class) in [
            ("OK", "2xx"),
            ("NotFound", "4xx"),
            ("Canceled", "aborted"),
            ("Internal", "5xx"),
            ("DEADLINE_EXCEEDED", "5xx"),
            ("14", "5xx"),
            ("5", "4xx"),
        ] {
            assert_eq!(grpc(text), Some(class), "{text}");
        }
        assert_eq!(grpc(""), None);
        assert_eq!(Class::of_span(b"STATUS_CODE_UNSET").map(Class::name), Some("2xx"));
        assert_eq!(Class::of_span(b"STATUS_CODE_ERROR").map(Class::name), Some("5xx"));
    }

    #[test]
    fn an_unknown_method_is_other() {
        assert_eq!(Method::of(b"get").name(), "GET");
        assert_eq!(Method::of(b"PROPFIND").name(), "_OTHER");
        assert_eq!(Method::of(b"").name(), "_OTHER");
        assert_eq!(Method::POST.name(), "POST");
        assert_eq!(Method::at(10), None);
    }
}
