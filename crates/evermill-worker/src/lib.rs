//! evermill-worker
