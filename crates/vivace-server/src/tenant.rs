//! Who asks: the header `X-Scope-OrgID`, as metadata `x-scope-orgid`.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tonic::metadata::MetadataMap;
use vivace_core::{TenantError, TenantId};

/// The header's name.
pub const HEADER: &str = "x-scope-orgid";

/// Whether requests carry a tenant. Off: the header is ignored and everything belongs to the tenant `single-tenant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenancy {
    /// `multitenancy_enabled`
    pub multitenancy: bool,
}

impl Tenancy {
    /// The one tenant of a request that writes.
    ///
    /// # Errors
    /// [`TenantError`]: none, several, or not a tenant id. Repeated headers with one and the same value are taken as one.
    pub fn one(self, headers: &HeaderMap) -> Result<TenantId, TenantError> {
        if !self.multitenancy {
            return Ok(TenantId::single());
        }
        TenantId::new(&value(headers)?)
    }

    /// The tenants of a query, `a|b`: sorted, each once, at least one.
    ///
    /// # Errors
    /// As [`Tenancy::one`]; an empty part is [`TenantError::Missing`].
    pub fn many(self, headers: &HeaderMap) -> Result<Vec<TenantId>, TenantError> {
        if !self.multitenancy {
            return Ok(vec![TenantId::single()]);
        }
        TenantId::list(&value(headers)?)
    }

    /// [`Tenancy::one`] of a gRPC request.
    ///
    /// # Errors
    /// As [`Tenancy::one`].
    pub fn one_of_metadata(self, metadata: &MetadataMap) -> Result<TenantId, TenantError> {
        self.one(metadata.as_ref())
    }

    /// [`Tenancy::many`] of a gRPC request.
    ///
    /// # Errors
    /// As [`Tenancy::many`].
    pub fn many_of_metadata(self, metadata: &MetadataMap) -> Result<Vec<TenantId>, TenantError> {
        self.many(metadata.as_ref())
    }
}

/// Names the tenant in an outgoing gRPC request.
pub fn insert(metadata: &mut MetadataMap, tenant: &TenantId) {
    let value = tenant.as_str().parse().expect("a tenant id is visible ASCII");
    metadata.insert(HEADER, value);
}

/// The answer of HTTP queries: 401 where no tenant is named, else 400. Source: docs/facts/http-api.md, "Tenants".
#[must_use]
pub fn http_error(error: &TenantError) -> Response {
    let status = match error {
        TenantError::Missing => StatusCode::UNAUTHORIZED,
        TenantError::TooLong { .. } | TenantError::Character { .. } | TenantError::Reserved { .. } | TenantError::Multiple { .. } => {
            StatusCode::BAD_REQUEST
        }
    };
    let nosniff = [(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    (status, nosniff, format!("{error}\n")).into_response()
}

/// The answer of gRPC queries: UNAUTHENTICATED where no tenant is named, else INVALID_ARGUMENT.
#[must_use]
pub fn grpc_error(error: &TenantError) -> tonic::Status {
    match error {
        TenantError::Missing => tonic::Status::unauthenticated(error.to_string()),
        TenantError::TooLong { .. } | TenantError::Character { .. } | TenantError::Reserved { .. } | TenantError::Multiple { .. } => {
            tonic::Status::invalid_argument(error.to_string())
        }
    }
}

fn value(headers: &HeaderMap) -> Result<String, TenantError> {
    let mut values = headers.get_all(HEADER).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let first = values.next().ok_or(TenantError::Missing)?;
    match values.find(|other| *other != first) {
        Some(other) => Err(TenantError::Multiple { tenant: format!("{first}, {other}") }),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_repeated_header_with_one_value_is_one_tenant() {
        let on = Tenancy { multitenancy: true };
        assert_eq!(on.one(&headers(&["a", "a"])), Ok(TenantId::new("a").unwrap()));
        assert!(matches!(on.one(&headers(&["a", "b"])), Err(TenantError::Multiple { .. })));
        assert!(matches!(on.one(&headers(&["a|b"])), Err(TenantError::Multiple { .. })));
        assert_eq!(on.many(&headers(&["b|a"])).unwrap().len(), 2);
        assert_eq!(on.one(&headers(&[])), Err(TenantError::Missing));
        assert_eq!(on.one(&headers(&[""])), Err(TenantError::Missing));
    }

    #[test]
    fn without_multitenancy_the_header_is_ignored() {
        assert_eq!(Tenancy { multitenancy: false }.one(&headers(&["a/b"])), Ok(TenantId::single()));
    }
}
