//! Traces of a block as lines of JSON, written while they are read: a block need not fit into memory, and a reader that has had
//! enough, such as `head`, ends the reading.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::bail;
use clap::Args;
use tokio::sync::mpsc;
use vivace_block::index::RowGroupIndex;
use vivace_block::{BlockReader, objects};
use vivace_core::TraceId;

use super::place::BlockPlace;
use crate::progress::Progress;
use crate::{Ending, otlp_json};

/// Lines that may wait for a slow reader of the output.
const LINES_WAITING: usize = 64;

/// Print traces as OTLP JSON, one to a line.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    block: BlockPlace,
    /// Only this trace: up to 32 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    trace: Option<TraceId>,
    /// At most so many traces, from the lowest id on.
    #[arg(long, value_name = "N", conflicts_with = "trace")]
    limit: Option<u64>,
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let found = command.block.find().await?;
    let id = found.meta.block_id;
    if let Some(trace) = command.trace {
        let index = found.bucket.object(&found.meta.tenant_id, id, objects::INDEX).await?;
        let index = index.and_then(|json| RowGroupIndex::from_json(&json).ok());
        let spans = found.read(move |block| Ok(block.find(trace, index.as_ref())?)).await?;
        let Some(spans) = spans else {
            bail!("there is no trace {trace} in block {id}; `vivace-cli query trace {trace}` looks into all blocks and the ingesters");
        };
        writeln!(out, "{}", otlp_json::line(spans)?)?;
        return Ok(Ending::Good);
    }
    let limit = command.limit.unwrap_or(u64::MAX);
    let (lines, mut waiting) = mpsc::channel(LINES_WAITING);
    let reading = found.read(move |block| {
        let total = block.meta().total_objects.min(limit);
        let mut progress = Progress::new("trace", total);
        each_line(&block, limit, &mut |done, line| {
            progress.at(done);
            // Nobody reads on: `head` has enough.
            if lines.blocking_send(line).is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    // A failed write drops the receiver, which ends the reading.
    let writing = async move {
        while let Some(line) = waiting.recv().await {
            writeln!(out, "{line}")?;
        }
        Ok::<_, std::io::Error>(())
    };
    let (read, written) = tokio::join!(reading, writing);
    written?;
    read?;
    Ok(Ending::Good)
}

fn each_line(block: &BlockReader, limit: u64, each: &mut dyn FnMut(u64, String) -> ControlFlow<()>) -> anyhow::Result<()> {
    for (done, trace) in (1..=limit).zip(block.traces()) {
        let line = otlp_json::line(trace?.1)?;
        if each(done, line).is_break() {
            break;
        }
    }
    Ok(())
}
