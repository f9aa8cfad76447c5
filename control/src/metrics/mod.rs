//! Figures for Prometheus, text format 0.0.4: every name is declared once, in [`table`]; [`render`] writes what the
//! monitor has read last, so that a scrape costs the dataplane nothing.
mod cluster;
mod http;
mod process;
mod render;
mod table;
mod text;

pub(crate) use http::HttpCounters;
pub(crate) use process::{cpu_ns, resident_bytes};
pub(crate) use render::render;
