//! What the dataplane says of a path, in the words of the API. Used by [`crate::peers`].
use dwcp_abi::link::PathLimit as Measured;
use dwcp_api::PathLimit;

/// The limit's name in the API.
pub(crate) fn limit(limit: Measured) -> PathLimit {
    match limit {
        Measured::Unknown => PathLimit::Unknown,
        Measured::Short => PathLimit::Short,
        Measured::Searching => PathLimit::Searching,
        Measured::Queue => PathLimit::Queue,
        Measured::Loss => PathLimit::Loss,
        Measured::Room => PathLimit::Room,
        Measured::Demand => PathLimit::Demand,
    }
}
