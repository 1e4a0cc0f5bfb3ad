//! S3, Google Cloud Storage and Azure, each with Tempo's keys. They stand under `storage.trace`, and again where tenants' own
//! limits are stored. The folder of a local bucket is in `storage`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Secret;
use crate::section::section;
use crate::value::{default, millis, secs, text};

section! {
    /// `s3`: S3 and what speaks its protocol.
    pub struct S3 {
        /// The bucket.
        used bucket: String = String::new();
        /// Folder within the bucket.
        used prefix: String = String::new();
        /// `host[:port]` without a scheme; empty is AWS itself.
        used endpoint: String = String::new();
        /// Region; empty is taken from the environment or the endpoint.
        used region: String = String::new();
        /// Access key; empty takes the usual credential chain.
        used access_key: String = String::new();
        /// Secret key.
        used secret_key: Secret = default();
        /// Session token of temporary credentials.
        used session_token: Secret = default();
        /// Whether plain HTTP is spoken.
        used insecure: bool = false;
        /// Whether the server's certificate goes unchecked.
        used tls_insecure_skip_verify: bool = false;
        /// File with the client's certificate, PEM.
        used tls_cert_path: String = String::new();
        /// File with the client's key, PEM.
        used tls_key_path: String = String::new();
        /// File with the authorities trusted, PEM.
        used tls_ca_path: String = String::new();
        /// Name expected in the server's certificate.
        refused tls_server_name: String = String::new();
        /// Cipher suites allowed, comma-separated.
        refused tls_cipher_suites: String = String::new();
        /// Lowest TLS version.
        idle tls_min_version: String = text("VersionTLS12");
        /// Whether the bucket is named in the path instead of the host.
        used forcepathstyle: bool = false;
        /// The same: 0 finds out, 1 names it in the host, 2 in the path.
        used bucket_lookup_type: u32 = 0;
        /// Bytes per part of an upload; 0 lets the client choose.
        used part_size: u64 = 0;
        /// Wait before a read is tried a second time in parallel; 0 is never.
        idle hedge_requests_at: Duration = Duration::ZERO;
        /// Such reads in parallel at most.
        idle hedge_requests_up_to: usize = 2;
        /// Whether AWS is reached over IPv6 too.
        used enable_dual_stack: bool = false;
        /// Old signatures.
        idle signature_v2: bool = false;
        /// Ignored by Tempo too.
        idle native_aws_auth_enabled: bool = false;
        /// Tags set on objects.
        used tags: BTreeMap<String, String> = default();
        /// Metadata set on objects.
        used metadata: BTreeMap<String, String> = default();
        /// Storage class of objects.
        used storage_class: String = String::new();
        /// Listings at once.
        idle list_blocks_concurrency: usize = 3;
        /// Encryption by the server.
        used sse: Sse = default();
        /// Tries of a failed request (3.x).
        used retry_max_attempts: usize = 10;
        /// First pause between them (3.x).
        used retry_backoff_initial: Duration = millis(200);
        /// Longest pause between them (3.x).
        used retry_backoff_max: Duration = secs(1);
    }
    renamed {
        "insecure_skip_verify" => tls_insecure_skip_verify;
    }
}

section! {
    /// `s3.sse`: encryption by the server.
    pub struct Sse {
        /// `SSE-KMS`, `SSE-S3`, `SSE-C` or empty.
        used kind as "type": String = String::new();
        /// Key of `SSE-KMS`.
        used kms_key_id: String = String::new();
        /// Context of `SSE-KMS`, JSON.
        used kms_encryption_context: String = String::new();
        /// Key of `SSE-C`.
        refused encryption_key: Secret = default();
    }
}

section! {
    /// `gcs`: Google Cloud Storage.
    pub struct Gcs {
        /// The bucket.
        used bucket_name: String = String::new();
        /// Folder within the bucket.
        used prefix: String = String::new();
        /// Bytes per part of an upload.
        idle chunk_buffer_size: u64 = 10 << 20;
        /// Another address of the service.
        used endpoint: String = String::new();
        /// Whether neither credentials nor certificates are checked.
        used insecure: bool = false;
        /// Wait before a read is tried a second time in parallel; 0 is never.
        idle hedge_requests_at: Duration = Duration::ZERO;
        /// Such reads in parallel at most.
        idle hedge_requests_up_to: usize = 2;
        /// `Cache-Control` of objects.
        idle object_cache_control: String = String::new();
        /// Metadata set on objects.
        idle object_metadata: BTreeMap<String, String> = default();
        /// Listings at once.
        idle list_blocks_concurrency: usize = 3;
        /// Tries of a failed request.
        used max_retries: usize = 3;
    }
}

section! {
    /// `azure`: Azure Blob Storage.
    pub struct Azure {
        /// The account.
        used storage_account_name: String = String::new();
        /// Its key.
        used storage_account_key: Secret = default();
        /// The container.
        used container_name: String = String::new();
        /// Folder within the container.
        used prefix: String = String::new();
        /// Domain of the service.
        used endpoint_suffix: String = text("blob.core.windows.net");
        /// Whether the machine's identity is used.
        used use_managed_identity: bool = false;
        /// Whether a federated token is used.
        used use_federated_token: bool = false;
        /// Identity used, where there are several.
        used user_assigned_id: String = String::new();
        /// Buffers of an upload.
        idle max_buffers: usize = 4;
        /// Bytes of such a buffer.
        idle buffer_size: u64 = 3 << 20;
        /// Wait before a read is tried a second time in parallel; 0 is never.
        idle hedge_requests_at: Duration = Duration::ZERO;
        /// Such reads in parallel at most.
        idle hedge_requests_up_to: usize = 2;
    }
    renamed {
        "storage-account-name" => storage_account_name;
        "storage-account-key" => storage_account_key;
        "container-name" => container_name;
        "endpoint-suffix" => endpoint_suffix;
        "max-buffers" => max_buffers;
        "buffer-size" => buffer_size;
        "hedge-requests-at" => hedge_requests_at;
        "hedge-requests-up-to" => hedge_requests_up_to;
    }
    dropped {
        "use_v2_sdk": "removed in Tempo 2.3, there is one client; remove it";
    }
}
