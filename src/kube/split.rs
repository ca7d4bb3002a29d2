//! Takes a list apart while it arrives, one object at a time.
//!
//! In: the body of a `PodList` or `NamespaceList` in pieces of any size. Out: the text of each element of `items`, and in
//! the end what its `metadata` says. A list of 250 pods of 44 KiB is 11 MiB; of it one object is held at a time.
//! Invariant: the result does not depend on how the body was cut.

use serde::Deserialize;

/// An object of more bytes than this is not a pod: etcd takes 1.5 MiB at most, and JSON doubles it at worst.
pub(super) const LONGEST_OBJECT: usize = 8 << 20;

/// What is read outside `items` at most: `kind`, `apiVersion`, `metadata`.
const LONGEST_REST: usize = 64 << 10;

/// The list is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// An element, or the rest, is longer than it can be.
    #[error("an object is larger than 8 MiB")]
    TooLong,
    /// It ended early or is not JSON.
    #[error("not a list in JSON")]
    NotAList,
}

/// What a list says beside its items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Ending {
    /// Version of the whole.
    #[serde(rename = "resourceVersion")]
    pub(super) resource_version: String,
    /// Token of the next page; empty when there is none.
    #[serde(rename = "continue")]
    pub(super) next_page: String,
}

/// Where in the list the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside `items`.
    Rest,
    /// Between two elements.
    Between,
    /// In an element.
    Element,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Splitter {
    place: Place,
    /// Open brackets and braces.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Everything but the elements.
    rest: Vec<u8>,
    /// Where in `rest` the key or value that was last begun starts.
    string_start: usize,
    /// The last string at depth 1 is `items`, and only a colon and white space followed.
    items_next: bool,
    element: Vec<u8>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            place: Place::Rest,
            depth: 0,
            in_string: false,
            escaped: false,
            rest: Vec::new(),
            string_start: 0,
            items_next: false,
            element: Vec::new(),
        }
    }
}

impl Splitter {
    /// Takes the next piece and gives every element that it completes to `take`.
    pub(super) fn feed<E: From<Malformed>>(
        &mut self,
        piece: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < piece.len() {
            if self.place == Place::Element {
                at += self.element(&piece[at..])?;
                if self.place == Place::Between {
                    let done = take(&self.element);
                    self.element.clear();
                    if self.element.capacity() > 256 << 10 {
                        self.element.shrink_to(64 << 10);
                    }
                    done?;
                }
                continue;
            }
            self.outside(piece[at])?;
            at += 1;
        }
        Ok(())
    }

    /// Takes bytes of an element; how many.
    fn element(&mut self, piece: &[u8]) -> Result<usize, Malformed> {
        for (index, &byte) in piece.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    // `items` itself stands at depth 2.
                    if self.depth == 2 {
                        self.keep(&piece[..=index])?;
                        self.place = Place::Between;
                        return Ok(index + 1);
                    }
                }
                _ => {}
            }
        }
        self.keep(piece)?;
        Ok(piece.len())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.element.len() + bytes.len() > LONGEST_OBJECT {
            return Err(Malformed::TooLong);
        }
        self.element.extend_from_slice(bytes);
        Ok(())
    }

    fn outside(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.place == Place::Between {
            match byte {
                b'{' => {
                    self.depth += 1;
                    self.place = Place::Element;
                    self.element.push(byte);
                }
                b']' => {
                    self.depth -= 1;
                    self.place = Place::Rest;
                    self.rest.push(byte);
                }
                b',' | b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => return Err(Malformed::NotAList),
            }
            return Ok(());
        }
        if self.rest.len() >= LONGEST_REST {
            return Err(Malformed::TooLong);
        }
        self.rest.push(byte);
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    self.items_next = self.depth == 1 && self.rest[self.string_start..] == *b"\"items\"";
                }
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.string_start = self.rest.len() - 1;
            }
            b'[' if self.items_next => {
                self.depth += 1;
                self.place = Place::Between;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.checked_sub(1).ok_or(Malformed::NotAList)?,
            _ => {}
        }
        self.items_next &= matches!(byte, b':' | b' ' | b'\t' | b'\r' | b'\n');
        Ok(())
    }

    /// The end of the body: what the list said beside its items.
    pub(super) fn finish(self) -> Result<Ending, Malformed> {
        #[derive(Deserialize)]
        struct Rest {
            metadata: Ending,
        }
        if self.place != Place::Rest || self.depth != 0 {
            return Err(Malformed::NotAList);
        }
        let rest: Rest = serde_json::from_slice(&self.rest).map_err(|_| Malformed::NotAList)?;
        Ok(rest.metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &[u8], piece: usize) -> Result<(Vec<String>, Ending), Malformed> {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        for piece in body.chunks(piece.max(1)) {
            splitter.feed(piece, &mut |element| {
                found.push(String::from_utf8_lossy(element).into_owned());
                Ok::<_, Malformed>(())
            })?;
        }
        Ok((found, splitter.finish()?))
    }

    #[test]
    fn a_list_comes_apart_wherever_it_is_cut() {
        let body = br#"{"kind":"PodList","metadata":{"resourceVersion":"833","continue":"abc","items":[1]},
            "items" : [ {"a":"]}\"{["}, {"items":[{"x":1}],"b":{}} ] , "apiVersion":"v1"}"#;
        for piece in 1..body.len() + 1 {
            let (found, ending) = split(body, piece).expect("a list");
            assert_eq!(found, [r#"{"a":"]}\"{["}"#, r#"{"items":[{"x":1}],"b":{}}"#], "cut by {piece}");
            assert_eq!(ending, Ending { resource_version: "833".into(), next_page: "abc".into() });
        }
    }

    #[test]
    fn an_empty_list_and_a_list_of_null_have_no_items() {
        for items in ["[]", "null", "[ ]"] {
            let body = format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":{items}}}"#);
            let (found, ending) = split(body.as_bytes(), 3).expect("a list");
            assert_eq!((found.len(), ending.resource_version.as_str()), (0, "7"), "{items}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for body in
            ["", "{", r#"{"items":[{"a":1}"#, r#"{"items":[1]}"#, "}", "[]", "<html>", r#"{"items":[]}"#]
        {
            assert!(split(body.as_bytes(), 4).is_err(), "{body}");
        }
    }

    #[test]
    fn an_endless_object_is_refused() {
        let mut splitter = Splitter::default();
        let mut feed = |piece: &[u8]| splitter.feed(piece, &mut |_| Ok::<_, Malformed>(()));
        feed(br#"{"items":[{"a":""#).expect("a beginning");
        let megabyte = vec![b'x'; 1 << 20];
        let refused = (0..9).find_map(|_| feed(&megabyte).err());
        assert_eq!(refused, Some(Malformed::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_never_panic(bytes: Vec<u8>, piece in 1_usize..9) {
            let _ = split(&bytes, piece);
        }
    }
}
