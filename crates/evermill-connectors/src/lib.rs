//! evermill-connectors
