//! Any spans through the writer and back: the block must answer as the live spans do.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use vivace_block::{BlockOptions, BlockReader, BlockWriter, WriteError, live};
use vivace_core::{BlockId, TenantId, TimeRange, TraceId};
use vivace_traceql::{Batch, Fetch, RowParts, TraceFilter};

use crate::ask::Question;
use crate::input::Input;
use crate::spans::traces;

/// Reads what to ask and how to write; the rest is a `TracesData` message.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let question = Question::read(&mut input);
    let many_groups = input.u8() & 1 == 1;
    let (mut traces, _) = traces(input.rest());
    let options = BlockOptions { row_group_size_bytes: if many_groups { 4000 } else { 100_000_000 }, ..BlockOptions::default() };
    let writer = BlockWriter::new(options, TenantId::single(), BlockId([7; 16]), Vec::new(), traces.len() as u64);
    let mut writer = writer.expect("memory takes all");
    for (id, spans) in &traces {
        writer.push_trace(*id, spans).expect("ids ascend");
    }
    let written = match writer.finish() {
        Ok(written) => written,
        Err(WriteError::Empty { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let meta = written.meta.clone();
    let block = BlockReader::open(meta, Arc::new(Bytes::from(written.out))).expect("opens");
    let stored: Vec<_> = block.traces().collect::<Result<_, _>>().expect("reads");
    let ids: BTreeSet<TraceId> = stored.iter().map(|(id, _)| *id).collect();
    let spans: usize = stored.iter().flat_map(|(_, spans)| spans).flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum();
    assert_eq!(spans as u64, written.spans);
    traces.retain(|(id, _)| ids.contains(id));
    for id in &ids {
        assert!(block.find(*id, None).expect("reads").is_some(), "trace {id} is not found");
    }

    let all = Fetch { filter: TraceFilter::All, range: TimeRange::ALL, rows: RowParts::ALL, ..question.fetch.clone() };
    let mut at = 0;
    for batch in search(&block, &all) {
        let live = live::batch(&all, &traces[at..at + batch.traces.len()]);
        at += batch.traces.len();
        // As text, since NaN is not equal to itself.
        assert_eq!(format!("{live:?}"), format!("{batch:?}"));
    }
    assert_eq!(at, traces.len());

    let live: BTreeSet<TraceId> = live::batch(question.fetch, &traces).traces.iter().map(|trace| trace.trace_id).collect();
    let found: BTreeSet<TraceId> = search(&block, question.fetch).iter().flat_map(|batch| &batch.traces).map(|t| t.trace_id).collect();
    // Blocks may leave a condition undecided, live spans decide all.
    assert!(live.is_subset(&found), "{:?} misses {:?}", question.fetch, live.difference(&found));
    question.ask(&block);
}

fn search(block: &BlockReader, fetch: &Fetch) -> Vec<Batch> {
    let mut batches = Vec::new();
    let each = &mut |batch| {
        batches.push(batch);
        ControlFlow::Continue(())
    };
    block.search(fetch, 0..usize::MAX, each).expect("searches");
    batches
}
