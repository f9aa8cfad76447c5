//! Shared-memory layouts: rings and statistics pages.
