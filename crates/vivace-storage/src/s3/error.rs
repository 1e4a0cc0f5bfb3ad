//! What AWS's client says, as the errors that callers of a store tell apart, with the server's own words kept.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use object_store::Error;

/// What a failed call says: the server's own code and message where it answered, else why there was no answer.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Answer {
    text: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Sorts a failed call into the kinds that callers of a store tell apart.
pub(crate) fn store_error<E>(path: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    // Without a readable answer the status says nothing: a proxy may have cut it off.
    let status = error.as_service_error().and(error.raw_response()).map(|r| r.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let source: Box<dyn std::error::Error + Send + Sync> = match status {
        Some(status) => {
            let message = error.message().unwrap_or("no message");
            let named = if code.is_empty() { reason(status).to_owned() } else { code.clone() };
            Box::new(Answer { text: format!("the server answered {status} {named}: {message}"), source: None })
        }
        None => {
            // The client's chain ends with what the operating system or the TLS library said.
            let text = format!("no usable answer: {}", DisplayErrorContext(&error)).split(" (").next().unwrap_or_default().to_owned();
            Box::new(Answer { text, source: Some(Box::new(error)) })
        }
    };
    let path = path.to_owned();
    match (status, code.as_str()) {
        // A missing bucket is no missing object: the object may be there once the bucket is.
        (_, "NoSuchBucket") => Error::Generic { store: "S3", source },
        (Some(404), _) | (_, "NoSuchKey") => Error::NotFound { path, source },
        (Some(304), _) => Error::NotModified { path, source },
        (Some(412), _) => Error::Precondition { path, source },
        (Some(401), _) => Error::Unauthenticated { path, source },
        (Some(403), _) => Error::PermissionDenied { path, source },
        _ => Error::Generic { store: "S3", source },
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("unknown")
}
