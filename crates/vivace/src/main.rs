//! The `vivace` binary: every service in one process, or the one that `-target` names.

vivace_server::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    vivace::run(vivace_server::load(std::env::args_os())).await
}
