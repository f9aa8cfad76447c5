//! The configuration in use: read again, changed by operators, handed to whoever works by it. Part of the shared state.
use std::sync::{Arc, PoisonError};

use dwcp_config::{Changes, Findings};

use super::App;
use crate::settings::{self, Keep, SetError, Settings};

impl App {
    /// The configuration in use.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration again and uses it. A wrong one changes nothing.
    ///
    /// # Errors
    /// Every mistake found.
    pub(crate) fn reload(self: &Arc<Self>) -> Result<dwcp_api::ConfigChange, Findings> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match settings::load(&self.sources) {
            Ok(settings) => {
                let change = self.use_settings(settings);
                let restart_required = change.restart_required.join(", ");
                tracing::info!(component = "control", restart_required, "configuration loaded again");
                Ok(change)
            }
            Err(findings) => {
                self.lock().is_reload_failed = true;
                self.note_error("control", "configuration", &findings.to_string());
                tracing::error!(component = "control", %findings, "configuration is wrong: the former one stays in use");
                Err(findings)
            }
        }
    }

    /// What reading the configuration again would change.
    ///
    /// # Errors
    /// Every mistake found.
    pub(crate) fn reload_dry(&self) -> Result<dwcp_api::ConfigChange, Findings> {
        let mut settings = settings::load(&self.sources)?;
        settings.compare_with_start(&self.start_config);
        Ok(settings.change_from(&self.settings(), Keep::No))
    }

    /// Sets and unsets keys, for good.
    ///
    /// # Errors
    /// They are wrong, somebody else was faster, or they cannot be kept; then nothing has changed.
    pub(crate) fn set(
        self: &Arc<Self>,
        changes: &Changes,
        expected_hash: Option<&str>,
        keep: Keep,
    ) -> Result<dwcp_api::ConfigChange, SetError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.settings();
        if expected_hash.is_some_and(|hash| hash != current.hash) {
            return Err(SetError::Stale);
        }
        let mut settings = settings::set(&self.sources, &current, changes, keep)?;
        if keep == Keep::Yes {
            return Ok(self.use_settings(settings));
        }
        settings.compare_with_start(&self.start_config);
        Ok(settings.change_from(&current, keep))
    }

    /// Uses another configuration from now on.
    fn use_settings(self: &Arc<Self>, mut settings: Settings) -> dwcp_api::ConfigChange {
        settings.compare_with_start(&self.start_config);
        let change = settings.change_from(&self.settings(), Keep::Yes);
        crate::log::set_level(&self.level, settings.config.monitoring.log_level);
        self.change(|shared, _| {
            shared.peers.handle_config(&settings.config);
            shared.tunnels.handle_config(&settings.config);
            shared.jobs.gate.handle_config(&settings.config);
            shared.recoveries.handle_config(&settings.config);
            shared.limiter.set_rate(settings.config.security.rate_limit);
            shared.is_reload_failed = false;
        });
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.renew_plan();
        crate::health::check(self, crate::health::Round::Changed);
        change
    }
}
