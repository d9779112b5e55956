//! evermill-engine
