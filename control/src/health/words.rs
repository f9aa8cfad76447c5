//! The API's words for the policy's states, and back. Used by health and by the metrics page.
use dwcp_api::{BreakerState, ComponentState};

/// The API's words for the policy's.
pub(crate) trait Translate {
    /// The policy's value.
    type Policy;
    fn policy(self) -> Self::Policy;
}

impl Translate for ComponentState {
    type Policy = dwcp_policy::ComponentState;
    fn policy(self) -> Self::Policy {
        match self {
            Self::Healthy => dwcp_policy::ComponentState::Healthy,
            Self::Degraded => dwcp_policy::ComponentState::Degraded,
            Self::Unhealthy => dwcp_policy::ComponentState::Unhealthy,
            Self::Recovering => dwcp_policy::ComponentState::Recovering,
            Self::Starting => dwcp_policy::ComponentState::Starting,
            Self::Disabled => dwcp_policy::ComponentState::Disabled,
        }
    }
}

/// The API's word for the breaker's state.
pub(crate) trait FromPolicy {
    fn from_policy(state: dwcp_policy::BreakerState) -> Self;
}

impl FromPolicy for BreakerState {
    fn from_policy(state: dwcp_policy::BreakerState) -> Self {
        match state {
            dwcp_policy::BreakerState::Closed => Self::Closed,
            dwcp_policy::BreakerState::HalfOpen => Self::HalfOpen,
            dwcp_policy::BreakerState::Open => Self::Open,
        }
    }
}
