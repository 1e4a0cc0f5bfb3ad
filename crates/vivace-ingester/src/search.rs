use std::sync::Arc;

use vivace_core::TenantId;
use vivace_proto::tempopb::{
    SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response,
};

use crate::ingester::Ingester;
use crate::query::QueryError;

impl Ingester {
    pub(crate) async fn search(self: &Arc<Self>, _tenant: &TenantId, _request: SearchRequest) -> Result<SearchResponse, QueryError> {
        Err(QueryError::Internal("search is not wired yet".to_owned()))
    }

    pub(crate) async fn tag_names(
        self: &Arc<Self>,
        _tenant: &TenantId,
        _request: SearchTagsRequest,
    ) -> Result<SearchTagsV2Response, QueryError> {
        Err(QueryError::Internal("search is not wired yet".to_owned()))
    }

    pub(crate) async fn tag_values(
        self: &Arc<Self>,
        _tenant: &TenantId,
        _request: SearchTagValuesRequest,
    ) -> Result<SearchTagValuesV2Response, QueryError> {
        Err(QueryError::Internal("search is not wired yet".to_owned()))
    }
}
