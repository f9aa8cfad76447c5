//! Which state the whole node is in, from the states of its parts. Called once for every round of checks.

/// A part of the node that has a state of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The control loop and its store.
    Control,
    /// The dataplane and its lanes.
    Transport,
    /// Compression.
    Compression,
    /// Prediction.
    Prediction,
    /// State synchronisation.
    Sync,
    /// Consensus.
    Consensus,
    /// Placement.
    Placement,
}

impl Component {
    /// Every component.
    pub const ALL: [Self; 7] = [
        Self::Control,
        Self::Transport,
        Self::Compression,
        Self::Prediction,
        Self::Sync,
        Self::Consensus,
        Self::Placement,
    ];

    /// Short name, as older probes read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Transport => "transport",
            Self::Compression => "compression",
            Self::Prediction => "prediction",
            Self::Sync => "sync",
            Self::Consensus => "consensus",
            Self::Placement => "placement",
        }
    }

    /// Prefix of its metrics; the control loop has none.
    #[must_use]
    pub fn metric_prefix(self) -> Option<&'static str> {
        match self {
            Self::Control => None,
            Self::Transport => Some("amst"),
            Self::Compression => Some("hde"),
            Self::Prediction => Some("pba"),
            Self::Sync => Some("ass"),
            Self::Consensus => Some("acp"),
            Self::Placement => Some("itp"),
        }
    }
}

/// State of one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentState {
    /// Works.
    Healthy,
    /// Works in part.
    Degraded,
    /// Does not work.
    Unhealthy,
    /// Is being repaired.
    Recovering,
    /// Has not worked yet.
    Starting,
    /// Turned off, or not part of this version.
    Disabled,
}

impl ComponentState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Recovering, Self::Starting, Self::Disabled];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Recovering => "recovering",
            Self::Starting => "starting",
            Self::Disabled => "disabled",
        }
    }

    /// Whether nobody needs to look at it.
    #[must_use]
    pub fn is_fine(self) -> bool {
        match self {
            Self::Healthy | Self::Disabled => true,
            Self::Degraded | Self::Unhealthy | Self::Recovering | Self::Starting => false,
        }
    }
}

/// One component's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub component: Component,
    /// How it is.
    pub state: ComponentState,
}

/// State of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overall {
    /// All that is enabled works.
    Healthy,
    /// Data moves, but something enabled does not work.
    Degraded,
    /// Data does not move.
    Unhealthy,
}

/// Unhealthy while transport or the control loop failed or the breaker is open; degraded while anything else that is
/// enabled does not work; else healthy.
#[must_use]
pub fn overall(reports: &[Report], breaker: crate::BreakerState) -> Overall {
    let failed = reports.iter().any(|report| {
        let essential = matches!(report.component, Component::Control | Component::Transport);
        essential && report.state == ComponentState::Unhealthy
    });
    if failed || breaker == crate::BreakerState::Open {
        Overall::Unhealthy
    } else if reports.iter().all(|report| report.state.is_fine()) {
        Overall::Healthy
    } else {
        Overall::Degraded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BreakerState;

    #[test]
    fn only_essential_parts_make_a_node_unhealthy() {
        for component in Component::ALL {
            for state in ComponentState::ALL {
                let essential = matches!(component, Component::Control | Component::Transport);
                let expected = match state {
                    ComponentState::Healthy | ComponentState::Disabled => Overall::Healthy,
                    ComponentState::Unhealthy if essential => Overall::Unhealthy,
                    _ => Overall::Degraded,
                };
                assert_eq!(overall(&[Report { component, state }], BreakerState::Closed), expected);
                assert_eq!(overall(&[Report { component, state }], BreakerState::Open), Overall::Unhealthy);
            }
        }
    }
}
