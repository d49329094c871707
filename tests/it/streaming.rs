//! What is not guarded passes through as it is.
