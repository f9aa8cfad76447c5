//! Sets of keys for common purposes; `dwcp config preset` sets them like any others, so that `unset` takes them back.

/// One set.
#[derive(Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Keys and values.
    pub keys: &'static [(&'static str, &'static str)],
}

/// Every set. None fixes sizes of socket buffers: that would switch off the kernel's autotuning, which follows the path.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "high-throughput",
        purpose: "large files on fast links, where memory is there to be used",
        keys: &[
            ("transport.max_streams", "512"),
            ("transport.initial_streams", "64"),
            ("compression.enable_adaptive", "true"),
            ("dataplane.buffer_memory", "256MiB"),
        ],
    },
    Preset {
        name: "low-latency",
        purpose: "programs' connections and small files beside bulk",
        keys: &[
            ("transport.max_streams", "64"),
            ("transport.initial_streams", "16"),
            ("transport.enable_pacing", "true"),
            ("classes.tunnel.priority", "6"),
        ],
    },
    Preset {
        name: "constrained",
        purpose: "small machines and thin links",
        keys: &[
            ("transport.max_streams", "16"),
            ("transport.initial_streams", "4"),
            ("transport.min_streams", "1"),
            ("compression.baseline_store_size", "512MiB"),
            ("dataplane.buffer_memory", "16MiB"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Changes, Config, Overrides, load_with};

    #[test]
    fn every_preset_is_a_valid_configuration_that_changes_something() {
        for preset in PRESETS {
            let changes: Changes =
                preset.keys.iter().map(|(key, value)| ((*key).into(), Some((*value).into()))).collect();
            let overrides = Overrides::default().with(&changes);
            let loaded = load_with(None, &overrides, "o.yaml", []).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_ne!(loaded.config, Config::default(), "{}", preset.name);
        }
    }
}
