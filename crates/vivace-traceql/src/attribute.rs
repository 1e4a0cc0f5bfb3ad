//! The names of attributes in a query, and the table of intrinsics: a new one is one row here, and the compiler names every other
//! place that must know it.

use std::fmt;
use std::sync::Arc;

use crate::RowParts;
use crate::types::Type;

/// Where an attribute is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `.key`: the span first, then the resource.
    Unscoped,
    /// `span.key`
    Span,
    /// `resource.key`
    Resource,
    /// `event.key`
    Event,
    /// `link.key`
    Link,
    /// `instrumentation.key`
    Instrumentation,
}

/// What is known of an intrinsic: its row in the table below.
#[derive(Debug, Clone, Copy)]
struct Row {
    canonical: &'static str,
    short: Option<&'static str>,
    value: Type,
    owner: Owner,
    stands: Stands,
    tag: Tag,
}

/// What has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Span,
    Trace,
    /// Values stand one per event.
    Event,
    /// Values stand one per link.
    Link,
    Instrumentation,
}

/// Where its value is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// In a column of the batch, for which a query asks.
    Column,
    /// In every row of a batch, whatever the query asks for.
    Row,
    /// There too, and known only with all spans of the trace at hand; the query asks for these parts of the rows.
    WholeTrace(RowParts),
}

/// What tag requests say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// Its name, and its values.
    Values,
    /// Its name alone: every span has another value, or nearly.
    Name,
    /// Nothing.
    Unlisted,
}

const POSITIONS: Stands = Stands::WholeTrace(RowParts { positions: true, ..RowParts::LEAST });
const CHILD_COUNTS: Stands = Stands::WholeTrace(RowParts { child_counts: true, ..RowParts::LEAST });
const SUMMARY: Stands = Stands::WholeTrace(RowParts { summary: true, ..RowParts::LEAST });
/// Where a trace begins and ends stands in every row; the least part of them.
const TIMES: Stands = Stands::WholeTrace(RowParts::LEAST);

/// Makes [`Intrinsic`] and its table, of which a line reads: variant, canonical spelling, short one where there is one, type of
/// the values (unknown: operators of all types are taken), what has it, where its value stands, what tag requests say of it.
macro_rules! intrinsics {
    ($($(#[$doc:meta])* $name:ident = $canonical:literal $(or $short:literal)?, $value:ident of $owner:ident, $stands:expr, $tag:ident;)*) => {
        /// What every span, trace, event, link or scope has without being an attribute.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Intrinsic {
            $($(#[$doc])* $name,)*
        }

        impl Intrinsic {
            /// Every intrinsic.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// In the order of the variants.
            const ROWS: &'static [Row] = &[$(Row {
                canonical: $canonical,
                short: intrinsics!(@short $($short)?),
                value: Type::$value,
                owner: Owner::$owner,
                stands: $stands,
                tag: Tag::$tag,
            }),*];
        }
    };
    (@short) => { None };
    (@short $short:literal) => { Some($short) };
}

intrinsics! {
    /// `name`, `span:name`
    Name = "span:name" or "name", String of Span, Stands::Column, Values;
    /// `duration`, `span:duration`: a [`crate::Value::Duration`]
    Duration = "span:duration" or "duration", Duration of Span, Stands::Row, Name;
    /// `status`
    Status = "span:status" or "status", Status of Span, Stands::Column, Values;
    /// `statusMessage`; empty when absent
    StatusMessage = "span:statusMessage" or "statusMessage", String of Span, Stands::Column, Values;
    /// `kind`
    Kind = "span:kind" or "kind", Kind of Span, Stands::Column, Values;
    /// `span:id`: 16 hex digits
    SpanId = "span:id", String of Span, Stands::Row, Name;
    /// `span:parentID`: 16 hex digits, zeros for a root
    ParentId = "span:parentID", String of Span, Stands::Column, Name;
    /// `span:childCount`
    ChildCount = "span:childCount", Int of Span, CHILD_COUNTS, Unlisted;
    /// `trace:id`: hex without leading zeros
    TraceId = "trace:id", String of Trace, Stands::Row, Name;
    /// `traceDuration`, `trace:duration`
    TraceDuration = "trace:duration" or "traceDuration", Duration of Trace, TIMES, Name;
    /// `rootName`, `trace:rootName`
    RootName = "trace:rootName" or "rootName", String of Trace, SUMMARY, Values;
    /// `rootServiceName`, `trace:rootService`
    RootService = "trace:rootService" or "rootServiceName", String of Trace, SUMMARY, Values;
    /// `event:name`
    EventName = "event:name", String of Event, Stands::Column, Values;
    /// `event:timeSinceStart`: a duration
    EventTimeSinceStart = "event:timeSinceStart", Duration of Event, Stands::Column, Values;
    /// `link:traceID`
    LinkTraceId = "link:traceID", String of Link, Stands::Column, Name;
    /// `link:spanID`
    LinkSpanId = "link:spanID", String of Link, Stands::Column, Name;
    /// `instrumentation:name`; empty when absent
    ScopeName = "instrumentation:name", Unknown of Instrumentation, Stands::Column, Values;
    /// `instrumentation:version`; empty when absent
    ScopeVersion = "instrumentation:version", Unknown of Instrumentation, Stands::Column, Values;
    /// `nestedSetLeft`
    NestedSetLeft = "nestedSetLeft", Int of Span, POSITIONS, Unlisted;
    /// `nestedSetRight`
    NestedSetRight = "nestedSetRight", Int of Span, POSITIONS, Unlisted;
    /// `nestedSetParent`: -1 for a root, 0 when the position is unknown
    NestedSetParent = "nestedSetParent", Int of Span, POSITIONS, Unlisted;
}

impl Intrinsic {
    fn row(self) -> &'static Row {
        &Self::ROWS[self as usize]
    }

    /// From either spelling, exactly: `span:name`, `name`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let is_spelled = |intrinsic: &Self| {
            let Row { canonical, short, .. } = *intrinsic.row();
            canonical == text || short == Some(text)
        };
        Self::ALL.iter().copied().find(is_spelled)
    }

    /// The short spelling where one exists, else the canonical one.
    #[must_use]
    pub fn text(self) -> &'static str {
        let Row { canonical, short, .. } = *self.row();
        short.unwrap_or(canonical)
    }

    /// The type of its values.
    pub(crate) fn value_type(self) -> Type {
        self.row().value
    }

    /// Whether it stands in the rows, and the parts of them to ask for.
    pub(crate) fn row_parts(self) -> Option<RowParts> {
        match self.row().stands {
            Stands::Column => None,
            Stands::Row => Some(RowParts::LEAST),
            Stands::WholeTrace(parts) => Some(parts),
        }
    }

    /// Whether every span has a value of it, be it an empty one.
    pub(crate) fn is_of_every_span(self) -> bool {
        match self.row().owner {
            Owner::Span | Owner::Trace | Owner::Instrumentation => true,
            Owner::Event | Owner::Link => false,
        }
    }

    /// Whether tag requests list its values.
    pub(crate) fn has_tag_values(self) -> bool {
        self.row().tag == Tag::Values
    }
}

/// The tag names of the scope `intrinsic`: every spelling, sorted.
#[must_use]
pub fn intrinsic_tags() -> Vec<&'static str> {
    let listed = Intrinsic::ALL.iter().map(|intrinsic| intrinsic.row()).filter(|row| row.tag != Tag::Unlisted);
    let mut tags: Vec<&str> = listed.flat_map(|row| [Some(row.canonical), row.short]).flatten().collect();
    tags.sort_unstable();
    tags
}

/// An intrinsic or an attribute that a query mentions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// Named by the language.
    Intrinsic(Intrinsic),
    /// Named by the user.
    Named {
        /// Where to look.
        scope: Scope,
        /// The exact key.
        key: Arc<str>,
    },
}

impl Attribute {
    /// Known only with all spans of the trace at hand.
    #[must_use]
    pub fn is_of_trace(&self) -> bool {
        matches!(self, Self::Intrinsic(intrinsic) if matches!(intrinsic.row().stands, Stands::WholeTrace(_)))
    }

    /// Values stand one per event, in [`crate::Batch::events`].
    #[must_use]
    pub fn is_of_events(&self) -> bool {
        match self {
            Self::Intrinsic(intrinsic) => intrinsic.row().owner == Owner::Event,
            Self::Named { scope, .. } => *scope == Scope::Event,
        }
    }

    /// Values stand one per link, in [`crate::Batch::links`].
    #[must_use]
    pub fn is_of_links(&self) -> bool {
        match self {
            Self::Intrinsic(intrinsic) => intrinsic.row().owner == Owner::Link,
            Self::Named { scope, .. } => *scope == Scope::Link,
        }
    }

    /// Answered from [`crate::SpanRow`] and [`crate::TraceRow`], which every batch has; never listed in [`crate::Fetch`].
    #[must_use]
    pub fn is_in_every_row(&self) -> bool {
        matches!(self, Self::Intrinsic(intrinsic) if intrinsic.row_parts().is_some())
    }
}

impl Scope {
    /// What stands before the key in a query, the dot included.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Unscoped => ".",
            Self::Span => "span.",
            Self::Resource => "resource.",
            Self::Event => "event.",
            Self::Link => "link.",
            Self::Instrumentation => "instrumentation.",
        }
    }
}

/// Whether `c` may stand in an attribute name without quotes, apart from the quote itself.
pub(crate) fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !"{}()=~!<>&|^,".contains(c)
}

impl fmt::Display for Attribute {
    /// The canonical text: intrinsics in their short form, names in quotes where they need it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intrinsic(intrinsic) => f.write_str(intrinsic.text()),
            Self::Named { scope, key } => {
                f.write_str(scope.prefix())?;
                // `.5` would read as a number.
                let number = *scope == Scope::Unscoped && key.starts_with(|c: char| c.is_ascii_digit());
                if !number && !key.is_empty() && key.chars().all(|c| c != '"' && is_plain(c)) {
                    return f.write_str(key);
                }
                write!(f, "\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: docs/facts/traceql.md, "Tag names and values".
    #[test]
    fn the_tags_of_intrinsics() {
        let want = "duration event:name event:timeSinceStart instrumentation:name instrumentation:version kind link:spanID link:traceID name \
                    rootName rootServiceName span:duration span:id span:kind span:name span:parentID span:status span:statusMessage status \
                    statusMessage trace:duration trace:id trace:rootName trace:rootService traceDuration";
        assert_eq!(intrinsic_tags().join(" "), want);
    }

    #[test]
    fn no_two_intrinsics_share_a_spelling() {
        for intrinsic in Intrinsic::ALL {
            let Row { canonical, short, .. } = *intrinsic.row();
            for spelling in [Some(canonical), short].into_iter().flatten() {
                assert_eq!(Intrinsic::from_text(spelling), Some(*intrinsic), "{spelling}");
            }
        }
    }
}
