//! evermill-contract
