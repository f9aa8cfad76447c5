//! Names that other dialects of the configuration use for our keys. Called by the loader, which warns of each, and by
//! whatever takes a key from an operator.

/// The canonical name of an alias; `None` where the name is none.
#[must_use]
pub fn canonical(name: &str) -> Option<String> {
    if let Some((_, canonical)) = WHOLE.iter().find(|(alias, _)| *alias == name) {
        return Some((*canonical).to_owned());
    }
    let (section, rest) = name.split_once('.')?;
    let (_, canonical) = SECTIONS.iter().find(|(alias, _)| *alias == section)?;
    Some(format!("{canonical}.{rest}"))
}

/// Sections under another name.
pub(crate) const SECTIONS: [(&str, &str); 4] = [
    ("hde", "compression"),
    ("amst", "transport"),
    ("tls", "security.tls"),
    ("authentication", "security.authentication"),
];

/// Single keys under another name.
const WHOLE: [(&str, &str); 5] = [
    ("transport.pacing_enabled", "transport.enable_pacing"),
    ("transport.streams", "transport.max_streams"),
    ("tls.enabled", "security.enable_tls"),
    ("security.tls.enabled", "security.enable_tls"),
    ("log_level", "monitoring.log_level"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_means_a_key_and_hides_none() {
        for (alias, name) in WHOLE {
            assert!(crate::KEYS.iter().any(|key| key.name == name), "{name}");
            assert!(crate::KEYS.iter().all(|key| key.name != alias), "{alias}");
        }
        for (alias, section) in SECTIONS {
            assert!(crate::KEYS.iter().any(|key| key.name.starts_with(&format!("{section}."))), "{section}");
            assert!(crate::KEYS.iter().all(|key| !key.name.starts_with(&format!("{alias}."))), "{alias}");
        }
        assert_eq!(canonical("hde.level").as_deref(), Some("compression.level"));
        assert_eq!(canonical("compression.level"), None);
    }
}
