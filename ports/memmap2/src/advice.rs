//! Hints to a virtual memory system, of which there is none.

/// How a map will be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Advice {
    /// In no special way.
    Normal,
    /// In random order.
    Random,
    /// From start to end.
    Sequential,
    /// Soon.
    WillNeed,
}

/// How a map will not be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum UncheckedAdvice {
    /// Not soon. Other than a real shared map's, its pages stay.
    DontNeed,
}
