//! link: to be written.
