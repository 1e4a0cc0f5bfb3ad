//! How large a row is in the unit of Tempo's `parquet_row_group_size_bytes`, which decides where row groups end.
//!
//! Rows are made of spans, copied from a block that is read, or combined from several such. All count by this one table, or
//! a merged block would have other row groups than a fresh one with the same traces.
//!
//! Source: docs/facts/blocks.md, "Row order, row groups, pages".

use super::columns::{LISTS, List};
use crate::row::Row;

/// What an entry of a list counts.
pub(super) fn unit(list: List) -> u64 {
    match list {
        List::Root => 7,
        List::Resources => 10,
        List::Scopes => 2,
        List::Spans => 14,
        List::Events => 4,
        List::ResourceAttrs | List::SpanAttrs => 7,
        List::EventAttrs => 4,
        List::Stats | List::ScopeAttrs | List::Links | List::LinkAttrs => 0,
    }
}

/// What a row counts that is made of spans.
pub(super) fn of_row(row: &Row<'_>) -> u64 {
    let entries: [(List, usize); LISTS] = [
        (List::Root, 1),
        (List::Stats, row.stats.len()),
        (List::Resources, row.resources.len()),
        (List::ResourceAttrs, row.resource_attrs.len()),
        (List::Scopes, row.scopes.len()),
        (List::ScopeAttrs, row.scope_attrs.len()),
        (List::Spans, row.spans.len()),
        (List::SpanAttrs, row.span_attrs.len()),
        (List::Events, row.events.len()),
        (List::EventAttrs, row.event_attrs.len()),
        (List::Links, row.links.len()),
        (List::LinkAttrs, row.link_attrs.len()),
    ];
    entries.iter().map(|(list, count)| unit(*list) * *count as u64).sum()
}
