//! evermill-store
