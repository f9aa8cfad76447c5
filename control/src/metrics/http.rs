//! Counts requests to control. Used by the guard; labels are bounded by the routes, methods and statuses there are.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use dwcp_abi::shm::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};

/// Requests since the start.
#[derive(Default)]
pub(crate) struct HttpCounters {
    inner: Mutex<Inner>,
    limited: std::sync::atomic::AtomicU64,
}

#[derive(Default, Clone)]
pub(super) struct Inner {
    pub(super) requests: BTreeMap<(String, &'static str, u16), u64>,
    pub(super) buckets: [u64; LATENCY_BUCKETS],
    pub(super) count: u64,
    pub(super) sum_s: f64,
}

impl HttpCounters {
    /// One request was answered.
    pub(crate) fn count(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (route.to_owned(), known(method), status.as_u16());
        *inner.requests.entry(key).or_default() += 1;
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < took_us);
        if let Some(count) = inner.buckets.get_mut(bucket) {
            *count += 1;
        }
        inner.count += 1;
        inner.sum_s += took.as_secs_f64();
    }

    /// One request was refused because its client made too many.
    pub(crate) fn count_limited(&self) {
        // Relaxed: a figure of its own.
        self.limited.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn limited(&self) -> u64 {
        self.limited.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn snapshot(&self) -> Inner {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Upper bounds of median, 95th and 99th percentile since the start, in milliseconds.
    pub(crate) fn latency_ms(&self) -> [f64; 3] {
        let inner = self.snapshot();
        [0.5, 0.95, 0.99].map(|share| {
            let wanted = (inner.count as f64 * share).ceil() as u64;
            let mut seen = 0;
            let bucket = inner.buckets.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            bucket.and_then(|bucket| LATENCY_BOUNDS_US.get(bucket)).map_or(0.0, |us| *us as f64 / 1000.0)
        })
    }
}

/// Methods are the caller's choice: unknown ones share a label.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
