//! evermill-sim
