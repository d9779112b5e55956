//! Checks that every source passes, whatever it listens to.
