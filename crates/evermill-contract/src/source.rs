//! What a source offers and is asked.
