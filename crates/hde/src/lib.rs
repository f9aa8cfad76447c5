//! hde
