use std::fmt;
use std::sync::Arc;

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

/// What every span, trace, event, link or scope has without being an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    /// `name`, `span:name`
    Name,
    /// `duration`, `span:duration`: a [`crate::Value::Duration`]
    Duration,
    /// `status`
    Status,
    /// `statusMessage`; empty when absent
    StatusMessage,
    /// `kind`
    Kind,
    /// `span:id`: 16 hex digits
    SpanId,
    /// `span:parentID`: 16 hex digits, zeros for a root
    ParentId,
    /// `span:childCount`
    ChildCount,
    /// `trace:id`: hex without leading zeros
    TraceId,
    /// `traceDuration`, `trace:duration`
    TraceDuration,
    /// `rootName`, `trace:rootName`
    RootName,
    /// `rootServiceName`, `trace:rootService`
    RootService,
    /// `event:name`
    EventName,
    /// `event:timeSinceStart`: a duration
    EventTimeSinceStart,
    /// `link:traceID`
    LinkTraceId,
    /// `link:spanID`
    LinkSpanId,
    /// `instrumentation:name`; empty when absent
    ScopeName,
    /// `instrumentation:version`; empty when absent
    ScopeVersion,
    /// `nestedSetLeft`
    NestedSetLeft,
    /// `nestedSetRight`
    NestedSetRight,
    /// `nestedSetParent`: -1 for a root, 0 when the position is unknown
    NestedSetParent,
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
        use Intrinsic::{ChildCount, NestedSetLeft, NestedSetParent, NestedSetRight, RootName, RootService, TraceDuration};
        matches!(
            self,
            Self::Intrinsic(ChildCount | NestedSetLeft | NestedSetParent | NestedSetRight | RootName | RootService | TraceDuration)
        )
    }

    /// Values stand one per event, in [`crate::Batch::events`].
    #[must_use]
    pub fn is_of_events(&self) -> bool {
        matches!(self, Self::Intrinsic(Intrinsic::EventName | Intrinsic::EventTimeSinceStart) | Self::Named { scope: Scope::Event, .. })
    }

    /// Values stand one per link, in [`crate::Batch::links`].
    #[must_use]
    pub fn is_of_links(&self) -> bool {
        matches!(self, Self::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId) | Self::Named { scope: Scope::Link, .. })
    }

    /// Answered from [`crate::SpanRow`] and [`crate::TraceRow`], which every batch has; never listed in [`crate::Fetch`].
    #[must_use]
    pub fn is_in_every_row(&self) -> bool {
        matches!(
            self,
            Self::Intrinsic(
                Intrinsic::Duration
                    | Intrinsic::SpanId
                    | Intrinsic::ChildCount
                    | Intrinsic::TraceId
                    | Intrinsic::TraceDuration
                    | Intrinsic::RootName
                    | Intrinsic::RootService
                    | Intrinsic::NestedSetLeft
                    | Intrinsic::NestedSetRight
                    | Intrinsic::NestedSetParent
            )
        )
    }
}

/// Canonical spelling, short spelling where one exists.
const INTRINSICS: [(Intrinsic, &str, Option<&str>); 21] = [
    (Intrinsic::Name, "span:name", Some("name")),
    (Intrinsic::Duration, "span:duration", Some("duration")),
    (Intrinsic::Status, "span:status", Some("status")),
    (Intrinsic::StatusMessage, "span:statusMessage", Some("statusMessage")),
    (Intrinsic::Kind, "span:kind", Some("kind")),
    (Intrinsic::SpanId, "span:id", None),
    (Intrinsic::ParentId, "span:parentID", None),
    (Intrinsic::ChildCount, "span:childCount", None),
    (Intrinsic::TraceId, "trace:id", None),
    (Intrinsic::TraceDuration, "trace:duration", Some("traceDuration")),
    (Intrinsic::RootName, "trace:rootName", Some("rootName")),
    (Intrinsic::RootService, "trace:rootService", Some("rootServiceName")),
    (Intrinsic::EventName, "event:name", None),
    (Intrinsic::EventTimeSinceStart, "event:timeSinceStart", None),
    (Intrinsic::LinkTraceId, "link:traceID", None),
    (Intrinsic::LinkSpanId, "link:spanID", None),
    (Intrinsic::ScopeName, "instrumentation:name", None),
    (Intrinsic::ScopeVersion, "instrumentation:version", None),
    (Intrinsic::NestedSetLeft, "nestedSetLeft", None),
    (Intrinsic::NestedSetRight, "nestedSetRight", None),
    (Intrinsic::NestedSetParent, "nestedSetParent", None),
];

impl Intrinsic {
    /// From either spelling, exactly: `span:name`, `name`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        INTRINSICS.iter().find(|(_, canonical, short)| *canonical == text || *short == Some(text)).map(|(intrinsic, ..)| *intrinsic)
    }

    /// The short spelling where one exists, else the canonical one.
    #[must_use]
    pub fn text(self) -> &'static str {
        INTRINSICS.iter().find(|(intrinsic, ..)| *intrinsic == self).map_or("", |(_, canonical, short)| short.unwrap_or(canonical))
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
