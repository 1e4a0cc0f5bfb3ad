//! How the commands come to their bucket and block: by a folder, an S3 address, or the bucket of a configuration file. Compacted
//! blocks are found too, and one whose meta is wrong can be read by the lengths that the bucket gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use vivace_block::{BlockMeta, BlockReader, ReadAt};
use vivace_config::{Backend, Config, TraceStorage};
use vivace_core::{BlockId, TenantId};
use vivace_storage::{Bucket, BucketError};

/// How to reach a bucket.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Take the bucket from this configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// host:port of an S3 server other than AWS.
    #[arg(long)]
    endpoint: Option<String>,
    /// Speak plain HTTP with it.
    #[arg(long)]
    insecure: bool,
}

/// A block and how to reach it.
#[derive(Debug, Args)]
pub(crate) struct BlockPlace {
    #[command(flatten)]
    place: Place,
    /// The block's folder: ./vivace-data/blocks/single-tenant/<id>, s3://bucket/prefix/tenant/<id>, or tenant/<id> with --config.
    block: String,
}

/// A block that has been found.
pub(crate) struct Found {
    pub(crate) bucket: Bucket,
    pub(crate) meta: BlockMeta,
}

impl Place {
    pub(crate) async fn open(&self, at: Option<&str>) -> anyhow::Result<Bucket> {
        let storage = self.storage(at)?;
        Ok(Bucket::open(&storage, &vivace_server::environment).await?)
    }

    /// Another bucket, on the same S3 server where it is one. A folder that does not exist is made.
    pub(crate) async fn open_other(&self, at: &str) -> anyhow::Result<Bucket> {
        if !at.starts_with("s3://") {
            std::fs::create_dir_all(at).with_context(|| format!("cannot make the folder {at}"))?;
        }
        let mut storage = match &self.config {
            Some(file) if at.starts_with("s3://") => from_config(file)?,
            _ => TraceStorage::default(),
        };
        point_at(&mut storage, at)?;
        self.amend(&mut storage);
        Ok(Bucket::open(&storage, &vivace_server::environment).await?)
    }

    fn storage(&self, at: Option<&str>) -> anyhow::Result<TraceStorage> {
        let mut storage = TraceStorage::default();
        match (&self.config, at) {
            (Some(_), Some(at)) => bail!("{at} and --config both name a bucket; leave one out"),
            (None, None) => bail!("no bucket is named: give a folder, s3://bucket/prefix, or --config FILE"),
            (Some(file), None) => storage = from_config(file)?,
            (None, Some(at)) => point_at(&mut storage, at)?,
        }
        self.amend(&mut storage);
        Ok(storage)
    }

    fn amend(&self, storage: &mut TraceStorage) {
        if let Some(endpoint) = &self.endpoint {
            storage.s3.endpoint.clone_from(endpoint);
        }
        storage.s3.insecure |= self.insecure;
    }
}

/// As large as a process takes its configuration to be.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

fn from_config(file: &Path) -> anyhow::Result<TraceStorage> {
    let name = file.to_string_lossy();
    let text = vivace_server::read_text(&name, CONFIG_BYTES_MAX).map_err(|reason| anyhow!("cannot read {name}: {reason}"))?;
    Ok(Config::parse(&text, &name)?.0.storage.trace)
}

fn point_at(storage: &mut TraceStorage, at: &str) -> anyhow::Result<()> {
    match at.strip_prefix("s3://") {
        Some(rest) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            storage.backend = Backend::S3;
            storage.s3.bucket = bucket.to_owned();
            storage.s3.prefix = prefix.trim_end_matches('/').to_owned();
        }
        None => {
            if !Path::new(at).is_dir() {
                bail!("{at} is no folder; expected the folder of a local bucket, or s3://bucket/prefix");
            }
            storage.backend = Backend::Local;
            storage.local.path = at.to_owned();
        }
    }
    Ok(())
}

impl BlockPlace {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Looks for the block, live or compacted.
    pub(crate) async fn find(&self) -> anyhow::Result<Found> {
        let (at, tenant, id) = address(&self.block)?;
        let bucket = self.place.open(at.as_deref()).await?;
        let named = || format!("block {id} of tenant {tenant}");
        match bucket.meta(&tenant, id).await {
            Ok(meta) => Ok(Found { bucket, meta }),
            Err(BucketError::Gone { .. }) => match bucket.compacted_meta(&tenant, id).await {
                Ok(meta) => Ok(Found { bucket, meta }),
                Err(BucketError::Gone { .. }) => {
                    bail!("{} is not in the bucket: it has no meta.json. `vivace-cli block ls` shows what is there", named())
                }
                Err(error) => Err(error).with_context(named),
            },
            Err(error) => Err(error).with_context(named),
        }
    }
}

impl Found {
    /// `data.parquet`. Its reads block: use it on threads that may.
    pub(crate) fn source(&self) -> Arc<dyn ReadAt> {
        self.bucket.reader(&self.meta)
    }

    /// `data.parquet` and its meta with the length in the bucket, whatever `meta.json` says of that and of the footer.
    pub(crate) async fn as_it_lies(&self) -> anyhow::Result<(BlockMeta, Arc<dyn ReadAt>)> {
        let size_bytes = self.bucket.data_bytes(&self.meta.tenant_id, self.meta.block_id).await?;
        let meta = BlockMeta { size_bytes, footer_bytes: 0, ..self.meta.clone() };
        let source = self.bucket.reader(&meta);
        Ok((meta, source))
    }

    /// Opens the block on a thread that may block, and runs `use_it` there.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        use_it: impl FnOnce(BlockReader) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (meta, source) = (self.meta.clone(), self.source());
        tokio::task::spawn_blocking(move || use_it(BlockReader::open(meta, source)?)).await?
    }
}

/// Splits `<bucket>/<tenant>/<id>`. The bucket is missing where only the last two are given.
fn address(block: &str) -> anyhow::Result<(Option<String>, TenantId, BlockId)> {
    let expected = || format!("expected <bucket>/<tenant>/<block id>, got {block:?}");
    let trimmed = block.trim_end_matches('/').trim_end_matches("/data.parquet").trim_end_matches("/meta.json");
    let (rest, id) = trimmed.rsplit_once('/').with_context(expected)?;
    let id: BlockId = id.parse().with_context(expected)?;
    let (at, tenant) = match rest.rsplit_once('/') {
        Some(("", tenant)) => (Some("/".to_owned()), tenant),
        Some((at, tenant)) => (Some(at.to_owned()), tenant),
        None => (None, rest),
    };
    Ok((at, TenantId::new(tenant).with_context(expected)?, id))
}
