//! What runs user code: dispatches in, outcomes out.
