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
