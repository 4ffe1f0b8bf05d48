//! Objects of JSON from strangers, read key by key: what is wrong is said in one line that names the key.

use serde_json::{Map, Value};
use std::fmt;

/// A key holds something else than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// The key, with the path inside its value.
    pub key: String,
    /// What it holds, abridged.
    pub got: String,
    /// What it should hold.
    pub expected: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: got {}, expected {}", self.key, self.got, self.expected)
    }
}

impl std::error::Error for KeyError {}

/// An object, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    map: &'a Map<String, Value>,
    prefix: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads the keys of an outermost object.
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, prefix: "" }
    }

    /// What stands at a key, `null` included.
    pub fn raw(self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// What stands at a key; `null` counts as absent.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// What stands at a key, if anything does.
    ///
    /// # Errors
    /// [`KeyError`] if `read` makes nothing of it.
    pub fn optional<T>(
        self,
        key: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, KeyError> {
        let error = |value| key_error(format!("{}{key}", self.prefix), value, expected);
        self.get(key).map(|value| read(value).ok_or_else(|| error(value))).transpose()
    }

    /// What stands at a key.
    ///
    /// # Errors
    /// [`KeyError`] if nothing does, or `read` makes nothing of it.
    pub fn required<T>(self, key: &str, read: impl Fn(&'a Value) -> Option<T>, expected: &str) -> Result<T, KeyError> {
        let missing = || key_error(format!("{}{key}", self.prefix), &Value::Null, expected);
        self.optional(key, read, expected)?.ok_or_else(missing)
    }

    /// Makes sure that nothing stands at a key.
    ///
    /// # Errors
    /// [`KeyError`] if something does.
    pub fn absent(self, key: &str, expected: &str) -> Result<(), KeyError> {
        self.get(key).map_or(Ok(()), |value| Err(key_error(key, value, expected)))
    }

    /// True or false.
    ///
    /// # Errors
    /// [`KeyError`] if it is something else.
    pub fn boolean(self, key: &str) -> Result<Option<bool>, KeyError> {
        self.optional(key, Value::as_bool, "a boolean")
    }

    /// A number.
    ///
    /// # Errors
    /// [`KeyError`] if it is something else.
    pub fn number(self, key: &str) -> Result<Option<f64>, KeyError> {
        self.optional(key, number, "a number")
    }

    /// A number of things.
    ///
    /// # Errors
    /// [`KeyError`] if it is something else.
    pub fn count(self, key: &str) -> Result<Option<usize>, KeyError> {
        self.optional(key, count, "a count")
    }

    /// A list of numbers of things.
    ///
    /// # Errors
    /// [`KeyError`] if it is something else.
    pub fn counts(self, key: &str) -> Result<Option<Vec<usize>>, KeyError> {
        self.list(key, count, "a list of counts")
    }

    /// A list.
    ///
    /// # Errors
    /// [`KeyError`] if it is something else, or `read` makes nothing of an element.
    pub fn list<T>(
        self,
        key: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<Vec<T>>, KeyError> {
        self.optional(key, |value| list_of(value, &read), expected)
    }

    /// The object at a key; `prefix` goes before its own keys in errors.
    ///
    /// # Errors
    /// [`KeyError`] if it is something else.
    pub fn object(self, key: &str, prefix: &'static str, expected: &str) -> Result<Option<Self>, KeyError> {
        Ok(self.optional(key, Value::as_object, expected)?.map(|map| Self { map, prefix }))
    }
}

/// A list, if `read` makes something of every element.
pub(crate) fn list_of<'a, T>(value: &'a Value, read: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

/// A number of things.
pub(crate) fn count(value: &Value) -> Option<usize> {
    value.as_u64()?.try_into().ok()
}

/// At least one.
pub(crate) fn positive(value: &Value) -> Option<usize> {
    count(value).filter(|&count| count > 0)
}

/// A number.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// What is wrong with a key.
pub(crate) fn key_error(key: impl Into<String>, got: &Value, expected: impl Into<String>) -> KeyError {
    KeyError { key: key.into(), got: abridged(got), expected: expected.into() }
}

/// A value as it stands in an error message: one line, and no longer than a line should be.
fn abridged(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Null => return "nothing".into(),
        // JSON escapes some control characters and leaves others as they are.
        value => value.to_string().replace(char::is_control, " "),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
