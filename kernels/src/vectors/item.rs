//! A JSON value that knows where it stands, so that whatever is wrong with it can be said with its path.

use super::Problem;
use serde_json::Value;

/// A value and its path.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Item<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: "$".to_owned(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// A problem with this value.
    pub(super) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem {
            path: self.path.clone(),
            what: what.into(),
        }
    }

    /// The field of an object; missing and null are the same.
    pub(super) fn optional(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self {
            value,
            path: format!("{}.{name}", self.path),
        })
    }

    pub(super) fn field(&self, name: &str) -> Result<Self, Problem> {
        self.optional(name)
            .ok_or_else(|| self.problem(format!("has no field {name:?}")))
    }

    /// All fields of an object, by name.
    pub(super) fn fields(&self) -> Result<Vec<(&'a str, Self)>, Problem> {
        let object = self.value.as_object().ok_or_else(|| self.problem("is not an object"))?;
        Ok(object
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str(),
                    Self {
                        value,
                        path: format!("{}.{name}", self.path),
                    },
                )
            })
            .collect())
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, Problem> {
        let list = self.value.as_array().ok_or_else(|| self.problem("is not a list"))?;
        let at = |(index, value)| Self {
            value,
            path: format!("{}[{index}]", self.path),
        };
        Ok(list.iter().enumerate().map(at).collect())
    }

    /// The items of a list, each read by `read`.
    pub(super) fn list<T>(&self, read: impl Fn(&Self) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
        self.items()?.iter().map(read).collect()
    }

    pub(super) fn text(&self) -> Result<&'a str, Problem> {
        self.value.as_str().ok_or_else(|| self.problem("is not a string"))
    }

    pub(super) fn truth(&self) -> Result<bool, Problem> {
        self.value
            .as_bool()
            .ok_or_else(|| self.problem("is neither true nor false"))
    }

    /// A number, or one written as a string.
    pub(super) fn number(&self) -> Result<f64, Problem> {
        let number = self.value.as_f64().or_else(|| self.value.as_str()?.parse().ok());
        number.ok_or_else(|| self.problem("is not a number"))
    }

    pub(super) fn integer(&self) -> Result<i64, Problem> {
        let integer = self.value.as_i64().or_else(|| self.value.as_str()?.parse().ok());
        integer.ok_or_else(|| self.problem("is not a 64-bit integer"))
    }

    pub(super) fn u32(&self) -> Result<u32, Problem> {
        u32::try_from(self.integer()?).map_err(|_| self.problem("is not an unsigned 32-bit integer"))
    }

    pub(super) fn i32(&self) -> Result<i32, Problem> {
        i32::try_from(self.integer()?).map_err(|_| self.problem("is not a signed 32-bit integer"))
    }

    /// A size between 1 and `most`.
    pub(super) fn size(&self, most: usize) -> Result<usize, Problem> {
        let size = usize::try_from(self.integer()?)
            .ok()
            .filter(|size| (1..=most).contains(size));
        size.ok_or_else(|| self.problem(format!("is not a size between 1 and {most}")))
    }

    /// Bytes written as hex.
    pub(super) fn hex(&self) -> Result<Vec<u8>, Problem> {
        hex::decode(self.text()?).map_err(|_| self.problem("is not hex"))
    }

    /// Bytes written as base64.
    pub(super) fn base64(&self) -> Result<Vec<u8>, Problem> {
        crate::artifact::from_base64(self.text()?).map_err(|error| self.problem(error.to_string()))
    }
}
