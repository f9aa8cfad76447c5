//! What an operator should know of a job though nothing of it failed: a few lines, each once.
use dwcp_abi::wire::NOTES_BYTES_MAX;

/// Lines, bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes(String);

impl Notes {
    /// Appends a line that is not there yet, while there is room.
    pub fn add(&mut self, line: &str) {
        let is_new = !self.0.lines().any(|known| known == line);
        if is_new && self.0.len() + line.len() < NOTES_BYTES_MAX {
            if !self.0.is_empty() {
                self.0.push('\n');
            }
            self.0.push_str(line);
        }
    }

    /// All lines.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
