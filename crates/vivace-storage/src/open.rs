//! From the configuration to a bucket that has answered once, so that a wrong name, key or address shows at start. What the file
//! does not say about credentials, Google's and Azure's clients take from the environment; S3 is opened in `s3`.

use std::sync::Arc;

use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use vivace_config::{Azure, Backend, Gcs, TraceStorage};

use crate::bounded::Bounded;
use crate::error::causes;
use crate::{Bucket, OpenError, s3};

/// Looks up an environment variable. The environment itself is read by the process only.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// The domain that needs no other address than the account's name.
const AZURE_PUBLIC_SUFFIX: &str = "blob.core.windows.net";

impl Bucket {
    /// Opens the configured bucket and lists it once, so that wrong settings show at start.
    ///
    /// # Errors
    /// [`OpenError`] names the setting, or the bucket, the endpoint and what the server answered.
    pub async fn open(config: &TraceStorage, env: Environment<'_>) -> Result<Self, OpenError> {
        let bounded = |store| -> Arc<dyn ObjectStore> { Arc::new(Bounded::new(store, config.pool.max_workers)) };
        let bucket = match config.backend {
            Backend::Unset => {
                let problem = "is empty, expected local, s3, gcs or azure".to_owned();
                return Err(OpenError::Config { path: "backend".to_owned(), problem });
            }
            Backend::Local => return open_local(&config.local.path),
            Backend::S3 => {
                let (store, endpoint) = s3::open(&config.s3, env).await?;
                let part = Some(config.s3.part_size).filter(|size| *size > 0);
                remote(bounded(Arc::new(store)), &config.s3.prefix, ("S3 bucket", &config.s3.bucket), endpoint, part).await?
            }
            Backend::Gcs => {
                let (store, endpoint) = gcs(&config.gcs)?;
                remote(bounded(store), &config.gcs.prefix, ("Google Cloud Storage bucket", &config.gcs.bucket_name), endpoint, None).await?
            }
            Backend::Azure => {
                let (store, endpoint) = azure(&config.azure)?;
                remote(bounded(store), &config.azure.prefix, ("Azure container", &config.azure.container_name), endpoint, None).await?
            }
        };
        Ok(bucket)
    }
}

fn open_local(path: &str) -> Result<Bucket, OpenError> {
    let problem = |problem: String| OpenError::Config { path: "local.path".to_owned(), problem };
    if path.is_empty() {
        return Err(problem("is empty, expected a folder for blocks".to_owned()));
    }
    std::fs::create_dir_all(path).map_err(|e| problem(format!("{path:?} is no folder and cannot be made one: {e}")))?;
    let root = std::fs::canonicalize(path).map_err(|e| problem(format!("{path:?} cannot be opened: {e}")))?;
    std::fs::read_dir(&root).map_err(|e| problem(format!("{path:?} cannot be listed: {e}")))?;
    // Objects appear whole or not at all; a deleted block leaves no empty folder.
    let store = || LocalFileSystem::new_with_prefix(&root).map(|store| store.with_automatic_cleanup(true));
    let opened = |e| problem(format!("{path:?} cannot be opened: {e}"));
    // Blocks stay after a power cut; what is made of them again need not, and is written in a fraction of the time.
    let (durable, derived) = (store().map_err(opened)?.with_fsync(true), store().map_err(opened)?);
    Ok(Bucket::of_folder(Arc::new(durable), Arc::new(derived), root, format!("folder {path}")))
}

async fn remote(
    store: Arc<dyn ObjectStore>,
    prefix: &str,
    (kind, name): (&str, &str),
    endpoint: String,
    part_bytes: Option<u64>,
) -> Result<Bucket, OpenError> {
    let store: Arc<dyn ObjectStore> = match prefix.trim_matches('/') {
        "" => store,
        prefix => {
            let problem = |e: object_store::path::Error| OpenError::Config { path: "prefix".to_owned(), problem: e.to_string() };
            Arc::new(PrefixStore::new(store, Path::parse(prefix).map_err(problem)?))
        }
    };
    let bucket = format!("{kind} {name:?}");
    if let Err(error) = store.list_with_delimiter(None).await {
        // The outer text speaks of an object at a path, which is empty here.
        let answer = std::error::Error::source(&error).map_or_else(|| error.to_string(), causes);
        return Err(OpenError::Unreachable { bucket, endpoint, answer });
    }
    Ok(Bucket::over(store, format!("{bucket} at {endpoint}"), part_bytes))
}

fn required(path: &str, value: &str, what: &str) -> Result<(), OpenError> {
    if value.is_empty() {
        return Err(OpenError::Config { path: path.to_owned(), problem: format!("is empty, expected {what}") });
    }
    Ok(())
}

fn gcs(config: &Gcs) -> Result<(Arc<dyn ObjectStore>, String), OpenError> {
    required("gcs.bucket_name", &config.bucket_name, "the bucket's name")?;
    let retry = RetryConfig { max_retries: config.max_retries, ..Default::default() };
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&config.bucket_name).with_retry(retry);
    if config.insecure {
        let options = ClientOptions::new().with_allow_http(true).with_allow_invalid_certificates(true);
        builder = builder.with_skip_signature(true).with_client_options(options);
    }
    let endpoint = config.endpoint.trim_end_matches('/');
    if !endpoint.is_empty() {
        builder = builder.with_base_url(endpoint);
    }
    let store = builder.build().map_err(|e| OpenError::Config { path: "gcs".to_owned(), problem: causes(&e) })?;
    let endpoint = if endpoint.is_empty() { "storage.googleapis.com" } else { endpoint };
    Ok((Arc::new(store), endpoint.to_owned()))
}

fn azure(config: &Azure) -> Result<(Arc<dyn ObjectStore>, String), OpenError> {
    required("azure.storage_account_name", &config.storage_account_name, "the account's name")?;
    required("azure.container_name", &config.container_name, "the container's name")?;
    // Workload identity comes as variables, and without a key a managed identity is what is tried.
    let mut builder =
        MicrosoftAzureBuilder::from_env().with_account(&config.storage_account_name).with_container_name(&config.container_name);
    let key = config.storage_account_key.expose();
    if !key.is_empty() && !config.use_managed_identity && !config.use_federated_token {
        builder = builder.with_access_key(key);
    }
    if !config.user_assigned_id.is_empty() {
        builder = builder.with_client_id(&config.user_assigned_id);
    }
    let endpoint = match config.endpoint_suffix.as_str() {
        "" | AZURE_PUBLIC_SUFFIX => format!("https://{}.{AZURE_PUBLIC_SUFFIX}", config.storage_account_name),
        suffix if suffix.contains("://") => suffix.to_owned(),
        suffix => format!("https://{}.{suffix}", config.storage_account_name),
    };
    builder = builder.with_endpoint(endpoint.clone()).with_allow_http(endpoint.starts_with("http://"));
    let store = builder.build().map_err(|e| OpenError::Config { path: "azure".to_owned(), problem: causes(&e) })?;
    Ok((Arc::new(store), endpoint))
}
