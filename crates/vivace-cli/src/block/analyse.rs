//! Shows what `vivace_block::analyse` finds, and writes its recommendation as the configuration it would be. Nothing is measured
//! or decided here.

use std::fmt::Write as _;

use clap::Args;
use vivace_block::analyse::{Analysis, AttributeUse, DISTINCT_MAX, OwnColumn, analyse};
use vivace_block::{BlockMeta, DedicatedScope};

use super::place::BlockPlace;
use crate::progress::Progress;
use crate::text::{bytes, count, short, table};

/// Show which attributes take the space, and which deserve a column of their own.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    block: BlockPlace,
    /// Attributes shown per scope.
    #[arg(long, default_value_t = 15)]
    top: usize,
}

/// Characters of an attribute's key.
const KEY_MAX: usize = 60;

pub(crate) async fn run(command: Command) -> anyhow::Result<String> {
    let found = command.block.find().await?;
    let analysis = found
        .read(|block| {
            let mut progress = Progress::new("trace", block.meta().total_objects);
            Ok(analyse(&block, &mut |done| progress.at(done))?)
        })
        .await?;
    Ok(show(&found.meta, &analysis, command.top))
}

fn show(meta: &BlockMeta, analysis: &Analysis, top: usize) -> String {
    let mut out = format!("Block {} of tenant {}, {}", meta.block_id, meta.tenant_id, meta.format.as_str());
    let _ = writeln!(out, ", {}, {}", count(analysis.traces, "trace"), count(analysis.spans, "span"));
    for (scope, title, spans) in [
        (DedicatedScope::Resource, "Resource attributes", "SPANS"),
        (DedicatedScope::Span, "Span attributes", "SPANS"),
        (DedicatedScope::Event, "Event attributes", "EVENTS"),
    ] {
        let attributes: Vec<&AttributeUse> = analysis.of_scope(scope).collect();
        let stored: u64 = attributes.iter().map(|attribute| attribute.stored_bytes).sum();
        let _ = writeln!(out, "\n{title}, the largest first: {} with {}", attributes.len(), bytes(stored));
        if attributes.is_empty() {
            continue;
        }
        let rows: Vec<Vec<String>> = attributes.iter().take(top).map(|attribute| row(attribute, stored)).collect();
        out.push_str(&table(&["ATTRIBUTE", "STORED", "SHARE", "PLAIN", spans, "DISTINCT", "TYPE", "COLUMN"], &rows));
        if attributes.len() > top {
            let _ = writeln!(out, "and {} more; --top {} shows them", attributes.len() - top, attributes.len());
        }
    }
    out.push_str(
        "\nSTORED is exact for attributes with a column of their own. Others share columns, and have of each what they have\n\
         of its values, or of its bytes of text, before compression. PLAIN is keys and values without any encoding.\n",
    );
    out.push_str(&recommendation(analysis));
    out
}

fn row(attribute: &AttributeUse, total: u64) -> Vec<String> {
    let distinct = attribute.distinct;
    let kind = match attribute.texts {
        0 => "other",
        texts if texts == attribute.stored => "text",
        _ => "mixed",
    };
    let column = match attribute.column {
        OwnColumn::None => "",
        OwnColumn::Dedicated => "dedicated",
        OwnColumn::WellKnown => "of the format",
    };
    vec![
        short(&attribute.key, KEY_MAX),
        bytes(attribute.stored_bytes),
        format!("{:.1}%", attribute.stored_bytes as f64 / total.max(1) as f64 * 100.0),
        bytes(attribute.plain_bytes),
        attribute.spans.to_string(),
        if distinct >= DISTINCT_MAX as u64 { format!("{distinct} or more") } else { distinct.to_string() },
        kind.to_owned(),
        column.to_owned(),
    ]
}

/// YAML for the configuration, with a comment that says what it is.
fn recommendation(analysis: &Analysis) -> String {
    let columns = analysis.recommended();
    if columns.is_empty() {
        return "\nNo attribute would gain from a column of its own: none is text with 1% of its scope's bytes.\n".to_owned();
    }
    let mut out = "\n# Recommended: text attributes with at least 1% of their scope's bytes, at most ten per scope.\n\
                   # Blocks with different columns are not compacted together, so change the list rarely.\n\
                   storage:\n  trace:\n    block:\n      parquet_dedicated_columns:\n"
        .to_owned();
    for column in columns {
        // A JSON text is a YAML text.
        let name = serde_json::Value::from(column.name.as_str());
        let _ = writeln!(out, "        - {{scope: {}, name: {name}, type: {}}}", column.scope.as_str(), column.kind.as_str());
    }
    out
}
