//! Whose data something is. The id becomes the name of a folder in the bucket, so a text is checked where it comes in, and
//! whoever has a [`TenantId`] need not check it again.

use std::fmt;
use std::sync::Arc;

/// The tenant of everything where multitenancy is off.
pub const SINGLE_TENANT: &str = "single-tenant";

/// A valid tenant id: 1 to 150 bytes of letters, digits and `! - _ . * ' ( )`, not `.` or `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a text is no tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// No tenant was named. The text is what Tempo's clients look for.
    #[error("no org id")]
    Missing,
    /// Too long.
    #[error("tenant id is too long: {len} bytes, at most 150 are allowed")]
    TooLong {
        /// Bytes in the given text.
        len: usize,
    },
    /// A character that could leave the tenant's folder, or one that object stores refuse.
    #[error("tenant id {tenant:?} contains the unsupported character {character:?}; letters, digits and !-_.*'() are allowed")]
    Character {
        /// What was given.
        tenant: String,
        /// The first offending character.
        character: char,
    },
    /// `.` or `..`.
    #[error("tenant id is {tenant:?}, which is reserved")]
    Reserved {
        /// What was given.
        tenant: String,
    },
    /// Several tenants where one is needed.
    #[error("multiple org IDs present: {tenant:?}; this request takes one tenant")]
    Multiple {
        /// What was given.
        tenant: String,
    },
}

impl TenantId {
    /// Checks one tenant id.
    ///
    /// # Errors
    /// [`TenantError`] names what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, TenantError> {
        if text.is_empty() {
            return Err(TenantError::Missing);
        }
        if text.contains('|') {
            return Err(TenantError::Multiple { tenant: text.to_owned() });
        }
        if text.len() > 150 {
            return Err(TenantError::TooLong { len: text.len() });
        }
        if text == "." || text == ".." {
            return Err(TenantError::Reserved { tenant: text.to_owned() });
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"!-_.*'()".contains(*c)) {
            Some(character) => Err(TenantError::Character { tenant: text.to_owned(), character }),
            None => Ok(Self(text.into())),
        }
    }

    /// The tenant used where multitenancy is off.
    #[must_use]
    pub fn single() -> Self {
        Self(SINGLE_TENANT.into())
    }

    /// Checks a query's list `a|b|c`: sorted, each tenant once, at least one.
    ///
    /// # Errors
    /// [`TenantError`] for the first part that is no tenant id; an empty part is [`TenantError::Missing`].
    pub fn list(text: &str) -> Result<Vec<Self>, TenantError> {
        let mut tenants = text.split('|').map(Self::new).collect::<Result<Vec<_>, _>>()?;
        tenants.sort();
        tenants.dedup();
        Ok(tenants)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_each_tenant_stands_once() {
        let tenants = TenantId::list("b|a|b").expect("valid");
        assert_eq!(tenants.iter().map(TenantId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(TenantId::list("a||b"), Err(TenantError::Missing));
    }

    #[test]
    fn ids_that_could_leave_their_folder_are_refused() {
        assert!(matches!(TenantId::new("a/b"), Err(TenantError::Character { character: '/', .. })));
        assert!(matches!(TenantId::new(".."), Err(TenantError::Reserved { .. })));
        assert!(matches!(TenantId::new(&"x".repeat(151)), Err(TenantError::TooLong { len: 151 })));
    }
}
