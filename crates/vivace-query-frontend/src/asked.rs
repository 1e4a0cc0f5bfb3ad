//! Who asks another system's API, and for what.

use std::convert::Infallible;

use axum::extract::{FromRef, FromRequestParts};
use axum::response::Response;
use http::request::Parts;
use serde::Serialize;
use vivace_core::{TenantError, TenantId};

use crate::http::QueryApi;
use crate::params::Params;
use crate::refusal::Refusal;
use crate::render::{Accepts, respond_json};

/// A request's tenants, what its client accepts, and its parameters.
pub(crate) struct Asked {
    tenants: Result<Vec<TenantId>, TenantError>,
    accepts: Accepts,
    pub(crate) params: Params,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked
where
    QueryApi: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let api = QueryApi::from_ref(state);
        Ok(Self {
            tenants: api.tenants(&parts.headers),
            accepts: Accepts::of(&parts.headers).json(),
            params: Params::of(parts.uri.query()),
        })
    }
}

impl Asked {
    /// Those that are asked about. An error here is told in the API's own form.
    pub(crate) fn tenants(&self) -> Result<&[TenantId], Refusal> {
        self.tenants.as_deref().map_err(|error| error.clone().into())
    }

    /// An answer as JSON, and in a header what could not be looked at.
    pub(crate) async fn answer<T>(&self, api: &QueryApi, answer: T, warnings: &[String]) -> Result<Response, Refusal>
    where
        T: Serialize + Send + Sync + 'static,
    {
        Ok(respond_json(&api.frontend.budget, answer, self.accepts, warnings).await?)
    }
}
